// Clips: one by itself, or a row's takes together, in step, with the sound of one.
function createPlayer(take) {
  const video = createElement("video");
  video.controls = true;
  video.playsInline = true;
  video.preload = "metadata";
  if (take[column.poster]) video.poster = take[column.poster];
  video.src = take[column.video];
  video.setAttribute("aria-label", "Video of " + take[column.id]);
  video.addEventListener("play", () => {
    if (!together.videos.includes(video)) together.videos = [];
    for (const other of document.querySelectorAll("video")) if (other !== video && !together.videos.includes(other)) other.pause();
  });
  video.addEventListener("pause", () => { if (together.videos.includes(video) && !video.ended) for (const other of together.videos) other.pause(); });
  video.addEventListener("error", () => {
    const message = createElement("p", "preview-text", "This browser cannot play the file. ");
    const link = createElement("a", "", "Open it");
    link.href = take[column.video];
    message.append(link);
    video.replaceWith(message);
  });
  return video;
}
function playerOf(card) {
  const take = takes.get(card.dataset.key), box = card.querySelector(".preview");
  if (!take[column.video]) return null;
  let video = box.querySelector("video");
  if (!video) {
    video = createPlayer(take);
    box.replaceChildren(video);
  }
  return video;
}
function playAlone(card) {
  const video = playerOf(card);
  if (!video) return;
  together.videos = [];
  video.muted = false;
  video.focus();
  video.play().catch(() => {});
}

const together = { videos: [], lead: null };
const STEP_S = 0.04, JUMP_S = 0.25; // further apart than a frame: run to catch up; than a glance: jump
const isReady = (video) => video.readyState >= 3 || video.error;
function whenReady(video) {
  if (isReady(video)) return Promise.resolve();
  video.preload = "auto";
  return new Promise((resolve) => {
    for (const name of ["canplay", "error"]) video.addEventListener(name, resolve, { once: true });
    setTimeout(resolve, 5000); // a clip that does not come holds up no other
  });
}
async function toggleTogether(card) {
  const row = card.closest(".row");
  if (together.videos.some((video) => row.contains(video) && !video.paused)) {
    for (const video of together.videos) video.pause();
    return;
  }
  const videos = [...row.querySelectorAll(".card")].map(playerOf).filter(Boolean);
  if (!videos.length) return;
  for (const other of document.querySelectorAll("video")) if (!videos.includes(other)) other.pause();
  together.videos = videos;
  hearOnly(card);
  const at = together.lead.ended ? 0 : together.lead.currentTime;
  for (const video of videos) if (Math.abs(video.currentTime - at) > STEP_S) video.currentTime = Math.min(at, video.duration || at);
  await Promise.all(videos.map(whenReady));
  if (together.videos !== videos) return;
  await Promise.all(videos.map((video) => video.play().catch(() => {})));
  keepInStep(videos);
}
// The take that has the focus is heard, and the others follow its time.
function hearOnly(card) {
  const video = card.querySelector("video");
  if (!together.videos.includes(video)) return;
  together.lead = video;
  for (const other of together.videos) { other.muted = other !== video; other.playbackRate = 1; }
}
function keepInStep(videos) {
  if (together.videos !== videos || videos.every((video) => video.paused)) return;
  const lead = together.lead;
  for (const video of videos) {
    if (video === lead || lead.seeking || video.seeking || lead.ended || video.ended || lead.paused) continue;
    const ahead = video.currentTime - lead.currentTime;
    if (Math.abs(ahead) > JUMP_S) video.currentTime = Math.min(lead.currentTime, video.duration);
    video.playbackRate = Math.abs(ahead) > STEP_S ? 1 - Math.sign(ahead) * 0.1 : 1;
  }
  setTimeout(keepInStep, 100, videos);
}
