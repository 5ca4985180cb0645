/* The compare view. `value` is {student, teacher, ratio, busy}, each side {name, src, preview, sub, wait, done, total,
   kinds, clip}: the left and the right picture, called Student and Teacher unless a name says otherwise. A side whose
   file is a clip has clip = {frames, fps}; both clips are moved by one clock, so the same frame is always shown. */
const root = element.querySelector(".cmp");
const view = root.querySelector(".cmp-view");
const frames = [...root.querySelectorAll(".cmp-frame")];
const handle = root.querySelector(".cmp-handle");
const play = root.querySelector(".cmp-play");
const modes = [...root.querySelectorAll("[data-set]")];
const videos = [...root.querySelectorAll(".cmp-frame video")];
const roll = root.querySelector(".cmp-roll"), scrub = root.querySelector(".cmp-scrub");
const narrow = matchMedia("(max-width: 760px)").matches;
const HINTS = {
  side: "Zoom with + and −, then drag or use the arrow keys: both pictures move together.",
  slider: "Drag the line, or move it with the arrow keys.",
  flicker: "Tap the picture or press the space bar to flip it by hand.",
  difference: "Black where both agree; what differs is shown four times as strong.",
};
const names = { student: "Student", teacher: "Teacher" };
let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
let clip = null, frame = 0, rolling = playing, looping = false, due = 0;
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
  root.querySelector(".cmp-hint span").textContent = HINTS[now];
  root.dataset.shown = "student";
  run(playing);
}
function run(on) {
  playing = on;
  clearInterval(timer);
  if (playing && root.dataset.mode === "flicker") timer = setInterval(turn, 600);
  play.textContent = playing ? "Pause" : "Play";
  label();
}
function label() { root.querySelector(".cmp-now").textContent = names[root.dataset.shown]; }
function turn() { root.dataset.shown = root.dataset.shown === "teacher" ? "student" : "teacher"; label(); }
function flip() { run(false); turn(); }
function choose(name) { mode = name; remember(name); show(); }

/* Clips: both are moved to one frame, and the next one is due when both show it. */
function go(to) {
  frame = (to + clip.frames) % clip.frames;
  for (const video of videos) if (video.src) video.currentTime = (frame + 0.5) / clip.fps;
  scrub.value = frame;
  root.querySelector(".cmp-clip output").textContent = `${frame + 1} / ${clip.frames}`;
}
function tick(now) {
  looping = Boolean(clip) && rolling;
  if (!looping) return;
  if (now >= due && videos.every((video) => !video.src || (video.readyState >= 2 && !video.seeking))) {
    go(frame + 1);
    due = Math.max(due + 1000 / clip.fps, now);
  }
  requestAnimationFrame(tick);
}
function play_clip(on) {
  rolling = on;
  roll.textContent = on ? "Pause" : "Play";
  if (on && clip && !looping) { looping = true; requestAnimationFrame(tick); }
}
function step_clip(by) { play_clip(false); go(frame + by); }
function clips(sides) {
  const found = sides.map((data) => data && data.file && data.clip).filter(Boolean);
  root.toggleAttribute("data-clip", found.length > 0);
  clip = found.length ? { frames: Math.min(...found.map((c) => c.frames)), fps: found[0].fps } : null;
  if (!clip) return;
  scrub.max = clip.frames - 1;
  go(Math.min(frame, clip.frames - 1));
  play_clip(rolling);
}

/* The frame that both clips show, side by side as a PNG file. */
function shoot() {
  const shown = videos.filter((video) => video.src && video.videoWidth);
  if (!shown.length) return;
  const sheet = document.createElement("canvas");
  sheet.width = shown.reduce((sum, video) => sum + video.videoWidth, 0);
  sheet.height = Math.max(...shown.map((video) => video.videoHeight));
  let x = 0;
  for (const video of shown) { sheet.getContext("2d").drawImage(video, x, 0); x += video.videoWidth; }
  const link = document.createElement("a");
  link.href = sheet.toDataURL("image/png");
  link.download = `frame-${frame + 1}-${shown.map((video) => (video.closest(".student") ? names.student : names.teacher)).join("-").toLowerCase()}.png`;
  link.click();
}

/* Full screen, where the browser has it; there the wheel alone zooms. */
const full = root.querySelector(".cmp-full");
const whole = () => document.fullscreenElement === root;
full.hidden = !root.requestFullscreen;
function enlarge() { if (whole()) document.exitFullscreen(); else root.requestFullscreen?.().catch(() => {}); }
document.addEventListener("fullscreenchange", () => { full.setAttribute("aria-pressed", whole()); magnify(1); });

