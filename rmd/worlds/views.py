"""Pictures of the bundled image model's world and their captions: one object, drawn in many ways.

A picture varies as pictures of one caption do in the wild: in style, size, place, side (mirrored), tilt and background.
Captions name some of that, sometimes; what they leave open, a model's seed has to decide, and a low resolution is
enough to decide it. Everything is drawn from tensors of numbers, so that a batch is rendered at once on any device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from rmd.backbones.cards import with_article
from rmd.worlds.emoji import COLOURS, SIZE, STYLES, concepts

SCALE = (0.5, 0.95)  # of the canvas
TILT = math.radians(20)  # at most; half of all pictures stay within 6 degrees
SHADE, SLOPE = 0.03, 0.08  # of a background's channels and its gradient from middle to edge, at most

SMALL, BIG = 0.62, 0.8  # scales below and above which a caption may say so
ASIDE, CENTRED = 0.1, 0.05  # offsets of the middle, in canvases: beyond the one, within the other
TILTED = math.radians(7)

NAMED = 0.35  # how often a caption names each thing that it could
PLAIN = 0.5  # how often it names nothing but object and background

CAPTION_WORDS = (
    "a", "an", "the", "on", "of", "in", "at", "background", "emoji", "style", *STYLES, "small", "big", "left", "right",
    "top", "bottom", "middle", "tilted", "mirrored",
)  # fmt: skip
"""What captions say beside objects and colours."""


@dataclass(frozen=True)
class Views:
    """What a batch of pictures shows; tensors (B,) or (B, n), sizes and places in canvases, angles in radians.

    concept, style, colour: indices. x, y: of the object's middle from the canvas's, right and down. angle: clockwise.
    mirrored: left and right exchanged, before it is tilted. shade: added to the background's channels (B, 3); slope:
    the background's brightening from the middle to the right and the lower edge (B, 2).
    """

    concept: Tensor
    style: Tensor
    colour: Tensor
    scale: Tensor
    x: Tensor
    y: Tensor
    angle: Tensor
    mirrored: Tensor
    shade: Tensor
    slope: Tensor

    def __len__(self) -> int:
        return len(self.concept)

    def to(self, device: torch.device) -> Views:
        return Views(*(getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)))

    def rows(self, part: slice) -> Views:
        return Views(*(getattr(self, f.name)[part] for f in fields(self)))


def draw(count: int, generator: torch.Generator) -> Views:
    """Random views, everything independent but the place, which keeps the object on the canvas."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator)

    def pick(among: int) -> Tensor:
        return torch.randint(among, (count,), generator=generator)

    scale = SCALE[0] + (SCALE[1] - SCALE[0]) * uniform()
    room = (1 - scale) / 2
    turn, length = 2 * math.pi * uniform(), SLOPE * uniform()
    return Views(
        concept=pick(len(concepts())),
        style=pick(len(STYLES)),
        colour=pick(len(COLOURS)),
        scale=scale,
        x=room * (2 * uniform() - 1),
        y=room * (2 * uniform() - 1),
        angle=TILT * (uniform() + uniform() - 1),
        mirrored=pick(2),
        shade=SHADE * (2 * uniform(3) - 1),
        slope=torch.stack([length * turn.cos(), length * turn.sin()], dim=1),
    )


