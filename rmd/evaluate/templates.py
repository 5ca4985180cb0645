"""Does a picture show what its prompt names? A nearest-template classifier for the bundled image model.

The picture is compared at 32×32 px with every known object composed on the prompt's background colour at three sizes
and 25 positions; the object of the smallest mean squared difference is what it "shows". Crude, but it has no
training, no randomness, and its own accuracy on real compositions is measured and reported beside every figure.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from rmd.config import RequestError
from rmd.train import emoji

SIDE = 32
SCALES = (0.85, 0.91, 0.97)
SHIFTS = (-1.5, -0.75, 0.0, 0.75, 1.5)  # in cells of the 32×32 picture: up to 12 px of 256


def shifted(x: Tensor, dx: float, dy: float) -> Tensor:
    """Move (B, C, S, S) by a fraction of cells, repeating the border."""
    theta = torch.tensor([[1, 0, -2 * dx / SIDE], [0, 1, -2 * dy / SIDE]]).expand(len(x), 2, 3)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


class Templates:
    """Premultiplied 32×32 RGBA templates of every known object, (N·75, 4, 32, 32), built once from the pictures."""

    def __init__(self, data: Path):
        folder = emoji.picture_folder(data)
        if not folder.is_dir():
            raise RequestError(f"The reference pictures are not in {data}; run `python -m rmd train data` first.")
        self.names = [c.name for c in emoji.concepts()]
        rows = []
        for concept in emoji.concepts():
            picture = emoji.load_picture(folder / concept.file).float()[None] / 255
            for scale in SCALES:
                side = round(emoji.SIZE * scale)
                pad = emoji.SIZE - side
                small = F.interpolate(picture, size=(side, side), mode="bilinear", antialias=True)
                whole = F.pad(small, (pad // 2, pad - pad // 2, pad // 2, pad - pad // 2))
                base = F.avg_pool2d(whole, emoji.SIZE // SIDE)
                rows += [shifted(base, dx, dy) for dx in SHIFTS for dy in SHIFTS]
        self.templates = torch.cat(rows)
        self.per_name = len(rows) // len(self.names)

    def object_ranks(self, picture: Tensor, colour: str) -> list[str]:
        """Known objects from nearest to farthest for (3, H, W) in [0, 1] on a background of the named colour."""
        small = F.adaptive_avg_pool2d(picture[None], SIDE)
        # the picture's own border is a better background than the named colour: shades vary in training
        border = torch.cat([small[..., 0, :], small[..., :, 0], small[..., :, -1]], dim=-1).median(dim=-1).values
        named = torch.tensor(emoji.COLOURS[colour])[None] / 255
        backdrop = border if (border - named).abs().max() < 0.25 else named
        composed = self.templates[:, :3] + (1 - self.templates[:, 3:]) * backdrop[..., None, None]
        distance = (composed - small).square().mean(dim=(1, 2, 3)).reshape(len(self.names), self.per_name)
        return [self.names[i] for i in distance.amin(dim=1).argsort().tolist()]

    def colour(self, picture: Tensor) -> str:
        """The known colour nearest to the median of the picture's top corners."""
        corners = torch.cat([picture[:, :20, :20].flatten(1), picture[:, :20, -20:].flatten(1)], dim=1)
        middle = corners.median(dim=1).values
        table = torch.tensor(list(emoji.COLOURS.values())) / 255
        return list(emoji.COLOURS)[int((table - middle).square().sum(dim=1).argmin())]


def parse_prompt(prompt: str) -> tuple[str, str]:
    """(object, colour) of a prompt in the main caption form, longest names first."""
    for name in sorted((c.name for c in emoji.concepts()), key=len, reverse=True):
        for colour in emoji.COLOURS:
            if prompt == f"{emoji.article(name)} on {emoji.article(colour)} background":
                return name, colour
    raise RequestError(f"{prompt!r} is not of the form “a fox on a blue background” with known words.")


def real_accuracy(templates: Templates, data: Path, count: int = 200) -> float:
    """The classifier's top-1 accuracy on real compositions as in training: the ceiling of what it can report."""
    g = torch.Generator().manual_seed(0)
    items, colours, hits = emoji.concepts(), list(emoji.COLOURS), 0
    for _ in range(count):
        item = items[int(torch.randint(len(items), (), generator=g))]
        colour = colours[int(torch.randint(len(colours), (), generator=g))]
        picture = emoji.load_picture(emoji.picture_folder(data) / item.file)
        image = emoji.compose(picture, emoji.COLOURS[colour], g)
        hits += templates.object_ranks(image, colour)[0] == item.name
    return hits / count
