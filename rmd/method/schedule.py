"""Noise schedules in one convention: x_t = alpha(t)·x0 + sigma(t)·eps, eps ~ N(0, I).

Shapes  x, x0, eps: (B, C, *S), S = (H, W) or (F, H, W), in latent cells.
Time    t: float64 in [0, 1]; 1 is pure noise, 0 is clean. Backbones convert to their own units; nothing else may.
logSNR  logsnr(t) = 2·ln(alpha/sigma), falling in t.

Sources: rectified flow and its timestep shift (Esser et al., arXiv 2403.03206); the scaled-linear
variance-preserving table of Stable Diffusion; the map between resolutions from RMD, arXiv 2603.06136, section 3.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

PredictionType = Literal["epsilon", "v_prediction", "flow_prediction", "sample"]
Time = float | Tensor


def as_time(t: Time) -> Tensor:
    """float64 tensor of times; raises ValueError outside [0, 1] or for NaN."""
    value = torch.as_tensor(t, dtype=torch.float64)
    if not bool(((value >= 0) & (value <= 1)).all()):
        raise ValueError(f"time must lie in [0, 1], not {t}")
    return value


class NoiseSchedule(ABC):
    """Signal and noise level as functions of time. Stateless."""

    @abstractmethod
    def alpha(self, t: Time) -> Tensor:
        """Signal level, float64, in [0, 1]."""

    @abstractmethod
    def sigma(self, t: Time) -> Tensor:
        """Noise level, float64, in [0, 1]."""

    @abstractmethod
    def time_at(self, log_ratio: Tensor) -> Tensor:
        """The time at which ln(sigma/alpha) has the given value, clamped to [0, 1]."""

    @abstractmethod
    def timestep(self, t: Time) -> Tensor:
        """What the network is told: the time in its own units (float32)."""

    def logsnr(self, t: Time) -> Tensor:
        """2·ln(alpha/sigma), float64; +inf at t = 0."""
        return 2 * (torch.log(self.alpha(t)) - torch.log(self.sigma(t)))

    def shifted(self, t: Time, ratio: float) -> Tensor:
        """The time with logSNR lower by 2·ln(ratio): from a low resolution to one `ratio` times larger.

        Averaging s×s blocks divides the noise's std by s, so the same picture at the same information level has
        logsnr_low = logsnr_high + 2·ln s (method.md, section 2). ratio < 1 maps back. Clamped at t = 1.
        """
        if not (ratio > 0 and math.isfinite(ratio)):
            raise ValueError(f"ratio must be positive and finite, not {ratio}")
        return self.time_at(math.log(ratio) - self.logsnr(t) / 2)

    def paced(self, t: Time, size: Sequence[int], steps: int) -> Tensor:
        """The time at which a model is that stands at the uniform time t of a run of so many steps for a result of
        `size` (latent cells). The same, but for schedules that depend on these (`PacedFlowSchedule`)."""
        return as_time(t)

    def unpaced(self, t: Time, size: Sequence[int], steps: int) -> Tensor:
        """The inverse of `paced`."""
        return as_time(t)

    def own_ratio(self, small: Sequence[int], large: Sequence[int], steps: int) -> float | None:
        """The ratio of the model's own timestep shifts between two sizes; None where it has none that follow sizes."""
        return None

    def add_noise(self, x0: Tensor, eps: Tensor, t: Time) -> Tensor:
        """x_t of shape (B, C, *S); t a scalar or (B,)."""
        return expand(self.alpha(t), x0) * x0 + expand(self.sigma(t), x0) * eps

    def split(self, x: Tensor, output: Tensor, t: Time, kind: PredictionType) -> tuple[Tensor, Tensor]:
        """(x0, eps) from a network's output; with `target` the only place that knows prediction types."""
        a, s = expand(self.alpha(t), x), expand(self.sigma(t), x)
        if kind == "epsilon":
            return (x - s * output) / a, output
        if kind == "v_prediction":  # v = alpha·eps − sigma·x0, alpha² + sigma² = 1
            return a * x - s * output, s * x + a * output
        if kind == "flow_prediction":  # velocity = eps − x0, alpha + sigma = 1
            return x - s * output, x + a * output
        if kind == "sample":
            return output, (x - a * output) / s
        raise ValueError(f"prediction type must be one of {PredictionType.__args__}, not {kind!r}")

    def target(self, x0: Tensor, eps: Tensor, t: Time, kind: PredictionType) -> Tensor:
        """What a network should answer at x_t of x0 and eps: `split` gives these back."""
        if kind == "epsilon":
            return eps
        if kind == "v_prediction":
            return expand(self.alpha(t), x0) * eps - expand(self.sigma(t), x0) * x0
        if kind == "flow_prediction":
            return eps - x0
        if kind == "sample":
            return x0
        raise ValueError(f"prediction type must be one of {PredictionType.__args__}, not {kind!r}")


def expand(value: Tensor, like: Tensor) -> Tensor:
    """A scalar or (B,) coefficient in `like`'s dtype and device, broadcastable over (B, C, *S)."""
    value = value.to(like.device, like.dtype)
    return value.reshape(-1, *[1] * (like.ndim - 1)) if value.ndim else value


