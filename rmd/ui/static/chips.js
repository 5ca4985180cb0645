/* Prompt suggestions: a click puts the chip's text into the prompt. */
element.addEventListener("click", (event) => {
  const chip = event.target.closest("button[data-text]");
  if (chip) trigger("select", { text: chip.dataset.text });
});
