"""Several results in step, labelled or for a blind vote; the value of the component in static/panes.js."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from rmd.engine.results import Result
from rmd.serve.runner import Saved, file_of
from rmd.ui.draw.units import duration
from rmd.ui.style import static
from rmd.ui.view import clip

Candidate = dict[str, Any]


def panes(name: str) -> gr.HTML:
    """The component; hidden while there are fewer than two pictures."""
    return gr.HTML(
        value={},
        html_template=static("panes.html"),
        js_on_load=static("panes.js"),
        apply_default_css=False,
        elem_id=name,
    )


def candidate(saved: Saved, name: str, role: str = "student") -> Candidate:
    """One of a result's two sides under a name."""
    timings = saved.result.timings.get(role)
    words = duration(timings.end_to_end) if timings else ""
    return {"name": name, "words": words, "file": file_of(saved.files[role]), **clip(saved.result)}


def panes_value(candidates: Sequence[Candidate], result: Result) -> dict[str, Any]:
    """What there is to see, with what a vote's line says of all of it."""
    request, size = result.request, result.plan.size
    shared = {name: getattr(request, name) for name in ("prompt", "seed", "backbone", "student")}
    about = {name: "" if value is None else value for name, value in shared.items()}
    return {"candidates": [*candidates], "about": about, "ratio": size[-1] / size[-2]}
