"""Does a clip show the object of its prompt, doing what the prompt says, and how well drawn?

The image world's own network (emoji_judge.py) reads object, style, background and pose off every frame. Each motion is
then laid over the clip as exactly as its place, size and reach can be found by gradient descent; the nearest one is
what the clip "does". What differs from the right object in the right motion at 64×64 px is the "detail error".
Everything is also measured on real clips and reported beside every figure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rmd.checks import RequestError
from rmd.worlds import clips, emoji, emoji_judge
from rmd.worlds.clips import MOTIONS, Clips, Motion
from rmd.worlds.views import Views

SIDE, DETAIL = 32, 64  # pixels at which motions are told apart, and at which the detail error is measured
GLANCE, LOOK = (20, 7), (60, 7)  # rounds and frames of a fit at either size
SLACK = emoji_judge.SLACK
BLOCK = 48  # captions that are drawn at once, so that a larger study begins with a smaller one's


@dataclass(frozen=True)
class Asked:
    """What a prompt says: object, motion, background (None where it names none) and other words by kind."""

    name: str
    motion: Motion
    colour: str | None
    said: dict[str, str]


def parse_prompt(prompt: str) -> Asked:
    """A prompt in one of the captions' phrasings; RequestError where a word of it is not of the world."""
    for motion in MOTIONS:
        words = rf"(?:that )?\b(?:{motion.doing}|{motion.does})\b"
        if re.search(words, prompt):
            still = re.sub(r"\s+", " ", re.sub(words, "", prompt, count=1)).replace(" ,", ",").strip()
            asked = emoji_judge.parse_prompt(still)
            if asked.name in clips.OBJECTS and "tilt" not in asked.said:
                return Asked(asked.name, motion, asked.colour, asked.said)
    raise RequestError(f"{prompt!r} is not of the form “a fox bouncing on a blue background” with known words.")


