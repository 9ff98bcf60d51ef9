// One row with everything that is known of it.
function addFact(list, name, value) {
  if (value === null || value === "" || value === undefined) return;
  const place = createElement("dd");
  if (value instanceof Node) place.append(value);
  else { place.textContent = value; place.dir = "auto"; }
  list.append(createElement("dt", "", name), place);
}
function copyableValue(value, label) {
  if (!value) return "";
  const box = createElement("span");
  box.append(createElement("code", "", value), " ", createButton("Copy", () => copyText(value), "Copy " + label));
  return box;
}
function externalLink(url) {
  if (!url) return "";
  const link = createElement("a", "", url);
  link.href = url;
  link.rel = "noreferrer noopener";
  link.target = "_blank";
  return link;
}
// Where the video is: the whole path for a page opened from disk, else the path beside the page.
function filePath(row) {
  if (!row[column.video]) return "";
  const url = new URL(row[column.video], location.href);
  return decodeURIComponent(url.protocol === "file:" ? url.pathname : row[column.video]);
}
const PRIVATE_HOST = /^(localhost|[^.]*|.*\.(local|localhost|internal|lan|home|intranet|corp)|0\..*|10\..*|127\..*|169\.254\..*|192\.168\..*|172\.(1[6-9]|2\d|3[01])\..*|100\.(6[4-9]|[7-9]\d|1[01]\d|12[0-7])\..*|\[.*)$/i;
function isPublicUrl(url) {
  try {
    return !PRIVATE_HOST.test(new URL(url).hostname.replace(/\.$/, ""));
  } catch {
    return false;
  }
}
function createSourceImage(row) {
  const figure = createElement("figure", "source");
  const image = createElement("img");
  image.loading = "lazy";
  image.decoding = "async";
  image.referrerPolicy = "no-referrer";
  image.alt = "Source image of " + row[column.id];
  image.addEventListener("error", () => figure.remove());
  image.src = row[column.source] || row[column.image];
  figure.append(image, createElement("figcaption", "", "Source image"));
  return figure;
}
function detailList(row) {
  const list = createElement("dl");
  addFact(list, "Id", copyableValue(row[column.id], "id"));
  addFact(list, "Review", [row[column.pick], row[column.note]].filter(Boolean).join(": "));
  addFact(list, "File", copyableValue(filePath(row), "path"));
  addFact(list, "Model", row[column.model]);
  for (const [name, value] of row[column.params]) addFact(list, name, value);
  addFact(list, "Image", row[column.source] ? copyableValue(row[column.image], "path of the image") : externalLink(row[column.image]));
  addFact(list, data.sandbox ? "Play money" : "Cost", row[column.usd] === null ? "" : formatUsd(row[column.usd]));
  if (row[column.length] !== null) addFact(list, "Clip", `${row[column.length]} s, ${row[column.width]} × ${row[column.height]}, ${row[column.audio] ? "with sound" : "silent"}`);
  addFact(list, "Size", row[column.bytes] === null ? "" : (row[column.bytes] / 1e6).toFixed(1) + " MB");
  addFact(list, "Rendering", row[column.rendering] === null ? "" : `${formatDuration(row[column.rendering])}, ${row[column.polls]} ${row[column.polls] === 1 ? "poll" : "polls"}`);
  addFact(list, "Submitted", formatTime(row[column.submitted]));
  addFact(list, "Seen finished", formatTime(row[column.finished]));
  addFact(list, "Saved", formatTime(row[column.saved]));
  addFact(list, "Manifest line", row[column.line] ? String(row[column.line]) : "");
  addFact(list, "Generation id", copyableValue(row[column.generation], "generation id"));
  addFact(list, "Correlation id", copyableValue(row[column.correlation], "correlation id"));
  addFact(list, "Warnings", row[column.warnings].join("; "));
  return list;
}
function detailMedia(row) {
  const media = createElement("div", "media");
  if (row[column.video]) {
    const box = createElement("div", "preview");
    box.append(createPlayer(row));
    media.append(box);
  }
  if (row[column.source] || isPublicUrl(row[column.image])) media.append(createSourceImage(row));
  return media;
}

let shownKey = "";
let opener = null;
function openDetail(key) {
  const row = takes.get(key);
  if (!row) return;
  shownKey = key;
  for (const video of document.querySelectorAll("video")) video.pause();
  const bar = createElement("div", "bar"), title = createElement("h2");
  title.id = "detail-title";
  title.append(createElement("bdi", "", row[column.id]));
  bar.append(title);
  if (row[column.video]) bar.append(createDownloadLink(row));
  bar.append(createButton("Previous", () => showNeighbor(-1)), createButton("Next", () => showNeighbor(1)), createButton("Close", () => detail.close()));
  const nodes = [bar, detailMedia(row)];
  if (row[column.message] || row[column.code]) {
    const message = createBidiText("p", "failure-message s-" + row[column.status], row[column.message]);
    message.append(" ", createElement("code", "", row[column.code]));
    nodes.push(message);
  }
  nodes.push(createBidiText("p", "prompt", row[column.prompt]), detailList(row));
  detailContent.replaceChildren(...nodes);
  detail.scrollTop = 0;
  if (!detail.open) { opener = document.activeElement; detail.showModal(); }
}
function showNeighbor(by) {
  const all = view.groups.flat();
  const next = all[all.findIndex((row) => row[column.key] === shownKey) + by];
  if (next) openDetail(next[column.key]);
}
// Back to the button that opened the dialog; a live page may have replaced its card meanwhile.
function restoreFocus() {
  detailContent.replaceChildren();
  const target = opener?.isConnected ? opener : cards.get(shownKey)?.querySelector(".actions button");
  target?.focus();
}