/* On a phone the pictures stay in sight, small, while the settings below them are moved. */
const spot = root.querySelector(".cmp-spot");
new IntersectionObserver(([seen_now]) => {
  const away = narrow && !seen_now.isIntersecting && seen_now.boundingClientRect.bottom < 0 && root.dataset.have !== "none";
  if (away === root.hasAttribute("data-pinned")) return;
  spot.style.height = away ? spot.offsetHeight + "px" : "";
  root.toggleAttribute("data-pinned", away);
  move(0, 0);
}).observe(spot);

function slide(to) {
  at = Math.min(100, Math.max(0, to));
  root.style.setProperty("--at", at + "%");
  handle.setAttribute("aria-valuenow", Math.round(at));
  handle.setAttribute("aria-valuetext", Math.round(at) + " % " + names.student);
}
/* Enlarge; `around` (from the picture's middle, in px) stays where it is. */
function magnify(to, around = [0, 0]) {
  const before = zoom;
  zoom = Math.min(8, Math.max(1, to));
  if (zoom < 1.02) zoom = 1;
  pan = pan.map((v, i) => around[i] - ((around[i] - v) * zoom) / before);
  root.style.setProperty("--zoom", zoom);
  move(0, 0);
  root.toggleAttribute("data-zoomed", zoom > 1);
  root.querySelector(".cmp-zoom output").textContent = Math.round(zoom * 100) + "%";
}
function move(dx, dy) {
  const box = frames[0].getBoundingClientRect();
  const limit = (size) => (size * (zoom - 1)) / 2;
  pan = [[pan[0] + dx, limit(box.width)], [pan[1] + dy, limit(box.height)]].map(([v, l]) => Math.max(-l, Math.min(l, v)));
  root.style.setProperty("--x", pan[0] + "px");
  root.style.setProperty("--y", pan[1] + "px");
}
/* A place on the screen as seen from the middle of the picture it lies on. */
function seen(x, y) {
  const boxes = frames.map((frame) => frame.getBoundingClientRect());
  const box = boxes.find((b) => x >= b.left && x <= b.right && b.width) || boxes[0];
  return [x - (box.left + box.right) / 2, y - (box.top + box.bottom) / 2];
}

function side(role, data) {
  const frame_of = root.querySelector(".cmp-frame." + role), img = frame_of.querySelector("img");
  delete frame_of.dataset.estimate;
  const video = root.querySelector(".cmp-frame." + role + " video");
  const moving = Boolean(data && data.file && data.clip);
  const source = data && !moving && (data.file ? data.file.url : data.src);
  if (!moving) { if (video.src) { video.removeAttribute("src"); video.load(); } }
  else if (video.getAttribute("src") !== data.file.url) { video.src = data.file.url; video.onloadeddata = () => clip && go(frame); }
  names[role] = (data && data.name) || (role === "student" ? "Student" : "Teacher");
  img.alt = names[role] + ": the picture";
  video.setAttribute("aria-label", names[role] + ": the clip");
  if (source) { if (img.getAttribute("src") !== source) img.src = source; } else img.removeAttribute("src");
  img.classList.toggle("preview", Boolean(data && data.preview));
  root.querySelector(".cmp-frame." + role + " .cmp-wait").textContent = (data && data.wait) || "";
  const caption = root.querySelector(".cmp-caption." + role);
  caption.querySelector("b").textContent = names[role];
  caption.querySelector(".sub").textContent = (data && data.sub) || "";
  caption.querySelector(".pips").replaceChildren(...pips(data));
  return Boolean(source) || moving;
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
  clips([value.student, value.teacher]);
  root.dataset.have = student && teacher ? "both" : student ? "student" : "none";
  handle.setAttribute("aria-label", `Dividing line: ${names.student} left, ${names.teacher} right`);
  view.setAttribute("aria-label", `${names.student} and ${names.teacher}`);
  slide(at);
  label();
  if (busy !== Boolean(value.busy)) { busy = Boolean(value.busy); show(); }
}

