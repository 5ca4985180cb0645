"""Training clips and their captions: still emoji moved by a formula, and animated emoji, the verb in the caption.

Sources: the stills of rmd/worlds/pictures and npm `@lobehub/fluent-emoji-anim-1` … `-4` (Microsoft Fluent Emoji, MIT;
256×256 animated WebP named by code points, about half of them move).

Every clip of one caption shows the same movement from the first frame to the last; only the object's place varies by a
few pixels and the background by a shade. What varies more is left blurred by a small model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from rmd.backbones.cards import with_article
from rmd.worlds import emoji

ANIMATIONS = tuple(f"@lobehub/fluent-emoji-anim-{i}@1.0.0" for i in range(1, 5))
FRAMES, FPS = 13, 8
HIGH, LOW = 128, 64  # pixels
REACH = 0.012  # offset of an object, as a share of the canvas

OBJECTS = (
    "fox", "panda", "strawberry", "car", "rocket", "cat", "soccer ball", "penguin", "pizza", "heart", "frog",
    "sunflower", "sailboat", "hamburger", "pumpkin", "ladybug", "unicorn", "cactus", "donut", "smiling face", "star",
    "snowman", "pig", "chick",
)  # fmt: skip
ANIMATED = (
    "fox", "panda", "rocket", "cat", "penguin", "heart", "frog", "pumpkin", "ladybug", "unicorn", "smiling face",
    "star", "snowman", "pig", "chick",
)  # fmt: skip
"""Objects whose animation is plain to see at 64 px."""
PHRASING = (0.7, 0.15, 0.15)  # how often each caption of `captions` is used
COLOURS = ("white", "gray", "light blue", "blue", "green", "yellow", "pink", "purple")


CAPTION_WORDS = ("a", "an", "the", "on", "of", "background", "3d", "emoji", "that")


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
    animated: bool = False  # the object's own animation, not its still


MOTIONS = (
    Motion("sliding left", "slides left", lambda u: Pose(0.58, x=0.21 - 0.42 * u)),
    Motion("sliding right", "slides right", lambda u: Pose(0.58, x=0.42 * u - 0.21)),
    Motion("bouncing", "bounces", lambda u: Pose(0.58, y=0.16 - 0.32 * abs(math.sin(2 * math.pi * u)))),
    Motion("spinning", "spins", lambda u: Pose(0.66, angle=2 * math.pi * u)),
    Motion("zooming in", "zooms in", lambda u: Pose(0.3 * 3**u)),
    Motion("zooming out", "zooms out", lambda u: Pose(0.9 / 3**u)),
    Motion("wiggling", "wiggles", lambda u: Pose(0.7), animated=True),
)


def objects() -> list[emoji.Concept]:
    """The objects of the bundled video model, in OBJECTS' order."""
    known = {c.name: c for c in emoji.concepts()}
    return [known[name] for name in OBJECTS]


def pairs() -> list[tuple[int, int]]:
    """What there are clips of: indices of an object and a motion."""
    return [
        (i, j)
        for i, name in enumerate(OBJECTS)
        for j, motion in enumerate(MOTIONS)
        if name in ANIMATED or not motion.animated
    ]


def fetch(data: Path) -> None:
    """Download what the clips are made of; of the animations (730 MB) only the files needed are kept (5 MB)."""
    emoji.fetch(data)
    names = {c.file for c in objects() if c.name in ANIMATED}
    for package in ANIMATIONS:
        emoji.unpack(data, package, lambda path: path.rsplit("/", 1)[-1] in names)


def source(data: Path, name: str, motion: Motion) -> Tensor:
    """What moves, premultiplied uint8: a still (4, 256, 256), or an animation's frames (FRAMES, 4, 256, 256)."""
    file = next(c.file for c in objects() if c.name == name)
    if not motion.animated:
        return emoji.load_picture(file)
    folders = [emoji.package_folder(data, package) / "package" / "assets" for package in ANIMATIONS]
    path = next(folder / file for folder in folders if (folder / file).exists())
    with Image.open(path) as picture:
        last = getattr(picture, "n_frames", 1) - 1
        rows = []
        for k in range(FRAMES):
            picture.seek(round(k * last / (FRAMES - 1)))
            rows.append(emoji.premultiplied(picture))
    return torch.stack(rows)


def move(picture: Tensor, motion: Motion, dx: float = 0.0, dy: float = 0.0) -> Tensor:
    """What `source` gives, in motion → (4, FRAMES, 128, 128) in [0, 1], without background.

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
    return f"{with_article(name)} {motion.doing} on {with_article(colour)} background"


def captions(name: str, motion: Motion, colour: str) -> tuple[str, ...]:
    """All phrasings of a clip's caption, the plainest first."""
    return (
        prompt(name, motion, colour),
        f"{name} {motion.doing}, {colour} background",
        f"a 3d emoji of {with_article(name)} that {motion.does} on {with_article(colour)} background",
    )


def captions_of(latents: dict[str, Tensor], pick: Tensor, generator: torch.Generator) -> list[str]:
    """Captions of stored latents, by their rows in the store, in one of the phrasings."""
    return [
        phrased(OBJECTS[i], MOTIONS[j], COLOURS[k], generator)
        for i, j, k in zip(*(latents[name][pick].tolist() for name in ("object", "motion", "colour")), strict=True)
    ]


def draw_captions(count: int, generator: torch.Generator) -> list[str]:
    """Captions of any object in any of its motions on any colour."""
    return [phrased(*drawn(generator), generator) for _ in range(count)]


def drawn(generator: torch.Generator) -> tuple[str, Motion, str]:
    """A random object in one of its motions on a random colour."""
    known = pairs()
    pair, colour = (int(torch.randint(n, (), generator=generator)) for n in (len(known), len(COLOURS)))
    i, j = known[pair]
    return OBJECTS[i], MOTIONS[j], COLOURS[colour]


def phrased(name: str, motion: Motion, colour: str, generator: torch.Generator) -> str:
    """One of the captions, mostly the plainest."""
    number = int(torch.multinomial(torch.tensor(PHRASING), 1, generator=generator))
    return captions(name, motion, colour)[number]
