"""What a backbone's folder tells without loading its weights: enough to fill in controls and to draw plans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diffusers import EulerDiscreteScheduler

from rmd.backbones.catalog import Entry, student_folder
from rmd.backbones.loading import pipeline_class, read_json, read_spec, read_student
from rmd.config import BackboneSpec, StudentSpec
from rmd.schedule import NoiseSchedule, VPSchedule


@dataclass(frozen=True)
class Outline:
    """A backbone as its cards and configurations describe it. cell: pixels per latent cell."""

    entry: Entry
    spec: BackboneSpec
    card: StudentSpec | None
    schedule: NoiseSchedule
    cell: int

    def latent_size(self, pixels: tuple[int, int]) -> tuple[int, ...]:
        return pixels[0] // self.cell, pixels[1] // self.cell

    def defaults(self) -> dict[str, Any]:
        """The settings to begin with: the student's where there is one, else the backbone's."""
        best = self.card or self.spec
        values: dict[str, Any] = {
            "steps": best.default_steps,
            "switch": min(best.default_switch, best.default_steps),
            "teacher_steps": self.spec.teacher_steps,
            "guidance": self.spec.guidance,
        }
        return values | ({"eta": self.card.eta, "reinjection": self.card.reinjection} if self.card else {})

    def fill(self, values: dict[str, Any]) -> dict[str, Any]:
        """`values` with what is missing or None taken from the defaults; a switch that is not given fits the steps."""
        given = {k: v for k, v in values.items() if v is not None}
        filled = self.defaults() | given
        if "switch" not in given and isinstance(filled["steps"], int):
            filled["switch"] = min(filled["switch"], filled["steps"])
        return filled


def read_outline(entry: Entry, student: str | None = None) -> Outline:
    """Read an entry's cards and configurations; `student` as in `GenerateRequest`.

    Raises RequestError when they are missing or damaged.
    """
    pipeline_class(entry.folder)
    spec, _ = read_spec(entry.folder, entry.id)
    scheduler: Any = EulerDiscreteScheduler.from_config(read_json(entry.folder / "scheduler" / "scheduler_config.json"))
    blocks = read_json(entry.folder / "vae" / "config.json").get("block_out_channels", [0] * 4)
    folder = student_folder(entry, student)
    card = read_student(folder) if folder else None
    return Outline(entry, spec, card, VPSchedule(scheduler.alphas_cumprod), 2 ** (len(blocks) - 1))
