"""The browser's history as cards, and two of its entries as a table. It comes from the browser, so all is escaped."""

from __future__ import annotations

from html import escape
from typing import Any

from rmd.request import offered
from rmd.ui import text
from rmd.ui.draw.units import duration, times

ROWS = [(s.name, "Prompt" if s.name == "prompt" else s.label) for s in offered() if s.name != "teacher"]
FIGURES = (
    ("denoiser", "Student, denoiser"), ("end_to_end", "Student, end to end"), ("nfe", "Student, network evaluations"),
    ("teacher_end_to_end", "Teacher, end to end"), ("speedup", "Speed-up, end to end"), ("hardware", "Measured on"),
)  # fmt: skip


def history_html(entries: list[dict[str, Any]]) -> str:
    """Cards, each to open or to mark for a comparison."""
    if not entries:
        return '<p class="note">Nothing yet: your pictures will be listed here.</p>'
    hint = f'<p class="note" role="status" data-none="{text.MARK_NONE}" data-one="{text.MARK_ONE}">{text.MARK_NONE}</p>'
    return f'{hint}<div class="history">{"".join(card(i, entry) for i, entry in enumerate(entries))}</div>'


def card(index: int, entry: dict[str, Any]) -> str:
    values = (escape(str(entry.get(name, ""))) for name in ("picture", "prompt", "plan", "speedup"))
    picture, prompt, plan, speedup = values
    source = picture if picture.startswith("data:image/webp;base64,") else ""
    return (
        f'<article><button type="button" class="open" data-index="{index}" title="{prompt}">'
        f'<img src="{source}" alt=""><b>{prompt}</b><span>{plan}</span><span>{speedup}</span></button>'
        f'<button type="button" class="mark" data-mark="{index}" aria-pressed="false" '
        f'aria-label="Compare: {prompt}, {plan}">Compare</button></article>'
    )


def pair_table(both: list[dict[str, Any]]) -> str:
    """Settings and figures of two entries, what differs in bold."""
    rows = []
    for group, names in (("request", ROWS), ("figures", FIGURES)):
        groups = [entry.get(group) or {} for entry in both]
        for name, label in names:
            a, b = (in_cell(name, values.get(name)) for values in groups)
            differs = ' class="differs"' if a != b else ""
            rows.append(f'<tr{differs}><th scope="row">{escape(label)}</th><td>{a}</td><td>{b}</td></tr>')
    heads = "".join(f'<th scope="col">Picture {mark}</th>' for mark in "AB")
    return (
        f'<div class="scroll"><table class="pair"><thead><tr><td></td>{heads}</tr></thead>'
        f'<tbody>{"".join(rows)}</tbody></table></div><p class="note">{text.DIFFERS}</p>'
    )


def in_cell(name: str, value: Any) -> str:
    """A setting or figure as table text; a dash for what an entry does not have."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is None or value == "":
        return "–"
    if number and name in ("denoiser", "end_to_end", "teacher_end_to_end"):
        return duration(value)
    if number and name == "speedup":
        return times(value)
    return escape(f"{value:g}" if isinstance(value, float) else str(value))
