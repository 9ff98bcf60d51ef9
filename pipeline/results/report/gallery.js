const data = JSON.parse(document.getElementById("data").textContent);
const at = Object.fromEntries(data.fields.map((name, index) => [name, index]));
const byId = (id) => document.getElementById(id);
const grid = byId("grid"), search = byId("search"), states = byId("states"), sort = byId("sort");
const detail = byId("detail"), sheet = detail.querySelector(".sheet");
const rows = new Map(data.rows.map((row) => [row[at.key], row]));
const view = { state: "", words: "", sort: "manifest", list: [] };
const cards = new Map();
let shape = { columns: 1, width: 0, height: 0, gap: 0 };
let frame = 0;

const NAMES = { done: "done", failed: "failed", in_doubt: "in doubt", ready: "not saved yet", generating: "rendering", pending: "pending" };
const UNSAID = {
  in_doubt: "The create was sent, its answer never came. The next run looks it up.",
  generating: "The vendor is at work on it.",
  ready: "Rendered and paid for. The next run saves it.",
  pending: "Not sent yet.",
  failed: "No reason was given.",
};
const order = (a, b) => (a[at.position] < 0) - (b[at.position] < 0) || a[at.position] - b[at.position];
const most = (name) => (a, b) => (b[at[name]] ?? -1) - (a[at[name]] ?? -1) || order(a, b);
const rank = { failed: 0, in_doubt: 1 };
const SORTS = {
  manifest: ["as in the manifest", order],
  failures: ["failures first", (a, b) => (rank[a[at.status]] ?? 2) - (rank[b[at.status]] ?? 2) || order(a, b)],
  saved: ["newest first", most("saved")],
  rendering: ["slowest rendering", most("rendering")],
  usd: ["most expensive", most("usd")],
  length: ["longest clip", most("length")],
  prompt: ["prompt, A to Z", (a, b) => a[at.prompt].localeCompare(b[at.prompt]) || order(a, b)],
};

function player(row) {
  const video = make("video");
  video.controls = true;
  video.playsInline = true;
  video.preload = "metadata";
  if (row[at.poster]) video.poster = row[at.poster];
  video.src = row[at.video];
  video.setAttribute("aria-label", "Video of " + row[at.id]);
  video.addEventListener("play", () => {
    for (const other of document.querySelectorAll("video")) if (other !== video) other.pause();
  });
  video.addEventListener("error", () => {
    const words = make("p", "words", "This browser cannot play the file. ");
    const link = make("a", "", "Open it");
    link.href = row[at.video];
    words.append(link);
    video.replaceWith(words);
  });
  return video;
}

function stage(row) {
  const box = make("div", "stage");
  if (!row[at.video]) {
    box.classList.add("empty", "s-" + row[at.status]);
    const words = bidi("p", "words");
    words.append(make("b", "", NAMES[row[at.status]] ?? row[at.status]), row[at.message] || UNSAID[row[at.status]] || "");
    box.append(words);
    return box;
  }
  const play = make("button", "play");
  play.type = "button";
  play.setAttribute("aria-label", "Play " + row[at.id] + ": " + row[at.prompt].slice(0, 120));
  if (row[at.poster]) {
    const image = make("img");
    image.loading = "lazy";
    image.decoding = "async";
    image.alt = "";
    image.addEventListener("error", () => image.remove());
    image.src = row[at.poster];
    play.append(image);
  }
  play.append(icon());
  play.addEventListener("click", () => {
    const video = player(row);
    box.replaceChildren(video);
    video.focus();
    video.play().catch(() => {});
  });
  box.append(play);
  if (row[at.length] !== null) box.append(make("span", "long", clip(row[at.length])));
  return box;
}

// Parameters on one line: those that everybody knows by their value alone.
const KNOWN = {
  duration: (value) => value + " s",
  resolution: (value) => value,
  aspect_ratio: (value) => value,
  generate_audio: (value) => value === "true" ? "sound" : "silent",
};
function brief(row) {
  return row[at.params].map(([name, value]) => KNOWN[name] ? KNOWN[name](value) : name + " " + value).join(" · ");
}

function card(row) {
  const item = make("article", "card");
  item.setAttribute("role", "listitem");
  const meta = make("p", "meta");
  meta.append(make("bdi", "", row[at.id]));
  if (row[at.usd] !== null) meta.append(make("span", "", money(row[at.usd])));
  if (row[at.rendering] !== null) meta.append(make("span", "", "took " + span(row[at.rendering])));
  const acts = make("p", "acts");
  acts.append(action("Details", () => show(row[at.key]), "Details of " + row[at.id]));
  acts.append(action("Copy id", () => copy(row[at.generation] || row[at.id]), "Copy id of " + row[at.id]));
  const params = bidi("p", "params", brief(row));
  params.title = params.textContent;
  item.append(stage(row), bidi("p", "prompt", row[at.prompt]), meta, params, acts);
  return item;
}

// Only the cards near the window exist; the one with the focus stays, so that it is never pulled away.
function paint() {
  frame = 0;
  const total = view.list.length;
  const top = Math.max(0, -grid.getBoundingClientRect().top);
  const pitch = shape.height + shape.gap;
  const first = Math.max(0, Math.floor((top - innerHeight * 0.6) / pitch)) * shape.columns;
  const last = Math.min(total, Math.ceil((top + innerHeight * 1.6) / pitch) * shape.columns);
  const wanted = new Map();
  for (let index = first; index < last; index++) wanted.set(view.list[index][at.key], index);
  for (const [key, node] of cards) {
    if (node.contains(document.activeElement) && view.places.has(key)) wanted.set(key, view.places.get(key));
    else if (!wanted.has(key)) { node.remove(); cards.delete(key); }
  }
  let next = grid.firstChild;
  for (const [key, index] of [...wanted].sort((a, b) => a[1] - b[1])) {
    let node = cards.get(key);
    if (!node) { node = card(rows.get(key)); cards.set(key, node); }
    place(node, index, total, pitch);
    if (node === next) next = next.nextSibling;
    else grid.insertBefore(node, next);
  }
}
function place(node, index, total, pitch) {
  const column = index % shape.columns;
  node.style.width = shape.width + "px";
  node.style.height = shape.height + "px";
  node.style.transform = `translate(${column * (shape.width + shape.gap)}px, ${Math.floor(index / shape.columns) * pitch}px)`;
  node.setAttribute("aria-posinset", index + 1);
  node.setAttribute("aria-setsize", total);
}
const repaint = () => { frame ||= requestAnimationFrame(paint); };

