const data = JSON.parse(document.getElementById("data").textContent);
const column = Object.fromEntries(data.fields.map((name, index) => [name, index]));
const byId = (id) => document.getElementById(id);
const grid = byId("grid"), search = byId("search"), statusFilters = byId("states"), sort = byId("sort");
const detail = byId("detail"), detailContent = detail.querySelector(".sheet");
// Cards of one page stay in the document, so that the browser's own search and printing reach them all.
const PAGE_SIZE = 2000;
const rows = new Map();
const view = { status: "", query: "", sort: "manifest", rows: [], page: 0 };
const cards = new Map();

const STATUS_LABELS = { done: "done", failed: "failed", in_doubt: "in doubt", ready: "not saved yet", generating: "rendering", pending: "pending" };
const DEFAULT_MESSAGES = {
  in_doubt: "The request was sent but no response arrived. The next run asks the vendor's log about it.",
  generating: "The vendor is rendering it.",
  ready: "Rendered and paid for. The next run saves it.",
  pending: "Not submitted yet.",
  failed: "No reason was given.",
};
const byManifestOrder = (a, b) => (a[column.position] < 0) - (b[column.position] < 0) || a[column.position] - b[column.position];
const byDescending = (name) => (a, b) => (b[column[name]] ?? -1) - (a[column[name]] ?? -1) || byManifestOrder(a, b);
const FAILURE_RANK = { failed: 0, in_doubt: 1 };
const SORT_ORDERS = {
  manifest: ["as in the manifest", byManifestOrder],
  failures: ["failures first", (a, b) => (FAILURE_RANK[a[column.status]] ?? 2) - (FAILURE_RANK[b[column.status]] ?? 2) || byManifestOrder(a, b)],
  saved: ["newest first", byDescending("saved")],
  rendering: ["slowest rendering", byDescending("rendering")],
  usd: ["most expensive", byDescending("usd")],
  length: ["longest clip", byDescending("length")],
  prompt: ["prompt, A to Z", (a, b) => a[column.prompt].localeCompare(b[column.prompt]) || byManifestOrder(a, b)],
};

function createPlayer(row) {
  const video = createElement("video");
  video.controls = true;
  video.playsInline = true;
  video.preload = "metadata";
  if (row[column.poster]) video.poster = row[column.poster];
  video.src = row[column.video];
  video.setAttribute("aria-label", "Video of " + row[column.id]);
  video.addEventListener("play", () => {
    for (const other of document.querySelectorAll("video")) if (other !== video) other.pause();
  });
  video.addEventListener("error", () => {
    const message = createElement("p", "preview-text", "This browser cannot play the file. ");
    const link = createElement("a", "", "Open it");
    link.href = row[column.video];
    message.append(link);
    video.replaceWith(message);
  });
  return video;
}

function createPreview(row) {
  const box = createElement("div", "preview");
  if (!row[column.video]) {
    box.classList.add("empty", "s-" + row[column.status]);
    const text = createBidiText("p", "preview-text");
    const message = row[column.message] || DEFAULT_MESSAGES[row[column.status]] || "";
    text.append(createElement("b", "", STATUS_LABELS[row[column.status]] ?? row[column.status]), message);
    box.append(text);
    return box;
  }
  const play = createElement("button", "play");
  play.type = "button";
  play.setAttribute("aria-label", "Play " + row[column.id] + ": " + row[column.prompt].slice(0, 120));
  if (row[column.poster]) {
    const image = createElement("img");
    image.loading = "lazy";
    image.decoding = "async";
    image.alt = "";
    image.addEventListener("error", () => image.remove());
    image.src = row[column.poster];
    play.append(image);
  }
  play.append(playIcon());
  play.addEventListener("click", () => {
    const video = createPlayer(row);
    box.replaceChildren(video);
    video.focus();
    video.play().catch(() => {});
  });
  box.append(play);
  if (row[column.length] !== null) box.append(createElement("span", "clip-length", formatClipLength(row[column.length])));
  return box;
}

