"""Does a picture show what its prompt says, and how well drawn? The judge of the bundled image model's world.

A small network, trained on the world's own pictures (`python -m rmd train judge`), reads object, style, background,
size, place, tilt and side off a picture. That tells whether the right thing is in the right place, not whether it is
drawn well; so the right object is then laid over the picture as exactly as its pose can be found, and what differs at
128×128 px is the "detail error". Everything is also measured on real compositions and reported beside every figure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from rmd.checks import RequestError
from rmd.worlds import emoji, views
from rmd.worlds.views import Views

WEIGHTS = Path(__file__).with_name("emoji_judge.safetensors")
SIDE, DETAIL = 64, 128  # pixels: what the network sees, what the detail error compares
SLACK, TURN = 0.03, math.radians(2)  # how far beyond a word's limit a size or place and a tilt still count as right


@dataclass(frozen=True)
class Reading:
    """What a batch of pictures shows: scores of objects (B, n), styles and colours, of being mirrored (B,), and the
    pose (B, 4): scale, x, y and angle as in `Views`."""

    concept: Tensor
    style: Tensor
    colour: Tensor
    mirrored: Tensor
    pose: Tensor

    def views(self, concept: Tensor, style: Tensor) -> Views:
        """The likeliest views of the given objects and styles."""
        scale, x, y, angle = self.pose.unbind(dim=1)
        colour, none = self.colour.argmax(dim=1), torch.zeros_like(self.pose)
        mirrored = (self.mirrored > 0).long()
        return Views(concept, style, colour, scale, x, y, angle, mirrored, none[:, :3], none[:, :2])


class Reader(nn.Module):
    """Four halvings, then one layer over everything: places must not get lost. Pictures (B, 3, 64, 64) in [−1, 1]."""

    def __init__(self, widths: Sequence[int] = (32, 64, 96, 128)):
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((3, *widths), widths, strict=False):
            layers += [nn.Conv2d(before, after, 4, 2, 1), nn.GroupNorm(8, after), nn.SiLU()]
            layers += [nn.Conv2d(after, after, 3, 1, 1), nn.GroupNorm(8, after), nn.SiLU()]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * (SIDE // 16) ** 2, 256), nn.SiLU())
        self.sizes = (len(emoji.concepts()), len(emoji.STYLES), len(emoji.COLOURS), 1, 4)
        self.head = nn.Linear(256, sum(self.sizes))

    def forward(self, x: Tensor) -> Reading:
        concept, style, colour, mirrored, pose = self.head(self.body(x)).float().split(self.sizes, dim=1)
        scale = torch.tensor([0.1, 0.1, 0.1, 0.15], device=x.device)  # so that the network works in units of about 1
        middle = torch.tensor([0.72, 0.0, 0.0, 0.0], device=x.device)
        return Reading(concept, style, colour, mirrored[:, 0], pose * scale + middle)


@dataclass(frozen=True)
class Asked:
    """What a prompt says: the object and, where it says so, the background and the words for everything else."""

    name: str
    colour: str | None
    said: dict[str, str]


WORDS = {
    "size": ("small", "big"),
    "place": ("on the left", "on the right", "at the top", "at the bottom", "in the middle"),
    "tilt": ("tilted left", "tilted right"),
    "side": ("mirrored",),
    "style": emoji.STYLES,
}


def parse_prompt(prompt: str) -> Asked:
    """What a prompt in one of the captions' phrasings says; RequestError where a word of it is not of the world."""
    left = prompt
    colour = None
    for known in sorted(emoji.COLOURS, key=len, reverse=True):
        ground = rf"(?:on (?:a|an) |, ){known} background$"
        if re.search(ground, left):
            left, colour = re.sub(ground, "", left), known
            break
    said = {}
    for kind, words in WORDS.items():
        for word in words:
            if re.search(rf"\b{word}\b", left):
                left, said[kind] = re.sub(rf"\b{word}\b", "", left, count=1), word
                break
    rest = re.sub(r"\b(?:a|an|the|emoji of|style)\b|,", " ", left)
    name = " ".join(rest.split())
    if name not in {c.name for c in emoji.concepts()}:
        raise RequestError(f"{prompt!r} is not of the form “a fox on a blue background” with known words.")
    return Asked(name, colour, said)


def keeps(word: str, pose: Sequence[float], mirrored: bool, style: str) -> bool:
    """Whether a picture is as a prompt's word says, with a little slack at the word's limit; pose as in `Reading`."""
    scale, x, y, angle = pose
    aside = views.ASIDE - SLACK
    return {
        "small": scale < views.SMALL + SLACK,
        "big": scale > views.BIG - SLACK,
        "on the left": x < -aside,
        "on the right": x > aside,
        "at the top": y < -aside,
        "at the bottom": y > aside,
        "in the middle": max(abs(x), abs(y)) < views.CENTRED + SLACK,
        "tilted left": angle < TURN - views.TILTED,
        "tilted right": angle > views.TILTED - TURN,
        "mirrored": mirrored,
        **{known: known == style for known in emoji.STYLES},
    }[word]


