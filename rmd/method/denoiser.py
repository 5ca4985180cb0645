"""A network call as the sampler sees it: (x, t) → (x0, eps), guidance included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from rmd.method.schedule import NoiseSchedule, PredictionType, Time

Conditioning = dict[str, Tensor]
"""A prompt as the network takes it: named tensors, batch first."""


class Denoised(NamedTuple):
    """The estimates of the clean latent and of the noise, both (B, C, *S) float32."""

    x0: Tensor
    eps: Tensor


class Network(Protocol):
    """What a denoiser needs of a backbone."""

    schedule: NoiseSchedule
    prediction: PredictionType

    def predict(self, x: Tensor, t: Time, conditioning: Conditioning) -> Tensor:
        """Raw output for x (B, C, *S) at time t (scalar or (B,)), without guidance."""
        ...


@dataclass(frozen=True)
class Denoiser:
    """A backbone with its conditioning and classifier-free guidance.

    guidance: scale w of `uncond + w·(cond − uncond)`; at 1 the negative conditioning is not needed and a step
    is one call, otherwise it is one call on a doubled batch (counted as two function evaluations).
    """

    backbone: Network
    positive: Conditioning
    negative: Conditioning | None = None
    guidance: float = 1.0

    @property
    def calls_per_step(self) -> int:
        """Network function evaluations (NFE) per step."""
        return 1 if self.guidance == 1 else 2

    def __call__(self, x: Tensor, t: Time) -> Denoised:
        """x: (B, C, *S) float32; t: scalar or (B,) in (0, 1]."""
        backbone = self.backbone
        if self.guidance == 1:
            output = backbone.predict(x, t, self.positive)
        else:
            if self.negative is None:
                raise ValueError("guidance other than 1 needs a negative conditioning")
            both = {k: torch.cat([self.negative[k], v]) for k, v in self.positive.items()}
            pair = t if not isinstance(t, Tensor) or t.ndim == 0 else torch.cat([t, t])
            without, with_prompt = backbone.predict(torch.cat([x, x]), pair, both).chunk(2)
            output = without + self.guidance * (with_prompt - without)
        return Denoised(*backbone.schedule.split(x, output.float(), t, backbone.prediction))
