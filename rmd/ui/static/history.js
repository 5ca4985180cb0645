/* The history: opening an entry is reported as `select`; as soon as two to four are marked they are reported as `submit`; what
   another tab of the browser wrote as `input`. */
let marked = [], told = 0;
function show() {
  for (const button of element.querySelectorAll("[data-mark]")) {
    const on = marked.includes(button.dataset.mark);
    button.setAttribute("aria-pressed", on);
    button.textContent = on ? "✓ Compare" : "Compare";
  }
  const words = element.querySelector("[role=status]");
  if (words) words.textContent = marked.length === 1 ? words.dataset.one : words.dataset.none;
}
element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.index !== undefined) return trigger("select", { index: button.dataset.index });
  const mark = button.dataset.mark;
  marked = marked.includes(mark) ? marked.filter((other) => other !== mark) : [...marked, mark].slice(-4);
  show();
  clearTimeout(told);
  if (marked.length > 1) told = setTimeout(() => trigger("submit", { marks: marked }), 150); // not for each of several
});
window.addEventListener("storage", (event) => { if (event.key === "rmd-history") trigger("input"); });
let listed = props.value;
watch("value", () => { // also told when the same list is read once more
  if (props.value !== listed) marked = [];
  listed = props.value;
  show();
});
