"""Running the student as inference does, keeping chosen steps' gradients, and noising what they gave (method.md, 4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rmd.backbones.base import Backbone
from rmd.method.cascade import CascadeSampler
from rmd.method.denoiser import Conditioning, Denoised, Denoiser
from rmd.method.plan import CascadePlan, Reinjection, time_of, two_stage
from rmd.method.schedule import NoiseSchedule, Time
from rmd.method.transition import Generators, blend, reinject, upsample, white

TOP = 0.98  # largest re-noising time
OFFSET = 0.25, 0.10  # lower end of re-noising above the step's own end, as a share of the interval: low and high steps
STEP_WEIGHTS = (1, 3, 3, 6, 2, 3, 1, 1)  # how often K = 1 … 8 is drawn
KINDS: tuple[Reinjection, ...] = ("band", "mix", "fresh")
Renoising = Literal["predicted", "fresh"]


@dataclass(frozen=True)
class Kept:
    """A step's estimates at full size: x0 with gradient where it is trained, the noise it hands on, without.

    end: the full-size time at which the step ends; low, high: between which its sample is noised again, in uniform
    times, which `pace` makes the schedule's (see `NoiseSchedule.paced`).
    """

    x0: Tensor
    eps: Tensor
    end: float
    low: float
    high: float
    pace: Callable[[Tensor], Tensor]


def choose(weights: tuple[float, ...], generator: torch.Generator) -> int:
    return int(torch.multinomial(torch.tensor(weights, dtype=torch.float64), 1, generator=generator))


def random_plan(
    backbone: Backbone,
    generator: torch.Generator,
    steps: int | None = None,
    switch: int | None = None,
    eta: float | None = None,
    kind: Reinjection | None = None,
) -> CascadePlan:
    """A plan of what is given; the rest is drawn: K by STEP_WEIGHTS, any switch, any eta, mostly `band`."""
    drawn = 1 + choose(STEP_WEIGHTS, generator)
    steps = steps or max(drawn, switch or 1)
    any_switch, any_eta = (float(torch.rand((), generator=generator)) for _ in range(2))
    any_kind = KINDS[choose((8, 1, 1), generator)]
    low, high = backbone.latent_size(backbone.spec.low), backbone.latent_size(backbone.spec.high)
    return two_stage(
        backbone.schedule,
        steps,
        int(any_switch * (steps + 1)) if switch is None else switch,
        low,
        high,
        eta=any_eta if eta is None else eta,
        reinjection=kind or any_kind,
    )


def random_steps(plan: CascadePlan, count: int, generator: torch.Generator) -> set[int]:
    """Which `count` steps of a plan to keep (all of a shorter one)."""
    return set(torch.randperm(plan.steps, generator=generator)[:count].tolist())


def interval(plan: CascadePlan, index: int) -> tuple[float, float]:
    """Uniform full-size times between which step `index`'s sample is re-noised: never below the step's own end.

    Low steps go up to TOP, steps after the switch up to the switch's time; the grid is the plan's uniform one.
    """
    steps, switch = plan.steps, plan.switch
    end = 1 - (index + 1) / steps
    top = TOP if index < switch or switch == 0 else min(TOP, 1 - switch / steps)
    top = max(top, end + 0.05)
    return end + OFFSET[index >= switch] * (top - end), top


def rollout(
    student: Backbone, prompt: Conditioning, plan: CascadePlan, chosen: set[int], noise: Tensor, g: Generators
) -> list[Kept]:
    """Run the plan from white noise (B, C, *S) of full size up to the last chosen step and keep the chosen ones.

    Their gradient is kept where the caller's grad mode says so.
    """
    denoiser, trained = Denoiser(student, prompt), torch.is_grad_enabled()
    index, kept = 0, []

    def pace(t: Tensor) -> Tensor:
        return student.schedule.paced(t, plan.size, plan.steps)

    def step(x: Tensor, t: Time) -> Denoised:
        nonlocal index
        with torch.set_grad_enabled(trained and index in chosen):
            estimate = denoiser(x, t)
            if index in chosen:
                end = time_of(student.schedule, index + 1, plan.steps, plan.size)
                eps = handed_on(estimate.eps.detach(), index, plan, white(noise, g))
                kept.append(Kept(upsample(estimate.x0, plan.size), eps, end, *interval(plan, index), pace))
        index += 1
        return Denoised(estimate.x0.detach(), estimate.eps.detach())

    with torch.no_grad():
        for _ in CascadeSampler(student.schedule, plan).steps(step, noise, g):
            if index > max(chosen):
                break
    return kept


def handed_on(eps: Tensor, index: int, plan: CascadePlan, fresh: Tensor) -> Tensor:
    """The noise with which the step goes on, at full size: predicted by eta, white also where the step was low."""
    if index < plan.switch:
        return reinject(eps, fresh, "band", plan.eta)
    return blend(eps, fresh, plan.eta)


def renoise(schedule: NoiseSchedule, kept: Kept, t: Tensor, fresh: Tensor, kind: Renoising = "predicted") -> Tensor:
    """The step's sample at times t (B,), none below the step's end; its gradient is kept.

    predicted  RMD's way (arXiv 2603.06136): to the step's end with the noise that it hands on, and from there by
               diffusion with fresh noise, so that matching sees the states that the student's next step starts from.
    fresh      from x0 with fresh noise alone (DMD2, SwD).
    """
    x0 = kept.x0
    if kind == "fresh":
        return schedule.add_noise(x0, fresh, t)
    x = schedule.add_noise(x0, kept.eps, kept.end)
    share = schedule.alpha(t) / schedule.alpha(kept.end)
    more = (schedule.sigma(t) ** 2 - (share * schedule.sigma(kept.end)) ** 2).clamp(min=0).sqrt()
    return column(share, x) * x + column(more, x) * fresh


def column(value: Tensor, like: Tensor) -> Tensor:
    return value.to(like.device, like.dtype).reshape(-1, *[1] * (like.ndim - 1))


def draw_times(kept: Kept, count: int, generator: torch.Generator) -> Tensor:
    """One re-noising time per sample, uniform in the step's interval, (count,) float64."""
    return kept.pace(kept.low + (kept.high - kept.low) * torch.rand(count, generator=generator, dtype=torch.float64))
