// Everything from the manifest and the vendor enters the page through textContent, never as markup.
function createElement(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}
function createBidiText(tag, className, text) {
  const node = createElement(tag, className, text);
  node.dir = "auto";
  return node;
}
function createButton(text, onClick, label) {
  const button = createElement("button", "quiet", text);
  button.type = "button";
  if (label) button.setAttribute("aria-label", label);
  button.addEventListener("click", onClick);
  return button;
}
function createDownloadLink(row) {
  const link = createElement("a", "", "Download");
  link.href = row[column.video];
  link.download = "";
  link.setAttribute("aria-label", "Download the video of " + row[column.id]);
  return link;
}
const announce = (text) => { byId("announcer").textContent = text; };
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = createElement("textarea", "visually-hidden");
    area.value = text;
    (detail.open ? detail : document.body).append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  announce("Copied " + text);
}

const formatUsd = (usd) => "$" + usd.toFixed(usd > 0 && usd < 0.01 ? 4 : 2);
function formatDuration(seconds) {
  if (seconds < 59.5) return seconds < 10 ? seconds.toFixed(1) + " s" : Math.round(seconds) + " s";
  const whole = Math.round(seconds);
  if (whole < 3600) return Math.floor(whole / 60) + " min " + (whole % 60) + " s";
  return Math.floor(whole / 3600) + " h " + Math.floor((whole % 3600) / 60) + " min";
}
const formatClipLength = (seconds) => Math.floor(Math.round(seconds) / 60) + ":" + String(Math.round(seconds) % 60).padStart(2, "0");
const formatTime = (time) => time === null ? null : new Date(time * 1000).toLocaleString();
