"""Training clips and their captions: still emoji moved by a formula, the verb in the caption.

Every clip of one caption shows the same movement from the first frame to the last; only the object's place varies by a
few pixels and the background by a shade. What varies more is left blurred by a small model (see emoji.SCALE).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from rmd.train import emoji

FRAMES, FPS = 13, 8
HIGH, LOW = 128, 64  # pixels
REACH = 0.012  # offset of an object, as a share of the canvas

OBJECTS = (
    "fox", "cat", "panda", "pig", "frog", "chick", "penguin", "unicorn", "ladybug", "tropical fish", "strawberry",
    "banana", "apple", "watermelon", "pineapple", "carrot", "mushroom", "pizza", "donut", "hamburger", "car", "rocket",
    "sailboat", "house", "sunflower", "cactus", "star", "snowman", "soccer ball", "heart", "smiling face", "pumpkin",
)  # fmt: skip
PHRASING = (0.7, 0.15, 0.15)  # how often each caption of `captions` is used
COLOURS = ("white", "gray", "light blue", "blue", "green", "yellow", "pink", "purple")


@dataclass(frozen=True)
class Pose:
    """An object in a frame: its size and place (of its centre, from the canvas's) in canvases, clockwise angle."""

    scale: float
    x: float = 0.0
    y: float = 0.0
    angle: float = 0.0  # radians


@dataclass(frozen=True)
class Motion:
    """A movement: the participle and the verb used in captions, and the pose at time u from 0 to 1."""

    doing: str
    does: str
    pose: Callable[[float], Pose]


MOTIONS = (
    Motion("sliding left", "slides left", lambda u: Pose(0.58, x=0.21 - 0.42 * u)),
    Motion("sliding right", "slides right", lambda u: Pose(0.58, x=0.42 * u - 0.21)),
    Motion("bouncing", "bounces", lambda u: Pose(0.58, y=0.2 - 0.4 * abs(math.sin(2 * math.pi * u)))),
    Motion("spinning", "spins", lambda u: Pose(0.66, angle=2 * math.pi * u)),
    Motion("zooming in", "zooms in", lambda u: Pose(0.3 * 3**u)),
    Motion("zooming out", "zooms out", lambda u: Pose(0.9 / 3**u)),
)


def objects() -> list[emoji.Concept]:
    """The objects of the bundled video model, in OBJECTS' order."""
    known = {c.name: c for c in emoji.concepts()}
    return [known[name] for name in OBJECTS]


def pictures(data: Path) -> Tensor:
    """The objects' stills, premultiplied RGBA, (objects, 4, 256, 256) uint8."""
    return torch.stack([emoji.load_picture(emoji.picture_folder(data) / c.file) for c in objects()])


def move(picture: Tensor, motion: Motion, dx: float = 0.0, dy: float = 0.0) -> Tensor:
    """A premultiplied (4, 256, 256) uint8 picture in motion → (4, FRAMES, 128, 128) in [0, 1], without background.

    dx, dy: offset of the whole movement in canvases.
    """
    rows = []
    for k in range(FRAMES):
        pose = motion.pose(k / (FRAMES - 1))
        # from canvas to picture coordinates, both −1 … 1: undo the place, then the angle and the size
        c, s = math.cos(pose.angle) / pose.scale, math.sin(pose.angle) / pose.scale
        x, y = 2 * (pose.x + dx), 2 * (pose.y + dy)
        rows.append([[c, s, -c * x - s * y], [-s, c, s * x - c * y]])
    grid = F.affine_grid(torch.tensor(rows), [FRAMES, 4, emoji.SIZE, emoji.SIZE], align_corners=False)
    moved = F.grid_sample((picture.float() / 255).expand(FRAMES, -1, -1, -1), grid, align_corners=False)
    return F.avg_pool2d(moved, emoji.SIZE // HIGH).transpose(0, 1)


def place(moved: Tensor, colour: str, generator: torch.Generator) -> Tensor:
    """Put a moving object (4, F, S, S) on a background that stays as it is → (3, F, S, S) in [0, 1]."""
    canvas = emoji.background(emoji.COLOURS[colour], generator, moved.shape[-1])[:, None]
    return (canvas * (1 - moved[3:]) + moved[:3]).clamp(0, 1)


def clip(picture: Tensor, motion: Motion, colour: str, generator: torch.Generator) -> Tensor:
    """A training clip, (3, FRAMES, 128, 128) in [0, 1]."""
    dx, dy = ((2 * torch.rand(2, generator=generator) - 1) * REACH).tolist()
    return place(move(picture, motion, dx, dy), colour, generator)


def shrink(x: Tensor) -> Tensor:
    """Half the height and width of a batch of clips (B, C, F, H, W)."""
    return F.avg_pool3d(x, (1, 2, 2))


def prompt(name: str, motion: Motion, colour: str) -> str:
    """The plainest caption."""
    return f"{emoji.article(name)} {motion.doing} on {emoji.article(colour)} background"


def captions(name: str, motion: Motion, colour: str) -> tuple[str, ...]:
    """All phrasings of a clip's caption, the plainest first."""
    return (
        prompt(name, motion, colour),
        f"{name} {motion.doing}, {colour} background",
        f"a 3d emoji of {emoji.article(name)} that {motion.does} on {emoji.article(colour)} background",
    )


def captions_of(latents: dict[str, Tensor], pick: Tensor, generator: torch.Generator) -> list[str]:
    """Captions of stored latents, by their rows in the store, in one of the phrasings."""
    return [
        phrased(OBJECTS[i], MOTIONS[j], COLOURS[k], generator)
        for i, j, k in zip(*(latents[name][pick].tolist() for name in ("object", "motion", "colour")), strict=True)
    ]


def draw_captions(count: int, generator: torch.Generator) -> list[str]:
    """Captions of any object, motion and colour."""
    sizes = (len(OBJECTS), len(MOTIONS), len(COLOURS))
    rows = zip(*(torch.randint(n, (count,), generator=generator).tolist() for n in sizes), strict=True)
    return [phrased(OBJECTS[i], MOTIONS[j], COLOURS[k], generator) for i, j, k in rows]


def phrased(name: str, motion: Motion, colour: str, generator: torch.Generator) -> str:
    """One of the captions, mostly the plainest."""
    number = int(torch.multinomial(torch.tensor(PHRASING), 1, generator=generator))
    return captions(name, motion, colour)[number]
