/* Up to four pictures in step, and a vote among them. `value` is {candidates: [{name, words, file, clip}], about, ratio}:
   what there is to see, what all of it shares as columns of the CSV, and width over height. Nothing is sent anywhere: the
   votes are in this page until it is left, and in the file that it saves. */
const root = element.querySelector(".panes");
const view = root.querySelector(".panes-view"), words = root.querySelector(".panes-words"), tally = root.querySelector(".panes-tally");
const many = root.querySelector("select");
const MOST = 4;
let all = [], about = {}, shown = [], votes = [], zoom = 1, pan = [0, 0], drag = null;

const state = (name) => { root.dataset.state = name; };
function shuffled(list) {
  const mixed = [...list];
  for (let i = mixed.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [mixed[i], mixed[j]] = [mixed[j], mixed[i]];
  }
  return mixed;
}
function pane(one, index, blind) {
  const figure = document.createElement("figure"), frame = document.createElement("button"), caption = document.createElement("figcaption");
  figure.className = "pane";
  frame.type = "button";
  frame.className = "pane-frame";
  const media = document.createElement(one.clip ? "video" : "img");
  media.src = one.file.url;
  if (one.clip) Object.assign(media, { muted: true, loop: true, autoplay: true, playsInline: true }); else media.alt = blind ? "" : one.name;
  media.draggable = false;
  frame.setAttribute("aria-label", blind ? `Picture ${index + 1}` : one.name);
  frame.append(media);
  frame.addEventListener("click", () => { if (root.dataset.state === "blind") vote(index); });
  const title = document.createElement("b");
  title.textContent = blind ? `${index + 1}` : one.name;
  caption.append(title, blind ? "" : ` ${one.words}`);
  figure.append(frame, caption);
  return figure;
}
function draw(list, blind) {
  shown = list;
  view.replaceChildren(...list.map((one, index) => pane(one, index, blind)));
  place(1, [0, 0]);
}
function open() {
  state("open");
  draw(all.slice(0, MOST), false);
  const rest = all.length - shown.length;
  words.textContent = rest > 0 ? `${shown.length} of ${all.length} pictures; a blind vote draws from all of them.` : `${all.length} pictures in step.`;
}
function next() {
  state("blind");
  draw(shuffled(all).slice(0, Math.min(Number(many.value), all.length)), true);
  words.textContent = `Which is the best? Click it, or press 1 to ${shown.length}. ${votes.length} vote${votes.length === 1 ? "" : "s"}.`;
}
function vote(index) {
  if (!shown[index]) return;
  votes.push({ at: new Date().toISOString(), chosen: shown[index].name, shown: shown.map((one) => one.name) });
  root.toggleAttribute("data-voted", true);
  next();
}
function end() {
  state("told");
  const names = [...new Set(votes.flatMap((one) => one.shown))];
  const rows = names.map((name) => {
    const seen = votes.filter((one) => one.shown.includes(name)).length, won = votes.filter((one) => one.chosen === name).length;
    return { name, seen, won };
  }).sort((a, b) => b.won / b.seen - a.won / a.seen);
  draw(rows.slice(0, MOST).map((row) => all.find((one) => one.name === row.name)).filter(Boolean), false);
  words.textContent = votes.length ? `${votes.length} vote${votes.length === 1 ? "" : "s"}; the most chosen first.` : "No votes.";
  if (!votes.length) return open();
  const table = document.createElement("table"), head = table.createTHead().insertRow(), body = table.createTBody();
  for (const title of ["Picture", "Chosen", "Shown", "Share"]) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = title;
    head.append(cell);
  }
  for (const row of rows) {
    const line = body.insertRow();
    for (const text of [row.name, row.won, row.seen, `${Math.round((100 * row.won) / row.seen)}%`]) line.insertCell().textContent = text;
  }
  tally.replaceChildren(table);
}
function save() {
  const quoted = (text) => `"${String(text).replaceAll('"', '""')}"`;
  const columns = ["at", "chosen", "1", "2", "3", "4", ...Object.keys(about)];
  const lines = votes.map((one) => [one.at, one.chosen, ...[0, 1, 2, 3].map((i) => one.shown[i] ?? ""), ...Object.values(about)]);
  const text = [columns, ...lines].map((line) => line.map(quoted).join(",")).join("\r\n") + "\r\n";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = "votes.csv";
  link.click();
  URL.revokeObjectURL(link.href);
}
/* All panes are enlarged and moved as one. */
function place(to, at) {
  zoom = Math.min(8, Math.max(1, to));
  const box = view.querySelector(".pane-frame")?.getBoundingClientRect();
  const limit = box ? [(box.width * (zoom - 1)) / 2, (box.height * (zoom - 1)) / 2] : [0, 0];
  pan = at.map((value, i) => Math.max(-limit[i], Math.min(limit[i], value)));
  root.style.setProperty("--zoom", zoom);
  root.style.setProperty("--x", `${pan[0]}px`);
  root.style.setProperty("--y", `${pan[1]}px`);
  root.toggleAttribute("data-zoomed", zoom > 1);
}
view.addEventListener("wheel", (event) => {
  if (!event.ctrlKey) return;
  event.preventDefault();
  place(zoom * (event.deltaY < 0 ? 1.2 : 1 / 1.2), pan);
}, { passive: false });
view.addEventListener("pointerdown", (event) => { if (zoom > 1 && !event.button) drag = [event.clientX, event.clientY]; });
view.addEventListener("pointermove", (event) => {
  if (!drag) return;
  place(zoom, [pan[0] + event.clientX - drag[0], pan[1] + event.clientY - drag[1]]);
  drag = [event.clientX, event.clientY];
});
for (const name of ["pointerup", "pointercancel", "pointerleave"]) view.addEventListener(name, () => { drag = null; });
root.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target === many) return;
  if (root.dataset.state === "blind" && /^[1-4]$/.test(event.key)) vote(Number(event.key) - 1);
  else if (event.key === "+" || event.key === "=") place(zoom * 1.5, pan);
  else if (event.key === "-") place(zoom / 1.5, pan);
  else if (event.key === "0") place(1, [0, 0]);
  else return;
  event.preventDefault();
});
root.querySelector(".panes-blind").addEventListener("click", () => { tally.replaceChildren(); next(); view.focus(); });
root.querySelector(".panes-skip").addEventListener("click", () => { next(); view.focus(); });
root.querySelector(".panes-end").addEventListener("click", end);
root.querySelector(".panes-save").addEventListener("click", save);

function update() {
  const value = props.value || {};
  const before = all.map((one) => one.name).join();
  all = value.candidates || [];
  about = value.about || {};
  root.style.setProperty("--ratio", value.ratio || 1);
  root.toggleAttribute("data-some", all.length > 1);
  if (root.dataset.state === "blind" && all.map((one) => one.name).join() === before) return; // a vote goes on
  votes = [];
  root.toggleAttribute("data-voted", false);
  tally.replaceChildren();
  open();
}
watch("value", update);
update();