def render(sprites: Tensor, views: Views, size: int = SIZE) -> Tensor:
    """(B, 3, size, size) in [0, 1] on the device of sprites and views, differentiable in all that is not an index.

    sprites: as `emoji.load_sprites` gives them. Drawn at twice the size and averaged, so that edges are smooth.
    """
    rgba = sprites[views.concept, views.style].float() / 255
    cos, sin = views.angle.cos() / views.scale, views.angle.sin() / views.scale
    x, y, side = 2 * views.x, 2 * views.y, 1 - 2 * views.mirrored.float()
    # from canvas to sprite coordinates, both −1 … 1: undo the place, then the angle and the size, then the mirror
    across = torch.stack([cos, sin, -cos * x - sin * y], dim=1) * side[:, None]
    down = torch.stack([-sin, cos, sin * x - cos * y], dim=1)
    grid = F.affine_grid(torch.stack([across, down], dim=1), [len(views), 4, 2 * size, 2 * size], align_corners=False)
    placed = F.avg_pool2d(F.grid_sample(rgba, grid, align_corners=False), 2)
    table = torch.tensor(list(COLOURS.values()), device=sprites.device) / 255
    base = table[views.colour] + views.shade
    axis = torch.linspace(-1, 1, size, device=sprites.device)
    slope = views.slope[:, :1, None] * axis + views.slope[:, 1:, None] * axis[:, None]
    canvas = (base[:, :, None, None] + slope[:, None]).clamp(0, 1)
    return (canvas * (1 - placed[:, 3:]) + placed[:, :3]).clamp(0, 1)


def remarks(views: Views, row: int) -> dict[str, list[str]]:
    """What a caption could say of a picture beside its object and background: by kind, in the words it would use."""
    scale, x, y, angle = (float(getattr(views, name)[row]) for name in ("scale", "x", "y", "angle"))
    sizes = ["small"] if scale < SMALL else ["big"] if scale > BIG else []
    places = ["on the left"] * (x < -ASIDE) + ["on the right"] * (x > ASIDE)
    places += ["at the top"] * (y < -ASIDE) + ["at the bottom"] * (y > ASIDE)
    if max(abs(x), abs(y)) < CENTRED:
        places = ["in the middle"]
    tilts = ["tilted left"] if angle < -TILTED else ["tilted right"] if angle > TILTED else []
    sides = ["mirrored"] if int(views.mirrored[row]) and concepts()[int(views.concept[row])].sided else []
    return {"size": sizes, "place": places, "tilt": tilts, "side": sides, "style": [STYLES[int(views.style[row])]]}


def phrase(name: str, colour: str | None, said: dict[str, str]) -> str:
    """A caption in the fullest form: “a small fox on the left, tilted left, flat style, on a green background”."""
    subject = with_article(" ".join(filter(None, [said.get("size"), name])))
    head = " ".join(filter(None, [subject, said.get("place")]))
    style = f"{said['style']} style" if "style" in said else None
    clauses = [clause for clause in (said.get("tilt"), said.get("side"), style) if clause]
    ground = f"on {with_article(colour)} background" if colour else ""
    if not clauses:
        return f"{head} {ground}".strip()
    return ", ".join(filter(None, [head, *clauses, ground]))


def caption(views: Views, row: int, generator: torch.Generator) -> str:
    """A caption of one picture in one of the phrasings the model should understand."""
    name, colour = concepts()[int(views.concept[row])].name, list(COLOURS)[int(views.colour[row])]
    u = torch.rand(13, generator=generator).tolist()
    if u[0] < 0.06:
        return name
    if u[0] < 0.14:
        return f"{name}, {colour} background"
    known = remarks(views, row)
    if u[0] < 0.22:
        return f"a {known['style'][0]} emoji of {with_article(name)} on {with_article(colour)} background"
    said = mentioned(known, u[2:7], u[7:12]) if u[1] >= PLAIN else {}
    return phrase(name, colour if u[12] < 0.92 else None, said)


def mentioned(known: dict[str, list[str]], chances: list[float], which: list[float]) -> dict[str, str]:
    """What a caption says of what it could say, by kind; numbers in [0, 1): whether, and which of the words."""
    return {
        kind: words[int(number * len(words))]
        for (kind, words), chance, number in zip(known.items(), chances, which, strict=True)
        if words and chance < NAMED
    }


def captions(views: Views, generator: torch.Generator) -> list[str]:
    """One caption for each picture."""
    return [caption(views, row, generator) for row in range(len(views))]


def draw_captions(count: int, generator: torch.Generator) -> list[str]:
    """Captions of anything the world holds."""
    return captions(draw(count, generator), generator)