function measure() {
  const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
  const width = grid.clientWidth, gap = 1.5 * rem;
  const columns = Math.max(1, Math.floor((width + gap) / (17 * rem + gap)));
  const each = (width - gap * (columns - 1)) / columns;
  shape = { columns, gap, width: each, height: each * 9 / 16 + 9.3 * rem };
  grid.style.height = Math.ceil(view.list.length / columns) * (shape.height + gap) + "px";
  repaint();
}

const text = new Map();
function haystack(row) {
  let words = text.get(row);
  if (words === undefined) {
    words = [row[at.id], row[at.prompt], row[at.generation], row[at.model], row[at.code], row[at.message]].join("\n").toLowerCase();
    text.set(row, words);
  }
  return words;
}
function select() {
  const terms = view.words.toLowerCase().split(/\s+/).filter(Boolean);
  view.list = [...rows.values()]
    .filter((row) => (!view.state || row[at.status] === view.state) && (!terms.length || terms.every((term) => haystack(row).includes(term))))
    .sort(SORTS[view.sort][1]);
  view.places = new Map(view.list.map((row, index) => [row[at.key], index]));
  const shown = view.list.length.toLocaleString();
  byId("count").textContent = view.list.length === rows.size ? shown + (rows.size === 1 ? " row" : " rows") : shown + " of " + rows.size.toLocaleString();
  byId("none").hidden = view.list.length > 0;
  measure();
  paint();
}
function again() {
  grid.replaceChildren();
  cards.clear();
  select();
}

function chips() {
  const counts = {};
  for (const row of rows.values()) counts[row[at.status]] = (counts[row[at.status]] || 0) + 1;
  const wanted = ["", ...Object.keys(NAMES).filter((name) => counts[name])];
  states.replaceChildren(...wanted.map((name) => {
    const chip = make("button", name && "s-" + name);
    chip.type = "button";
    chip.setAttribute("aria-pressed", String(view.state === name));
    chip.dataset.state = name;
    if (name) chip.append(make("i"));
    chip.append(name ? NAMES[name] : "All", " ", make("small", "", (name ? counts[name] : rows.size).toLocaleString()));
    return chip;
  }));
}
function choose(state) {
  view.state = state;
  for (const chip of states.children) chip.setAttribute("aria-pressed", String(chip.dataset.state === state));
  again();
}

// Arrow keys walk the grid as the eye does; Tab still reaches everything in order.
function walk(event) {
  const node = event.target.closest(".card");
  if (!node || event.target.tagName === "VIDEO" || event.altKey || event.ctrlKey || event.metaKey) return;
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: shape.columns, ArrowUp: -shape.columns, Home: -Infinity, End: Infinity };
  if (!(event.key in steps)) return;
  event.preventDefault();
  const here = Number(node.getAttribute("aria-posinset")) - 1;
  const there = Math.max(0, Math.min(view.list.length - 1, here + steps[event.key]));
  focus(there);
}
function focus(index) {
  const y = grid.getBoundingClientRect().top + Math.floor(index / shape.columns) * (shape.height + shape.gap);
  const bar = document.querySelector(".tools").offsetHeight;
  if (y < bar || y + shape.height > innerHeight) scrollBy({ top: y < bar ? y - bar - 8 : y + shape.height - innerHeight + 8, behavior: "instant" });
  paint();
  cards.get(view.list[index][at.key])?.querySelector("button, video")?.focus({ preventScroll: true });
}

function start() {
  byId("gallery").hidden = false;
  for (const [name, [label]] of Object.entries(SORTS)) {
    const option = make("option", "", label);
    option.value = name;
    sort.append(option);
  }
  for (const time of document.querySelectorAll("time")) {
    time.textContent = new Date(time.dateTime).toLocaleString(undefined, { dateStyle: "long", timeStyle: "short" });
  }
  chips();
  select();
  search.addEventListener("input", () => { view.words = search.value; again(); });
  sort.addEventListener("change", () => { view.sort = sort.value; again(); });
  states.addEventListener("click", (event) => {
    const chip = event.target.closest("button");
    if (chip) choose(chip.dataset.state);
  });
  byId("reset").addEventListener("click", () => { search.value = view.words = ""; choose(""); search.focus(); });
  grid.addEventListener("keydown", walk);
  addEventListener("scroll", repaint, { passive: true });
  new ResizeObserver(measure).observe(grid);
  detail.addEventListener("close", () => sheet.replaceChildren());
  detail.addEventListener("click", (event) => { if (event.target === detail) detail.close(); });
  addEventListener("keydown", keys);
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-row], [data-copy]");
    if (button) button.dataset.row ? show(button.dataset.row) : copy(button.dataset.copy);
  });
}
function keys(event) {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  if (detail.open && event.target.tagName !== "VIDEO") {
    if (event.key === "ArrowRight") step(1);
    if (event.key === "ArrowLeft") step(-1);
  } else if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) {
    event.preventDefault();
    search.focus();
  }
}
