"""RMD: distribution matching along the resolution trajectory (method.md, section 4).

The student rolls out through the very sampler that inference uses, on random plans (K from 1 to 8, any switch, any
eta), so that every position of the demo's sliders is a trained one. Chosen steps keep their gradient; their clean
estimates, enlarged to full size where the step ran low, are matched against the teacher's full-size distribution.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rmd.backbones.base import Backbone
from rmd.backbones.loading import open_backbone, open_student
from rmd.checks import RequestError
from rmd.method.cascade import CascadeSampler
from rmd.method.denoiser import Conditioning, Denoiser
from rmd.method.plan import two_stage
from rmd.train import losses
from rmd.train.graphs import Replayed
from rmd.train.loop import CPU, Average, Run, Trained, generator_for, mixed, set_rate
from rmd.train.rollout import Kept, Renoising, draw_times, random_plan, random_steps, renoise, rollout
from rmd.train.sheets import save_sheet
from rmd.train.source import Source

SEED = 3
ETA, REINJECTION = 0.7, "band"  # of the default plan; training draws all of them


@dataclass(frozen=True)
class Settings:
    """What a distillation does, beside its backbone and its data."""

    steps: int = 1500
    """Iterations in all; a student update each, but those in which fake_score catches up."""
    minutes: float | None = None
    """End when so much time has passed; see `Run`."""
    warm_up: int = 300
    """Iterations of plain guidance distillation."""
    warm_up_rate: float = 1e-4
    batch: int = 8
    kept: int = 2
    """Steps of one rollout that are trained."""
    fake_updates: int = 5
    """Updates of fake_score for each one of the student. At 1 the fake score lags and matching destroys (method.md)."""
    rate: float = 1e-4
    fake_rate: float = 2e-4
    renoising: Renoising = "predicted"
    average: float = 0.99
    """Decay of the student's average."""
    patience: int = 20
    """Updates over which fake_score's loss is averaged while it catches up: it has when one average is not below 98% of
    the one before."""


ON_GPU = Settings(
    steps=20000, batch=128, warm_up=300, warm_up_rate=2e-4, rate=5e-5, fake_rate=1.5e-4, average=0.995, patience=10
)
"""For the bundled image model where a batch costs little."""


def repeat(conditioning: Conditioning, times: int) -> Conditioning:
    return {k: torch.cat([v] * times) for k, v in conditioning.items()}


def adam(network: nn.Module, rate: float) -> torch.optim.AdamW:
    return torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.0, 0.95), weight_decay=1e-4, fused=True)


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


