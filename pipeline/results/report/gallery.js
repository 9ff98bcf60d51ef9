const data = JSON.parse(document.getElementById("data").textContent);
const column = Object.fromEntries(data.fields.map((name, index) => [name, index]));
const byId = (id) => document.getElementById(id);
const grid = byId("grid"), search = byId("search"), filters = byId("states"), sort = byId("sort");
const detail = byId("detail"), detailContent = detail.querySelector(".sheet");
// Every row of a page stays in the document, so that the browser's own search and printing reach them all.
// Measured with 10,000 rows: blocks that are off screen cost no layout (`content-visibility`), only their nodes;
// one grid of all rows was laid out anew in each frame of scrolling, at 0.6 s. `python -m benchmarks.page`.
const PAGE_SIZE = 20000;
const BLOCK_ROWS = 24; // whole lines, as long as there are 1, 2, 3 or 4 rows in one
const FIRST_ROWS = 72, ROWS_AT_ONCE = 480;
const takes = new Map(); // by key
const groups = new Map(); // by the row's id: the row's takes, those of the manifest first
const sections = new Map(); // by the row's id: its element
const cards = new Map(); // by key
const view = { filter: "", query: "", sort: "manifest", groups: [], page: 0, unfinished: 0 };

const STATUS_LABELS = { done: "done", failed: "failed", in_doubt: "in doubt", ready: "not saved yet", generating: "rendering", pending: "pending" };
const DEFAULT_MESSAGES = {
  in_doubt: "The request was sent but no response arrived. The next run asks the vendor's log about it.",
  generating: "The vendor is rendering it.",
  ready: "Rendered and paid for. The next run saves it.",
  pending: "Not submitted yet.",
  failed: "No reason was given.",
};
const byManifestOrder = (a, b) => (a[column.position] < 0) - (b[column.position] < 0) || a[column.position] - b[column.position];
const highest = (group, name) => Math.max(...group.map((take) => take[column[name]] ?? -1));
const byDescending = (name) => (a, b) => highest(b, name) - highest(a, name) || byManifestOrder(a[0], b[0]);
const FAILURE_RANK = { failed: 0, in_doubt: 1 };
const failureRank = (group) => Math.min(...group.map((take) => FAILURE_RANK[take[column.status]] ?? 2));
const SORT_ORDERS = {
  manifest: ["as in the manifest", (a, b) => byManifestOrder(a[0], b[0])],
  failures: ["failures first", (a, b) => failureRank(a) - failureRank(b) || byManifestOrder(a[0], b[0])],
  saved: ["newest first", byDescending("saved")],
  rendering: ["slowest rendering", byDescending("rendering")],
  usd: ["most expensive", byDescending("usd")],
  length: ["longest clip", byDescending("length")],
  prompt: ["prompt, A to Z", (a, b) => a[0][column.prompt].localeCompare(b[0][column.prompt]) || byManifestOrder(a[0], b[0])],
};
const rowId = (take) => take[column.row];
const groupOf = (key) => groups.get(rowId(takes.get(key))) ?? [];
const isFormer = (take) => take[column.position] < 0;

function setTake(take) {
  const key = take[column.key], group = groups.get(rowId(take)) ?? [];
  const others = group.filter((other) => other[column.key] !== key);
  takes.set(key, take);
  others.push(take);
  others.sort((a, b) => isFormer(a) - isFormer(b) || a[column.take] - b[column.take]);
  groups.set(rowId(take), others);
}

// Parameters on one line: the common ones by their value alone.
const PARAM_FORMATS = {
  duration: (value) => value + " s",
  resolution: (value) => value,
  aspect_ratio: (value) => value,
  generate_audio: (value) => value === "true" ? "sound" : "silent",
};
function paramSummary(take) {
  return take[column.params].map(([name, value]) => PARAM_FORMATS[name] ? PARAM_FORMATS[name](value) : name + " " + value).join(" · ");
}

function createPreview(take) {
  const box = createElement("div", "preview");
  if (!take[column.video]) {
    box.classList.add("empty", "s-" + take[column.status]);
    const text = createBidiText("p", "preview-text");
    const message = take[column.message] || DEFAULT_MESSAGES[take[column.status]] || "";
    text.append(createElement("b", "", STATUS_LABELS[take[column.status]] ?? take[column.status]), message);
    box.append(text);
    return box;
  }
  const play = createElement("button", "play");
  play.type = "button";
  play.dataset.act = "play";
  play.setAttribute("aria-label", "Play " + take[column.id] + ": " + take[column.prompt].slice(0, 120));
  if (take[column.poster]) {
    const image = createElement("img");
    image.loading = "lazy";
    image.decoding = "async";
    image.alt = "";
    image.src = take[column.poster];
    play.append(image);
  }
  box.append(play);
  if (take[column.length] !== null) box.append(createElement("span", "clip-length", formatClipLength(take[column.length])));
  return box;
}

