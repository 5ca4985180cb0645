/* The compare view. `value` is {student, teacher, ratio}, each side {src, preview, sub, wait, done, total, kinds}. */
const root = element.querySelector(".cmp");
const view = root.querySelector(".cmp-view");
const handle = root.querySelector(".cmp-handle");
const modes = [...root.querySelectorAll("[data-set]")];
const narrow = matchMedia("(max-width: 760px)").matches;
const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
let mode = remembered() || (narrow ? "slider" : "side");
let busy = false, at = 50, zoom = 1, pan = [0, 0], timer = 0;

function remembered() { try { return localStorage.getItem("rmd-compare"); } catch { return null; } }
function remember(name) { try { localStorage.setItem("rmd-compare", name); } catch { /* private window */ } }

function show() {
  // While pictures are being made both are shown, whatever is chosen for the finished ones.
  const now = busy && !narrow ? "side" : mode;
  root.dataset.mode = now;
  for (const button of modes) {
    const on = button.dataset.set === mode;
    button.setAttribute("aria-checked", on);
    button.tabIndex = on ? 0 : -1;
  }
  clearInterval(timer);
  root.dataset.shown = "student";
  label();
  if (now === "flicker" && !calm) timer = setInterval(flip, 600);
}
function label() { root.querySelector(".cmp-now").textContent = root.dataset.shown === "teacher" ? "Teacher" : "Student"; }
function flip() { root.dataset.shown = root.dataset.shown === "teacher" ? "student" : "teacher"; label(); }
function choose(name) { mode = name; remember(name); show(); }

function slide(to) {
  at = Math.min(100, Math.max(0, to));
  root.style.setProperty("--at", at + "%");
  handle.setAttribute("aria-valuenow", Math.round(at));
  handle.setAttribute("aria-valuetext", Math.round(at) + " % student");
}
function magnify(to) {
  zoom = Math.min(8, Math.max(1, to));
  if (zoom === 1) pan = [0, 0];
  root.style.setProperty("--zoom", zoom);
  move(0, 0);
  root.toggleAttribute("data-zoomed", zoom > 1);
  root.querySelector(".cmp-zoom output").textContent = Math.round(zoom * 100) + "%";
}
function move(dx, dy) {
  const box = view.querySelector(".cmp-frame").getBoundingClientRect();
  const limit = (size) => (size * (zoom - 1)) / 2;
  pan = [[pan[0] + dx, limit(box.width)], [pan[1] + dy, limit(box.height)]].map(([v, l]) => Math.max(-l, Math.min(l, v)));
  root.style.setProperty("--x", pan[0] + "px");
  root.style.setProperty("--y", pan[1] + "px");
}

function side(role, data) {
  const img = root.querySelector(".cmp-frame." + role + " img");
  const source = data && (data.file ? data.file.url : data.src);
  if (source) { if (img.getAttribute("src") !== source) img.src = source; } else img.removeAttribute("src");
  img.classList.toggle("preview", Boolean(data && data.preview));
  root.querySelector(".cmp-frame." + role + " .cmp-wait").textContent = (data && data.wait) || "";
  const caption = root.querySelector(".cmp-caption." + role);
  caption.querySelector(".sub").textContent = (data && data.sub) || "";
  caption.querySelector(".pips").replaceChildren(...pips(data));
  return Boolean(source);
}
function pips(data) {
  if (!data || !data.total) return [];
  if (!data.kinds) {
    const track = document.createElement("span"), fill = document.createElement("i");
    track.className = "track";
    fill.style.width = (100 * data.done) / data.total + "%";
    track.append(fill);
    return [track];
  }
  return data.kinds.map((kind, i) => {
    const pip = document.createElement("span");
    pip.className = "pip " + kind + (i < data.done ? " done" : "");
    pip.title = kind === "low" ? "step at low resolution" : "step at full resolution";
    return pip;
  });
}
function update() {
  const value = props.value || {};
  root.style.setProperty("--ratio", value.ratio || 1);
  const student = side("student", value.student), teacher = side("teacher", value.teacher);
  root.dataset.have = student && teacher ? "both" : student ? "student" : "none";
  if (busy !== Boolean(value.busy)) { busy = Boolean(value.busy); show(); }
}

for (const button of modes) button.addEventListener("click", () => choose(button.dataset.set));
for (const button of root.querySelectorAll("[data-zoom]"))
  button.addEventListener("click", () => magnify(zoom * (button.dataset.zoom > 0 ? 1.5 : 1 / 1.5)));
root.addEventListener("keydown", (event) => {
  const index = modes.indexOf(document.activeElement);
  const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
  if (/^[1-4]$/.test(event.key)) choose(modes[event.key - 1].dataset.set);
  else if (event.key === "+" || event.key === "=") magnify(zoom * 1.5);
  else if (event.key === "-") magnify(zoom / 1.5);
  else if (event.key === " " && mode === "flicker") flip();
  else if (document.activeElement === handle && step) slide(at + step * (event.shiftKey ? 10 : 2));
  else if (document.activeElement === handle && (event.key === "Home" || event.key === "End")) slide(event.key === "Home" ? 0 : 100);
  else if (index >= 0 && step) {
    const next = modes[(index + step + modes.length) % modes.length];
    choose(next.dataset.set);
    next.focus();
  } else return;
  event.preventDefault();
});

let drag = null;
view.addEventListener("pointerdown", (event) => {
  if (event.button) return;
  const line = root.dataset.mode === "slider" && (zoom === 1 || event.target.closest(".cmp-handle"));
  if (!line && zoom === 1) return;
  drag = { line, x: event.clientX, y: event.clientY };
  view.setPointerCapture(event.pointerId);
  if (line) follow(event);
});
function follow(event) {
  const box = view.getBoundingClientRect();
  slide((100 * (event.clientX - box.left)) / box.width);
}
view.addEventListener("pointermove", (event) => {
  if (!drag) return;
  if (drag.line) return follow(event);
  move(event.clientX - drag.x, event.clientY - drag.y);
  drag.x = event.clientX;
  drag.y = event.clientY;
});
for (const end of ["pointerup", "pointercancel"]) view.addEventListener(end, () => { drag = null; });
view.addEventListener("wheel", (event) => {
  if (!event.ctrlKey) return; // plain scrolling belongs to the page
  event.preventDefault();
  magnify(zoom * (event.deltaY < 0 ? 1.2 : 1 / 1.2));
}, { passive: false });

watch("value", update);
slide(50);
update();
show();
