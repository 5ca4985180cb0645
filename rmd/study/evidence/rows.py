"""The rows of a study: what is sampled, from which weights, and what it is called."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rmd.backbones.outline import Outline
from rmd.request import NO_STUDENT

REAL, AGAIN, ROUND_TRIP = "real", "real, drawn again", "real, through the autoencoder"
TEACHER = "teacher"


@dataclass(frozen=True)
class Row:
    """One line of the table. changes: of the usual request. role: whose result is looked at; "data" is no model's."""

    name: str
    role: str = "student"
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def slug(self) -> str:
        """A folder's name."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")


SWITCHES: dict[str, dict[str, Any]] = {
    "band": {"reinjection": "band"},
    "band, dct": {"reinjection": "band", "upsampler": "dct"},
    "block": {"reinjection": "block"},
    "mix": {"reinjection": "mix"},
    "fresh": {"reinjection": "fresh"},
    "selflift": {"reinjection": "fresh", "mapping": "none", "upsampler": "selflift"},
    "band, no map": {"reinjection": "band", "mapping": "none"},
}
"""Ways to go from the low to the full size, in one loop: ours; SPEED's (arXiv 2605.18736); pyramidal flows' and that of
Helios; RMD's as published; SwD's and diffusers' FlowMatchLCM; SelfLift-zero (arXiv 2609.02036); ours without the map
between the noise levels."""


def plan_rows(plans: Sequence[tuple[int, int]], student: str | None, name: str = "student") -> list[Row]:
    """The student at steps/switch, or with NO_STUDENT the teacher's own weights with guidance."""
    name = "not distilled" if student == NO_STUDENT else name
    return [
        Row(f"{name}, {s}+{k - s}", changes={"student": student, "steps": k, "switch": s, "plan": None})
        for k, s in plans
    ]


def usual_rows(outline: Outline) -> list[Row]:
    """The teacher, and its own weights with guidance in the default cascade: what there is without a distillation."""
    plan = {"steps": outline.defaults()["steps"], "switch": outline.defaults()["switch"], "plan": None}
    return [
        Row(TEACHER, "teacher", {"student": NO_STUDENT}),
        Row(f"not distilled, {split(plan)}", changes={"student": NO_STUDENT, **plan}),
    ]


def method_rows(outline: Outline, student: str | None) -> list[Row]:
    """Every way to switch at the default number of steps, on the teacher's weights (with guidance) and the student's.

    The teacher's weights keep all predicted noise (η = 1, deterministic, as their solver does); the student has the η
    of its card. "enlarged" takes all steps at the low size and enlarges the result; "full size" takes none there.
    """
    steps, switch = outline.defaults()["steps"], outline.defaults()["switch"]
    rows: list[Row] = []
    for name, own in (("not distilled", {"student": NO_STUDENT, "eta": 1.0}), ("student", {"student": student})):
        usual: dict[str, Any] = {**own, "steps": steps, "plan": None}
        if name == "student" and outline.card is None:
            continue
        cases = {kind: {"switch": switch, **changes} for kind, changes in SWITCHES.items()}
        cases |= {"full size": {"switch": 0}, "enlarged": {"switch": steps}}
        for kind, changes in cases.items():
            values = {**usual, **changes}
            rows.append(Row(f"{name}, {split(values)} {kind}", changes=values))
        if name == "not distilled":
            plain = {**usual, "switch": switch, "reinjection": "band", "guidance": 1.0}
            rows.append(Row(f"{name}, {split(plain)} band, no guidance", changes=plain))
    return rows


def split(values: dict[str, Any]) -> str:
    """Low + high steps."""
    return f"{values['switch']}+{values['steps'] - values['switch']}"
