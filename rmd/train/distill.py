"""RMD: distribution matching along the resolution trajectory (method.md, section 4).

The student rolls out through the very sampler that inference uses, on random plans (K from 1 to 8, any switch, any
eta) or on a fixed one. Chosen steps keep their gradient; their clean estimates, enlarged to full size where the step
ran low, are matched against the teacher's full-size distribution.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rmd.backbones.adapter import dtype_of
from rmd.backbones.base import Backbone
from rmd.backbones.loading import open_student
from rmd.checks import RequestError
from rmd.method.denoiser import Conditioning, Denoiser
from rmd.train import losses
from rmd.train.export import export, sheet
from rmd.train.graphs import Replayed
from rmd.train.loop import Average, Run, generator_for, set_rate
from rmd.train.roles import Adapter, Role, Trained
from rmd.train.rollout import Kept, draw_times, random_plan, random_steps, renoise, rollout
from rmd.train.settings import Settings
from rmd.train.source import Source


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
    """The three networks, their optimisers, and the losses of which an iteration is made."""

    def __init__(self, backbone: Backbone, settings: Settings):
        self.settings = settings
        self.guidance = backbone.spec.guidance if settings.guidance is None else settings.guidance
        network: Any = backbone.network
        if settings.lora is None:
            self.student, self.fake = (
                Trained(copy.deepcopy(network).float().requires_grad_(True), backbone.device) for _ in range(2)
            )
            dtype = dtype_of(self.student.network)
            frozen = network if dtype_of(network) == dtype else copy.deepcopy(network).to(dtype)
        else:
            base = copy.deepcopy(network).requires_grad_(False)
            with torch.random.fork_rng():
                torch.manual_seed(settings.seed)  # of the adapters' first weights
                self.student, self.fake = (Adapter(base, name, settings.lora) for name in ("student", "fake"))
            frozen = Role(base, None)
        if settings.checkpointing == "yes":
            for role in (self.student, self.fake):
                getattr(role.network, "base", role.network).enable_gradient_checkpointing()
        self.teacher, self.student_call, self.fake_call = (
            backbone.with_network(Replayed(network)) for network in (frozen, self.student.network, self.fake.network)
        )
        self.optimizer = adam(self.student.master, settings.rate)
        self.fake_optimizer = adam(self.fake.master, settings.fake_rate)
        said = backbone.spec.negative if settings.negative is None else settings.negative
        self.negative = self.encode([said])

    @torch.no_grad()
    def encode(self, texts: list[str]) -> Conditioning:
        """Prompts as the networks take them."""
        dtype = dtype_of(self.teacher.network)
        rows = self.teacher.encode(texts).items()
        return {k: v.to(dtype) if v.is_floating_point() else v for k, v in rows}

    def guided(self, prompt: Conditioning, count: int) -> Denoiser:
        """The teacher with its guidance, for a batch of `count`."""
        return Denoiser(self.teacher, prompt, repeat(self.negative, count), self.guidance)

    def white(self, x: Tensor | Sequence[int], g: torch.Generator) -> Tensor:
        shape = x.shape if isinstance(x, Tensor) else tuple(x)
        return torch.randn(shape, generator=g, device=g.device).to(self.teacher.device)

    def warm_up(self, prompt: Conditioning, x0: Tensor, g: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Guidance distillation on clean latents (B, C, *S) of either size: match the guided teacher in one call."""
        t = torch.rand(len(x0), generator=g, device=g.device, dtype=torch.float64).cpu() * 0.95 + 0.05
        x = self.teacher.schedule.add_noise(x0, self.white(x0, g), t)
        with torch.no_grad():
            target = self.guided(prompt, len(x0))(x, t).x0
        loss = losses.guidance_loss(Denoiser(self.student_call, prompt)(x, t).x0, target)
        return loss, {"guidance": loss.detach()}

    def begin_matching(self) -> None:
        """fake_score becomes a copy of the warmed student, its optimiser fresh."""
        self.fake.master.load_state_dict(self.student.master.state_dict())
        self.fake.spread()
        self.fake_optimizer.state.clear()

    def sample(self, prompt: Conditioning, plans: torch.Generator, g: torch.Generator, kept: int) -> list[Kept]:
        """Steps of the student on a plan of the settings."""
        s = self.settings
        plan = random_plan(self.student_call, plans, s.plan_steps, s.plan_switch, s.eta, s.reinjection)
        count = len(next(iter(prompt.values())))
        noise = self.white((count, self.teacher.channels, *plan.size), g)
        return rollout(self.student_call, prompt, plan, random_steps(plan, kept, plans), noise, g)

    def renoised(self, kept: list[Kept], plans: torch.Generator, g: torch.Generator) -> tuple[Tensor, Tensor]:
        """The samples noised again and their times, steps one after the other along the batch."""
        times = [draw_times(k, len(k.x0), plans) for k in kept]
        kind, schedule = self.settings.renoising, self.teacher.schedule
        x = [renoise(schedule, k, t, self.white(k.x0, g), kind) for k, t in zip(kept, times, strict=True)]
        return torch.cat(x), torch.cat(times)

    def denoise(
        self, prompt: Conditioning, plans: torch.Generator, g: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """fake_score's loss on samples of the student as it is now."""
        with torch.no_grad():
            kept = self.sample(prompt, plans, g, kept=1)
            x, t = self.renoised(kept, plans, g)
        x0, snr = kept[0].x0, torch.exp(self.teacher.schedule.logsnr(t)).to(x.device)
        estimate = Denoiser(self.fake_call, prompt)(x, t).x0
        loss = losses.denoising_loss(estimate, x0, snr)
        return loss, {"fake": loss.detach()}

    def match(
        self, prompt: Conditioning, plans: torch.Generator, g: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The student's loss: towards the teacher's distribution."""
        kept = self.sample(prompt, plans, g, self.settings.kept)
        x0, many = torch.cat([k.x0 for k in kept]), repeat(prompt, len(kept))
        with torch.no_grad():
            x, t = self.renoised(kept, plans, g)
            fake_x0 = Denoiser(self.fake_call, many)(x, t).x0
            teacher_x0 = self.guided(many, len(x0))(x, t).x0
        loss = losses.matching_loss(x0, teacher_x0, fake_x0)
        return loss, {"matching": loss.detach(), "teacher_fake": losses.agreement(teacher_x0, fake_x0)}

    def update(self, role: Trained, loss: Callable[[], tuple[Tensor, dict[str, Tensor]]]) -> dict[str, Tensor]:
        """One update of a network by the mean of `accumulate` losses."""
        values: dict[str, Tensor] = {}
        for _ in range(self.settings.accumulate):
            one, values = loss()
            (one / self.settings.accumulate).backward()
        role.step(self.optimizer if role is self.student else self.fake_optimizer, norm=self.settings.clip)
        return values

    def warm(self, source: Source, step: int, g: torch.Generator, noise: torch.Generator) -> dict[str, Tensor]:
        """An iteration of the warm-up, on the source's latents of both sizes or else on the student's own samples."""
        full, batch = step % 2 == 0, self.settings.batch

        def loss() -> tuple[Tensor, dict[str, Tensor]]:
            given = source.latents(batch * (1 if full else 3), full, g)
            if given is not None:
                return self.warm_up(self.encode(given[1]), given[0], noise)
            prompt = self.encode(source.prompts(batch, g))
            with torch.no_grad():
                x0 = self.sample(prompt, g, noise, kept=1)[0].x0
            return self.warm_up(prompt, x0, noise)

        return self.update(self.student, loss)

    def iterate(self, source: Source, train_student: bool, g: torch.Generator, noise: torch.Generator) -> Any:
        """An iteration of matching: fake_score catches up, then the student moves."""
        values: dict[str, Tensor] = {}

        def prompt() -> Conditioning:
            return self.encode(source.prompts(self.settings.batch, g))

        for _ in range(self.settings.fake_updates):
            values |= self.update(self.fake, lambda: self.denoise(prompt(), g, noise))
        if train_student:
            values |= self.update(self.student, lambda: self.match(prompt(), g, noise))
        return values


def train(backbone: Backbone, source: Source, settings: Settings, folder: Path, start: Path | None = None) -> Path:
    """Distil a loaded backbone, or go on where the run in `folder` stopped; returns the student's folder, `student`.

    start: a student to begin from instead of the teacher's own weights (whole networks only).
    """
    for part in backbone.parts():
        part.requires_grad_(False)
    distiller, caught = Distiller(backbone, settings), CatchUp(settings.patience)
    if start is not None:
        distiller.student.master.load_state_dict(open_student(start, backbone)[0].network.state_dict())
    average = Average({"student": distiller.student.master}, settings.average)
    parts = {
        "student": distiller.student.master,
        "fake": distiller.fake.master,
        "optimizer": distiller.optimizer,
        "fake_optimizer": distiller.fake_optimizer,
        "average": average,
        "caught": caught,
    }
    run = Run(folder, parts, settings.minutes, backbone.device, settings.save_minutes * 60)
    for role in (distiller.student, distiller.fake):
        role.spread()
    totals: dict[str, list[Tensor]] = {}
    noise = torch.Generator(backbone.device)
    for step in run.steps(settings.steps, "distill"):
        g = generator_for(settings.seed, step)
        noise.manual_seed(settings.seed * 1_000_003 + step)
        decay = max(0.1, min(1.0, (1 - run.progress) / 0.3, (step + 1) / 50))
        warming = step < settings.warm_up
        set_rate(distiller.optimizer, (settings.warm_up_rate if warming else settings.rate) * decay)
        set_rate(distiller.fake_optimizer, settings.fake_rate * decay)
        if warming:
            values = distiller.warm(source, step, g, noise)
        else:
            if step == settings.warm_up:
                distiller.begin_matching()
            values = distiller.iterate(source, caught.done, g, noise)
            if not caught.done:
                caught.add(float(values["fake"]))
        updates = 1 if warming else settings.fake_updates + ("matching" in values)
        run.samples += updates * settings.batch * settings.accumulate
        average.update()
        for name, value in values.items():
            totals.setdefault(name, []).append(value)
        if (step + 1) % 50 == 0 or run.last:
            row = {k: float(torch.stack(v).mean()) for k, v in totals.items()}
            run.log(**row)
            watch(row)
            totals = {}
        if (step + 1) % settings.sheet_every == 0:
            swap(average, distiller)
            sheet(distiller, source, folder / f"sheet-{step + 1:05d}.png")
            swap(average, distiller)
    swap(average, distiller)
    sheet(distiller, source, folder / "sheet.png")
    return export(distiller, backbone, run, folder / "student")


def swap(average: Average, distiller: Distiller) -> None:
    """The student's average in the place of its weights; called again, back."""
    average.swap()
    distiller.student.spread()


def watch(row: dict[str, float]) -> None:
    """Stop a run whose losses are no numbers or whose fake_score ran away; the last saved state stays."""
    bad = [name for name, value in row.items() if not value < 1e3]
    if bad:
        raise RequestError(
            f"The losses {', '.join(bad)} are no longer numbers one can train with ({row}); go on from the last saved "
            "state with a lower rate."
        )
