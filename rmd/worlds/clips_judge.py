"""Does a clip show the object of its prompt, doing what the prompt says? References of the bundled video model's data.

A clip is compared with every known object in every known motion, frame by frame at 32×32 px, on the clip's own
background; the pair of the smallest mean squared difference is what it "shows". As with pictures (templates.py) this
tells whether the right shape is in the right place at the right time, not how well it is drawn: that is the detail
error, the root mean square difference to the right reference at 64×64 px.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from rmd.checks import RequestError
from rmd.worlds import clips, emoji

SIDE, DETAIL = 32, 64


class ClipTemplates:
    """Every object in its motions without background, (pairs, 4, F, 32, 32) in [0, 1]."""

    def __init__(self, data: Path):
        if not any(emoji.package_folder(data, package).is_dir() for package in clips.ANIMATIONS):
            raise RequestError(
                f"The reference animations are not in {data}; run `python -m rmd train video-autoencoder` first."
            )
        pairs = [(clips.OBJECTS[i], clips.MOTIONS[j]) for i, j in clips.pairs()]
        self.names = [(name, motion.doing) for name, motion in pairs]
        self.sources: dict[tuple[str, str], Tensor] = {
            (name, motion.doing): clips.source(data, name, motion) for name, motion in pairs
        }
        moved = (clips.move(self.sources[name, motion.doing], motion) for name, motion in pairs)
        self.templates = torch.stack([shrunk(one[None], SIDE)[0] for one in moved])

    def nearest(self, clip: Tensor) -> tuple[str, str]:
        """Object and motion nearest to a clip (3, F, H, W) in [0, 1]."""
        return self.names[int(differences(shrunk(clip[None], SIDE), self.templates).argmin())]

    def detail_error(self, clip: Tensor, name: str, motion: clips.Motion) -> float:
        """Root mean square difference, in [0, 1], between (3, F, H, W) in [0, 1] and the reference."""
        reference = shrunk(clips.move(self.sources[name, motion.doing], motion)[None], DETAIL)
        return float(differences(shrunk(clip[None], DETAIL), reference).sqrt())

    def score(self, pixels: Tensor, prompts: Sequence[str]) -> dict[str, float]:
        """Shares of clips (B, 3, F, H, W) in [−1, 1] with the right object, motion, both, background; detail error."""
        totals = torch.zeros(5)
        for clip, prompt in zip((pixels + 1) / 2, prompts, strict=True):
            name, motion, colour = parse_prompt(prompt)
            seen, doing = self.nearest(clip)
            hits = [seen == name, doing == motion.doing, (seen, doing) == (name, motion.doing), ground(clip) == colour]
            totals += torch.tensor([*map(float, hits), self.detail_error(clip, name, motion)])
        names = ("object", "motion", "both", "background", "detail_error")
        return dict(zip(names, [round(v, 4) for v in (totals / len(prompts)).tolist()], strict=True))


def shrunk(x: Tensor, side: int) -> Tensor:
    """(B, C, F, H, W) at a smaller height and width."""
    return F.adaptive_avg_pool3d(x, (x.shape[2], side, side))


def backdrop(clip: Tensor) -> Tensor:
    """The median colour of a clip's (3, F, H, W) top corners, (3,): no motion reaches there."""
    side = max(1, clip.shape[-1] // 10)
    corners = torch.cat([clip[..., :side, :side], clip[..., :side, -side:]], dim=-1)
    return corners.flatten(1).median(dim=1).values


def differences(small: Tensor, templates: Tensor) -> Tensor:
    """Mean squared differences of (1, 3, F, S, S) to (N, 4, F, S, S) templates put on its own background, (N,)."""
    composed = templates[:, :3] + (1 - templates[:, 3:]) * backdrop(small[0])[:, None, None, None]
    return (composed - small).square().mean(dim=(1, 2, 3, 4))


def ground(clip: Tensor) -> str:
    """The known colour nearest to the background of (3, F, H, W) in [0, 1]."""
    table = torch.tensor([emoji.COLOURS[name] for name in clips.COLOURS]) / 255
    return clips.COLOURS[int((table - backdrop(clip)).square().sum(dim=1).argmin())]


def parse_prompt(prompt: str) -> tuple[str, clips.Motion, str]:
    """(object, motion, colour) of a prompt in the plainest caption form."""
    for i, j in clips.pairs():
        for colour in clips.COLOURS:
            if prompt == clips.prompt(clips.OBJECTS[i], clips.MOTIONS[j], colour):
                return clips.OBJECTS[i], clips.MOTIONS[j], colour
    raise RequestError(f"{prompt!r} is not of the form “a fox bouncing on a blue background” with known words.")


def on_real(templates: ClipTemplates, count: int = 40) -> dict[str, float]:
    """The same figures on real clips as in training: the best that a clip can reach."""
    g = torch.Generator().manual_seed(0)
    rows, prompts = [], []
    for _ in range(count):
        name, motion, colour = clips.drawn(g)
        rows.append(clips.clip(templates.sources[name, motion.doing], motion, colour, g) * 2 - 1)
        prompts.append(clips.prompt(name, motion, colour))
    return templates.score(torch.stack(rows), prompts)
