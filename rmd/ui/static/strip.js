/* The strip. `value` is {counts, scales, most, cells, ratio, words, stale, stored}: steps at every size, smallest first,
   and each size's side over the result's; a cell per step {low, scale, logsnr, student, teacher}, estimates as addresses;
   stale, stale_teacher: whether the stage shows a result of other settings, and of another teacher's run; stored: {"4/2": {file, words}}, pictures of two sizes that
   can stand on the stage at once; query: the settings as the end of the page's address; shown: the result's name, which
   makes a step of the browser's history; idle: whether more switches can be drawn in idle moments; passing: whether this
   is the plan of a result, to which the controls may not have come or from which they have moved on. Reports `select` with
   {counts}, or {sizes} where another number of sizes is wanted, `submit` with {shown, query} for a step back or forward,
   `input` where another switch may be drawn now, and shows what it points at in the compare view. */
const root = element.querySelector(".strip");
const row = root.querySelector(".strip-row");
const words = root.querySelector(".strip-words");
const MOST_SIZES = 4;
let counts = [0, 1], cells = [], seen = null, told = 0, held = -1;
let moved = 0, sent = null, late = 0; // when the last move was made that is not answered, and what was reported when
let truth = null; // the controls' counts, as last heard
const LONGEST = 10_000; // milliseconds; an answer may be lost, or the same as what stood there
let ready = {}; // stored pictures, fetched before they are wanted

const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
const steps = () => sum(counts);
const below = () => steps() - counts[counts.length - 1];
const most = () => (props.value && props.value.most) || 8;
const same = (a, b) => Boolean(a && b) && a.length === b.length && a.every((n, i) => n === b[i]);

function stage(detail) {
  document.querySelector("#compare .cmp")?.dispatchEvent(new CustomEvent("estimate", { detail }));
}
function place(value) {
  const ours = value && same(value.counts, counts), last = counts.length - 1;
  const scales = value && value.scales && value.scales.length === counts.length ? value.scales : counts.map((_, i) => (i === last ? 1 : 0.5));
  cells = ours ? value.cells : counts.flatMap((count, i) => Array.from({ length: count }, () => ({ low: i < last, scale: scales[i] })));
  const stored = Object.values((value && value.stored) || {});
  root.dataset.stored = stored.length;
  ready = Object.fromEntries(stored.map(({ file: { url } }) => [url, ready[url] ?? Object.assign(new Image(), { src: url })]));
  root.toggleAttribute("data-teacher", cells.some((cell) => cell.teacher));
  root.style.setProperty("--ratio", (value && value.ratio) || 1);
  root.style.setProperty("--cells", steps());
  row.replaceChildren(...cells.map(box), ...counts.slice(0, -1).map((_, i) => edge(sum(counts.slice(0, i + 1)))));
  row.setAttribute("aria-valuemax", steps());
  row.setAttribute("aria-valuenow", below());
  const all = `${steps()} step${steps() === 1 ? "" : "s"}`;
  row.setAttribute("aria-valuetext", counts.length > 2 ? `${all} at ${counts.length} sizes: ${counts.join(", ")}` : `${all}, ${below()} at low resolution`);
  const [stepped, sized] = root.querySelectorAll("output");
  stepped.textContent = steps();
  sized.textContent = counts.length;
  root.querySelector('[data-steps="-1"]').disabled = steps() <= Math.max(1, counts.length > 2 ? last : 1);
  root.querySelector('[data-steps="1"]').disabled = steps() >= most();
  root.querySelector('[data-sizes="-1"]').disabled = counts.length <= 2;
  root.querySelector('[data-sizes="1"]').disabled = counts.length >= MOST_SIZES;
  if (ours && held < 0) words.textContent = value.words || "";
}
function edge(at) {
  const line = document.createElement("span");
  line.className = "strip-edge";
  line.style.setProperty("--at", at);
  return line;
}
function box(cell, index) {
  const made = document.createElement("div");
  made.className = "strip-cell";
  made.toggleAttribute("data-low", cell.low);
  made.toggleAttribute("data-seen", index === seen);
  const above = frame("strip-above", cell.teacher), mine = frame("strip-box", cell.student);
  mine.style.setProperty("--scale", cell.scale);
  const level = document.createElement("span");
  level.className = "strip-level";
  level.textContent = cell.logsnr === undefined ? " " : cell.logsnr.toFixed(1);
  made.title = `Step ${index + 1}, ${cell.low ? "low" : "full"} resolution` + (cell.logsnr === undefined ? "" : `, logSNR ${cell.logsnr.toFixed(1)}`);
  made.append(above, mine, level);
  made.addEventListener("pointerenter", (event) => { if (event.pointerType === "mouse" && held < 0) look(index); });
  return made;
}
function frame(name, source) {
  const made = document.createElement("span");
  made.className = name;
  if (source) {
    const picture = document.createElement("img");
    picture.src = source;
    picture.alt = "";
    picture.draggable = false;
    made.append(picture);
  }
  return made;
}
/* An estimate large on the stage; null takes it away. */
function look(index) {
  seen = index;
  for (const [i, cell] of [...row.querySelectorAll(".strip-cell")].entries()) cell.toggleAttribute("data-seen", i === index);
  const cell = index === null ? null : cells[index];
  stage(cell && cell.student ? { student: cell.student, teacher: cell.teacher, rough: true } : null);
}
/* Other counts, where they are possible; the stored picture at once, the rest when the server has answered. */
function move(to, wait = 0) {
  const last = to.length - 1, few = to.length > 2 ? 1 : 0;
  if (same(to, counts) || sum(to) < 1 || sum(to) > most() || to[last] < 0 || to.slice(0, last).some((n) => n < few)) return;
  [counts, seen] = [to, null];
  place(props.value);
  const two = counts.length === 2 && props.value && props.value.stored, known = two && two[`${steps()}/${below()}`];
  stage(known ? { student: known.file.url } : null);
  words.textContent = known ? known.words : "Not run yet: press Generate.";
  tell(wait);
}
/* One report at a time: the next one, with what stands here then, follows the answer to the last. Until then no other
   counts are taken: they are answers to what was before, however slow the way there is. */