// Parameters on one line: the common ones by their value alone.
const PARAM_FORMATS = {
  duration: (value) => value + " s",
  resolution: (value) => value,
  aspect_ratio: (value) => value,
  generate_audio: (value) => value === "true" ? "sound" : "silent",
};
function paramSummary(row) {
  return row[column.params].map(([name, value]) => PARAM_FORMATS[name] ? PARAM_FORMATS[name](value) : name + " " + value).join(" · ");
}

function createCard(row) {
  const item = createElement("article", "card");
  item.setAttribute("role", "listitem");
  const meta = createElement("p", "meta");
  meta.append(createElement("bdi", "", row[column.id]));
  if (row[column.usd] !== null) meta.append(createElement("span", "", formatUsd(row[column.usd])));
  if (row[column.rendering] !== null) meta.append(createElement("span", "", "took " + formatDuration(row[column.rendering])));
  const actions = createElement("p", "actions");
  actions.append(createButton("Details", () => openDetail(row[column.key]), "Details of " + row[column.id]));
  actions.append(createButton("Copy id", () => copyText(row[column.id]), "Copy id of " + row[column.id]));
  if (row[column.video]) actions.append(createDownloadLink(row));
  const params = createBidiText("p", "params", paramSummary(row));
  params.title = params.textContent;
  item.append(createPreview(row), createBidiText("p", "prompt", row[column.prompt]), meta, params, actions);
  return item;
}

const isPlaying = (node) => { const video = node?.querySelector("video"); return Boolean(video && !video.paused); };

// A clip that plays is neither removed nor moved by a filter: either would stop it.
function renderPage() {
  const pages = Math.max(1, Math.ceil(view.rows.length / PAGE_SIZE));
  view.page = Math.max(0, Math.min(view.page, pages - 1));
  const first = view.page * PAGE_SIZE;
  const shown = view.rows.slice(first, first + PAGE_SIZE);
  const wanted = new Set(shown.map((row) => row[column.key]));
  for (const [key, node] of cards) {
    if (wanted.has(key) || isPlaying(node)) continue;
    if (rows.size <= PAGE_SIZE) node.hidden = true;
    else { node.remove(); cards.delete(key); }
  }
  let next = grid.firstElementChild;
  shown.forEach((row, index) => {
    const key = row[column.key];
    let node = cards.get(key);
    if (!node) { node = createCard(row); node.dataset.key = key; cards.set(key, node); }
    node.hidden = false;
    node.setAttribute("aria-posinset", first + index + 1);
    node.setAttribute("aria-setsize", view.rows.length);
    while (next && !wanted.has(next.dataset.key)) next = next.nextElementSibling;
    if (node === next) next = next.nextElementSibling;
    else placeCard(node, next);
  });
  renderPager(first, shown.length, pages);
}
function placeCard(node, next) {
  if (node.parentNode === grid && grid.moveBefore) grid.moveBefore(node, next);
  else grid.insertBefore(node, next);
}
function renderPager(first, count, pages) {
  const total = view.rows.length.toLocaleString();
  const all = view.rows.length === rows.size ? total + (rows.size === 1 ? " row" : " rows") : total + " of " + rows.size.toLocaleString();
  byId("count").textContent = all;
  byId("none").hidden = view.rows.length > 0;
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

const searchTextByRow = new Map();
function searchText(row) {
  let text = searchTextByRow.get(row);
  if (text === undefined) {
    text = [row[column.id], row[column.prompt], row[column.generation], row[column.model], row[column.code], row[column.message]].join("\n").toLowerCase();
    searchTextByRow.set(row, text);
  }
  return text;
}
function applyFilters() {
  const terms = view.query.toLowerCase().split(/\s+/).filter(Boolean);
  const matches = (row) => (!view.status || row[column.status] === view.status) && terms.every((term) => searchText(row).includes(term));
  view.rows = [...rows.values()].filter(matches).sort(SORT_ORDERS[view.sort][1]);
  renderPage();
}
function restart() {
  view.page = 0;
  applyFilters();
}

function renderStatusFilters() {
  const counts = {};
  for (const row of rows.values()) counts[row[column.status]] = (counts[row[column.status]] || 0) + 1;
  const wanted = ["", ...Object.keys(STATUS_LABELS).filter((name) => counts[name])];
  statusFilters.replaceChildren(...wanted.map((name) => {
    const chip = createElement("button", name && "s-" + name);
    chip.type = "button";
    chip.setAttribute("aria-pressed", String(view.status === name));
    chip.dataset.state = name;
    if (name) chip.append(createElement("i"));
    chip.append(name ? STATUS_LABELS[name] : "All", " ", createElement("small", "", (name ? counts[name] : rows.size).toLocaleString()));
    return chip;
  }));
}
function setStatusFilter(status) {
  view.status = status;
  for (const chip of statusFilters.children) chip.setAttribute("aria-pressed", String(chip.dataset.state === status));
  restart();
}

// Arrow keys move by card and by line; Tab still reaches everything in order.
function handleGridKeys(event) {
  const node = event.target.closest(".card");
  if (!node || event.target.tagName === "VIDEO" || event.altKey || event.ctrlKey || event.metaKey) return;
  const columns = getComputedStyle(grid).gridTemplateColumns.split(" ").length;
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -Infinity, End: Infinity };
  if (!(event.key in steps)) return;
  event.preventDefault();
  const current = Number(node.getAttribute("aria-posinset")) - 1;
  focusCard(Math.max(0, Math.min(view.rows.length - 1, current + steps[event.key])));
}
function focusCard(index) {
  const page = Math.floor(index / PAGE_SIZE);
  if (page !== view.page) { view.page = page; renderPage(); }
  const target = cards.get(view.rows[index][column.key]);
  target?.scrollIntoView({ block: "nearest", behavior: "instant" });
  target?.querySelector("button, video")?.focus({ preventScroll: true });
}
function handlePageKeys(event) {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  if (detail.open && event.target.tagName !== "VIDEO") {
    if (event.key === "ArrowRight") showNeighbor(1);
    if (event.key === "ArrowLeft") showNeighbor(-1);
  } else if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) {
    event.preventDefault();
    search.focus();
  }
}

