"""How sure a figure is: the same study on other prompts of the same kind, by drawing the prompts again."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ROUNDS, SEED = 100, 0
REACH = 1.96
"""Standard errors on either side: 95% of a normal distribution."""


@dataclass(frozen=True)
class Estimate:
    """A figure with what it was in every round, so that two figures of the same rounds can be compared in pairs."""

    value: float
    rounds: tuple[float, ...] = ()

    @property
    def error(self) -> float:
        """Its standard error. Rounds repeat samples, which raises distances: their spread counts, not their mean."""
        return float(torch.tensor(self.rounds, dtype=torch.float64).std()) if len(self.rounds) > 1 else math.nan

    def minus(self, other: Estimate) -> Estimate:
        """The difference, round by round."""
        pairs = zip(self.rounds, other.rounds, strict=True)
        return Estimate(self.value - other.value, tuple(a - b for a, b in pairs))

    def over(self, other: Estimate) -> Estimate:
        """The ratio, round by round."""
        pairs = zip(self.rounds, other.rounds, strict=True)
        return Estimate(self.value / other.value, tuple(a / b for a, b in pairs))

    @property
    def differs(self) -> bool:
        """Of a difference: whether its interval excludes zero."""
        return abs(self.value) > REACH * self.error

    def as_dict(self) -> dict[str, float]:
        """JSON-ready: the value and its interval."""
        reach = REACH * self.error
        return {
            k: round(v, 6)
            for k, v in (("value", self.value), ("low", self.value - reach), ("high", self.value + reach))
        }


def draws(prompts: int, rounds: int = ROUNDS) -> list[Tensor]:
    """Every round's prompts, (prompts,) of indices, drawn with repetition; the same for the same numbers."""
    g = torch.Generator().manual_seed(SEED)
    return [torch.randint(prompts, (prompts,), generator=g) for _ in range(rounds)]


def of_sets(measure: Callable[[Tensor], float], seeds: int, rounds: Sequence[Tensor]) -> Estimate:
    """An estimate of what is measured on whole sets; measure: of the samples' indices (N,)."""

    def samples(prompts: Tensor) -> Tensor:
        return (prompts[:, None] * seeds + torch.arange(seeds)).flatten()

    prompts = len(rounds[0])
    return Estimate(measure(samples(torch.arange(prompts))), tuple(measure(samples(one)) for one in rounds))


def of_means(values: Tensor, rounds: Sequence[Tensor]) -> Estimate:
    """An estimate of a mean over prompts; values (prompts,), NaN where a prompt has none."""
    return Estimate(float(values.nanmean()), tuple(float(values[one].nanmean()) for one in rounds))