class Judge:
    """Reads clips and compares them with the real ones."""

    files = emoji_judge.Judge.files

    def __init__(self, device: torch.device | None = None):
        self.reader = emoji_judge.Judge(device=device)
        self.device, self.sprites = self.reader.device, self.reader.sprites
        large = self.sprites.to(self.device).flatten(0, 1).float()
        self.small = {
            side: F.avg_pool2d(large, emoji.SIZE // (2 * side)).unflatten(0, self.sprites.shape[:2])
            for side in (SIDE, DETAIL)
        }

    def score(self, pixels: Tensor, prompts: Sequence[str]) -> dict[str, float]:
        """Shares of clips (B, 3, F, H, W) in [−1, 1] with the right object, motion, both, background and other words;
        the mean detail error. What no prompt asks for is left out."""
        marks: dict[str, list[float]] = {}
        for clip, prompt in zip(pixels.to(self.device), prompts, strict=True):
            for name, values in self.marks(clip, parse_prompt(prompt)).items():
                marks.setdefault(name, []).extend(values)
        return {name: round(sum(values) / len(values), 4) for name, values in marks.items() if values}

    def marks(self, clip: Tensor, asked: Asked) -> dict[str, list[float]]:
        """The figures of one clip (3, F, H, W)."""
        reading = self.reader.read(clip.transpose(0, 1))
        known = torch.tensor(clips.known(), device=self.device)
        upright = [0, -1]  # all motions begin and end so, which is how the network has seen things
        chances = reading.concept[upright].log_softmax(dim=1)[:, known].mean(dim=0)
        right, seen = clips.OBJECTS.index(asked.name), int(chances.argmax())
        style = int(reading.style[upright].log_softmax(dim=1).mean(dim=0).argmax())
        # what it does is asked of the object that is there, how well it is drawn of the one that should be
        errors, poses = self.fit(clip, self.guess(reading, int(known[seen]), style), SIDE, *GLANCE)
        wanted = MOTIONS.index(asked.motion)
        shown = row_of(poses, int(errors.argmin()))
        one = row_of(self.guess(reading, int(known[right]), style), wanted)
        sides = joined([replace(one, base=replace(one.base, mirrored=one.base.mirrored * 0 + side)) for side in (0, 1)])
        error, _ = self.fit(clip, sides, DETAIL, *LOOK)
        hits = seen == right, int(errors.argmin()) == wanted
        colour = list(emoji.COLOURS)[int(reading.colour.softmax(dim=1).mean(dim=0).argmax())]
        return {
            "object": [float(hits[0])],
            "motion": [float(hits[1])],
            "both": [float(all(hits))],
            "background": [float(colour == asked.colour)] if asked.colour else [],
            "words": [float(keeps(word, shown)) for word in asked.said.values()],
            "detail_error": [float(error.min().sqrt())],
        }

    def guess(self, reading: emoji_judge.Reading, concept: int, style: int) -> Clips:
        """The likeliest clip of every motion, in MOTIONS' order, from what was read off the frames."""
        scale, x, y, _ = reading.pose.unbind(dim=1)
        row = torch.ones(len(MOTIONS), device=self.device)
        largest = torch.stack([scale.max() if "zooming" in m.doing else scale.median() for m in MOTIONS])
        colour = reading.colour.mean(dim=0).argmax()
        base = Views(
            concept=(row * concept).long(),
            style=(row * style).long(),
            colour=(row * colour).long(),
            scale=largest.clamp(0.4, 0.95),
            x=row * x.mean(),
            y=row * y.mean(),
            angle=row * 0,
            mirrored=(row * (reading.mirrored[[0, -1]].mean() > 0)).long(),
            shade=torch.zeros(len(row), 3, device=self.device),
            slope=torch.zeros(len(row), 2, device=self.device),
        )
        return Clips(base, torch.arange(len(row), device=self.device), row * 0.5)

    def fit(self, clip: Tensor, guess: Clips, side: int, rounds: int, count: int) -> tuple[Tensor, Clips]:
        """The nearest clips of the guessed motions to (3, F, H, W) in [−1, 1]: mean square differences in [0, 1] over
        `count` of the frames, and the clips themselves."""
        picked = torch.linspace(0, clip.shape[1] - 1, count).round().long()
        target = (F.adaptive_avg_pool2d(clip[:, picked].transpose(0, 1), side).transpose(0, 1) + 1) / 2
        times = picked / (clip.shape[1] - 1)
        moved = {name: getattr(guess.base, name).clone() for name in ("scale", "x", "y", "shade", "slope")}
        reach = guess.reach.clone()
        groups = [{"params": [*moved.values()], "rate": 0.006}, {"params": [reach], "rate": 0.06}]
        for one in (*moved.values(), reach):
            one.requires_grad_()
        optimizer = torch.optim.Adam(groups, lr=0.006)
        best, found = torch.full_like(reach, math.inf).detach(), guess
        for step in range(rounds):
            for group in optimizer.param_groups:
                group["lr"] = group["rate"] * (1 - step / rounds) + 0.05 * group["rate"]
            now = Clips(replace(guess.base, **moved), guess.motion, reach)
            error = (clips.render(self.small[side], now, side, times) - target).square().mean(dim=(1, 2, 3, 4))
            better = error.detach() < best
            best = torch.where(better, error.detach(), best)
            found = chosen(better, now, found)
            optimizer.zero_grad()
            error.sum().backward()
            optimizer.step()
        return best, found


def row_of(shown: Clips, row: int) -> Clips:
    """One clip of a batch."""
    return shown.rows(slice(row, row + 1))


def chosen(where: Tensor, new: Clips, old: Clips) -> Clips:
    """The rows of one batch of clips or of another."""

    def pick(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(where.view(-1, *[1] * (a.ndim - 1)), a.detach(), b)

    base = Views(*(pick(getattr(new.base, name), value) for name, value in vars(old.base).items()))
    return Clips(base, old.motion, pick(new.reach, old.reach))


def keeps(word: str, shown: Clips) -> bool:
    """Whether a clip is as a prompt's word says, with a little slack at the word's limit."""
    base = shown.base
    scale, x, y = (float(getattr(base, name)[0]) for name in ("scale", "x", "y"))
    if word in ("small", "big"):
        return scale < clips.SMALL + SLACK if word == "small" else scale > clips.BIG - SLACK
    pose = (scale, x, y, 0.0)
    return emoji_judge.keeps(word, pose, bool(base.mirrored[0]), emoji.STYLES[int(base.style[0])])


def alike(prompt: str, count: int, generator: torch.Generator) -> Clips:
    """Random clips that a caption describes; RequestError for a caption that is not of the world."""
    asked = parse_prompt(prompt)
    concept = [c.name for c in emoji.concepts()].index(asked.name)
    found: list[Clips] = []
    while sum(map(len, found)) < count:
        some = clips.draw(128, generator)
        base = replace(some.base, concept=torch.full_like(some.base.concept, concept))
        if asked.colour:
            base = replace(base, colour=torch.full_like(base.colour, list(emoji.COLOURS).index(asked.colour)))
        some = replace(some, base=base)
        for row in range(len(some)):
            said = clips.remarks(some, row)
            fits = all(word in said.get(kind, ()) for kind, word in asked.said.items())
            if fits and int(some.motion[row]) == MOTIONS.index(asked.motion):
                found.append(some.rows(slice(row, row + 1)))
    return joined(found[:count])


def joined(parts: Sequence[Clips]) -> Clips:
    base: dict[str, Any] = {name: torch.cat([getattr(one.base, name) for one in parts]) for name in vars(parts[0].base)}
    return Clips(Views(**base), torch.cat([one.motion for one in parts]), torch.cat([one.reach for one in parts]))


def pictures(prompt: str, count: int, generator: torch.Generator, sprites: Tensor) -> Tensor:
    """Real clips of a prompt, (count, 3, F, 128, 128) in [−1, 1]."""
    return clips.render(sprites, alike(prompt, count, generator)) * 2 - 1


def asked_for(count: int, seed: int) -> list[str]:
    """Captions as the world's own clips have them; fewer are the first of more."""
    g = torch.Generator().manual_seed(seed)
    return [caption for _ in range(0, count, BLOCK) for caption in clips.draw_captions(BLOCK, g)][:count]


def on_real(judge: Judge, count: int = 60) -> dict[str, float]:
    """The figures of real clips with their captions: the best that a model can reach."""
    g = torch.Generator().manual_seed(0)
    shown = clips.draw(count, g)
    return judge.score(clips.render(judge.sprites, shown) * 2 - 1, clips.captions(shown, g))
