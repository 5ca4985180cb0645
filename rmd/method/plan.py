"""Cascade plans: which steps run at which resolution and at which times. Plain data, drawable and comparable."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

from rmd.method.schedule import NoiseSchedule

Reinjection = Literal["fresh", "mix", "band", "block"]
Mapping = Literal["logsnr", "shift", "none"]
Upsampler = Literal["bilinear", "bicubic", "nearest", "dct", "selflift"]
MAX_STEPS = 8


@dataclass(frozen=True)
class Stage:
    """Network calls at one resolution."""

    size: tuple[int, ...]
    """Latent cells, (H, W) or (F, H, W)."""
    times: tuple[float, ...]
    """Descending in (0, 1]; one network call each. Empty: only the clean estimate is enlarged to this size."""


@dataclass(frozen=True)
class CascadePlan:
    """Stages from small to large and how to go from one step or stage to the next.

    eta: share of the predicted noise kept in a step, 0 (all fresh, the consistency/LCM sampler) to 1
    (deterministic, DDIM-like).
    """

    stages: tuple[Stage, ...]
    eta: float
    reinjection: Reinjection
    mapping: Mapping = "logsnr"
    upsampler: Upsampler = "bilinear"

    def __post_init__(self) -> None:
        if not self.stages or not self.stages[0].times:
            raise ValueError("a plan needs at least one step in its first stage")
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must lie between 0 and 1, not {self.eta}")
        for stage in self.stages:
            times = stage.times
            if any(not 0 < t <= 1 for t in times) or any(a <= b for a, b in pairwise(times)):
                raise ValueError(f"a stage's times must fall and lie in (0, 1], not {times}")
        for small, large in pairwise(self.stages):
            if len(small.size) != len(large.size) or ratio(small.size, large.size) < 1:
                raise ValueError(f"stages must grow, not go from {small.size} to {large.size}")
            if self.reinjection == "block" and any(b % a for a, b in zip(small.size, large.size, strict=True)):
                raise ValueError(f"reinjection 'block' needs sizes that divide, not {small.size} and {large.size}")

    @property
    def steps(self) -> int:
        return sum(len(stage.times) for stage in self.stages)

    @property
    def size(self) -> tuple[int, ...]:
        """The size of the result, in latent cells."""
        return self.stages[-1].size

    @property
    def switch(self) -> int:
        """How many steps run below the final size."""
        return self.steps - len(self.stages[-1].times)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; `plan_from_dict` reads it back."""
        return asdict(self)


def ratio(small: Sequence[int], large: Sequence[int]) -> float:
    """Linear size ratio, the square root of the area ratio (frames do not count)."""
    return math.sqrt(math.prod(large[-2:]) / math.prod(small[-2:]))


def staged(
    schedule: NoiseSchedule,
    sizes: Sequence[tuple[int, ...]],
    *,
    eta: float,
    reinjection: Reinjection,
    mapping: Mapping = "logsnr",
    upsampler: Upsampler = "bilinear",
    shift_ratio: float | None = None,
    high_times: Sequence[float] | None = None,
) -> CascadePlan:
    """A plan from the size of every step; steps of one size form a stage.

    sizes: one per step, then the size of the result (len = steps + 1), never shrinking.
    high_times: the steps' times at the result's resolution, falling; by default 1, 1 − 1/K, …, the uniform
    grid of DMD2 and TDM, as the schedule paces it. Steps at lower resolutions run at the time of equal information
    there (`mapping`), but at 1, where there is nothing but noise, all sizes are alike. A plan may start below 1 (TDM's
    does): its first latent is noise all the same.
    shift_ratio: the backbone's own ratio of timestep shifts between the sizes, for mapping "shift"; by default the
    schedule's.
    """
    steps = len(sizes) - 1
    if high_times is None:
        high_times = [time_of(schedule, i, steps, sizes[-1]) for i in range(steps)]
    if len(high_times) != steps:
        raise ValueError(f"{steps} step sizes need as many times, not {len(high_times)}")
    stages: list[Stage] = []
    for i, size in enumerate(sizes):
        if not stages or stages[-1].size != size:
            stages.append(Stage(size, ()))
        if i < steps:
            own = schedule.own_ratio(size, sizes[-1], steps) if shift_ratio is None else shift_ratio
            t, s = high_times[i], gain(size, sizes[-1], mapping, own)
            if s != 1 and (i or t < 1):  # at 1 there is nothing but noise at any size
                t = float(schedule.shifted(t, 1 / s))
            stages[-1] = Stage(size, (*stages[-1].times, t))
    return CascadePlan(tuple(stages), eta, reinjection, mapping, upsampler)


