"""Two entries of this browser's history side by side: pictures, settings and times."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from rmd.checks import RequestError
from rmd.engine.results import Result
from rmd.request import offered
from rmd.serve.runner import Runner, file_of
from rmd.ui import text, views
from rmd.ui.plots import duration

ROWS = [(s.name, "Prompt" if s.name == "prompt" else s.label) for s in offered() if s.name != "teacher"]
FIGURES = (
    ("denoiser", "Student, denoiser"), ("end_to_end", "Student, end to end"), ("nfe", "Student, network evaluations"),
    ("teacher_end_to_end", "Teacher, end to end"), ("speedup", "Speed-up, end to end"), ("hardware", "Measured on"),
)  # fmt: skip


def figures(result: Result) -> dict[str, Any]:
    """What an entry keeps of a result, so that it can be compared when the server has forgotten it."""
    values: dict[str, Any] = {name: getattr(result.student, name) for name in ("denoiser", "end_to_end", "nfe")}
    if result.teacher and result.speedup:
        values |= {"teacher_end_to_end": result.teacher.end_to_end, "speedup": result.speedup["end_to_end"]}
    return {**values, "hardware": result.hardware}


class Pairs:
    """The reactions of the History tab's comparison."""

    def __init__(self, runner: Runner):
        self.runner = runner

    def compared(self, history: list[dict[str, Any]] | None, event: gr.EventData) -> tuple[Any, ...]:
        """Returns (the block that holds them, compare view, table) for the two marked entries."""
        try:
            both = [(history or [])[int(event._data[name])] for name in ("first", "second")]
            sides = [self._side(mark, entry) for mark, entry in zip("AB", both, strict=True)]
            rows = table(both)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise RequestError("These entries can no longer be compared.") from error
        ratio = next((side.pop("ratio") for side in sides if "ratio" in side), 1)
        return gr.update(visible=True), {"student": sides[0], "teacher": sides[1], "ratio": ratio}, rows

    def _side(self, mark: str, entry: dict[str, Any]) -> dict[str, Any]:
        """One picture; the small copy from the browser where the server no longer has it."""
        side = {"name": f"Picture {mark}", "sub": str(entry["plan"])}
        saved = self.runner.find(str(entry.get("id")))
        if saved is not None:
            size = saved.result.plan.size
            file = file_of(saved.files["student"])
            return {**side, "file": file, "ratio": size[-1] / size[-2], **views.clip(saved.result)}
        small = str(entry.get("picture"))
        if small.startswith("data:image/webp;base64,"):
            return {**side, "src": small, "sub": f"{side['sub']}; {text.SMALL_COPY}"}
        return {**side, "wait": text.FORGOTTEN}


def table(both: list[dict[str, Any]]) -> str:
    """Settings and figures of two entries, what differs in bold. They come from the browser, so all is escaped."""
    rows = []
    for group, names in (("request", ROWS), ("figures", FIGURES)):
        parts = [entry.get(group) or {} for entry in both]
        for name, label in names:
            a, b = (words(name, part.get(name)) for part in parts)
            differs = ' class="differs"' if a != b else ""
            rows.append(f'<tr{differs}><th scope="row">{escape(label)}</th><td>{a}</td><td>{b}</td></tr>')
    heads = "".join(f'<th scope="col">Picture {mark}</th>' for mark in "AB")
    return (
        f'<div class="scroll"><table class="pair"><thead><tr><td></td>{heads}</tr></thead>'
        f'<tbody>{"".join(rows)}</tbody></table></div><p class="note">{text.DIFFERS}</p>'
    )


def words(name: str, value: Any) -> str:
    """A setting or figure as table text; a dash for what an entry does not have."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is None or value == "":
        return "–"
    if number and name in ("denoiser", "end_to_end", "teacher_end_to_end"):
        return duration(value)
    if number and name == "speedup":
        return views.times(value)
    return escape(f"{value:g}" if isinstance(value, float) else str(value))
