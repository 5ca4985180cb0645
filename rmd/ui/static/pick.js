/* Buttons inside the HTML: a click is reported as `select` with the button's data attributes. */
element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button && Object.keys(button.dataset).length) trigger("select", { ...button.dataset });
});
