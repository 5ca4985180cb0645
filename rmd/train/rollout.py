"""The student's own samples for distillation: random plans through the very sampler that inference uses.

Chosen steps keep their gradient; their clean estimates come with the interval of times to re-noise them at.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rmd.backbones.base import Backbone
from rmd.method.cascade import CascadeSampler
from rmd.method.denoiser import Conditioning, Denoised, Denoiser
from rmd.method.plan import CascadePlan, two_stage
from rmd.method.schedule import Time
from rmd.method.transition import upsample

GRADIENT_STEPS = 2  # steps of one rollout that are trained
TOP = 0.98  # largest re-noising time
OFFSET = 0.3  # lower end of re-noising above the step's own end, as a share of the interval
STEP_WEIGHTS = (1, 3, 3, 6, 2, 3, 1, 1)  # how often K = 1 … 8 is drawn


@dataclass(frozen=True)
class Kept:
    """A trained step's clean estimate at full size, with the re-noising interval (full-size times)."""

    x0: Tensor
    low: float
    high: float


def choose(weights: tuple[float, ...], generator: torch.Generator) -> int:
    return int(torch.multinomial(torch.tensor(weights, dtype=torch.float64), 1, generator=generator))


def random_plan(backbone: Backbone, generator: torch.Generator) -> CascadePlan:
    """K by STEP_WEIGHTS, any switch, any eta, mostly `band` re-injection."""
    steps = 1 + choose(STEP_WEIGHTS, generator)
    switch = int(torch.randint(steps + 1, (), generator=generator))
    eta = float(torch.rand((), generator=generator))
    kind = ("band", "mix", "fresh")[choose((8, 1, 1), generator)]
    low, high = backbone.latent_size(backbone.spec.low), backbone.latent_size(backbone.spec.high)
    return two_stage(backbone.schedule, steps, switch, low, high, eta=eta, reinjection=kind)


def interval(plan: CascadePlan, index: int) -> tuple[float, float]:
    """Full-size times between which step `index`'s sample is re-noised: never below the step's own end.

    Low steps go up to TOP, steps after the switch up to the switch's time; the grid is the plan's uniform one.
    """
    steps, switch = plan.steps, plan.switch
    end = 1 - (index + 1) / steps
    top = TOP if index < switch or switch == 0 else min(TOP, 1 - switch / steps)
    top = max(top, end + 0.05)
    return end + OFFSET * (top - end), top


def rollout(
    student: Backbone, prompt: Conditioning, plan: CascadePlan, count: int, generator: torch.Generator
) -> list[Kept]:
    """Run the plan up to the last of GRADIENT_STEPS random steps and keep those steps' estimates with gradient."""
    chosen = set(torch.randperm(plan.steps, generator=generator)[:GRADIENT_STEPS].tolist())
    denoiser = Denoiser(student, prompt)
    index, kept = 0, []

    def step(x: Tensor, t: Time) -> Denoised:
        nonlocal index
        with torch.set_grad_enabled(index in chosen):
            estimate = denoiser(x, t)
            if index in chosen:
                kept.append(Kept(upsample(estimate.x0, plan.size), *interval(plan, index)))
        index += 1
        return Denoised(estimate.x0.detach(), estimate.eps.detach())

    sampler = CascadeSampler(student.schedule, plan)
    noise = torch.randn((count, student.channels, *plan.size), generator=generator)
    with torch.no_grad():
        for _ in sampler.steps(step, noise, generator):
            if index > max(chosen):
                break
    return kept


def draw_times(kept: list[Kept], count: int, generator: torch.Generator) -> Tensor:
    """One re-noising time per sample, uniform in its step's interval, (len(kept)·count,)."""
    low = torch.tensor([k.low for k in kept], dtype=torch.float64).repeat_interleave(count)
    high = torch.tensor([k.high for k in kept], dtype=torch.float64).repeat_interleave(count)
    return low + (high - low) * torch.rand(len(low), generator=generator, dtype=torch.float64)