function start() {
  for (const row of data.rows) rows.set(row[column.key], row);
  byId("gallery").hidden = false;
  for (const [name, [label]] of Object.entries(SORT_ORDERS)) {
    const option = createElement("option", "", label);
    option.value = name;
    sort.append(option);
  }
  for (const time of document.querySelectorAll("time")) {
    time.textContent = new Date(time.dateTime).toLocaleString(undefined, { dateStyle: "long", timeStyle: "short" });
  }
  renderStatusFilters();
  applyFilters();
  search.addEventListener("input", () => { view.query = search.value; restart(); });
  sort.addEventListener("change", () => { view.sort = sort.value; restart(); });
  statusFilters.addEventListener("click", (event) => {
    const chip = event.target.closest("button");
    if (chip) setStatusFilter(chip.dataset.state);
  });
  byId("reset").addEventListener("click", () => { search.value = view.query = ""; setStatusFilter(""); search.focus(); });
  byId("previous").addEventListener("click", () => turnPage(-1));
  byId("next").addEventListener("click", () => turnPage(1));
  grid.addEventListener("keydown", handleGridKeys);
  detail.addEventListener("click", (event) => { if (event.target === detail) detail.close(); });
  detail.addEventListener("close", restoreFocus);
  addEventListener("keydown", handlePageKeys);
  addEventListener("beforeprint", () => { for (const image of grid.querySelectorAll("img")) image.loading = "eager"; });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-row], [data-copy]");
    if (button) button.dataset.row ? openDetail(button.dataset.row) : copyText(button.dataset.copy);
  });
}

// A large batch is compressed: a hundred thousand rows would make a page of 35 MB otherwise.
async function unpackRows(packed) {
  const bytes = Uint8Array.from(atob(packed), (char) => char.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}
function load(then) {
  if (data.rows) { then(); return; }
  byId("loading").hidden = false;
  unpackRows(data.packed).then((unpacked) => {
    data.rows = unpacked;
    byId("loading").hidden = true;
    then();
  }).catch((error) => { byId("loading").textContent = "This browser cannot unpack the rows (" + error + "). They are in results.csv."; });
}
