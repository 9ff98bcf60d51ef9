// Live: rows come as they change, the drawn sections as a whole; both were made by our own server.
function listen() {
  const pulse = byId("pulse");
  const events = new EventSource("events?since=" + encodeURIComponent(data.since));
  events.addEventListener("open", () => { pulse.className = "pulse"; pulse.textContent = "live"; });
  events.addEventListener("error", () => { pulse.className = "pulse lost"; pulse.textContent = "connection lost, trying again"; });
  events.addEventListener("rows", (event) => {
    for (const row of JSON.parse(event.data)) {
      const key = row[at.key];
      text.delete(rows.get(key));
      rows.set(key, row);
      const node = cards.get(key);
      if (node && !node.querySelector("video") && !node.contains(document.activeElement)) { node.remove(); cards.delete(key); }
    }
    chips();
    select();
  });
  events.addEventListener("parts", (event) => {
    for (const [name, html] of Object.entries(JSON.parse(event.data))) replace(byId(name), html);
  });
  events.addEventListener("pulse", (event) => { pulse.className = "pulse"; pulse.textContent = JSON.parse(event.data); });
  events.addEventListener("ended", () => {
    events.close();
    pulse.className = "pulse ended";
    pulse.textContent = "the run has ended";
  });
}
function replace(section, html) {
  if (section.contains(document.activeElement)) return;
  const closed = new Set([...section.querySelectorAll("details:not([open]) q")].map((node) => node.textContent));
  section.replaceChildren(...new DOMParser().parseFromString(html, "text/html").body.childNodes);
  for (const node of section.querySelectorAll("details q")) if (closed.has(node.textContent)) node.closest("details").open = false;
}