function tell(wait) {
  moved = Date.now();
  clearTimeout(told);
  told = setTimeout(report, wait);
}
function report() {
  const left = sent ? sent.at + LONGEST - Date.now() : 0;
  if (left > 0) return void (told = setTimeout(report, left));
  if (!sent && same(truth, counts)) return void (moved = 0); // there and back
  sent = { counts, at: (moved = Date.now()) };
  trigger("select", { counts });
}
function answered(value) {
  if (!truth || !value.passing) truth = value.counts;
  if (value.passing || !moved || !same(value.counts, sent ? sent.counts : counts)) return;
  sent = null;
  if (same(value.counts, counts)) moved = 0;
  else tell(0);
}
/* Steps taken from one size and given to the next, by the number of the line between the two. */
function shifted(line, by) {
  return counts.map((n, i) => (i === line ? n + by : i === line + 1 ? n - by : n));
}
function drag(event, wait) {
  const lined = row.getBoundingClientRect(), to = Math.round((steps() * (event.clientX - lined.left)) / lined.width);
  if (held < 0) { // the nearest line
    const far = counts.slice(0, -1).map((_, i) => Math.abs(sum(counts.slice(0, i + 1)) - to));
    held = far.indexOf(Math.min(...far));
  }
  move(shifted(held, to - sum(counts.slice(0, held + 1))), wait);
}
row.addEventListener("pointerdown", (event) => {
  if (event.button || event.pointerType !== "mouse") return;
  row.setPointerCapture(event.pointerId);
  drag(event, 120);
});
row.addEventListener("pointermove", (event) => { if (held >= 0) drag(event, 120); });
row.addEventListener("pointerup", (event) => {
  if (event.pointerType !== "mouse") drag(event); // a finger that moved was scrolling, which cancels
  held = -1;
});
row.addEventListener("pointercancel", () => { held = -1; });
row.addEventListener("pointerleave", () => { if (seen !== null) look(null); });
row.addEventListener("blur", () => { if (seen !== null) look(null); });
function stepped(by) { move(counts.map((n, i) => (i === counts.length - 1 ? n + by : n))); }
/* One step fewer takes a low one where there is no other. */
function fewer() { if (counts[counts.length - 1] > 0) stepped(-1); else move(counts.map((n, i) => (i === counts.length - 2 ? n - 1 : n))); }
row.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const line = counts.length - 2;
  if (event.key === "ArrowRight") move(shifted(line, 1));
  else if (event.key === "ArrowLeft") move(shifted(line, -1));
  else if (["+", "=", "PageUp"].includes(event.key)) stepped(1);
  else if (["-", "PageDown"].includes(event.key)) fewer();
  else if (event.key === "Home") move(shifted(line, (counts.length > 2 ? 1 : 0) - counts[line]));
  else if (event.key === "End") move(shifted(line, counts[line + 1]));
  else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    const by = event.key === "ArrowDown" ? 1 : -1;
    look(seen === null ? (by > 0 ? 0 : cells.length - 1) : (seen + by + cells.length) % cells.length);
  } else if (event.key === "Escape" && seen !== null) look(null);
  else return;
  event.preventDefault();
  event.stopPropagation();
});
for (const button of root.querySelectorAll("[data-steps]"))
  button.addEventListener("click", () => (button.dataset.steps > 0 ? stepped(1) : fewer()));
