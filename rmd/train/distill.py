"""RMD: distribution matching along the resolution trajectory (method.md, section 4).

The student rolls out through the very sampler that inference uses, on random plans (K from 1 to 8, any switch, any
eta) or on a fixed one. Chosen steps keep their gradient; their clean estimates, enlarged to full size where the step
ran low, are matched against the teacher's full-size distribution.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rmd.backbones.base import Backbone
from rmd.backbones.loading import open_student
from rmd.checks import RequestError
from rmd.train.distiller import Distiller
from rmd.train.export import export, sheet
from rmd.train.loop import Average, Run, generator_for, set_rate
from rmd.train.roles import Trained
from rmd.train.settings import Settings
from rmd.train.source import Source
from rmd.train.together import Together


class CatchUp:
    """Watches fake_score's loss after it was copied from the student: caught up once it no longer falls."""

    def __init__(self, patience: int):
        self.patience, self.done = patience, False
        self.losses: list[float] = []

    def add(self, loss: float) -> None:
        self.losses.append(loss)
        n = self.patience
        if len(self.losses) >= 2 * n:
            before, now = sum(self.losses[-2 * n : -n]), sum(self.losses[-n:])
            self.done = now > 0.98 * before

    def state_dict(self) -> dict[str, Any]:
        return {"losses": self.losses, "done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.losses, self.done = list(state["losses"]), state["done"]


def train(
    backbone: Backbone,
    source: Source,
    settings: Settings,
    folder: Path,
    start: Path | None = None,
    together: Together | None = None,
) -> Path:
    """Distil a loaded backbone, or go on where the run in `folder` stopped; returns the student's folder, `student`.

    start: a student to begin from instead of the teacher's own weights (whole networks only). together: the processes
    that train it together, each with the backbone on its own device.
    """
    for part in backbone.parts():
        part.requires_grad_(False)
    together = together or Together(backbone.device)
    distiller, caught = Distiller(backbone, settings, together), CatchUp(settings.patience)
    if source.texts is not None:
        distiller.remember(folder / "embeddings", source.texts)
        backbone.release_text_encoders()
    if start is not None:
        distiller.student.begin_at(open_student(start, backbone)[0].network.state_dict())
    average = Average({"student": distiller.student.master}, settings.average)
    student, optimizer = distiller.student.kept(distiller.optimizer)
    fake, fake_optimizer = distiller.fake.kept(distiller.fake_optimizer)
    parts = {"student": student, "fake": fake, "optimizer": optimizer, "fake_optimizer": fake_optimizer}
    parts |= {"average": average, "caught": caught}
    parts |= {"adversary": distiller.adversary} if distiller.adversary is not None else {}
    run = Run(folder, parts, settings.minutes, backbone.device, settings.save_minutes * 60, together)
    for role in (distiller.student, distiller.fake):
        role.spread()
    together.begin_tracking(asdict(settings))
    totals: dict[str, list[Tensor]] = {}
    noise = torch.Generator(backbone.device)
    for step in run.steps(settings.steps, "distill"):
        g = generator_for(settings.seed, step)
        noise.manual_seed(settings.seed * 1_000_003 + step)
        decay = max(0.1, min(1.0, (1 - run.progress) / 0.3, (step + 1) / 50))
        warming = step < settings.warm_up
        set_rate(distiller.optimizer, (settings.warm_up_rate if warming else settings.rate) * decay)
        set_rate(distiller.fake_optimizer, settings.fake_rate * decay)
        source.at(step)
        if warming:
            values = distiller.warm(source, step, g, noise)
        else:
            if step == settings.warm_up:
                distiller.begin_matching()
            values = distiller.iterate(source, caught.done, g, noise)
            if not caught.done:
                caught.add(float(together.mean(values["fake"])))
        updates = 1 if warming else settings.fake_updates + ("matching" in values)
        run.samples += updates * settings.batch * settings.accumulate * together.count
        average.update()
        for name, value in values.items():
            totals.setdefault(name, []).append(value)
        if (step + 1) % 50 == 0 or run.last:
            row = {k: float(together.mean(torch.stack(v).mean())) for k, v in totals.items()}
            run.log(**row)
            watch(row)
            totals = {}
        if (step + 1) % settings.sheet_every == 0:
            swap_in(average, distiller.student)
            sheet(distiller, source, folder / f"sheet-{step + 1:05d}.png")
            swap_in(average, distiller.student)
    swap_in(average, distiller.student)
    sheet(distiller, source, folder / "sheet.png")
    export(distiller, backbone, run, folder / "student", start)
    together.end_tracking()
    together.wait()
    return folder / "student"


def swap_in(average: Average, role: Trained) -> None:
    """A network's average in the place of its weights; called again, back."""
    average.swap()
    role.spread()


def watch(row: dict[str, float]) -> None:
    """Stop a run whose losses are no numbers or ran away; the last saved state stays."""
    bad = [name for name, value in row.items() if not value < 1e3]
    if bad:
        raise RequestError(
            f"The losses {', '.join(bad)} are no longer numbers one can train with ({row}); go on from the last saved "
            "state with a lower rate."
        )
