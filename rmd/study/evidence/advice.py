"""Where to switch, by measurement: what a stored study says of the weights that are here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from rmd.backbones.outline import Outline
from rmd.study.evidence.samples import made_with

FOLDER = Path(__file__).resolve().parents[3] / "assets" / "evidence"
"""ID.json of `evaluate --methods` and ID-plans.json of `evaluate --plans all` for the bundled models."""
SAME = ("reinjection", "eta", "mapping", "upsampler", "weights")
"""What plans have in common that are compared by their switch."""


@dataclass(frozen=True)
class Measured:
    """The measured best switch of a number of steps, and why in words."""

    switch: int
    words: str


def measured_switch(outline: Outline, steps: int, folder: Path = FOLDER) -> Measured | None:
    """The most low-resolution steps that are as near to the teacher as the nearest plan: within its interval.

    None where the backbone's own student was not measured at two switches of so many steps, or with other weights.
    """
    if outline.card is None or not outline.card.distilled:
        return None
    weights = made_with(outline.entry.folder, outline.entry.student)
    name = Path(outline.entry.id).name
    for path in (folder / f"{name}.json", folder / f"{name}-plans.json"):
        report = report_of(path)
        found = distances(report, steps, weights) if report else {}
        if report and len(found) > 1:
            return best_of(found, steps, report["count"])
    return None


def distances(report: dict[str, Any], steps: int, weights: str) -> dict[int, dict[str, float]]:
    """By switch, the distance to the teacher of the student's plans of so many steps, otherwise like the usual one."""
    rows: dict[str, Any] = report["rows"]
    usual = rows.get(str(report["reference"]), {}).get("made_by")
    if usual is None or usual["weights"] != weights:
        return {}
    return {
        made["switch"]: row["fd_teacher"]
        for row in rows.values()
        if (made := row.get("made_by")) and made.get("steps") == steps and "fd_teacher" in row
        and all(made.get(name) == usual[name] for name in SAME)
    }  # fmt: skip


def best_of(found: dict[int, dict[str, float]], steps: int, count: int) -> Measured:
    """found: as of `distances`. count: pictures of each."""
    nearest = min(found.values(), key=lambda one: one["value"])
    best = max(switch for switch, one in found.items() if one["value"] <= nearest["high"])
    beyond = f"; with {best + 1} it is {found[best + 1]['value']:.0f}" if best + 1 in found else ""
    reach = nearest["high"] - nearest["value"]
    near, of = f"{nearest['value']:.0f} ± {reach:.0f}", f"{steps} step{'s' * (steps > 1)}"
    words = f"Measured on {count} pictures: its distance to the teacher (FD {found[best]['value']:.0f}) is that"
    return Measured(best, f"{words} of the nearest plan of {of} ({near}){beyond}.")


@lru_cache(maxsize=16)
def report_of(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