def time_of(schedule: NoiseSchedule, index: int, steps: int, size: Sequence[int]) -> float:
    """The time of step `index` of the uniform grid at full size (latent cells)."""
    return float(schedule.paced(1 - index / steps, size, steps))


def gain(small: Sequence[int], large: Sequence[int], mapping: Mapping, shift_ratio: float | None) -> float:
    """The ratio whose doubled logarithm is the logSNR difference between two sizes under a mapping."""
    s = ratio(small, large)
    if mapping == "none" or s == 1:
        return 1.0
    if mapping == "shift":
        if shift_ratio is None:
            raise ValueError("mapping 'shift' needs a backbone with timestep shifts; use 'logsnr' or 'none'")
        return shift_ratio
    return s


def two_stage(
    schedule: NoiseSchedule,
    steps: int,
    switch: int,
    low: tuple[int, ...],
    high: tuple[int, ...],
    *,
    eta: float,
    reinjection: Reinjection,
    mapping: Mapping = "logsnr",
    upsampler: Upsampler = "bilinear",
    shift_ratio: float | None = None,
    high_times: Sequence[float] | None = None,
) -> CascadePlan:
    """K steps of which the first `switch` run at the low size (0 ≤ switch ≤ K).

    switch = 0 is one resolution at full size; switch = K runs everything low and enlarges the clean estimate.
    high_times: as in `staged`.
    """
    if not 1 <= steps <= MAX_STEPS:
        raise ValueError(f"steps must lie between 1 and {MAX_STEPS}, not {steps}")
    if not 0 <= switch <= steps:
        raise ValueError(f"switch must lie between 0 and steps ({steps}), not {switch}")
    sizes = [low] * switch + [high] * (steps - switch + 1)
    return staged(
        schedule,
        sizes,
        eta=eta,
        reinjection=reinjection,
        mapping=mapping,
        upsampler=upsampler,
        shift_ratio=shift_ratio,
        high_times=high_times,
    )


def recommended_switch(schedule: NoiseSchedule, steps: int, detail: float, size: Sequence[int]) -> int:
    """The most low-resolution steps of `steps` after which the noise still covers the detail that the low size loses.

    That is the largest switch whose first step at full size, on the uniform grid, has (sigma/alpha)² ≥ detail;
    0 when there is none. detail: see `rmd.transition.lost_detail`. size: the result's, in latent cells.
    """
    fitting = [s for s in range(1, steps) if noise_to_signal(schedule, time_of(schedule, s, steps, size)) >= detail]
    return max(fitting, default=0)


def activated_switch(
    schedule: NoiseSchedule, steps: int, power: float, size: Sequence[int], delta: float = 0.05
) -> int:
    """SPEED's rule (arXiv 2605.18736, as its authors wrote it for SGLang): low-resolution steps of `steps`, 1 to all.

    A frequency of power P in the clean latents (that of white noise is 1) counts once (sigma/alpha)² has fallen to
    P·(1 + P − delta) / delta; the first step at full size is the first one there, for the highest frequency of the low
    size. On flow schedules that is t ≤ 1 / (1 + sqrt(delta / (P·(1 + P − delta)))).
    power: P, see `rmd.transition.edge_power`. size: the result's, in latent cells. ValueError for delta ≥ 1 + P.
    """
    if not 0 < delta < 1 + power:
        raise ValueError(f"delta must lie between 0 and 1 + the power, {1 + power:.3g}, not {delta}")
    limit = power * (1 + power - delta) / delta
    noise = [noise_to_signal(schedule, time_of(schedule, s, steps, size)) for s in range(1, steps)]
    return next((s for s, level in enumerate(noise, start=1) if level <= limit), steps)


def noise_to_signal(schedule: NoiseSchedule, t: float) -> float:
    """(sigma/alpha)² at a time of the result's resolution."""
    return math.exp(-float(schedule.logsnr(t)))


def plan_from_dict(data: dict[str, Any]) -> CascadePlan:
    """The inverse of `CascadePlan.as_dict`."""
    stages = tuple(Stage(tuple(s["size"]), tuple(s["times"])) for s in data["stages"])
    rest = {name: value for name, value in data.items() if name != "stages"}
    return CascadePlan(stages, **rest)
