"""The switch: enlarging the clean estimate and giving the larger latent its noise.

Shapes: (B, C, *S), S = (H, W) or (F, H, W); only H and W change. Sizes are latent cells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from rmd.method.plan import Reinjection, Upsampler


def upsample(x: Tensor, size: Sequence[int], mode: Upsampler = "bilinear") -> Tensor:
    """Enlarge the last two dimensions to size[-2:]; frames of a video are enlarged one by one.

    "dct" fills up the cosine coefficients with zeros (SPEED, arXiv 2605.18736): no frequency that was there changes.
    "selflift" needs an autoencoder, see `rmd.backbones.lifting`: ValueError.
    """
    if mode == "selflift":
        raise ValueError("the upsampler selflift needs an autoencoder, which these latents come without")
    flat = x.reshape(-1, 1, *x.shape[-2:])
    target = (int(size[-2]), int(size[-1]))
    if mode == "dct":
        height, width = x.shape[-2:]
        padded = F.pad(dct(flat), (0, target[1] - width, 0, target[0] - height))
        out = idct(padded) * math.sqrt(target[0] * target[1] / (height * width))
    elif mode == "nearest":
        out = F.interpolate(flat, size=target, mode="nearest")
    else:
        out = F.interpolate(flat, size=target, mode=mode, align_corners=False)
    return out.reshape(*x.shape[:-2], *target)


def lost_detail(x0: Tensor, size: Sequence[int]) -> float:
    """Mean square of x0 − Up(Down(x0)): what clean latents (B, C, *S) lose in `size`, in the latents' own units.

    Down is the average over areas, Up bilinear as at the switch. Compare with (sigma/alpha)² there (method.md, 3).
    """
    flat = x0.float().reshape(-1, 1, *x0.shape[-2:])
    small = F.interpolate(flat, size=(int(size[-2]), int(size[-1])), mode="area")
    return float((flat - upsample(small, x0.shape[-2:])).square().mean())


def edge_power(x0: Tensor, size: Sequence[int]) -> float:
    """Mean power of clean latents (B, C, *S) at the highest frequency that `size` holds; white noise has 1.

    Over all orthonormal cosine coefficients within a tenth, or one place, of it. For `plan.activated_switch`.
    """
    rows, columns = (torch.arange(n) / edge for n, edge in zip(x0.shape[-2:], size[-2:], strict=True))
    ring = (torch.hypot(rows[:, None], columns) - 1).abs() <= max(0.1, 1 / min(size[-2:]))
    return float(dct(x0.float())[..., ring.to(x0.device)].square().mean())


def consistency_lift(
    latent: Tensor, pixel: Tensor, rho: float = 0.4, weights: tuple[float, float] = (0.5, 1.0)
) -> Tensor:
    """SelfLift-zero's artifact-aware lift (arXiv 2609.02036, equations 6 to 9) of clean latents (B, C, *S).

    latent: the low-resolution ones enlarged as they are. pixel: the same decoded, enlarged and encoded again. Of each
    sample's cells the share `rho` where both differ most goes towards `pixel`, by `weights` from the least of these to
    the most. rho, weights: those of the paper's four-step model.
    """
    gap = pixel - latent
    risk = gap.abs().mean(dim=1).flatten(1)
    chosen = risk >= torch.quantile(risk.float(), 1 - rho, dim=1, keepdim=True).to(risk.dtype)
    least = risk.masked_fill(~chosen, torch.inf).amin(dim=1, keepdim=True)
    most = risk.masked_fill(~chosen, -torch.inf).amax(dim=1, keepdim=True)
    share = weights[0] + (weights[1] - weights[0]) * (risk - least) / (most - least + 1e-8)
    return latent + (share * chosen).reshape(len(latent), 1, *latent.shape[2:]) * gap


@lru_cache(maxsize=64)
def _dct(n: int) -> Tensor:
    """The orthonormal DCT-II as an (n, n) float64 matrix, rows are frequencies."""
    k = torch.arange(n, dtype=torch.float64)
    matrix = torch.cos(math.pi / n * (k[None] + 0.5) * k[:, None]) * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix


def dct(x: Tensor) -> Tensor:
    """Orthonormal 2-D DCT over the last two dimensions: white noise stays white noise."""
    rows, columns = (_dct(n).to(x.device, x.dtype) for n in x.shape[-2:])
    return rows @ x @ columns.T


def idct(c: Tensor) -> Tensor:
    """The inverse of `dct`."""
    rows, columns = (_dct(n).to(c.device, c.dtype) for n in c.shape[-2:])
    return rows.T @ c @ columns


@dataclass(frozen=True)
class Share:
    """One of several processes' part of what one generator draws for all of them, part by part along the batch."""

    generator: torch.Generator
    index: int
    count: int


