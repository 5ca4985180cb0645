"""The results of one request for several, as a row of small pictures to choose from."""

from __future__ import annotations

from rmd.engine.files import first_frame
from rmd.serve.runner import Saved
from rmd.ui import parts, text
from rmd.ui.draw.units import duration

THUMBNAIL = 112


def results_html(among: list[Saved], shown: Saved) -> str:
    """A button for each, the one on the stage marked; nothing where there is only one."""
    if len(among) < 2:
        return ""
    buttons = "".join(button(saved, saved.id == shown.id) for saved in among)
    return f'<section class="results" role="group" aria-label="{text.RESULTS}">{buttons}</section>'


def button(saved: Saved, pressed: bool) -> str:
    small = first_frame(saved.files["student"])
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    seed, taken = saved.result.request.seed, duration(saved.result.student.end_to_end)
    return (
        f'<button type="button" data-result="{saved.id}" aria-pressed="{str(pressed).lower()}" '
        f'title="seed {seed}, student {taken}"><img src="{parts.inline(small, "webp")}" alt="">'
        f"<span>seed {seed}</span></button>"
    )
