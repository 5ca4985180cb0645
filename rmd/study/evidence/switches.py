"""Rules for where to switch, beside what a study measured: what each says of every number of steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rmd.backbones.outline import Outline
from rmd.method.plan import activated_switch, recommended_switch
from rmd.study.evidence.advice import best_of, distances

DELTAS = (0.01, 0.05, 0.1)
"""SPEED's: its careful, its usual and its authors' fastest value without a visible loss."""


def switches(report: dict[str, Any], outline: Outline) -> list[dict[str, Any]]:
    """By number of steps: the low-resolution steps that each rule takes, and the measured ones where two or more were.

    report: with `detail` and `edge_power` of the teacher's latents and its rows' `made_by`.
    """
    reference = report["rows"].get(str(report["reference"]), {}).get("made_by")
    if reference is None or outline.card is None:
        return []
    numbers = sorted({row["made_by"]["steps"] for row in report["rows"].values() if "steps" in row.get("made_by", {})})
    size, schedule = outline.latent_size(outline.spec.high), outline.schedule
    found: list[dict[str, Any]] = []
    for steps in numbers:
        near = distances(report, steps, reference["weights"])
        if len(near) > 1:
            speed = {
                str(delta): activated_switch(schedule, steps, report["edge_power"], size, delta) for delta in DELTAS
            }
            ours = recommended_switch(schedule, steps, report["detail"], size)
            best = best_of(near, steps, report["count"]).switch
            found.append({"steps": steps, "tried": sorted(near), "measured": best, "detail": ours, "speed": speed})
    return found


def table(report: Mapping[str, Any]) -> list[str]:
    """The same in Markdown lines."""
    rows = report.get("switches", [])
    if not rows:
        return []
    heads = ["steps", "measured best", "of", "lost detail", *(f"SPEED, δ = {delta}" for delta in rows[0]["speed"])]
    lines = [f"| {' | '.join(heads)} |", f"|{'---:|' * len(heads)}"]
    for row in rows:
        tried = ", ".join(map(str, row["tried"]))
        cells = [row["steps"], row["measured"], tried, row["detail"], *row["speed"].values()]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    words = (
        "Low-resolution steps by number of steps. *Measured best*: the most whose FD to the teacher lies within the "
        "nearest plan's interval. *Lost detail*: the most after which the noise still covers what the low size cannot "
        f"hold, {report['detail']:.2g}. *SPEED* (arXiv 2605.18736): those before its rule asks for the full size, by "
        f"the power of the low size's highest frequency, {report['edge_power']:.2g}."
    )
    return ["", words, "", *lines, ""]