@dataclass(frozen=True)
class Score:
    """Shares in [0, 1]: right object first, among the first five, right background, other words of the prompts kept;
    mean detail error. NaN where no prompt asks."""

    object_top1: float
    object_top5: float
    background: float
    words: float
    detail_error: float

    def as_dict(self) -> dict[str, float]:
        return {k: round(v, 4) for k, v in vars(self).items() if not math.isnan(v)}


class Judge:
    """Reads pictures and compares them with the real ones."""

    files = (WEIGHTS, *sorted(Path(__file__).parent.glob("*.py")))

    def __init__(self, weights: Path = WEIGHTS, device: torch.device | None = None):
        self.device = device or torch.device("cpu")
        self.sprites = emoji.load_sprites()
        self.reader = Reader()
        self.reader.load_state_dict({k: v.float() for k, v in load_file(weights).items()})
        self.reader.eval().requires_grad_(False).to(self.device)

    def read(self, pixels: Tensor) -> Reading:
        """What (B, 3, H, W) in [−1, 1] shows."""
        return self.reader(F.adaptive_avg_pool2d(pixels, SIDE))

    def score(self, pixels: Tensor, prompts: Sequence[str]) -> dict[str, float]:
        """The figures of (B, 3, H, W) in [−1, 1], one picture per prompt; see `Score`."""
        marks = self.marks(pixels, prompts)
        words = [one for kept in marks.pop("words") for one in kept]
        means = {name: mean([one for one in values if not math.isnan(one)]) for name, values in marks.items()}
        return Score(**means, words=mean(words)).as_dict()

    def marks(self, pixels: Tensor, prompts: Sequence[str]) -> dict[str, list[Any]]:
        """The same picture by picture: numbers, NaN where a prompt does not ask, and for `words` a list of them."""
        asked, pixels = [parse_prompt(prompt) for prompt in prompts], pixels.to(self.device)
        reading, names = self.read(pixels), [c.name for c in emoji.concepts()]
        target = torch.tensor([names.index(one.name) for one in asked], device=self.device)
        ranks = reading.concept.argsort(dim=1, descending=True)
        colour = [list(emoji.COLOURS)[int(i)] for i in reading.colour.argmax(dim=1)]
        grounds = [float(c == one.colour) if one.colour else math.nan for c, one in zip(colour, asked, strict=True)]
        style = reading.style.argmax(dim=1)
        error, fitted = self.fit(pixels, reading.views(target, style))
        poses = torch.stack([fitted.scale, fitted.x, fitted.y, fitted.angle], dim=1).tolist()
        kept = [
            [float(keeps(word, pose, bool(side > 0), emoji.STYLES[int(drawn)])) for word in one.said.values()]
            for one, pose, side, drawn in zip(asked, poses, reading.mirrored, style, strict=True)
        ]
        return {
            "object_top1": (ranks[:, 0] == target).float().tolist(),
            "object_top5": (ranks[:, :5] == target[:, None]).any(dim=1).float().tolist(),
            "background": grounds,
            "words": kept,
            "detail_error": error.tolist(),
        }

    def fit(self, pixels: Tensor, guess: Views, rounds: int = 40) -> tuple[Tensor, Views]:
        """The nearest pictures of the guessed views to (B, 3, H, W): root mean square differences in [0, 1], (B,), and
        the views themselves.

        Pose and background are fitted by gradient descent from the guess.
        """
        target = (F.adaptive_avg_pool2d(pixels, DETAIL) + 1) / 2
        sprites = self.sprites.to(self.device)
        sprites = F.avg_pool2d(sprites.flatten(0, 1).float(), 2).unflatten(0, sprites.shape[:2])
        free = ("scale", "x", "y", "angle", "shade", "slope")
        moved = {name: getattr(guess, name).clone().requires_grad_() for name in free}
        found = {name: value.detach().clone() for name, value in moved.items()}
        optimizer = torch.optim.Adam(moved.values(), lr=0.004)
        best = torch.full((len(target),), math.inf, device=self.device)
        for step in range(rounds):
            optimizer.param_groups[0]["lr"] = 0.004 * (1 - step / rounds) + 0.0003
            error = (views.render(sprites, replace(guess, **moved), DETAIL) - target).square().mean(dim=(1, 2, 3))
            better = error.detach() < best
            best = torch.where(better, error.detach(), best)
            for name, value in moved.items():
                found[name][better] = value.detach()[better]
            optimizer.zero_grad()
            error.sum().backward()
            optimizer.step()
        return best.sqrt(), replace(guess, **found)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def on_real(judge: Judge, count: int = 200) -> dict[str, float]:
    """The figures of real pictures with their captions: the best that a model can reach."""
    g = torch.Generator().manual_seed(0)
    shown = views.draw(count, g)
    pictures = torch.cat(
        [views.render(judge.sprites, shown.rows(slice(i, i + 20))) * 2 - 1 for i in range(0, count, 20)]
    )
    return judge.score(pictures, views.captions(shown, g))
