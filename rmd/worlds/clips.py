"""Clips of the bundled video model's world and their captions: one object of the image model's world, in motion.

A clip begins as a picture does (rmd/worlds/views.py): an object in some style, size, place and side on some background.
Then it moves by a formula, from the first frame to the last. Captions name object and motion, mostly the background,
and sometimes more; what they leave open, a model's seed has to decide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from rmd.backbones.cards import with_article
from rmd.worlds import views
from rmd.worlds.emoji import COLOURS, STYLES, concepts
from rmd.worlds.views import Views

FRAMES, FPS = 13, 8
HIGH, LOW = 128, 64  # pixels

OBJECTS = (
    "fox", "panda", "strawberry", "car", "rocket", "cat", "soccer ball", "penguin", "pizza", "heart", "frog",
    "sunflower", "sailboat", "hamburger", "pumpkin", "ladybug", "unicorn", "cactus", "donut", "smiling face", "star",
    "snowman", "pig", "chick",
)  # fmt: skip


@dataclass(frozen=True)
class Motion:
    """A movement: the participle and the verb used in captions, and the object's largest size in it, in canvases.

    along: the axes, 0 (right) and 1 (down), along which the object moves.
    """

    doing: str
    does: str
    size: tuple[float, float]
    along: tuple[int, ...] = ()


MOTIONS = (
    Motion("sliding left", "slides left", (0.5, 0.68), (0,)),
    Motion("sliding right", "slides right", (0.5, 0.68), (0,)),
    Motion("bouncing", "bounces", (0.5, 0.68), (1,)),
    Motion("spinning", "spins", (0.54, 0.78)),
    Motion("zooming in", "zooms in", (0.75, 0.95)),
    Motion("zooming out", "zooms out", (0.75, 0.95)),
    Motion("wiggling", "wiggles", (0.55, 0.9)),
)
LEFT, RIGHT, BOUNCE, SPIN, IN, OUT, WIGGLE = range(len(MOTIONS))
SWING = math.radians(12), math.radians(25)  # of a wiggle, to either side
ZOOM = 1.8, 2.6  # the largest size by the smallest
SMALL, BIG = 0.56, 0.65  # largest sizes below and above which a caption may say so, where the size stays

CAPTION_WORDS = (
    "a", "an", "the", "on", "of", "in", "at", "background", "emoji", "style", "that", *STYLES, "small", "big", "left",
    "right", "top", "bottom", "middle", "mirrored",
)  # fmt: skip
"""What captions say beside objects, motions and colours."""


@dataclass(frozen=True)
class Clips:
    """What a batch of clips shows.

    base: object, style, side and background, the largest size, and the middle of the movement. motion: indices (B,).
    reach: how far or fast it goes, (B,) in [0, 1].
    """

    base: Views
    motion: Tensor
    reach: Tensor

    def __len__(self) -> int:
        return len(self.motion)

    def to(self, device: torch.device) -> Clips:
        return Clips(self.base.to(device), self.motion.to(device), self.reach.to(device))

    def rows(self, part: slice) -> Clips:
        return Clips(self.base.rows(part), self.motion[part], self.reach[part])


def known() -> list[int]:
    """The objects' numbers among the image world's."""
    names = [c.name for c in concepts()]
    return [names.index(name) for name in OBJECTS]


def draw(count: int, generator: torch.Generator) -> Clips:
    """Random clips of any object in any motion, everything independent but size and place, which keep the object on
    the canvas in all frames."""

    def uniform() -> Tensor:
        return torch.rand(count, generator=generator)

    base = views.draw(count, generator)
    motion = torch.randint(len(MOTIONS), (count,), generator=generator)
    low, high = torch.tensor([m.size for m in MOTIONS])[motion].unbind(dim=1)
    scale, reach = low + (high - low) * uniform(), uniform()
    room = (1 - scale) / 2
    left = [torch.where(moves(motion, axis), room - travel(scale, reach), room) for axis in (0, 1)]
    base = replace(
        base,
        concept=torch.tensor(known())[torch.randint(len(OBJECTS), (count,), generator=generator)],
        scale=scale,
        x=left[0] * (2 * uniform() - 1),
        y=left[1] * (2 * uniform() - 1),
        angle=torch.zeros(count),
    )
    return Clips(base, motion, reach)


def moves(motion: Tensor, axis: int) -> Tensor:
    """Whether motions (B,) go along an axis."""
    return torch.tensor([axis in m.along for m in MOTIONS], device=motion.device)[motion]


def travel(scale: Tensor, reach: Tensor) -> Tensor:
    """How far a moving object goes from its middle place to either side, in canvases."""
    return (1 - scale) / 2 * (0.6 + 0.4 * reach)


def poses(clips: Clips, times: Tensor) -> Views:
    """The views of all frames, clip by clip (B·F rows), differentiable in size, place and reach.

    times: of the frames (F,), 0 at the first of a clip and 1 at the last.
    """
    base, reach, u = clips.base, clips.reach[:, None], times.to(clips.reach.device)[None]
    scale, x, y, angle = (getattr(base, name)[:, None].expand(-1, u.shape[1]) for name in ("scale", "x", "y", "angle"))
    far, ratio = travel(base.scale, clips.reach)[:, None], ZOOM[0] + (ZOOM[1] - ZOOM[0]) * reach
    swing = SWING[0] + (SWING[1] - SWING[0]) * reach

    def where(number: int, moved: Tensor, still: Tensor) -> Tensor:
        return torch.where((clips.motion == number)[:, None], moved, still)

    x = where(LEFT, x + far * (1 - 2 * u), where(RIGHT, x - far * (1 - 2 * u), x))
    y = where(BOUNCE, y + far * (1 - 2 * (2 * math.pi * u).sin().abs()), y)
    scale = where(IN, scale * ratio ** (u - 1), where(OUT, scale * ratio**-u, scale))
    angle = where(SPIN, angle + 2 * math.pi * u, where(WIGGLE, angle + swing * (4 * math.pi * u).sin(), angle))
    rows = {f.name: getattr(base, f.name).repeat_interleave(u.shape[1], dim=0) for f in fields(base)}
    rows |= {"scale": scale.flatten(), "x": x.flatten(), "y": y.flatten(), "angle": angle.flatten()}
    return Views(**rows)


def instants(count: int = FRAMES) -> Tensor:
    """The times of so many frames spread over a clip."""
    return torch.linspace(0, 1, count)


def render(sprites: Tensor, clips: Clips, size: int = HIGH, times: Tensor | None = None) -> Tensor:
    """(B, 3, F, size, size) in [0, 1]; sprites: as `emoji.load_sprites` gives them."""
    u = instants() if times is None else times
    frames = views.render(sprites, poses(clips, u), size)
    return frames.unflatten(0, (len(clips), len(u))).transpose(1, 2)


def shrink(x: Tensor) -> Tensor:
    """Half the height and width of a batch of clips (B, C, F, H, W)."""
    return torch.nn.functional.avg_pool3d(x, (1, 2, 2))


def remarks(clips: Clips, row: int) -> dict[str, list[str]]:
    """What a caption could say of a clip beside object, motion and background: by kind, in the words it would use."""
    base, motion = clips.base, MOTIONS[int(clips.motion[row])]
    scale, x, y = (float(getattr(base, name)[row]) for name in ("scale", "x", "y"))
    steady = "zooming" not in motion.doing
    sizes = ["small"] if steady and scale < SMALL else ["big"] if steady and scale > BIG else []
    aside = views.ASIDE
    places = [] if 0 in motion.along else ["on the left"] * (x < -aside) + ["on the right"] * (x > aside)
    places += [] if 1 in motion.along else ["at the top"] * (y < -aside) + ["at the bottom"] * (y > aside)
    if not motion.along and max(abs(x), abs(y)) < views.CENTRED:
        places = ["in the middle"]
    sides = ["mirrored"] if int(base.mirrored[row]) and concepts()[int(base.concept[row])].sided else []
    return {"size": sizes, "place": places, "side": sides, "style": [STYLES[int(base.style[row])]]}


def phrase(name: str, motion: Motion, colour: str | None, said: dict[str, str]) -> str:
    """A caption in the fullest form: “a small fox bouncing on the left, flat style, on a green background”."""
    doing = " ".join(filter(None, [motion.doing, said.get("place")]))
    return views.phrase(name, colour, {**said, "place": doing})


def caption(clips: Clips, row: int, generator: torch.Generator) -> str:
    """A caption of one clip in one of the phrasings the model should understand."""
    base, motion = clips.base, MOTIONS[int(clips.motion[row])]
    name, colour = concepts()[int(base.concept[row])].name, list(COLOURS)[int(base.colour[row])]
    u = torch.rand(11, generator=generator).tolist()
    if u[0] < 0.06:
        return f"{name} {motion.doing}"
    if u[0] < 0.14:
        return f"{name} {motion.doing}, {colour} background"
    known = remarks(clips, row)
    if u[0] < 0.22:
        subject = f"a {known['style'][0]} emoji of {with_article(name)}"
        return f"{subject} that {motion.does} on {with_article(colour)} background"
    said = views.mentioned(known, u[2:6], u[6:10]) if u[1] >= views.PLAIN else {}
    return phrase(name, motion, colour if u[10] < 0.92 else None, said)


def captions(clips: Clips, generator: torch.Generator) -> list[str]:
    """One caption for each clip."""
    return [caption(clips, row, generator) for row in range(len(clips))]


def draw_captions(count: int, generator: torch.Generator) -> list[str]:
    """Captions of anything the world holds."""
    return captions(draw(count, generator), generator)
