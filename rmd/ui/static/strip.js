/* The strip. `value` is {steps, switch, most, cells, sizes, ratio, words, stale, stored}: a cell per step {low, scale,
   logsnr, student, teacher}, estimates as addresses or null; sizes: whether there are more than two, which the strip
   shows and a drag gives up; stale: whether the stage shows a result of other settings; stored: {"4/2": {file, words}}, pictures that can stand on the stage at once.
   Reports `select` with {steps, switch} when either was moved, and shows what it points at in the compare view. */
const root = element.querySelector(".strip");
const row = root.querySelector(".strip-row");
const words = root.querySelector(".strip-words");
let steps = 1, low = 0, cells = [], seen = null, told = 0, asked = 0, dragging = false;

function stage(detail) {
  document.querySelector("#compare .cmp")?.dispatchEvent(new CustomEvent("estimate", { detail }));
}
function place(value) {
  const ours = value && value.steps === steps && value.switch === low;
  cells = ours ? value.cells : Array.from({ length: steps }, (_, i) => ({ low: i < low, scale: i < low ? 0.5 : 1 }));
  root.toggleAttribute("data-sizes", Boolean(ours && value.sizes));
  root.toggleAttribute("data-teacher", cells.some((cell) => cell.teacher));
  root.style.setProperty("--ratio", (value && value.ratio) || 1);
  root.style.setProperty("--cells", steps);
  root.style.setProperty("--at", low);
  row.replaceChildren(...cells.map(box), edge());
  row.setAttribute("aria-valuemax", steps);
  row.setAttribute("aria-valuenow", low);
  row.setAttribute("aria-valuetext", `${steps} step${steps === 1 ? "" : "s"}, ${low} at low resolution`);
  root.querySelector("output").textContent = steps;
  root.querySelector('[data-more="-1"]').disabled = steps <= 1;
  root.querySelector('[data-more="1"]').disabled = steps >= ((value && value.most) || 8);
  if (ours && !dragging) words.textContent = value.words || "";
}
function edge() {
  const line = document.createElement("span");
  line.className = "strip-edge";
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
  made.addEventListener("pointerenter", (event) => { if (event.pointerType === "mouse" && !dragging) look(index); });
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
  if (!cell || !cell.student) return stage(null);
  stage({ student: cell.student, teacher: cell.teacher, rough: true, words: `after step ${index + 1}` });
}
/* Both numbers where they may be; the stored picture at once, the rest when the server has answered. */
function move(toSteps, toLow, wait = 0) {
  const most = (props.value && props.value.most) || 8;
  toSteps = Math.min(most, Math.max(1, toSteps));
  toLow = Math.min(toSteps, Math.max(0, toLow));
  if (toSteps === steps && toLow === low) return;
  [steps, low, seen] = [toSteps, toLow, null];
  place(props.value);
  const known = props.value && props.value.stored && props.value.stored[`${steps}/${low}`];
  stage(known ? { student: known.file.url, words: known.words } : null);
  words.textContent = known ? known.words : "Not run yet: press Generate.";
  asked = Date.now();
  clearTimeout(told);
  told = setTimeout(() => trigger("select", { steps, switch: low }), wait);
}
function boundary(event) {
  const lined = row.getBoundingClientRect();
  return Math.round((steps * (event.clientX - lined.left)) / lined.width);
}
row.addEventListener("pointerdown", (event) => {
  if (event.button) return;
  dragging = true;
  row.setPointerCapture(event.pointerId);
  if (event.pointerType === "mouse") move(steps, boundary(event), 120);
});
row.addEventListener("pointermove", (event) => { if (dragging) move(steps, boundary(event), 120); });
for (const end of ["pointerup", "pointercancel"])
  row.addEventListener(end, (event) => {
    if (dragging && end === "pointerup" && event.pointerType !== "mouse") move(steps, boundary(event));
    dragging = false;
  });
row.addEventListener("pointerleave", () => { if (seen !== null) look(null); });
row.addEventListener("blur", () => { if (seen !== null) look(null); });
row.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const to = { ArrowRight: [0, 1], ArrowLeft: [0, -1], "+": [1, 0], "=": [1, 0], "-": [-1, 0], PageUp: [1, 0], PageDown: [-1, 0] }[event.key];
  if (to) move(steps + to[0], low + to[1]);
  else if (event.key === "Home") move(steps, 0);
  else if (event.key === "End") move(steps, steps);
  else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    const by = event.key === "ArrowDown" ? 1 : -1;
    look(seen === null ? (by > 0 ? 0 : steps - 1) : (seen + by + steps) % steps);
  } else if (event.key === "Escape" && seen !== null) look(null);
  else return;
  event.preventDefault();
  event.stopPropagation();
});
for (const button of root.querySelectorAll("[data-more]"))
  button.addEventListener("click", () => move(steps + Number(button.dataset.more), low));

function update() {
  if (!props.value || dragging) return;
  // what is on its way when the next move is made is an answer to the one before
  const late = props.value.steps !== steps || props.value.switch !== low;
  if (late && Date.now() - asked < 1500) return void setTimeout(update, 1600);
  document.querySelector("#compare .cmp")?.toggleAttribute("data-stale", Boolean(props.value.stale));
  [steps, low] = [props.value.steps, props.value.switch];
  place(props.value);
}
watch("value", update);
update();
