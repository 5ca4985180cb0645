"""Measures of sets of pictures, by their features (N, D) or their pixels.

Fréchet and kernel distance are those of torchmetrics (tests hold them equal), computed through the products of
samples, because a bootstrap needs them hundreds of times.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

NEIGHBOURS = 3


def frechet(a: Tensor, b: Tensor) -> float:
    """|μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½) of two sets (N, D), (M, D); the last trace is a sum of singular values.

    It grows as sets become smaller: compare sets of one size.
    """
    means = (a.mean(dim=0) - b.mean(dim=0)).square().sum()
    x, y = (smallest((one - one.mean(dim=0)) / (len(one) - 1) ** 0.5) for one in (a, b))
    return float(means + x.square().sum() + y.square().sum() - 2 * torch.linalg.svdvals(x @ y.T).sum())


def smallest(x: Tensor) -> Tensor:
    """(N, D) as at most (D, D) with the same products of columns."""
    return x if len(x) <= x.shape[1] else torch.linalg.qr(x, mode="r").R


def across_seeds(a: Tensor, b: Tensor) -> float:
    """Fréchet distance of half of the seeds in a to the other half in b, the mean of both ways; (prompts, seeds, D).

    Of a set and itself it is what other seeds alone make: more than nothing, and the more the fewer samples there are.
    """
    half = a.shape[1] // 2
    ways = ((a[:, :half], b[:, -half:]), (a[:, -half:], b[:, :half]))
    return sum(frechet(one.flatten(0, 1), other.flatten(0, 1)) for one, other in ways) / 2


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """KID: the unbiased squared mean discrepancy under the kernel (x·y/D + 1)³, of two sets (N, D), (M, D)."""

    def within(x: Tensor) -> Tensor:
        k = kernel(x, x)
        return (k.sum() - k.diagonal().sum()) / (len(x) * (len(x) - 1))

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / x.shape[1] + 1) ** 3

    return float(within(a) + within(b) - 2 * kernel(a, b).mean())


def precision_recall(real: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
    """Which made samples lie inside the real ones' neighbourhood, and the reverse (Kynkäänniemi et al. 2019).

    Ones and zeros, (N,) each: precision and recall are their means. A neighbourhood is the union of balls around each
    sample that reach its third nearest neighbour.
    """

    def inside(points: Tensor, of: Tensor) -> Tensor:
        radius = torch.cdist(of, of).kthvalue(NEIGHBOURS + 1, dim=1).values  # the nearest is itself
        return (torch.cdist(points, of) <= radius).any(dim=1).float()

    return inside(made, real), inside(real, made)


def spread(features: Tensor, seeds: int) -> Tensor:
    """Mean distance between the seeds of each prompt, (prompts,); features (prompts·seeds, D), prompt by prompt."""
    groups = features.unflatten(0, (-1, seeds))
    return torch.cdist(groups, groups).sum(dim=(1, 2)) / (seeds * (seeds - 1))


def apart(features: Tensor, other: Tensor) -> Tensor:
    """Distance of every sample to the other set's of the same prompt and seed, (N,)."""
    return (features - other).norm(dim=1)


def octave(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Sharpness and grain of pictures or clips (B, 3, F, H, W) in [−1, 1], each (B,).

    Sharpness is the root mean square of the luminance's top octave (the picture less itself halved and enlarged again);
    grain the same in the quarter of 16-pixel tiles whose coarser structure varies least, where a drawing is flat.
    """
    grey = (pixels * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1, 1)).sum(dim=1)  # B, F, H, W
    small = F.avg_pool2d(grey, 2)
    coarse = F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)
    fine = (grey[..., : coarse.shape[-2], : coarse.shape[-1]] - coarse).square()
    tile = 16
    energy = F.avg_pool2d(fine, tile).flatten(1)
    level = F.avg_pool2d(coarse, tile)
    structure = (F.avg_pool2d(coarse.square(), tile) - level.square()).flatten(1)
    flat = structure.argsort(dim=1)[:, : max(1, structure.shape[1] // 4)]
    return energy.mean(dim=1).sqrt(), energy.gather(1, flat).mean(dim=1).sqrt()