class Distiller:
    """The three networks, their optimisers, and the updates of which an iteration is made."""

    def __init__(self, backbone: Backbone, guidance: float, settings: Settings):
        self.guidance, self.settings, device = guidance, settings, backbone.device
        self.student, self.fake = (
            Trained(copy.deepcopy(backbone.network).float().requires_grad_(True), device) for _ in range(2)
        )
        dtype = next(self.student.network.parameters()).dtype
        own = next(backbone.network.parameters()).dtype == dtype
        frozen = backbone.network if own else copy.deepcopy(backbone.network).to(dtype)
        self.teacher, self.student_call, self.fake_call = (
            backbone.with_network(Replayed(network)) for network in (frozen, self.student.network, self.fake.network)
        )
        self.optimizer = adam(self.student.master, settings.rate)
        self.fake_optimizer = adam(self.fake.master, settings.fake_rate)
        self.negative = encode(self.teacher, [""])

    def guided(self, prompt: Conditioning, count: int) -> Denoiser:
        """The teacher with its guidance, for a batch of `count`."""
        return Denoiser(self.teacher, prompt, repeat(self.negative, count), self.guidance)

    def white(self, x: Tensor | Sequence[int], g: torch.Generator) -> Tensor:
        shape = x.shape if isinstance(x, Tensor) else tuple(x)
        return torch.randn(shape, generator=g, device=g.device).to(self.teacher.device)

    def warm_up(self, prompt: Conditioning, x0: Tensor, g: torch.Generator) -> dict[str, Tensor]:
        """Guidance distillation on clean latents (B, C, *S) of either size: match the guided teacher in one call."""
        t = torch.rand(len(x0), generator=g, device=g.device, dtype=torch.float64).cpu() * 0.95 + 0.05
        x = self.teacher.schedule.add_noise(x0, self.white(x0, g), t)
        with torch.no_grad():
            target = self.guided(prompt, len(x0))(x, t).x0
        loss = losses.guidance_loss(Denoiser(self.student_call, prompt)(x, t).x0, target)
        self.update(loss, self.student, self.optimizer)
        return {"guidance": loss.detach()}

    def begin_matching(self) -> None:
        """fake_score becomes a copy of the warmed student, its optimiser fresh."""
        self.fake.master.load_state_dict(self.student.master.state_dict())
        self.fake.spread()
        self.fake_optimizer.state.clear()

    def sample(self, prompt: Conditioning, plans: torch.Generator, g: torch.Generator, kept: int) -> list[Kept]:
        """Steps of the student on a random plan."""
        plan = random_plan(self.teacher, plans)
        count = len(next(iter(prompt.values())))
        noise = self.white((count, self.teacher.channels, *plan.size), g)
        return rollout(self.student_call, prompt, plan, random_steps(plan, kept, plans), noise, g)

    def renoised(self, kept: list[Kept], plans: torch.Generator, g: torch.Generator) -> tuple[Tensor, Tensor]:
        """The samples noised again and their times, steps one after the other along the batch."""
        times = [draw_times(k, len(k.x0), plans) for k in kept]
        kind, schedule = self.settings.renoising, self.teacher.schedule
        x = [renoise(schedule, k, t, self.white(k.x0, g), kind) for k, t in zip(kept, times, strict=True)]
        return torch.cat(x), torch.cat(times)

    def fake_update(self, prompt: Conditioning, plans: torch.Generator, g: torch.Generator) -> dict[str, Tensor]:
        """One update of fake_score on samples of the student as it is now."""
        with torch.no_grad():
            kept = self.sample(prompt, plans, g, kept=1)
            x, t = self.renoised(kept, plans, g)
        x0, snr = kept[0].x0, torch.exp(self.teacher.schedule.logsnr(t)).to(x.device)
        estimate = Denoiser(self.fake_call, prompt)(x, t).x0
        loss = losses.denoising_loss(estimate, x0, snr)
        self.update(loss, self.fake, self.fake_optimizer)
        return {"fake": loss.detach()}

    def student_update(self, prompt: Conditioning, plans: torch.Generator, g: torch.Generator) -> dict[str, Tensor]:
        """One update of the student towards the teacher's distribution."""
        kept = self.sample(prompt, plans, g, self.settings.kept)
        x0, many = torch.cat([k.x0 for k in kept]), repeat(prompt, len(kept))
        with torch.no_grad():
            x, t = self.renoised(kept, plans, g)
            fake_x0 = Denoiser(self.fake_call, many)(x, t).x0
            teacher_x0 = self.guided(many, len(x0))(x, t).x0
        loss = losses.matching_loss(x0, teacher_x0, fake_x0)
        self.update(loss, self.student, self.optimizer)
        return {"matching": loss.detach(), "teacher_fake": losses.agreement(teacher_x0, fake_x0)}

    def update(self, loss: Tensor, network: Trained, optimizer: torch.optim.Optimizer) -> None:
        loss.backward()
        network.step(optimizer)


