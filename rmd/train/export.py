"""What a distillation leaves: sheets to look at, and the student's folder with its card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from rmd.backbones.base import Backbone
from rmd.backbones.folders import BACKBONE_CARD, STUDENT_CARD
from rmd.method.cascade import CascadeSampler
from rmd.method.denoiser import Denoiser
from rmd.method.plan import MAX_STEPS, CascadePlan, two_stage
from rmd.train.distiller import Distiller
from rmd.train.loop import Run, generator_for
from rmd.train.roles import Adapter
from rmd.train.rollout import STEP_WEIGHTS
from rmd.train.sheets import save_sheet
from rmd.train.source import Source

SETTINGS_FILE, HISTORY = "settings.json", "training.json"
ETA, REINJECTION = 0.7, "band"  # of a student's default plan, where training draws all of them
PLANS = ((1, 0), (0, 1), (1, 1), (2, 2), (3, 1), (4, 4))  # rows of a sheet: low and high steps


def replace_folder(target: Path, fill: Callable[[Path], None]) -> None:
    """Fill a temporary folder beside `target` and put it in its place, without the paths it was loaded from."""
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        fill(partial)
        for path in partial.rglob("config.json"):  # diffusers notes where each part came from
            config = json.loads(path.read_text())
            config.pop("_name_or_path", None)
            path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_pipeline(pipe: Any, card: dict[str, Any], folder: Path) -> None:
    """A pipeline as a backbone's folder."""

    def fill(partial: Path) -> None:
        pipe.save_pretrained(partial)
        (partial / BACKBONE_CARD).write_text(json.dumps(card, indent=1) + "\n")

    replace_folder(folder, fill)


@torch.no_grad()
def sheet(distiller: Distiller, source: Source, path: Path) -> None:
    """Fixed prompts (columns): the guided teacher in MAX_STEPS full-size steps, then the student by PLANS (rows).

    Eight pictures in a row, or four frames of each of three clips. A run on one plan alone shows that plan, with other
    seeds from row to row. All processes compute, the first writes.
    """
    student, settings = distiller.student_call, distiller.settings
    g = generator_for(settings.seed, 10**6)
    frames = student.spec.frames
    prompts = source.prompts(3 if frames > 1 else 8, g)
    prompt, pictures = distiller.encode(prompts), []
    low_size, size = student.latent_size(student.spec.low), student.latent_size(student.spec.high)

    def draw(denoiser: Denoiser, plan: CascadePlan, seed: int) -> None:
        seeds = generator_for(settings.seed, seed)
        x0 = noise = torch.randn((len(prompts), student.channels, *size), generator=seeds).to(student.device)
        for event in CascadeSampler(student.schedule, plan).steps(denoiser, noise, seeds):
            x0 = event.estimate.x0
        pictures.append(student.pixels(x0))

    whole = two_stage(student.schedule, MAX_STEPS, 0, size, size, eta=1.0, reinjection="mix")
    draw(distiller.guided(prompt, len(prompts)), whole, 10**6 + 1)
    for row, (low, high) in enumerate(PLANS):
        steps = settings.plan_steps or low + high
        switch = min(steps, low) if settings.plan_switch is None else settings.plan_switch
        plan = two_stage(
            student.schedule, steps, switch, low_size, size, eta=ETA if settings.eta is None else settings.eta,
            reinjection=settings.reinjection or REINJECTION,
        )  # fmt: skip
        fixed = settings.plan_steps is not None
        draw(Denoiser(student, prompt), plan, 10**6 + 1 + row * fixed)
    if not distiller.together.first:
        return
    rows = [x if x.ndim == 4 else x[:, :, :: max(1, frames // 4)].transpose(1, 2).flatten(0, 1) for x in pictures]
    save_sheet(torch.cat(rows), path, len(rows[0]))


def card_of(distiller: Distiller, backbone: Backbone, run: Run) -> dict[str, Any]:
    """What rmd.json says of the student."""
    s, spec = distiller.settings, backbone.spec
    steps = s.plan_steps or spec.default_steps
    switch = s.plan_switch if s.plan_switch is not None else min(spec.default_switch, steps)
    plans = "random plans, 1 to 8 steps and any switch" if s.plan_steps is None else f"{steps} steps"
    return {
        "name": "RMD student",
        "base_model": spec.name,
        "licence": spec.licence,
        "default_steps": steps,
        "default_switch": switch,
        "eta": ETA if s.eta is None else s.eta,
        "reinjection": s.reinjection or REINJECTION,
        "trained_steps": [steps, steps] if s.plan_steps else [1, len(STEP_WEIGHTS)],
        "trained_switch": s.plan_switch,
        "training": f"{run.step} iterations in {run.seconds / 60:.0f} minutes on {run.hardware}; {plans}; teacher's "
        f"guidance {distiller.guidance:g}" + ("" if s.lora is None else f"; LoRA of rank {s.lora}"),
        "quality": {},
    }


def row_of(run: Run) -> dict[str, Any]:
    """A run in a model's training history."""
    minutes = round(run.seconds / 60, 6)  # so exactly that no two runs have the same row: `average` tells them by it
    return {
        "stage": "distillation", "steps": run.step, "samples": run.samples, "minutes": minutes, "hardware": run.hardware
    }  # fmt: skip


def history_of(student: Path | None) -> list[dict[str, Any]]:
    """The runs that made a student, where its folder tells."""
    file = student / HISTORY if student is not None else None
    return json.loads(file.read_text()) if file is not None and file.is_file() else []


def export(distiller: Distiller, backbone: Any, run: Run, folder: Path, start: Path | None = None) -> None:
    """Write the student's weights in fp16, its card, the settings it was trained with and the runs that made it; the
    first process does. start: the student that it began from, if any."""
    role = distiller.student
    network = role.whole()
    if not distiller.together.first:
        return

    def fill(partial: Path) -> None:
        if isinstance(role, Adapter):
            layers = {f"{backbone.component}_lora_layers": role.exported()}
            backbone.pipe.save_lora_weights(partial, **layers)
        else:
            network.to(torch.float16).save_pretrained(partial / backbone.component)
        (partial / STUDENT_CARD).write_text(json.dumps(card_of(distiller, backbone, run), indent=1) + "\n")
        (partial / SETTINGS_FILE).write_text(json.dumps(asdict(distiller.settings), indent=1) + "\n")
        (partial / HISTORY).write_text(json.dumps([*history_of(start), row_of(run)], indent=1) + "\n")

    replace_folder(folder, fill)
