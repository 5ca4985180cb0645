"""Matching on a distribution whose score is known: the student must end with the teacher's moments, at both sizes.

Pictures of two channels: one colour, drawn from two clusters of unequal weight, plus grain of its own in every cell.
The teacher is the exact posterior mean. The student starts as a network fitted to it, whose two-step cascade gets the
moments wrong, as any teacher's does.
"""

from __future__ import annotations

import copy
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rmd.method.cascade import CascadeSampler
from rmd.method.denoiser import Denoiser
from rmd.method.plan import CascadePlan, two_stage
from rmd.method.schedule import FlowSchedule, Time
from rmd.train import distiller, loop, losses, roles
from rmd.train.distiller import Distiller
from rmd.train.settings import Settings

SCHEDULE = FlowSchedule(1.0)
MODES, WEIGHTS = torch.tensor([[1.0, 0.5], [-1.0, 0.0]]), torch.tensor([0.7, 0.3])
SPREAD, GRAIN = 0.25, 0.3  # of a cluster's colours, of the cells of a full-size picture


class Teacher(nn.Module):
    """The posterior mean of a picture of either size."""

    def __init__(self) -> None:
        super().__init__()
        self.modes = nn.Parameter(MODES.clone())

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        cells = x.shape[-2] * x.shape[-1]
        grain = (GRAIN * (cells / 4) ** 0.5) ** 2  # a low-resolution picture is the average of the full one
        a, s = (level(t).float()[:, None, None] for level in (SCHEDULE.alpha, SCHEDULE.sigma))
        colour = x.mean(dim=(2, 3))
        own, noise = SPREAD**2 + grain / cells, s**2 / cells
        total = a**2 * own + noise
        away = colour[:, None] - a * self.modes
        share = (torch.log(WEIGHTS) - (away**2 / total / 2).sum(dim=2)).softmax(dim=1)
        middle = (share[..., None] * (self.modes + a * own / total * away)).sum(dim=1)
        rest = x - colour[..., None, None]
        return middle[..., None, None] + (a * grain / (a**2 * grain + s**2))[..., None] * rest