Generators = torch.Generator | Share | Sequence[torch.Generator]
"""One for a whole batch, one for each of its samples, or a process's share of one."""


def white(like: Tensor, generator: Generators) -> Tensor:
    """White noise of a tensor's shape (B, …), device and dtype, drawn in fp32 where the generator is."""
    if isinstance(generator, torch.Generator):
        drawn = normal(like.shape, generator)
    elif isinstance(generator, Share):
        count, *rest = like.shape
        drawn = normal((count * generator.count, *rest), generator.generator)[generator.index * count :][:count]
    else:
        drawn = torch.cat([normal((1, *like.shape[1:]), g) for g in generator])
    return drawn.to(like.device, like.dtype)


def normal(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    return torch.randn(tuple(shape), generator=generator, device=generator.device, dtype=torch.float32)


def low_band(noise: Tensor, size: Sequence[int]) -> Tensor:
    """The low-frequency block of white noise as white noise of a smaller size.

    Used for the first, low-resolution latent of a request: it holds the coarse part of the very noise the teacher
    starts from, so that one seed means one composition at every resolution.
    """
    height, width = int(size[-2]), int(size[-1])
    if (height, width) == tuple(noise.shape[-2:]):
        return noise
    return idct(dct(noise)[..., :height, :width])


def into_band(low: Tensor, fresh: Tensor) -> Tensor:
    """White noise at fresh's size whose low-frequency block is `low` exactly; the rest comes from `fresh`."""
    coefficients = dct(fresh)
    coefficients[..., : low.shape[-2], : low.shape[-1]] = dct(low)
    return idct(coefficients)


def standardise(eps: Tensor) -> Tensor:
    """Scale predicted noise to unit mean square per sample (a network's estimate falls short of it)."""
    power = eps.square().mean(dim=tuple(range(1, eps.ndim)), keepdim=True)
    return eps / power.clamp(min=1e-12).sqrt()


def blend(eps: Tensor, fresh: Tensor, eta: float) -> Tensor:
    """eta·eps + sqrt(1 − eta²)·fresh: unit variance when both are and they are independent."""
    return eta * eps + math.sqrt(1 - eta * eta) * fresh


def blocks(noise: Tensor, shape: Sequence[int]) -> Tensor:
    """White noise averaged over blocks of cells to a smaller `shape`, at unit variance again."""
    flat = noise.reshape(-1, 1, *noise.shape[-2:])
    small = F.adaptive_avg_pool2d(flat, (int(shape[-2]), int(shape[-1])))
    share = math.sqrt(math.prod(noise.shape[-2:]) / math.prod(shape[-2:]))
    return small.reshape(*noise.shape[:-2], *small.shape[-2:]) * share


def reinject(eps: Tensor, fresh: Tensor, kind: Reinjection, eta: float, mode: Upsampler = "bilinear") -> Tensor:
    """Noise for the enlarged latent, at `fresh`'s size.

    eps: predicted noise at the low size. fresh: white noise at the high size.
    fresh  new noise only (SwD, arXiv 2503.16397).
    mix    eta·Up(eps) + sqrt(1 − eta²)·fresh, as published (RMD, arXiv 2603.06136). Bilinear enlargement of white
           noise has variance 0.396 at ×2 and is correlated, so the sum is not unit variance.
    block  the same by blocks of cells in place of frequencies: the low noise repeated in every block, and fresh less
           its blocks' means. White for whole-number ratios; the noise of Pyramidal Flow Matching (arXiv 2410.05954)
           and Helios at the strongest correlation that they allow, gamma = 1/3 at ×2.
    band   eta·eps + sqrt(1 − eta²)·(fresh's low band) as the low-frequency block, fresh elsewhere: white, unit
           variance at any ratio, and at eta = 1 the low band keeps the predicted noise exactly.
    """
    if kind == "fresh":
        return fresh
    if kind == "mix":
        return blend(upsample(eps, fresh.shape[-2:], mode), fresh, eta)
    if kind == "block":
        low, size = blend(standardise(eps), blocks(fresh, eps.shape), eta), fresh.shape[-2:]
        share = math.sqrt(math.prod(eps.shape[-2:]) / math.prod(size))
        return (
            upsample(low, size, "nearest") * share + fresh - upsample(blocks(fresh, eps.shape), size, "nearest") * share
        )
    if kind == "band":
        low = blend(standardise(eps), low_band(fresh, eps.shape[-2:]), eta)
        return into_band(low, fresh)
    raise ValueError(f"reinjection must be one of fresh, mix, band, block, not {kind!r}")
