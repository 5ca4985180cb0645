"""What a small model knows: prompts to click, and a word where a prompt leaves that."""

from __future__ import annotations

from html import escape

from rmd.backbones.cards import BackboneSpec, unknown_words, with_article


def chips_html(spec: BackboneSpec | None) -> str:
    """Whole prompts to click, and under a fold everything the model knows."""
    if spec is None or not spec.known_words:
        return ""
    words, colours = spec.known_words, spec.colours or ("white",)
    every = spec.prompts or tuple(
        f"{with_article(w)} on {with_article(colours[i % len(colours)])} background" for i, w in enumerate(words)
    )
    count = min(6, len(every))
    first = [every[i * len(every) // count] for i in range(count)]
    known = f"{', '.join(words)}; " if spec.prompts else ""
    more = f"; also {', '.join(spec.attributes)}" if spec.attributes else ""
    return (
        f'<div class="chips">{"".join(map(chip, first))}</div>'
        f'<details class="chips-more"><summary>All {len(words)} things this model knows</summary>'
        f'<div class="chips">{"".join(map(chip, every))}</div>'
        f'<p class="note">{escape(known)}on a background in {escape(", ".join(colours))}{escape(more)}</p></details>'
    )


def chip(prompt: str) -> str:
    label = prompt.split(" on ")[0]
    return f'<button type="button" data-text="{escape(prompt)}" title="{escape(prompt)}">{escape(label)}</button>'


def words_note(spec: BackboneSpec | None, prompt: str) -> str:
    """A gentle warning about words the small model never saw."""
    strange = unknown_words(spec, prompt) if spec else []
    if not strange:
        return ""
    names = ", ".join(f"“{escape(word)}”" for word in strange[:4]) + (" …" if len(strange) > 4 else "")
    return f'<div class="note warn">This small model never saw {names}; it will draw something it knows instead.</div>'