function createCard(take, alone) {
  const card = createElement("div", "card" + (isFormer(take) ? " former" : ""));
  card.dataset.key = take[column.key];
  card.tabIndex = -1;
  card.setAttribute("role", "group");
  card.setAttribute("aria-label", (alone ? "" : "Take " + take[column.take] + " of ") + rowId(take));
  const meta = createElement("p", "meta");
  meta.append(createElement("bdi", "", take[column.id]));
  if (!alone && isFormer(take)) meta.append(createElement("span", "", "no longer in the manifest"));
  if (take[column.usd] !== null) meta.append(createElement("span", "", formatUsd(take[column.usd])));
  if (take[column.rendering] !== null) meta.append(createElement("span", "", "took " + formatDuration(take[column.rendering])));
  card.append(createPreview(take));
  if (alone || isFormer(take)) card.append(createBidiText("p", "prompt", take[column.prompt]));
  card.append(meta);
  const params = paramSummary(take);
  if (params) card.append(createBidiText("p", "params", params));
  if (data.review && take[column.video]) card.append(createReviewBar(take));
  const actions = createElement("p", "actions");
  actions.append(actionButton("details", "Details", "Details of " + take[column.id]), actionButton("copy", "Copy id", "Copy id of " + take[column.id]));
  if (take[column.video]) actions.append(createDownloadLink(take));
  card.append(actions);
  cards.set(take[column.key], card);
  showPick(take);
  return card;
}

function createSection(group) {
  const first = group[0], alone = group.length === 1, section = createElement("div", alone ? "row" : "row several");
  section.setAttribute("role", "listitem");
  section.dataset.row = rowId(first);
  if (!alone) {
    const head = createElement("div", "row-head"), title = createElement("h3");
    title.append(createElement("bdi", "", rowId(first)));
    head.append(title, createBidiText("p", "prompt", first[column.prompt]));
    if (group.filter((take) => take[column.video]).length > 1) head.append(actionButton("together", "Play together", "Play the takes of " + rowId(first) + " together"));
    section.append(head);
  }
  const box = createElement("div", "takes");
  box.append(...group.map((take) => createCard(take, alone)));
  section.append(box);
  sections.set(rowId(first), section);
  return section;
}

const isPlaying = (node) => [...node?.querySelectorAll("video") ?? []].some((video) => !video.paused);

// The first rows at once, the others when the browser has time; `finishPage` when all are wanted.
function renderPage() {
  const pages = Math.max(1, Math.ceil(view.groups.length / PAGE_SIZE));
  view.page = Math.max(0, Math.min(view.page, pages - 1));
  const first = view.page * PAGE_SIZE;
  view.shown = view.groups.slice(first, first + PAGE_SIZE);
  view.width = grid.clientWidth;
  const wanted = new Set(view.shown.map((group) => rowId(group[0])));
  // A clip that plays is neither removed nor moved by a filter: either would stop it.
  for (const [id, node] of sections) {
    if (wanted.has(id) || isPlaying(node)) continue;
    if (groups.size <= PAGE_SIZE) node.hidden = true;
    else { node.remove(); forget(id); }
  }
  view.place = { index: 0, wanted, first };
  placeRows(FIRST_ROWS);
  renderPager(first, view.shown.length, pages);
}
function forget(id) {
  for (const take of groups.get(id) ?? []) cards.delete(take[column.key]);
  sections.delete(id);
}
function placeRows(count) {
  const place = view.place, end = Math.min(view.shown.length, place.index + count);
  for (; place.index < end; place.index++) {
    const group = view.shown[place.index], id = rowId(group[0]);
    const node = sections.get(id) ?? createSection(group);
    node.hidden = false;
    node.setAttribute("aria-posinset", place.first + place.index + 1);
    node.setAttribute("aria-setsize", view.groups.length);
    if (place.index % BLOCK_ROWS === 0) {
      place.block = blockAt(place.index / BLOCK_ROWS);
      place.next = place.block.firstElementChild;
    }
    while (place.next && !place.wanted.has(place.next.dataset.row)) place.next = place.next.nextElementSibling;
    if (node === place.next) place.next = place.next.nextElementSibling;
    else if (node.isConnected && place.block.moveBefore) place.block.moveBefore(node, place.next);
    else if (!isPlaying(node)) place.block.insertBefore(node, place.next); // another place would stop the clip
    if ((place.index + 1) % BLOCK_ROWS === 0) estimateHeight(place.block);
  }
  clearTimeout(view.unfinished);
  view.unfinished = place.index < view.shown.length ? setTimeout(placeRows, 0, ROWS_AT_ONCE) : 0;
  if (!view.unfinished) hideBlocksFrom(Math.ceil(place.index / BLOCK_ROWS));
}
function blockAt(number) {
  let block = grid.children[number];
  if (!block) {
    block = createElement("div", "block");
    grid.append(block);
  }
  block.hidden = false;
  return block;
}
function hideBlocksFrom(number) {
  for (const block of [...grid.children].slice(number)) block.hidden = !isPlaying(block);
}
// What the scroll bar goes by until a block was on screen.
function estimateHeight(block) {
  const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
  const columns = Math.max(1, Math.floor((view.width + 1.5 * rem) / (18.5 * rem)));
  const rows = [...block.children].filter((node) => !node.hidden), several = rows.filter((node) => node.classList.contains("several")).length;
  const lines = Math.ceil((rows.length - several) / columns);
  block.style.containIntrinsicBlockSize = `auto ${Math.round((23.5 * lines + 26.5 * several) * rem)}px`;
}
const finishPage = () => { if (view.unfinished) placeRows(Infinity); };