for (const button of root.querySelectorAll("[data-sizes]"))
  button.addEventListener("click", () => { moved = 0; trigger("select", { sizes: counts.length + Number(button.dataset.sizes) }); });

/* The address follows the settings, and every other result is a step that Back takes again. The settings of a result
   are kept beside its step: its address follows what was chosen after it. After a step back or forward the address
   stands until that step's answer is here: what comes before is about the steps that were passed by. */
const LONGEST_BACK = 10_000; // milliseconds; an answer may be lost
let shown = null, gone = null;
function note(value) {
  if (value.query === undefined) {
    if (shown === null && value.shown) history.replaceState({ shown: (shown = value.shown), query: location.search }, "");
    return;
  }
  const query = value.query && `?${value.query}`, known = value.shown || "";
  const answer = gone && (known ? known === gone.shown : query === gone.query);
  if (gone && !answer && Date.now() - gone.since < LONGEST_BACK) return;
  const another = !answer && shown !== null && known && known !== shown;
  shown = known || shown;
  const state = { shown, query: known ? query : history.state?.query };
  history[another ? "pushState" : "replaceState"](state, "", location.pathname + query);
  gone = null;
}
window.addEventListener("popstate", ({ state }) => {
  gone = { shown: state?.shown || "", query: state?.query ?? location.search, since: Date.now() };
  ask();
});
/* One question at a time: what two answers change at once may be mixed. */
const ANSWERED = 3000; // milliseconds; what is forgotten here is not answered by a value of this
let under = null, asking = 0;
function ask() {
  clearTimeout(asking);
  if (!gone || Date.now() - gone.since > LONGEST_BACK) return;
  const rest = under ? under.at + ANSWERED - Date.now() : 0;
  if (rest <= 0) {
    under = { shown: gone.shown, at: Date.now() };
    trigger("submit", { shown: gone.shown, query: gone.query });
  }
  asking = setTimeout(ask, rest > 0 ? rest : ANSWERED);
}
function heard(value) {
  if (!under || value.shown !== under.shown) return;
  const other = gone && gone.shown !== under.shown;
  under = null;
  if (!other) return;
  clearTimeout(asking);
  asking = setTimeout(ask, 50);
}

/* One more switch whenever nothing else is to do, as long as there are any and the page is looked at; asked again where
   somebody else was drawing, but not for ever. */
const FRUITLESS = 20;
let resting = 0, there = -1, tries = 0;
function rest(wait) {
  clearTimeout(resting);
  if (!props.value?.idle) return;
  const now = Object.keys(props.value.stored).length;
  if (now !== there) [there, tries] = [now, 0];
  resting = setTimeout(() => {
    const free = !document.hidden && held < 0 && !document.querySelector("#stop:not([disabled])");
    if (free && tries++ < FRUITLESS) trigger("input");
    if (tries < FRUITLESS) rest(5000);
  }, wait);
}

function update() {
  const value = props.value;
  const begun = truth !== null;
  if (value) { answered(value); heard(value); }
  if (!value || held >= 0) return;
  if (begun && !same(value.counts, counts)) {
    const left = moved + LONGEST - Date.now();
    clearTimeout(late);
    if (left > 0) return void (late = setTimeout(update, left));
    if (value.passing) return; // what follows from the controls is on its way
    [moved, sent] = [0, null];
  }
  const stage = document.querySelector("#compare .cmp");
  stage?.toggleAttribute("data-stale", Boolean(value.stale));
  stage?.toggleAttribute("data-stale-teacher", Boolean(value.stale_teacher));
  note(value);
  counts = value.counts;
  place(value);
  rest(400);
}
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) document.querySelector("#generate:not([disabled])")?.click();
});

watch("value", update);
update();
