// One row with everything that is known of it.
function fact(list, name, value) {
  if (value === null || value === "" || value === undefined) return;
  const place = make("dd");
  if (value instanceof Node) place.append(value);
  else { place.textContent = value; place.dir = "auto"; }
  list.append(make("dt", "", name), place);
}
function copied(value) {
  if (!value) return "";
  const box = make("span");
  box.append(make("code", "", value), " ", action("Copy", () => copy(value)));
  return box;
}
function source(url) {
  if (!url) return "";
  const link = make("a", "", url);
  link.href = url;
  link.rel = "noreferrer noopener";
  link.target = "_blank";
  return link;
}
function facts(row) {
  const list = make("dl");
  fact(list, "Model", row[at.model]);
  for (const [name, value] of row[at.params]) fact(list, name, value);
  fact(list, "Image", source(row[at.image]));
  fact(list, "Cost", row[at.usd] === null ? "" : money(row[at.usd]));
  if (row[at.length] !== null) fact(list, "Clip", `${row[at.length]} s, ${row[at.width]} × ${row[at.height]}, ${row[at.audio] ? "with sound" : "silent"}`);
  fact(list, "Size", row[at.bytes] === null ? "" : (row[at.bytes] / 1e6).toFixed(1) + " MB");
  fact(list, "Rendering", row[at.rendering] === null ? "" : `${span(row[at.rendering])}, ${row[at.polls]} looks`);
  fact(list, "Submitted", when(row[at.submitted]));
  fact(list, "Noticed", when(row[at.finished]));
  fact(list, "Saved", when(row[at.saved]));
  fact(list, "Manifest line", row[at.line] ? String(row[at.line]) : "");
  fact(list, "Generation id", copied(row[at.generation]));
  fact(list, "Correlation id", copied(row[at.correlation]));
  fact(list, "Warnings", row[at.warnings].join("; "));
  return list;
}
let shown = "";
function show(key) {
  const row = rows.get(key);
  if (!row) return;
  shown = key;
  for (const video of document.querySelectorAll("video")) video.pause();
  const bar = make("div", "bar"), title = make("h2");
  title.id = "detail-title";
  title.append(make("bdi", "", row[at.id]));
  bar.append(title, action("Previous", () => step(-1)), action("Next", () => step(1)), action("Close", () => detail.close()));
  const nodes = [bar];
  if (row[at.video]) {
    const box = make("div", "stage");
    box.append(player(row));
    nodes.push(box);
  }
  if (row[at.message] || row[at.code]) {
    const said = bidi("p", "said s-" + row[at.status], row[at.message]);
    said.append(" ", make("code", "", row[at.code]));
    nodes.push(said);
  }
  nodes.push(bidi("p", "prompt", row[at.prompt]), facts(row));
  sheet.replaceChildren(...nodes);
  detail.scrollTop = 0;
  if (!detail.open) detail.showModal();
}
function step(by) {
  const index = view.list.findIndex((row) => row[at.key] === shown);
  const next = view.list[index + by];
  if (next) show(next[at.key]);
}