def train(
    base: Path,
    folder: Path,
    source_of: Any,
    settings: Settings,
    start: Path | None = None,
    device: torch.device = CPU,
) -> None:
    """Distil the backbone in `base` (a diffusers folder with its card); train or resume in `folder`.

    Writes `folder/student` (the network as fp16 safetensors and the rmd.json card's training facts) at the end.
    source_of: makes the `Source` for the loaded backbone. start: a student folder to begin from instead of the
    teacher's own weights.
    """
    backbone = open_backbone(base, base.name, device, torch.float32)
    for part in backbone.parts():
        part.requires_grad_(False)
    source: Source = source_of(backbone)
    distiller, caught = Distiller(backbone, backbone.spec.guidance, settings), CatchUp(settings.patience)
    if start is not None:
        distiller.student.master.load_state_dict(open_student(start, backbone)[0].network.state_dict())
    student = distiller.student.master
    average = Average({"student": student}, settings.average)
    parts = {
        "student": student,
        "fake": distiller.fake.master,
        "optimizer": distiller.optimizer,
        "fake_optimizer": distiller.fake_optimizer,
        "average": average,
        "caught": caught,
    }
    run = Run(folder, parts, settings.minutes, device)
    for network in (distiller.student, distiller.fake):
        network.spread()
    totals: dict[str, list[Tensor]] = {}
    noise = torch.Generator(device)
    for step in run.steps(settings.steps, "distill"):
        g = generator_for(SEED, step)
        noise.manual_seed(SEED * 1_000_003 + step)
        decay = max(0.1, min(1.0, (1 - run.progress) / 0.3, (step + 1) / 50))
        rate = settings.warm_up_rate if step < settings.warm_up else settings.rate
        set_rate(distiller.optimizer, rate * decay)
        set_rate(distiller.fake_optimizer, settings.fake_rate * decay)
        values: dict[str, Tensor] = {}
        if step < settings.warm_up:
            full = step % 2 == 0
            x0, prompts = source.latents(settings.batch * (1 if full else 3), full, g)
            values = distiller.warm_up(encode(distiller.teacher, prompts), x0, noise)
            run.samples += len(x0)
        else:
            if step == settings.warm_up:
                distiller.begin_matching()
            for _ in range(settings.fake_updates):
                values |= distiller.fake_update(encode(distiller.teacher, source.prompts(settings.batch, g)), g, noise)
                run.samples += settings.batch
            if caught.done:
                values |= distiller.student_update(
                    encode(distiller.teacher, source.prompts(settings.batch, g)), g, noise
                )
                run.samples += settings.batch
            else:
                caught.add(float(values["fake"]))
        average.update()
        for name, value in values.items():
            totals.setdefault(name, []).append(value)
        if (step + 1) % 50 == 0 or run.last:
            row = {k: float(torch.stack(v).mean()) for k, v in totals.items()}
            run.log(**row)
            watch(row)
            totals = {}
        if (step + 1) % 500 == 0 or run.last:
            average.swap()
            sheet(backbone.with_network(student), source, folder / f"sheet-{step + 1:05d}.png")
            average.swap()
    average.swap()
    sheet(backbone.with_network(student), source, folder / "sheet.png")
    facts = {"eta": ETA, "reinjection": REINJECTION, "guidance": distiller.guidance}
    export(student, folder / "student" / backbone.component, facts)


def watch(row: dict[str, float]) -> None:
    """Stop a run whose losses are no numbers or whose fake_score ran away; the last saved state stays."""
    bad = [name for name, value in row.items() if not value < 1e3]
    if bad:
        raise RequestError(
            f"The losses {', '.join(bad)} are no longer numbers one can train with ({row}); go on from the last saved "
            "state with a lower rate."
        )


@torch.no_grad()
def encode(backbone: Backbone, texts: list[str]) -> Conditioning:
    """Prompts as the network in use takes them."""
    dtype = next(backbone.network.parameters()).dtype
    return {k: v.to(dtype) for k, v in backbone.encode(texts).items()}


@torch.no_grad()
def sheet(student: Backbone, source: Source, path: Path) -> None:
    """Fixed prompts (columns) by the plans 1+0, 0+1, 1+1, 2+2, 3+1, 4+4 (rows), low + high steps.

    Eight pictures in a row, or four frames of each of three clips.
    """
    g = generator_for(SEED, 10**6)
    prompt = encode(student, source.prompts(3 if student.spec.frames > 1 else 8, g))
    low_size, size = student.latent_size(student.spec.low), student.latent_size(student.spec.high)
    noise = torch.randn((len(next(iter(prompt.values()))), student.channels, *size), generator=g).to(student.device)
    pictures: list[Tensor] = []
    for low, high in ((1, 0), (0, 1), (1, 1), (2, 2), (3, 1), (4, 4)):
        plan = two_stage(student.schedule, low + high, low, low_size, size, eta=ETA, reinjection=REINJECTION)
        sampler, x0 = CascadeSampler(student.schedule, plan), noise
        with mixed(student.device):
            for event in sampler.steps(Denoiser(student, prompt), noise, generator_for(SEED, 10**6 + 1)):
                x0 = event.estimate.x0
            pictures.append(student.pixels(x0))
    rows = [x if x.ndim == 4 else x[:, :, :: student.spec.frames // 4].transpose(1, 2).flatten(0, 1) for x in pictures]
    save_sheet(torch.cat(rows), path, len(rows[0]))


def export(student: Any, folder: Path, facts: dict[str, Any]) -> None:
    """Write the student's network in fp16 into `folder` and the facts of its training beside that."""
    student.to(torch.float16).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config.pop("_name_or_path", None)  # diffusers notes the folder the base was loaded from
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    (folder.parent / "training.json").write_text(json.dumps(facts, indent=1) + "\n")
