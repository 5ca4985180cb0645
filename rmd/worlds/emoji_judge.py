"""Does a picture show what its prompt names, and how well drawn? Templates of the bundled image model's objects.

A picture is compared with every known object composed on the prompt's background colour at three sizes and nine
positions. At 32×32 px the object of the smallest mean squared difference is what it "shows": crude, but without
training or randomness. That tells whether the right shape is in place, not whether it is drawn well, so the same
comparison with the right object alone is made at 128×128 px: the root mean square difference there is the
"detail error". Both are also measured on real compositions and reported beside every figure.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from rmd.backbones.cards import with_article
from rmd.checks import RequestError
from rmd.worlds import emoji

SIDE, DETAIL = 32, 128
SCALES = (0.91, 0.94, 0.97)
SHIFTS = (-3.0, 0.0, 3.0)  # px of the 256 px picture


def aligned(picture: Tensor, side: int) -> Tensor:
    """A (4, 256, 256) uint8 picture at every scale and shift, (27, 4, side, side) in [0, 1], outside transparent."""
    thetas = [
        [[1 / scale, 0, -2 * dx / emoji.SIZE / scale], [0, 1 / scale, -2 * dy / emoji.SIZE / scale]]
        for scale in SCALES
        for dx in SHIFTS
        for dy in SHIFTS
    ]
    grid = F.affine_grid(torch.tensor(thetas), [len(thetas), 4, side * 2, side * 2], align_corners=False)
    source = F.adaptive_avg_pool2d(picture.float()[None] / 255, side * 2)  # twice the wanted size, so nothing aliases
    moved = F.grid_sample(source.expand(len(thetas), -1, -1, -1), grid, align_corners=False)
    return F.avg_pool2d(moved, 2)


class Templates:
    """Premultiplied RGBA templates of every known object, (N·27, 4, 32, 32), built once from the pictures."""

    def __init__(self, data: Path):
        folder = emoji.picture_folder(data)
        if not folder.is_dir():
            raise RequestError(f"The reference pictures are not in {data}; run `python -m rmd train data` first.")
        self.pictures = {c.name: emoji.load_picture(folder / c.file) for c in emoji.concepts()}
        self.names = list(self.pictures)
        self.templates = torch.cat([aligned(picture, SIDE) for picture in self.pictures.values()])
        self.per_name = len(self.templates) // len(self.names)

    def object_ranks(self, picture: Tensor, colour: str) -> list[str]:
        """Known objects from nearest to farthest for (3, H, W) in [0, 1] on a background of the named colour."""
        small = F.adaptive_avg_pool2d(picture[None], SIDE)
        distance = differences(small, self.templates, colour).reshape(len(self.names), self.per_name)
        return [self.names[i] for i in distance.amin(dim=1).argsort().tolist()]

    def detail_error(self, picture: Tensor, name: str, colour: str) -> float:
        """Root mean square difference, in [0, 1], between (3, H, W) in [0, 1] and the best aligned named object."""
        small = F.adaptive_avg_pool2d(picture[None], DETAIL)
        return float(differences(small, aligned(self.pictures[name], DETAIL), colour).min().sqrt())

    def colour(self, picture: Tensor) -> str:
        """The known colour nearest to the median of the picture's top corners."""
        corners = torch.cat([picture[:, :20, :20].flatten(1), picture[:, :20, -20:].flatten(1)], dim=1)
        middle = corners.median(dim=1).values
        table = torch.tensor(list(emoji.COLOURS.values())) / 255
        return list(emoji.COLOURS)[int((table - middle).square().sum(dim=1).argmin())]


def differences(small: Tensor, templates: Tensor, colour: str) -> Tensor:
    """Mean squared differences of (1, 3, S, S) to (N, 4, S, S) templates put on its own background, (N,)."""
    # the picture's own border is a better background than the named colour: shades vary in training
    border = torch.cat([small[..., 0, :], small[..., :, 0], small[..., :, -1]], dim=-1).median(dim=-1).values
    named = torch.tensor(emoji.COLOURS[colour])[None] / 255
    backdrop = border if (border - named).abs().max() < 0.25 else named
    composed = templates[:, :3] + (1 - templates[:, 3:]) * backdrop[..., None, None]
    return (composed - small).square().mean(dim=(1, 2, 3))


def parse_prompt(prompt: str) -> tuple[str, str]:
    """(object, colour) of a prompt in the main caption form, longest names first."""
    for name in sorted((c.name for c in emoji.concepts()), key=len, reverse=True):
        for colour in emoji.COLOURS:
            if prompt == f"{with_article(name)} on {with_article(colour)} background":
                return name, colour
    raise RequestError(f"{prompt!r} is not of the form “a fox on a blue background” with known words.")


def on_real(templates: Templates, data: Path, count: int = 200) -> dict[str, float]:
    """Both figures on real compositions as in training: the best that a picture can reach."""
    g = torch.Generator().manual_seed(0)
    items, colours, hits, error = emoji.concepts(), list(emoji.COLOURS), 0, 0.0
    for _ in range(count):
        item = items[int(torch.randint(len(items), (), generator=g))]
        colour = colours[int(torch.randint(len(colours), (), generator=g))]
        picture = emoji.load_picture(emoji.picture_folder(data) / item.file)
        image = emoji.compose(picture, emoji.COLOURS[colour], g)
        hits += templates.object_ranks(image, colour)[0] == item.name
        error += templates.detail_error(image, item.name, colour)
    return {"accuracy": hits / count, "detail_error": round(error / count, 4)}
