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
"""ID.json of `evaluate --methods` for the bundled models."""
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
    report = report_of(folder / f"{Path(outline.entry.id).name}.json")
    if outline.card is None or not outline.card.distilled or report is None:
        return None
    rows: dict[str, Any] = report["rows"]
    usual = rows.get(str(report["reference"]), {}).get("made_by")
    if usual is None or usual["weights"] != made_with(outline.entry.folder, outline.entry.student):
        return None
    found = {
        made["switch"]: row["fd_teacher"]
        for row in rows.values()
        if (made := row.get("made_by")) and made.get("steps") == steps and "fd_teacher" in row
        and all(made.get(name) == usual[name] for name in SAME)
    }  # fmt: skip
    if len(found) < 2:
        return None
    nearest = min(found.values(), key=lambda one: one["value"])
    best = max(switch for switch, one in found.items() if one["value"] <= nearest["high"])
    beyond = f"; with {best + 1} it is {found[best + 1]['value']:.0f}" if best + 1 in found else ""
    reach = nearest["high"] - nearest["value"]
    words = (
        f"Measured on {report['count']} pictures: its distance to the teacher (FD {found[best]['value']:.0f}) is that"
    )
    return Measured(
        best, f"{words} of the nearest plan of {steps} steps ({nearest['value']:.0f} ± {reach:.0f}){beyond}."
    )


@lru_cache(maxsize=16)
def report_of(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
