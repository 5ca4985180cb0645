"""The strip under the comparison: the plan as cells one can drag, with the film of the result that is on the stage."""

from __future__ import annotations

import math
from typing import Any

import gradio as gr

from rmd.backbones.outline import Outline
from rmd.backbones.sizes import on_grid
from rmd.checks import size_of, size_text, stages_of, whole
from rmd.engine.events import LEAST
from rmd.engine.film import nearest, read_film
from rmd.method.plan import MAX_STEPS, CascadePlan, ratio
from rmd.serve.runner import Runner, Saved, file_of
from rmd.ui import text
from rmd.ui.beside import Others
from rmd.ui.draw.units import count, duration
from rmd.ui.style import static

MOST_SIZES = 4
Frames = dict[str, list[dict[str, Any]]]
"""A film's frames by role."""


def strip(value: dict[str, Any] | None) -> gr.HTML:
    """The component; its value is made by `strip_value`, see static/strip.js."""
    return gr.HTML(
        value=value or {"counts": [0, 1], "scales": [0.5, 1], "cells": [{"low": False, "scale": 1}]},
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
    outline: Outline,
    plan: CascadePlan,
    film: Frames | None = None,
    others: Others | None = None,
    stale: bool = False,
    stale_teacher: bool = False,
) -> dict[str, Any]:
    """The plan of the controls with the film of its result, where the stage shows one of this plan.

    others: what can be shown at once. stale: whether the stage shows a result of other settings;
    stale_teacher: whether its teacher is of others, too.
    """
    film = film or {"student": [], "teacher": []}
    cells = cells_of(outline, plan)
    for index, cell in enumerate(cells):
        if index < len(film["student"]):
            cell["student"] = film["student"][index]["src"]
            if film["teacher"]:
                cell["teacher"] = film["teacher"][nearest(film["teacher"], cell["logsnr"])]["src"]
    return {
        **sizes_of(plan),
        "most": MAX_STEPS,
        "cells": cells,
        "ratio": plan.size[-1] / plan.size[-2],
        "words": text.NOT_RUN if stale else words_of(film),
        "stale": stale,
        "stale_teacher": stale_teacher,
        "stored": {
            f"{steps}/{switch}": {"file": file_of(one.files["student"]), "words": stored_words(one)}
            for (steps, switch), one in (others or {}).items()
        },
    }


def moved(runner: Runner, settings: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    """What the strip's report makes of the settings: steps, switch and plan.

    said: {counts} or {sizes}, from a browser; RequestError, LookupError, TypeError or ValueError for what does not fit.
    """
    settings = {**settings, "prompt": "any", "switch": min(settings["switch"], settings["steps"])}
    checked = runner.request(settings)
    outline = runner.offer.outline(checked.backbone, checked.student)
    now = stages_of(checked.plan) if checked.plan else []
    sizes = [size for size, _ in now] or [size_of(str(checked.low)), size_of(str(checked.size))]
    counts = [steps for _, steps in now] or [checked.switch, checked.steps - checked.switch]
    if "sizes" in said:
        sizes = spread_sizes(outline, sizes[0], sizes[-1], whole("sizes", said["sizes"], 2, MOST_SIZES))
        counts = spread_counts(counts, len(sizes))
    else:
        counts = [whole("counts", one, 0, MAX_STEPS) for one in said["counts"]]
    if len(counts) != len(sizes) or not 1 <= sum(counts) <= MAX_STEPS:
        raise ValueError(f"{counts} steps at {len(sizes)} sizes")
    return moved_plan(outline, sizes, counts)


def sizes_of(plan: CascadePlan) -> dict[str, Any]:
    """Steps at every size and each size's side over the result's; a plan at one size has a low one without steps."""
    counts = [len(stage.times) for stage in plan.stages]
    scales = [round(1 / ratio(stage.size, plan.size), 4) for stage in plan.stages]
    return (
        {"counts": [0, *counts], "scales": [0.5, *scales]} if len(counts) == 1 else {"counts": counts, "scales": scales}
    )


def moved_plan(outline: Outline, sizes: list[tuple[int, int]], counts: list[int]) -> dict[str, Any]:
    """Settings for steps at every one of the sizes (height, width), smallest first.

    Raises RequestError for counts that no plan can have.
    """
    if len(sizes) == 2:
        return {"steps": sum(counts), "switch": counts[0], "plan": ""}
    plan = ",".join(f"{size_text(size)}:{steps}" for size, steps in zip(sizes, counts, strict=True))
    checked = outline.request({"prompt": "any", "plan": plan})
    return {"steps": checked.steps, "switch": checked.switch, "plan": checked.plan}


def spread_sizes(outline: Outline, low: tuple[int, int], high: tuple[int, int], wanted: int) -> list[tuple[int, int]]:
    """So many sizes from low to high, growing by about one factor each; fewer where the grid has no more."""
    found: list[tuple[int, int]] = []
    for i in range(wanted):
        share = i / (wanted - 1)
        sides = [a * (b / a) ** share for a, b in zip(low, high, strict=True)]
        size = on_grid(outline.grid, *sides)
        if not found or all(a < b for a, b in zip(found[-1], size, strict=True)):
            found.append(size)
    return found


def spread_counts(counts: list[int], wanted: int) -> list[int]:
    """The steps of some sizes over another number of them: those below the last as even as can be, each at least one
    where there are more than two."""
    steps, last = sum(counts), counts[-1]
    if wanted == 2:
        return [steps - last, last]
    lower = max(steps - last, wanted - 1)
    base, more = divmod(lower, wanted - 1)
    return [base + (i < more) for i in range(wanted - 1)] + [max(0, min(last, MAX_STEPS - lower))]


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
    return f"{count(plan.steps)}, {plan.switch} at low resolution: {taken}{', stored' * saved.stored}."
