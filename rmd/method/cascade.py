"""The one sampling loop: demo, command line, trainer, evaluation and benchmarks all call it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rmd.method.denoiser import Denoised
from rmd.method.plan import CascadePlan
from rmd.method.schedule import NoiseSchedule, Time
from rmd.method.transition import blend, low_band, reinject, upsample


@dataclass(frozen=True)
class Step:
    """One finished network call. `seconds` is its time alone, whatever the listener does between events."""

    index: int
    stage: int
    time: float
    estimate: Denoised
    seconds: float


@dataclass(frozen=True)
class Switch:
    """The latent was enlarged from stage `stage` − 1 to stage `stage`; the estimate is at the new size."""

    stage: int
    estimate: Denoised
    seconds: float


Event = Step | Switch


@dataclass(frozen=True)
class CascadeSampler:
    """Runs a plan with a denoiser `(x, t) → Denoised`.

    clock: seconds; a session on a GPU passes one that waits for the device first.
    """

    schedule: NoiseSchedule
    plan: CascadePlan
    clock: Callable[[], float] = time.perf_counter

    def initial(self, noise: Tensor) -> Tensor:
        """The first latent from white noise (B, C, *S) of the result's size: its low band."""
        return low_band(noise, self.plan.stages[0].size)

    def steps(
        self, denoiser: Callable[[Tensor, Time], Denoised], noise: Tensor, generator: torch.Generator
    ) -> Iterator[Event]:
        """Yield a Step per network call and a Switch per enlargement; the last event's estimate is the result.

        noise: white noise at the first stage's size, (B, C, *S), on the device to compute on.
        generator: on the CPU, so that one seed gives one picture on any device.
        A plan that ends in an empty stage closes with that Switch.
        Gradients flow or not as the caller's grad mode says at each `next()`.
        """
        x, index, estimate = noise, 0, None
        for number, stage in enumerate(self.plan.stages):
            if estimate is not None:
                start = self.clock()
                x, estimate = self._switch(estimate, number, generator)
                yield Switch(number, estimate, self.clock() - start)
            for position, t in enumerate(stage.times):
                start = self.clock()
                if position:
                    assert estimate is not None
                    x = self._renoise(estimate, t, generator)
                estimate = denoiser(x, t)
                yield Step(index, number, t, estimate, self.clock() - start)
                index += 1

    def _fresh(self, shape: torch.Size | tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float32).to(like.device, like.dtype)

    def _renoise(self, estimate: Denoised, t: float, generator: torch.Generator) -> Tensor:
        """To the next time of the same stage: alpha·x0 + sigma·(eta·eps + sqrt(1 − eta²)·n)."""
        eta = self.plan.eta
        eps = estimate.eps
        if eta < 1:
            eps = blend(eps, self._fresh(eps.shape, eps, generator), eta)
        return self.schedule.add_noise(estimate.x0, eps, t)

    def _switch(self, estimate: Denoised, number: int, generator: torch.Generator) -> tuple[Tensor, Denoised]:
        """Enlarge to stage `number` and add noise for its first time, if it has one."""
        stage, plan = self.plan.stages[number], self.plan
        x0 = upsample(estimate.x0, stage.size, plan.upsampler)
        if not stage.times:
            return x0, Denoised(x0, torch.zeros_like(x0))
        fresh = self._fresh(x0.shape, x0, generator)
        eps = reinject(estimate.eps, fresh, plan.reinjection, plan.eta, plan.upsampler)
        return self.schedule.add_noise(x0, eps, stage.times[0]), Denoised(x0, eps)
