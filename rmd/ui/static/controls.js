// What Gradio's own controls leave open (6.31), mended for all of them at once.

// A slider's number box keeps to itself what no request may have (12 of 8 steps, 2.5, nothing) while it is typed; when
// it is left, the nearest that may be had stands in it. Gradio checks a box only then, and sends every key before.
(() => {
  const last = new WeakMap(); // what a box held when it was last right
  const boxOf = ({ target }) => (target.matches?.('input[type=number][min][max]') ? target : null);
  const right = ({ value, step, validity: v }) =>
    value !== '' && !v.rangeUnderflow && !v.rangeOverflow && !(step === '1' && v.stepMismatch);
  const nearest = ({ value, min, max, step }) => {
    const typed = step === '1' ? Math.round(Number(value)) : Number(value);
    return String(Math.min(Number(max), Math.max(Number(min), typed)));
  };
  const listen = (name, listener) => window.addEventListener(name, listener, true);
  listen('focusin', (event) => {
    const box = boxOf(event);
    if (box && right(box)) last.set(box, box.value);
  });
  listen('input', (event) => {
    const box = boxOf(event);
    if (box && right(box)) last.set(box, box.value);
    else if (box) event.stopImmediatePropagation();
  });
  listen('change', (event) => {
    const box = boxOf(event);
    if (!box || right(box)) return;
    box.value = box.value === '' ? (last.get(box) ?? box.min) : nearest(box);
    box.dispatchEvent(new Event('input', { bubbles: true }));
  });
  // A list opens again on any key that it does not know, the Tab that leaves it included.
  listen('keydown', (event) => {
    if (event.key === 'Tab' && event.target.matches?.('[role=combobox]')) event.stopImmediatePropagation();
  });
})();
