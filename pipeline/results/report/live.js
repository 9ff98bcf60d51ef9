// Live: changed rows arrive one by one, rendered sections are replaced whole; both come from our own server.
function connectEvents() {
  const liveStatus = byId("live-status");
  const show = (className, text) => { liveStatus.className = "live-status" + className; liveStatus.textContent = text; };
  const events = new EventSource("events?since=" + encodeURIComponent(data.since));
  events.addEventListener("open", () => show("", "live"));
  events.addEventListener("error", () => show(" disconnected", "connection lost, trying again"));
  events.addEventListener("rows", (event) => {
    for (const take of JSON.parse(event.data)) updateTake(take);
    picksChanged();
    applyFilters();
  });
  events.addEventListener("parts", (event) => {
    for (const [name, html] of Object.entries(JSON.parse(event.data))) replaceSection(byId(name), html);
  });
  events.addEventListener("pulse", (event) => show("", JSON.parse(event.data)));
  events.addEventListener("ended", () => {
    events.close();
    show(" ended", data.reviewOnly ? "the review has ended" : "the run has ended");
  });
}
function replaceSection(section, html) {
  if (section.contains(document.activeElement)) return;
  const collapsed = new Set([...section.querySelectorAll("details:not([open]) q")].map((node) => node.textContent));
  section.replaceChildren(...new DOMParser().parseFromString(html, "text/html").body.childNodes);
  for (const node of section.querySelectorAll("details q")) if (collapsed.has(node.textContent)) node.closest("details").open = false;
}
// A card that plays or has the focus stays as it is, but for what a reviewer says of it.
function updateTake(take) {
  const key = take[column.key], id = rowId(take), old = takes.get(key), node = sections.get(id);
  const changed = !old || take.some((value, index) => index !== column.pick && index !== column.note && JSON.stringify(value) !== JSON.stringify(old[index]));
  searchTextByTake.delete(old);
  setTake(take);
  if (changed && node && !isPlaying(node) && !node.contains(document.activeElement)) { node.remove(); forget(id); }
  else showPick(take);
}