/* What the strip wants to be seen for a moment: {student, teacher, rough}, addresses of pictures, or null. */
root.addEventListener("estimate", (event) => {
  for (const role of ["student", "teacher"]) {
    const frame = root.querySelector(".cmp-frame." + role), source = event.detail && event.detail[role];
    if (source) { frame.dataset.estimate = event.detail.rough ? "rough" : "crisp"; frame.querySelector(".cmp-estimate").style.backgroundImage = `url("${source}")`; }
    else delete frame.dataset.estimate;
  }
});
for (const button of modes) button.addEventListener("click", () => choose(button.dataset.set));
for (const button of root.querySelectorAll("[data-zoom]"))
  button.addEventListener("click", () => magnify(zoom * (button.dataset.zoom > 0 ? 1.5 : 1 / 1.5)));
play.addEventListener("click", () => run(!playing));
full.addEventListener("click", enlarge);
root.querySelector(".cmp-shot").addEventListener("click", shoot);
roll.addEventListener("click", () => play_clip(!rolling));
scrub.addEventListener("input", () => { play_clip(false); go(Number(scrub.value)); });

root.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const focus = document.activeElement, index = modes.indexOf(focus);
  const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
  const far = { ArrowRight: [-1, 0], ArrowLeft: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
  if (/^[1-4]$/.test(event.key)) choose(modes[event.key - 1].dataset.set);
  else if (event.key === "+" || event.key === "=") magnify(zoom * 1.5);
  else if (event.key === "-") magnify(zoom / 1.5);
  else if (event.key === "0") magnify(1);
  else if (event.key === "f" || event.key === "F") enlarge();
  else if (event.key === " " && root.dataset.mode === "flicker" && focus === view) flip();
  else if (event.key === " " && clip && focus === view) play_clip(!rolling);
  else if (clip && (event.key === "," || event.key === ".")) step_clip(event.key === "." ? 1 : -1);
  else if (focus === handle && step) slide(at + step * (event.shiftKey ? 10 : 2));
  else if (focus === handle && (event.key === "Home" || event.key === "End")) slide(event.key === "Home" ? 0 : 100);
  else if (focus === view && far && zoom > 1) move(40 * far[0], 40 * far[1]);
  else if (index >= 0 && step) {
    const next = modes[(index + step + modes.length) % modes.length];
    choose(next.dataset.set);
    next.focus();
  } else return;
  event.preventDefault();
});

/* One finger or the mouse: the line, or the enlarged picture. Two fingers: enlarge. */
const down = new Map();
let drag = null, spread = 0;
function apart() {
  const [a, b] = [...down.values()];
  return { far: Math.hypot(a.x - b.x, a.y - b.y), at: seen((a.x + b.x) / 2, (a.y + b.y) / 2) };
}
function follow(event) {
  const box = view.getBoundingClientRect();
  slide((100 * (event.clientX - box.left)) / box.width);
}
view.addEventListener("pointerdown", (event) => {
  if (event.button) return;
  down.set(event.pointerId, { x: event.clientX, y: event.clientY });
  drag = null;
  if (down.size === 2) { spread = apart().far; return; }
  const line = root.dataset.mode === "slider" && (zoom === 1 || Boolean(event.target.closest(".cmp-handle")));
  drag = { line, x: event.clientX, y: event.clientY, moved: 0 };
  if (line || zoom > 1) view.setPointerCapture(event.pointerId);
  if (line && event.pointerType === "mouse") follow(event); // a finger may be about to scroll the page
});
view.addEventListener("pointermove", (event) => {
  if (down.has(event.pointerId)) down.set(event.pointerId, { x: event.clientX, y: event.clientY });
  if (down.size === 2) {
    const { far, at: middle } = apart();
    if (spread) magnify((zoom * far) / spread, middle);
    spread = far;
  } else if (drag) {
    const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
    drag = { ...drag, x: event.clientX, y: event.clientY, moved: drag.moved + Math.hypot(dx, dy) };
    if (drag.line) follow(event);
    else if (zoom > 1) move(dx, dy);
  }
});
for (const end of ["pointerup", "pointercancel"])
  view.addEventListener(end, (event) => {
    down.delete(event.pointerId);
    if (drag && end === "pointerup") {
      if (drag.line) follow(event);
      else if (root.dataset.mode === "flicker" && drag.moved < 6) flip();
    }
    drag = null;
  });
view.addEventListener("touchstart", (event) => { if (event.touches.length > 1) event.preventDefault(); }, { passive: false });
view.addEventListener("wheel", (event) => {
  if (!event.ctrlKey && !whole()) return; // plain scrolling belongs to the page
  event.preventDefault();
  magnify(zoom * (event.deltaY < 0 ? 1.2 : 1 / 1.2), seen(event.clientX, event.clientY));
}, { passive: false });

watch("value", update);
update();
show();
