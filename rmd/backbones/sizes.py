"""Which sizes and lengths a backbone can be asked for. Pixels are (height, width)."""

from __future__ import annotations

import math

from rmd.backbones.base import Grid
from rmd.backbones.cards import BackboneSpec
from rmd.checks import RequestError, size_text

ASPECTS = ((4, 3), (3, 4), (3, 2), (2, 3), (16, 9), (9, 16))
"""Width to height of the presets, beside the backbone's own and the square."""
SMALLER, LARGER = 4, 2
"""A side may be so many times shorter than the shortest of the usual size, or longer than the longest."""

Pixels = tuple[int, int]


def on_grid(grid: Grid, height: float, width: float) -> Pixels:
    """The nearest size that latent cells and patches divide."""
    near = [max(grid.step, round(side / grid.step) * grid.step) for side in (height, width)]
    return near[0], near[1]


def side_range(spec: BackboneSpec, grid: Grid) -> tuple[int, int]:
    """The shortest and the longest side of a result; the low size may be as short at every switch."""
    sides = (*spec.high, *spec.low)
    return math.ceil(min(sides) / SMALLER / grid.step) * grid.step, max(sides) * LARGER // grid.step * grid.step


def low_for(spec: BackboneSpec, grid: Grid, size: Pixels) -> Pixels:
    """The low size that goes with a size: in the proportion of the backbone's own two."""
    height, width = (side * low / high for side, low, high in zip(size, spec.low, spec.high, strict=True))
    low = on_grid(grid, height, width)
    return min(low[0], size[0]), min(low[1], size[1])


def presets(spec: BackboneSpec, grid: Grid) -> list[Pixels]:
    """The usual size first, then other shapes of about the same area."""
    area = spec.high[0] * spec.high[1]
    least, most = side_range(spec, grid)
    found = [spec.high]
    for wide, tall in ((1, 1), *ASPECTS):
        one = on_grid(grid, math.sqrt(area * tall / wide), math.sqrt(area * wide / tall))
        if one not in found and least <= min(one) and max(one) <= most:
            found.append(one)
    return found


def lengths(spec: BackboneSpec, grid: Grid) -> list[int]:
    """Numbers of frames that a clip can have; 1 alone for pictures."""
    return [1] if grid.temporal is None else list(range(1, LARGER * spec.frames + 1, grid.temporal))


def check_side(spec: BackboneSpec, grid: Grid, name: str, pixels: Pixels) -> None:
    """Raise RequestError for a size whose sides are too short, too long or off the grid."""
    least, most = side_range(spec, grid)
    if any(side % grid.step or not least <= side <= most for side in pixels):
        near = on_grid(grid, *(min(max(side, least), most) for side in pixels))
        raise RequestError(
            f"{name} must have sides of {least} to {most} px in multiples of {grid.step}, not {size_text(pixels)}; "
            f"the nearest is {size_text(near)}."
        )


def check_sizes(spec: BackboneSpec, grid: Grid, size: Pixels, low: Pixels, frames: int) -> None:
    """Raise RequestError naming the field, the value and what is allowed, for what the backbone cannot do."""
    check_side(spec, grid, "size", size)
    check_side(spec, grid, "low", low)
    if low[0] > size[0] or low[1] > size[1]:
        raise RequestError(f"low must not be larger than size, {size_text(size)}, not {size_text(low)}.")
    allowed = lengths(spec, grid)
    if frames not in allowed:
        if grid.temporal is None:
            raise RequestError(f"frames must be 1 for a model of pictures, not {frames}.")
        near = min(allowed, key=lambda one: abs(one - frames))
        raise RequestError(
            f"frames must be one more than a multiple of {grid.temporal}, 1 to {allowed[-1]}, not {frames}; "
            f"the nearest is {near}."
        )
