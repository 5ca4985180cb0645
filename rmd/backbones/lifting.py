"""Enlarging clean latents by ways that need the autoencoder."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from rmd.backbones.base import Backbone
from rmd.checks import RequestError
from rmd.method.plan import Upsampler
from rmd.method.transition import consistency_lift, upsample


def enlarge(backbone: Backbone, x0: Tensor, size: Sequence[int], mode: Upsampler) -> Tensor:
    """Clean latents (B, C, *S) of a larger `size` in latent cells, see `rmd.method.transition.upsample`.

    "selflift" (arXiv 2609.02036) holds them against what the autoencoder makes of the enlarged pixels; RequestError
    where it cannot encode.
    """
    if mode != "selflift":
        return upsample(x0, size, mode)
    small = backbone.pixels(x0)
    cell = small.shape[-1] // x0.shape[-1]
    large = upsample(small, [side * cell for side in size[-2:]], "bicubic").clamp(-1, 1)
    try:
        pixel = backbone.latents(large)
    except ValueError as error:
        raise RequestError(f"upsampler must not be selflift here: {error}.") from error
    return consistency_lift(upsample(x0, size, "nearest"), pixel.to(x0))
