// The keyboard, and the buttons of the cards. One card is the current one; Tab still reaches everything in order.
const visibleSections = () => { finishPage(); return [...grid.querySelectorAll(".row:not([hidden])")]; };
let currentKey = "";
const currentCard = () => cards.get(currentKey);
function focusCard(card) {
  if (!card) return;
  card.scrollIntoView({ block: "nearest", behavior: "instant" });
  card.focus({ preventScroll: true });
}
function becomeCurrent(card) {
  const before = currentCard();
  if (before && before !== card) before.tabIndex = -1;
  currentKey = card.dataset.key;
  card.tabIndex = 0;
  hearOnly(card);
}
const cardsIn = (section) => [...section.querySelectorAll(".card")];
// Up and down go by what is seen: the section nearest in the line above or below.
function sectionBeside(section, by) {
  const all = visibleSections();
  const boxOf = (node) => node.getBoundingClientRect();
  const same = (a, b) => Math.abs(boxOf(a).top - boxOf(b).top) < 2;
  let index = all.indexOf(section);
  while (all[index] && same(all[index], section)) index += by;
  const line = all[index] ? all.slice(Math.max(0, index - 12), index + 13).filter((node) => same(node, all[index])) : [];
  const distance = (node) => Math.abs(boxOf(node).left - boxOf(section).left);
  return line.sort((a, b) => distance(a) - distance(b))[0];
}
function cardBeside(card, key) {
  const section = card.closest(".row"), own = cardsIn(section), at = own.indexOf(card);
  const by = key === "ArrowRight" || key === "ArrowDown" ? 1 : -1;
  if (key === "ArrowUp" || key === "ArrowDown") {
    const next = sectionBeside(section, by), there = next ? cardsIn(next) : [];
    return there[Math.min(at, there.length - 1)];
  }
  if (own[at + by]) return own[at + by];
  const all = visibleSections(), next = all[all.indexOf(section) + by];
  return next && cardsIn(next).at(by > 0 ? 0 : -1);
}
function endCard(key) {
  const all = visibleSections();
  return all.length && cardsIn(all.at(key === "Home" ? 0 : -1)).at(key === "Home" ? 0 : -1);
}
function pickNumber(card, number) {
  const take = groupOf(card.dataset.key)[number - 1];
  if (take) toggle(take[column.key], PICKED);
}
function rejectAll(card) {
  const clips = clipsOf(groupOf(card.dataset.key)), pick = isRejected(clips) ? "" : REJECTED;
  for (const take of clips) mark(take[column.key], { pick });
}
const CARD_KEYS = {
  x: (card) => toggle(card.dataset.key, REJECTED),
  X: rejectAll,
  n: editNote,
  " ": toggleTogether,
  Enter: (card) => openDetail(card.dataset.key),
};
const MOVES = ["ArrowRight", "ArrowLeft", "ArrowDown", "ArrowUp"];
const ENDS = ["Home", "End"];

function handleKeys(event) {
  if (event.altKey || event.ctrlKey || event.metaKey || event.defaultPrevented) return;
  const target = event.target, tag = target.tagName, key = event.key;
  if (detail.open) {
    if (tag !== "VIDEO" && key === "ArrowRight") showNeighbor(1);
    if (tag !== "VIDEO" && key === "ArrowLeft") showNeighbor(-1);
    return;
  }
  if (/^(INPUT|SELECT|TEXTAREA)$/.test(tag)) {
    if (target !== search || !["ArrowDown", "Enter", "Escape"].includes(key)) return; // Escape empties it by itself
    if (key !== "Escape") event.preventDefault();
    focusCard(key === "Escape" ? currentCard() ?? endCard("Home") : endCard("Home"));
    return;
  }
  if (key === "/") { event.preventDefault(); search.focus(); return; }
  if (key === "?" && data.review) { byId("keys").open = !byId("keys").open; return; }
  // The keys that a focused button, link or player has of its own stay its own.
  const own = tag === "VIDEO" ? [" ", "Enter", ...MOVES, ...ENDS] : /^(BUTTON|A|SUMMARY)$/.test(tag) ? [" ", "Enter"] : [];
  if (own.includes(key)) return;
  handleCardKey(event, target.closest(".card") ?? (grid.contains(document.activeElement) ? null : currentCard()));
}
function handleCardKey(event, card) {
  const key = event.key, inGrid = card?.contains(event.target);
  const isMark = /^[1-9]$/.test(key) || key in CARD_KEYS;
  if (!isMark && !MOVES.includes(key) && !ENDS.includes(key)) return;
  if (!inGrid && (ENDS.includes(key) || key === "Enter" || (key === " " && !card))) return; // they scroll the page
  event.preventDefault();
  if (!card || card.closest("[hidden]")) { focusCard(endCard("Home")); return; }
  if (/^[1-9]$/.test(key)) pickNumber(card, Number(key));
  else if (isMark) CARD_KEYS[key](card);
  else focusCard(ENDS.includes(key) ? endCard(key) : cardBeside(card, key));
}