function renderPager(first, count, pages) {
  const total = view.groups.length.toLocaleString();
  const all = view.groups.length === groups.size ? total + (groups.size === 1 ? " row" : " rows") : total + " of " + groups.size.toLocaleString();
  byId("count").textContent = all;
  byId("none").hidden = view.groups.length > 0;
  byId("pager").hidden = pages === 1;
  byId("range").textContent = (first + 1).toLocaleString() + " to " + (first + count).toLocaleString() + " of " + total;
  byId("previous").disabled = view.page === 0;
  byId("next").disabled = view.page === pages - 1;
}
function turnPage(by) {
  view.page += by;
  renderPage();
  byId("videos").scrollIntoView();
}

const searchTextByTake = new Map();
function searchText(take) {
  let text = searchTextByTake.get(take);
  if (text === undefined) {
    text = ["id", "prompt", "generation", "model", "code", "message", "note"].map((name) => take[column[name]]).join("\n").toLowerCase();
    searchTextByTake.set(take, text);
  }
  return text;
}
function matchesFilter(group) {
  if (!view.filter) return true;
  const wanted = REVIEW_FILTERS[view.filter];
  return wanted ? wanted[1](group) : group.some((take) => take[column.status] === view.filter);
}
function applyFilters() {
  const terms = view.query.toLowerCase().split(/\s+/).filter(Boolean);
  const matches = (group) => group.some((take) => terms.every((term) => searchText(take).includes(term)));
  view.groups = [...groups.values()].filter((group) => matchesFilter(group) && matches(group)).sort(SORT_ORDERS[view.sort][1]);
  renderPage();
}
function restart() {
  view.page = 0;
  applyFilters();
}

function renderFilters() {
  const counts = {};
  const count = (name) => { counts[name] = (counts[name] || 0) + 1; };
  for (const take of takes.values()) count(take[column.status]);
  if (data.review) {
    for (const group of groups.values()) for (const [name, [, covers]] of Object.entries(REVIEW_FILTERS)) if (covers(group)) count(name);
  }
  const names = ["", ...Object.keys(STATUS_LABELS), ...Object.keys(REVIEW_FILTERS)].filter((name) => !name || counts[name] || name === view.filter);
  filters.replaceChildren(...names.map((name) => {
    const chip = createElement("button", name && "s-" + name);
    chip.type = "button";
    chip.setAttribute("aria-pressed", String(view.filter === name));
    chip.dataset.state = name;
    if (STATUS_LABELS[name]) chip.append(createElement("i"));
    chip.append(name ? STATUS_LABELS[name] ?? REVIEW_FILTERS[name][0] : "All", " ", createElement("small", "", (name ? counts[name] ?? 0 : groups.size).toLocaleString()));
    return chip;
  }));
}
function setFilter(name) {
  view.filter = name;
  for (const chip of filters.children) chip.setAttribute("aria-pressed", String(chip.dataset.state === name));
  restart();
}
