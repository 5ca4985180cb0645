"""The one sampling loop: demo, command line, trainer, evaluation and benchmarks all call it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rmd.method.denoiser import Denoised
from rmd.method.plan import CascadePlan, Upsampler
from rmd.method.schedule import NoiseSchedule, Time
from rmd.method.transition import Generators, blend, into_band, low_band, reinject, upsample, white


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
    enlarge: the clean estimate to a size by a plan's upsampler; a backbone's own knows those that need an autoencoder.
    """

    schedule: NoiseSchedule
    plan: CascadePlan
    clock: Callable[[], float] = time.perf_counter
    enlarge: Callable[[Tensor, Sequence[int], Upsampler], Tensor] = upsample

    def steps(
        self, denoiser: Callable[[Tensor, Time], Denoised], noise: Tensor, generator: Generators
    ) -> Iterator[Event]:
        """Yield a Step per network call and a Switch per enlargement; the last event's estimate is the result.

        noise: the request's white noise at the result's size, (B, C, *S), on the device to compute on. Its low band is
        the first latent, and what predicted noise cannot fill at a switch comes from its high band, so that one seed is
        one picture through the whole cascade; the re-injection "fresh" alone draws all noise anew.
        generator: on the CPU, so that one seed gives one picture on any device; a sequence has one for each sample,
        whose picture is then the same in any batch.
        A plan that ends in an empty stage closes with that Switch.
        Gradients flow or not as the caller's grad mode says at each `next()`.
        """
        x, index, estimate = low_band(noise, self.plan.stages[0].size), 0, None
        for number, stage in enumerate(self.plan.stages):
            if estimate is not None:
                start = self.clock()
                x, estimate = self._switch(estimate, number, noise, generator)
                yield Switch(number, estimate, self.clock() - start)
            for position, t in enumerate(stage.times):
                start = self.clock()
                if position:
                    assert estimate is not None
                    x = self._renoise(estimate, t, generator)
                estimate = denoiser(x, t)
                yield Step(index, number, t, estimate, self.clock() - start)
                index += 1

    def _renoise(self, estimate: Denoised, t: float, generator: Generators) -> Tensor:
        """To the next time of the same stage: alpha·x0 + sigma·(eta·eps + sqrt(1 − eta²)·n)."""
        eta = self.plan.eta
        eps = estimate.eps
        if eta < 1:
            eps = blend(eps, white(eps, generator), eta)
        return self.schedule.add_noise(estimate.x0, eps, t)

    def _switch(self, estimate: Denoised, number: int, noise: Tensor, generator: Generators) -> tuple[Tensor, Denoised]:
        """Enlarge to stage `number` and add noise for its first time, if it has one."""
        stage, plan = self.plan.stages[number], self.plan
        x0 = self.enlarge(estimate.x0, stage.size, plan.upsampler)
        if not stage.times:
            return x0, Denoised(x0, torch.zeros_like(x0))
        if plan.reinjection == "fresh":
            new = white(x0, generator)
        else:  # below the request's own high band: the low band was the first latent's, and must not come twice
            new = into_band(white(estimate.eps, generator), low_band(noise, stage.size))
        mode = "nearest" if plan.upsampler == "selflift" else plan.upsampler  # noise has no pixels
        eps = reinject(estimate.eps, new, plan.reinjection, plan.eta, mode)
        return self.schedule.add_noise(x0, eps, stage.times[0]), Denoised(x0, eps)
