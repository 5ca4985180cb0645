"""The strip under the comparison: the plan as cells one can drag, with the film of the result that is on the stage."""

from __future__ import annotations

import math
from typing import Any

import gradio as gr

from rmd.backbones.outline import Outline
from rmd.engine.events import LEAST
from rmd.engine.film import nearest, read_film
from rmd.method.plan import MAX_STEPS, CascadePlan, ratio
from rmd.serve.runner import Saved, file_of
from rmd.ui import text
from rmd.ui.draw.units import count, duration
from rmd.ui.style import static

Frames = dict[str, list[dict[str, Any]]]
"""A film's frames by role."""
Others = dict[tuple[int, int], Saved]
"""Stored results that differ from one in steps and switch alone."""


def strip(value: dict[str, Any] | None) -> gr.HTML:
    """The component; its value is made by `strip_value`, see static/strip.js."""
    return gr.HTML(
        value=value or {"steps": 1, "switch": 0, "cells": [{"low": False, "scale": 1}]},
        html_template=static("strip.html"),
        js_on_load=static("strip.js"),
        apply_default_css=False,
        elem_id="strip",
    )


def film_of(saved: Saved) -> Frames:
    """A result's film; its teacher's where that is another result's."""
    film = read_film(saved.files["student"])
    if not film["teacher"] and "teacher" in saved.files:
        teacher = saved.files["teacher"]
        film["teacher"] = read_film(teacher.with_name(teacher.name.replace("teacher", "student")))["teacher"]
    return film


def strip_value(
    outline: Outline, plan: CascadePlan, film: Frames | None = None, others: Others | None = None, stale: bool = False
) -> dict[str, Any]:
    """The plan of the controls with the film of its result, where the stage shows one of this plan.

    others: what can be shown at once. stale: whether the stage shows a result of other settings.
    """
    film = film or {"student": [], "teacher": []}
    cells = cells_of(outline, plan)
    for index, cell in enumerate(cells):
        if index < len(film["student"]):
            cell["student"] = film["student"][index]["src"]
            if film["teacher"]:
                cell["teacher"] = film["teacher"][nearest(film["teacher"], cell["logsnr"])]["src"]
    return {
        "steps": plan.steps,
        "switch": plan.switch,
        "most": MAX_STEPS,
        "cells": cells,
        "sizes": len({stage.size for stage in plan.stages}) > 2,
        "ratio": plan.size[-1] / plan.size[-2],
        "words": text.NOT_RUN if stale else words_of(film),
        "stale": stale,
        "stored": {
            f"{steps}/{switch}": {"file": file_of(one.files["student"]), "words": stored_words(one)}
            for (steps, switch), one in (others or {}).items()
        },
    }


def cells_of(outline: Outline, plan: CascadePlan) -> list[dict[str, Any]]:
    """A cell per step: whether it is below the full size, its side over the full one, its logSNR at the full size."""
    cells: list[dict[str, Any]] = []
    for stage in plan.stages:
        share = ratio(stage.size, plan.size)
        for t in stage.times:
            level = max(LEAST, float(outline.schedule.logsnr(t)) - 2 * math.log(share))
            cells.append({"low": stage.size != plan.size, "scale": round(1 / share, 4), "logsnr": round(level, 2)})
    return cells


def words_of(film: Frames) -> str:
    """What can be done with a film; nothing where there is none."""
    return text.STRIP_SHOWN + text.STRIP_ABOVE * bool(film["teacher"]) if film["student"] else ""


def stored_words(saved: Saved) -> str:
    plan, taken = saved.result.plan, duration(saved.result.student.end_to_end)
    return f"{count(plan.steps)}, {plan.switch} at low resolution: {taken}, stored."