const CARD_ACTIONS = {
  play: playAlone,
  together: toggleTogether,
  pick: (card) => toggle(card.dataset.key, PICKED),
  reject: (card) => toggle(card.dataset.key, REJECTED),
  note: editNote,
  details: (card) => openDetail(card.dataset.key),
  copy: (card) => copyText(takes.get(card.dataset.key)[column.id]),
};
function handleAction(event) {
  const button = event.target.closest("[data-act]");
  if (!button) return;
  const card = button.closest(".card") ?? button.closest(".row").querySelector(".card");
  becomeCurrent(card);
  CARD_ACTIONS[button.dataset.act](card);
}

function start() {
  for (const take of data.rows) setTake(take);
  data.rows = null;
  restorePicks();
  byId("gallery").hidden = false;
  for (const [name, [label]] of Object.entries(SORT_ORDERS)) {
    const option = createElement("option", "", label);
    option.value = name;
    sort.append(option);
  }
  for (const time of document.querySelectorAll("time")) {
    time.textContent = new Date(time.dateTime).toLocaleString(undefined, { dateStyle: "long", timeStyle: "short" });
  }
  if (data.review) byId("keys").open = matchMedia("(min-width: 50rem)").matches && [...groups.values()].some((group) => group.length > 1);
  picksChanged();
  applyFilters();
  search.addEventListener("input", () => { view.query = search.value; restart(); });
  sort.addEventListener("change", () => { view.sort = sort.value; restart(); });
  filters.addEventListener("click", (event) => {
    const chip = event.target.closest("button");
    if (chip) setFilter(chip.dataset.state);
  });
  byId("reset").addEventListener("click", () => { search.value = view.query = ""; setFilter(""); search.focus(); });
  byId("previous").addEventListener("click", () => turnPage(-1));
  byId("next").addEventListener("click", () => turnPage(1));
  byId("export").addEventListener("click", exportPicks);
  grid.addEventListener("click", handleAction);
  grid.addEventListener("focusin", (event) => { const card = event.target.closest(".card"); if (card) becomeCurrent(card); });
  grid.addEventListener("error", (event) => { if (event.target.tagName === "IMG") event.target.remove(); }, true);
  detail.addEventListener("click", (event) => { if (event.target === detail) detail.close(); });
  detail.addEventListener("close", restoreFocus);
  addEventListener("keydown", handleKeys);
  addEventListener("beforeunload", (event) => { if (unsent) event.preventDefault(); });
  addEventListener("beforeprint", () => { finishPage(); for (const image of grid.querySelectorAll("img")) image.loading = "eager"; });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-row], [data-copy]");
    if (button?.tagName === "BUTTON") button.dataset.row ? openDetail(button.dataset.row) : copyText(button.dataset.copy);
  });
}

// A large batch is compressed: a hundred thousand rows would make a page of 35 MB otherwise.
async function unpackRows(blocks) {
  return (await Promise.all(blocks.map(unpackBlock))).flat();
}
async function unpackBlock(packed) {
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
