// The review: what is picked, rejected or still to be looked at, and how that is kept.
const PICKED = "picked", REJECTED = "rejected";
const clipsOf = (group) => group.filter((take) => take[column.video]);
const isPicked = (group) => group.some((take) => take[column.pick] === PICKED);
const isRejected = (group) => { const clips = clipsOf(group); return clips.length > 0 && clips.every((take) => take[column.pick] === REJECTED); };
const REVIEW_FILTERS = {
  open: ["to review", (group) => clipsOf(group).length > 0 && !isPicked(group) && !isRejected(group)],
  picked: ["picked", isPicked],
  rejected: ["rejected", isRejected],
};

function actionButton(act, text, label) {
  const button = createElement("button", "quiet", text);
  button.type = "button";
  button.dataset.act = act;
  if (label) button.setAttribute("aria-label", label);
  return button;
}
function createReviewBar(take) {
  const bar = createElement("p", "review");
  for (const [act, text] of [["pick", "Pick"], ["reject", "Reject"], ["note", "Note"]]) {
    const button = actionButton(act, text, text + " " + take[column.id]);
    button.className = "mark " + act;
    bar.append(button);
  }
  return bar;
}
function showPick(take) {
  const card = cards.get(take[column.key]);
  const bar = card?.querySelector(".review");
  if (!bar) return;
  const pick = take[column.pick];
  card.classList.toggle("is-picked", pick === PICKED);
  card.classList.toggle("is-rejected", pick === REJECTED);
  bar.querySelector(".pick").setAttribute("aria-pressed", String(pick === PICKED));
  bar.querySelector(".reject").setAttribute("aria-pressed", String(pick === REJECTED));
  if (card.querySelector("textarea")) return;
  card.querySelector(".note-text")?.remove();
  if (take[column.note]) bar.after(createBidiText("p", "note-text", take[column.note]));
}
function renderProgress() {
  const all = [...groups.values()].filter((group) => clipsOf(group).length);
  const open = all.filter(REVIEW_FILTERS.open[1]).length;
  byId("review").hidden = !data.review || !all.length;
  byId("reviewed").max = all.length;
  byId("reviewed").value = all.length - open;
  byId("reviewed-text").textContent = `${(all.length - open).toLocaleString()} of ${all.length.toLocaleString()} ${all.length === 1 ? "row" : "rows"} reviewed`;
  const changed = Object.keys(kept).length;
  byId("export").hidden = !changed;
  byId("export-hint").hidden = !changed;
}

// What a reviewer wants, by key; a row has one pick, so that its other takes give theirs up.
function mark(key, change) {
  const take = takes.get(key);
  if (!data.review || !take?.[column.video]) return;
  const before = new Map(groupOf(key).map((sister) => [sister[column.key], [sister[column.pick], sister[column.note]]]));
  const wish = { pick: take[column.pick], note: take[column.note], ...change };
  setPick(take, wish.pick, wish.note);
  if (wish.pick === PICKED) {
    for (const sister of groupOf(key)) if (sister !== take && sister[column.pick] === PICKED) setPick(sister, "", sister[column.note]);
  }
  announce(`${take[column.id]}: ${wish.pick || "neither picked nor rejected"}`);
  picksChanged();
  keepPicks([{ key, pick: wish.pick, note: wish.note }], before);
}
function setPick(take, pick, note) {
  take[column.pick] = pick;
  take[column.note] = note;
  searchTextByTake.delete(take);
  showPick(take);
}
function picksChanged() {
  renderFilters();
  renderProgress();
}
const toggle = (key, pick) => mark(key, { pick: takes.get(key)[column.pick] === pick ? "" : pick });

// A served page tells the ledger at once; one from disk keeps what was said in this browser, to be exported.
const storageName = "veobatch picks of " + data.batch;
let kept = {}, sending = Promise.resolve(), unsent = 0;
function keepPicks(picks, before) {
  if (data.review === "live") { // one after the other
    showUnsent(1);
    sending = sending.then(() => sendPicks(picks, before)).finally(() => showUnsent(-1));
    return;
  }
  for (const [key] of before) {
    const take = takes.get(key);
    kept[key] = { key, id: take[column.id], pick: take[column.pick], note: take[column.note] };
    if (take.ledger?.[0] === take[column.pick] && take.ledger?.[1] === take[column.note]) delete kept[key];
  }
  try { localStorage.setItem(storageName, JSON.stringify(kept)); } catch { /* kept while the page is open */ }
  renderProgress();
}
function showUnsent(change) {
  unsent += change;
  byId("review").setAttribute("aria-busy", String(unsent > 0));
}
function restorePicks() {
  if (data.review !== "file") return;
  for (const take of takes.values()) take.ledger = [take[column.pick], take[column.note]];
  try { kept = JSON.parse(localStorage.getItem(storageName)) ?? {}; } catch { kept = {}; }
  for (const [key, wish] of Object.entries(kept)) {
    const take = takes.get(key);
    if (!take || (take.ledger[0] === wish.pick && take.ledger[1] === wish.note)) delete kept[key];
    else { take[column.pick] = wish.pick; take[column.note] = wish.note; }
  }
}
function exportPicks() {
  const text = JSON.stringify({ veobatch: "picks", version: 1, picks: Object.values(kept) }, null, 1);
  const link = createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = "picks.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
async function sendPicks(picks, before) {
  let error = "";
  try {
    const response = await fetch("picks", {
      method: "POST",
      keepalive: true, // the page may be closed at once
      headers: { "Content-Type": "application/json", "X-Veobatch-Token": data.token },
      body: JSON.stringify({ picks }),
    });
    if (!response.ok) error = await response.text();
  } catch {
    error = "The server does not answer.";
  }
  byId("review-error").textContent = error && `Not saved: ${error}`;
  if (!error) return;
  for (const [key, [pick, note]] of before) setPick(takes.get(key), pick, note);
  picksChanged();
}

function editNote(card) {
  if (!data.review || card.querySelector("textarea")) return;
  const take = takes.get(card.dataset.key), area = createElement("textarea", "note-edit");
  if (!take[column.video]) return;
  area.value = take[column.note];
  area.rows = 2;
  area.maxLength = 2000;
  area.setAttribute("aria-label", "Note on " + take[column.id] + "; Enter keeps it, Escape does not");
  card.querySelector(".note-text")?.remove();
  card.querySelector(".review").after(area);
  area.focus();
  let open = true;
  const close = (keep) => {
    if (!open) return;
    open = false;
    area.remove();
    if (keep && area.value.trim() !== take[column.note]) mark(card.dataset.key, { note: area.value.trim() });
    else showPick(take);
  };
  area.addEventListener("keydown", (event) => {
    event.stopPropagation();
    if ((event.key !== "Enter" || event.shiftKey) && event.key !== "Escape") return;
    event.preventDefault();
    close(event.key === "Enter");
    focusCard(card);
  });
  area.addEventListener("blur", () => close(true));
}