class Student(nn.Module):
    """A few layers over every cell, the mean of all cells and the time."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (2 + 2 + 3, 96, 96, 96)
        layers = [m for i, o in pairwise(sizes) for m in (nn.Conv2d(i, o, 1), nn.SiLU())]
        self.body = nn.Sequential(*layers, nn.Conv2d(sizes[-1], 2, 1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        told = torch.stack([t, t**2, torch.full_like(t, x.shape[-1] - 1.0)], dim=1).float()[..., None, None]
        around = x.mean(dim=(2, 3), keepdim=True).expand_as(x)
        return self.body(torch.cat([x, around, told.expand(-1, -1, *x.shape[2:])], dim=1))


class World:
    """What a distillation needs of a backbone."""

    prediction, schedule, channels, device = "sample", SCHEDULE, 2, torch.device("cpu")
    spec = SimpleNamespace(low=(1, 1), high=(2, 2), guidance=1.0, negative="")

    def __init__(self, network: nn.Module):
        self.network = network

    def with_network(self, network: nn.Module) -> Any:
        return World(network)

    def latent_size(self, pixels: tuple[int, int]) -> tuple[int, int]:
        return pixels

    def encode(self, prompts: list[str]) -> dict[str, Tensor]:
        return {"nothing": torch.zeros(len(prompts), 1)}

    def predict(self, x: Tensor, t: Time, conditioning: dict[str, Tensor]) -> Tensor:
        return self.network(x, torch.as_tensor(t, dtype=torch.float64).expand(len(x)))


PLAN = two_stage(SCHEDULE, 2, 1, (1, 1), (2, 2), eta=0.5, reinjection="band")


def real(count: int, g: torch.Generator) -> Tensor:
    which = torch.multinomial(WEIGHTS, count, replacement=True, generator=g)
    colour = MODES[which] + SPREAD * torch.randn(count, 2, generator=g)
    return colour[..., None, None] + GRAIN * torch.randn(count, 2, 2, 2, generator=g)


def moments(x: Tensor) -> dict[str, float]:
    """Weight of the first cluster, mean and deviation of its colours, grain."""
    colour = x.mean(dim=(2, 3))
    first = (colour - MODES[0]).norm(dim=1) < (colour - MODES[1]).norm(dim=1)
    return {
        "weight": float(first.float().mean()),
        "mean": float(colour[first, 0].mean()),
        "spread": float(colour[first].std(dim=0).mean()),
        "grain": float((x - colour[..., None, None]).std()),
    }


def fitted() -> Student:
    """A student that regression has made equal to the teacher, on both sizes."""
    torch.manual_seed(0)
    student, teacher, g = Student(), Teacher(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(student.parameters(), lr=3e-3)
    for step in range(900):
        x0 = real(256, g)
        x0 = x0.mean(dim=(2, 3), keepdim=True) if step % 2 else x0
        t = torch.rand(256, generator=g, dtype=torch.float64) * 0.98 + 0.02
        x = SCHEDULE.add_noise(x0, torch.randn(x0.shape, generator=g), t)
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / 900) + 1e-4
        optimizer.zero_grad()
        (student(x, t) - teacher(x, t).detach()).square().mean().backward()
        optimizer.step()
    return student


@torch.no_grad()
def samples(network: nn.Module, count: int = 20000) -> Tensor:
    g = torch.Generator().manual_seed(9)
    x0 = torch.empty(0)
    for event in CascadeSampler(SCHEDULE, PLAN).steps(
        Denoiser(World(network), {}), torch.randn(count, 2, 2, 2, generator=g), g
    ):
        x0 = event.estimate.x0
    return x0


def error(network: nn.Module) -> dict[str, float]:
    """How far the cascade's moments are from the teacher's distribution."""
    wanted, got = moments(real(20000, torch.Generator().manual_seed(1))), moments(samples(network))
    return {name: abs(got[name] - value) for name, value in wanted.items()}


def distilled(start: nn.Module, iterations: int, monkeypatch: pytest.MonkeyPatch, fake_updates: int = 5) -> nn.Module:
    def fixed(*settings: Any) -> CascadePlan:
        return PLAN

    monkeypatch.setattr(roles, "default_dtype", lambda device: torch.float32)
    monkeypatch.setattr(distiller, "random_plan", fixed)
    settings = Settings(rate=1e-3, fake_rate=2e-3)
    trainer = Distiller(World(start), settings)  # type: ignore[arg-type]
    trainer.teacher = World(Teacher())  # type: ignore[assignment]
    prompt = {"nothing": torch.zeros(256, 1)}
    for step in range(iterations):
        g = torch.Generator().manual_seed(step)
        loop.set_rate(trainer.optimizer, 1e-3 * (1 - step / iterations))
        for _ in range(fake_updates):
            trainer.update(trainer.fake, lambda g=g: trainer.denoise(prompt, g, g))
        trainer.update(trainer.student, lambda g=g: trainer.match(prompt, g, g))
    return trainer.student.master


def test_the_student_gets_the_teachers_moments_and_not_without_a_fake_score(monkeypatch: pytest.MonkeyPatch) -> None:
    start = fitted()
    before = error(start)
    after = error(distilled(copy.deepcopy(start), 220, monkeypatch))
    match = losses.matching_loss
    with monkeypatch.context() as patch:  # the teacher's estimate alone: every sample goes to the mean of its basin
        patch.setattr(losses, "matching_loss", lambda x0, teacher_x0, fake_x0: match(x0, teacher_x0, x0.detach()))
        without = error(distilled(copy.deepcopy(start), 220, monkeypatch, fake_updates=0))
    assert before["weight"] > 0.1 < before["grain"], "the cascade of the teacher's own weights is visibly wrong"
    for name, far in before.items():
        assert after[name] < far / 2, name
    assert after["weight"] < 0.06
    assert after["spread"] < 0.05
    assert after["grain"] < 0.02
    assert without["weight"] > 0.2 < without["spread"]