@dataclass(frozen=True)
class FlowSchedule(NoiseSchedule):
    """Rectified flow: alpha = 1 − sigma, sigma = h·t / (1 + (h − 1)·t) with the timestep shift h."""

    shift: float = 1.0
    timesteps: int = 1000

    def sigma(self, t: Time) -> Tensor:
        t = as_time(t)
        return self.shift * t / (1 + (self.shift - 1) * t)

    def alpha(self, t: Time) -> Tensor:
        return 1 - self.sigma(t)

    def time_at(self, log_ratio: Tensor) -> Tensor:
        sigma = torch.sigmoid(log_ratio)
        return (sigma / (self.shift + (1 - self.shift) * sigma)).clamp(0, 1)

    def timestep(self, t: Time) -> Tensor:
        return (self.sigma(t) * self.timesteps).float()


@dataclass(frozen=True)
class PacedFlowSchedule(FlowSchedule):
    """A rectified flow whose timestep shift e^mu follows the size and the number of steps.

    Its time is the noise level itself (shift 1), so that one time means one thing at every size; `paced` says which
    of them the model's own sampler would take. mu: of image tokens and steps. patch: latent cells per token and side.
    """

    mu: Callable[[int, int], float] = field(kw_only=True)
    patch: int = 2

    def __post_init__(self) -> None:
        if self.shift != 1:
            raise ValueError(f"a paced flow's own shift must be 1, not {self.shift}: mu decides it")

    def at(self, size: Sequence[int], steps: int) -> FlowSchedule:
        """The schedule with the fixed shift that holds for a size and a number of steps."""
        tokens = (int(size[-2]) // self.patch) * (int(size[-1]) // self.patch)
        return FlowSchedule(math.exp(self.mu(tokens, steps)), self.timesteps)

    def paced(self, t: Time, size: Sequence[int], steps: int) -> Tensor:
        return self.at(size, steps).sigma(t)

    def unpaced(self, t: Time, size: Sequence[int], steps: int) -> Tensor:
        sigma = as_time(t)
        return self.at(size, steps).time_at(torch.log(sigma) - torch.log1p(-sigma))

    def own_ratio(self, small: Sequence[int], large: Sequence[int], steps: int) -> float | None:
        return self.at(large, steps).shift / self.at(small, steps).shift


def flux2_mu(tokens: int, steps: int) -> float:
    """FLUX.2's mu: linear in the tokens at 200 and at 10 steps, linear in the steps between (and beyond) the two; above
    4,300 tokens that of 200 steps. Constants as in diffusers' Flux2KleinPipeline (0.42)."""
    many, few = 0.00016927 * tokens + 0.45666666, 8.73809524e-05 * tokens + 1.89833333
    return many if tokens > 4300 else many + (few - many) * (200 - steps) / 190


@dataclass(frozen=True, eq=False)
class VPSchedule(NoiseSchedule):
    """Variance preserving with a table ᾱ of N entries: table index i is time (i + 1)/N.

    Between entries ln(sigma/alpha) is interpolated linearly; below the first entry sigma/alpha falls
    linearly to 0 at t = 0.
    """

    alphas_cumprod: Tensor

    def __post_init__(self) -> None:
        table = self.alphas_cumprod.double()
        if table.ndim != 1 or not bool((table.diff() < 0).all()) or not bool(((table > 0) & (table < 1)).all()):
            raise ValueError("alphas_cumprod must be one falling row of numbers between 0 and 1")
        object.__setattr__(self, "alphas_cumprod", table)
        object.__setattr__(self, "_table", 0.5 * (torch.log1p(-table) - torch.log(table)))

    @property
    def table(self) -> Tensor:
        """ln(sigma/alpha) per table index, rising, (N,) float64."""
        return self._table  # type: ignore[attr-defined, no-any-return]

    def log_ratio(self, t: Time) -> Tensor:
        """ln(sigma/alpha) at time t."""
        index = as_time(t) * len(self.table) - 1
        left = index.floor().clamp(0, len(self.table) - 2).long()
        inside = torch.lerp(self.table[left], self.table[left + 1], index - left)
        return torch.where(index < 0, self.table[0] + torch.log((index + 1).clamp(min=0)), inside)

    def alpha(self, t: Time) -> Tensor:
        return torch.sigmoid(-2 * self.log_ratio(t)).sqrt()

    def sigma(self, t: Time) -> Tensor:
        return torch.sigmoid(2 * self.log_ratio(t)).sqrt()

    def time_at(self, log_ratio: Tensor) -> Tensor:
        right = torch.searchsorted(self.table, log_ratio).clamp(1, len(self.table) - 1)
        low, high = self.table[right - 1], self.table[right]
        index = (right - 1) + (log_ratio - low) / (high - low)
        below = torch.exp(log_ratio - self.table[0]) - 1
        index = torch.where(log_ratio < self.table[0], below, index)
        return ((index + 1) / len(self.table)).clamp(0, 1)

    def timestep(self, t: Time) -> Tensor:
        return (as_time(t) * len(self.table) - 1).clamp(min=0).float()


def scaled_linear(start: float = 0.00085, end: float = 0.012, count: int = 1000) -> VPSchedule:
    """Stable Diffusion's table: betas linear in their square roots."""
    betas = torch.linspace(start**0.5, end**0.5, count, dtype=torch.float64) ** 2
    return VPSchedule(torch.cumprod(1 - betas, dim=0))
