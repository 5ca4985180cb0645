"""Losses of the distillation, pure functions of tensors. Shapes (B, C, *S); means run over all but the batch."""

from __future__ import annotations

import torch
from torch import Tensor

MIN_SCALE = 0.2
"""Lower bound of the per-sample scale in `matching_loss`, so that samples the teacher agrees with do not dominate."""


def per_sample(x: Tensor) -> Tensor:
    """Mean over all but the batch dimension, (B,)."""
    return x.flatten(1).mean(dim=1)


def pseudo_huber(x: Tensor, target: Tensor, c: float = 0.03) -> Tensor:
    """sqrt(|x − target|² + c²) − c per element: square near zero, absolute far away."""
    return ((x - target).square() + c * c).sqrt() - c


def matching_target(x0: Tensor, teacher_x0: Tensor, fake_x0: Tensor) -> Tensor:
    """Where distribution matching wants the student's sample: x0 + teacher − fake, without gradient.

    The gradient towards it is the difference of the two scores (DMD, arXiv 2311.18828, eq. 7), in x0 terms.
    """
    return (x0 + teacher_x0 - fake_x0).detach()


def matching_loss(x0: Tensor, teacher_x0: Tensor, fake_x0: Tensor) -> Tensor:
    """Distribution-matching loss of the student's samples x0 (with gradient), a scalar.

    Every sample is divided by its distance to the teacher's estimate, mean|x0 − teacher_x0|, as in DMD.
    """
    scale = per_sample((x0.detach() - teacher_x0).abs()).clamp(min=MIN_SCALE)
    return (per_sample(pseudo_huber(x0, matching_target(x0, teacher_x0, fake_x0))) / scale).mean()


def denoising_loss(x0_estimate: Tensor, x0: Tensor, snr: Tensor, limit: float = 20.0) -> Tensor:
    """Error of a denoiser on known samples, weighted by the signal-to-noise ratio (alpha/sigma)² plus one.

    Plus one makes it the velocity error of variance-preserving models, which also counts near pure noise;
    `limit` bounds the weight near t = 0. snr: (B,).
    """
    weight = (snr + 1).clamp(max=limit).to(x0.dtype)
    return (weight * per_sample((x0_estimate - x0).square())).mean()


def agreement(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference, for logs."""
    return (a - b).abs().mean().detach()


def guidance_loss(x0: Tensor, teacher_x0: Tensor) -> Tensor:
    """Plain regression of the student's guidance-free estimate on the teacher's guided one: the warm-up."""
    return torch.nn.functional.mse_loss(x0, teacher_x0)
