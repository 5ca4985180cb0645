"""What the bundled models are trained on: pictures or clips of a world, drawn and encoded as they are needed."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rmd.backbones.base import Backbone
from rmd.checks import RequestError
from rmd.train.bundled import video_frames
from rmd.train.loop import generator_for, mixed
from rmd.train.pool import Drawn, Pool
from rmd.train.source import Source
from rmd.worlds import clips, emoji, views

KINDS: dict[str, ModuleType] = {"emoji": views, "emoji-clips": clips}
NEW = {"emoji": {"cpu": 3, "cuda": 256}, "emoji-clips": {"cpu": 2, "cuda": 64}}
"""Samples of a block that is drawn anew."""
BLOCKS = {"cpu": 256, "cuda": 40}
"""How many such blocks there are to draw batches from."""
EVERY = {"cpu": 1, "cuda": 4}
"""Steps for each new block: a GPU takes hardly longer to draw a larger one."""
STILLS = {"cpu": 8, "cuda": 256}
"""The same of single frames of clips."""
UNSEEN_AT_ONCE = 2
"""Samples of a block that is for no training step, on any machine, so that all hold out the same."""
UNSEEN, STILL = 10**9, 2 * 10**9
"""The numbers from which on blocks are for no training step, and of single frames."""


def check_fit(name: str, label: str, high: tuple[int, int], frames: int) -> None:
    """RequestError where a backbone, whose name is `label`, makes results that a world has not."""
    own = {"emoji": 1, "emoji-clips": clips.FRAMES}[name]
    if frames != own or high[0] != high[1]:
        is_so = f"world {name} is square and has {own} frame{'s' * (own > 1)}"
        raise RequestError(f"{is_so}; {label} makes {high[1]}x{high[0]} and {frames}.")


class World(Source):
    """A bundled world. name: one of `settings.WORLDS`. seed: of all that is drawn.

    Raises RequestError for a backbone of another kind or shape of results.
    """

    def __init__(self, name: str, backbone: Backbone, seed: int):
        kind, spec = backbone.device.type, backbone.spec
        check_fit(name, spec.name, spec.high, spec.frames)
        self.backbone, self.seed, self.drawn = backbone, seed, KINDS[name]
        self.sprites = emoji.load_sprites().to(backbone.device)
        self.new, self.every = NEW[name][kind], EVERY[kind]
        self.pool = Pool(lambda number: self.block(number, self.new), BLOCKS[kind])
        self.frames = Pool(lambda number: self.still_block(number, STILLS[kind]), BLOCKS[kind])

    def prompts(self, count: int, generator: torch.Generator) -> list[str]:
        return self.drawn.draw_captions(count, generator)

    def latents(self, count: int, full: bool, generator: torch.Generator) -> tuple[Tensor, list[str]]:
        self.pool.at(self.step // self.every)
        return self.pool.pick("high" if full else "low", count, generator)

    def stills(self, count: int, generator: torch.Generator) -> tuple[Tensor, list[str]]:
        """Of any instant of a clip, not of the first alone."""
        self.frames.at(self.step // self.every)
        return self.frames.pick("still", count, generator)

    def held_out(self, count: int) -> tuple[Tensor, list[str]]:
        starts = range(0, count, UNSEEN_AT_ONCE)
        parts = [self.block(UNSEEN + start, min(UNSEEN_AT_ONCE, count - start)) for start in starts]
        return torch.cat([made["high"] for made, _ in parts]), [one for _, said in parts for one in said]

    @torch.no_grad()
    def block(self, number: int, count: int) -> Drawn:
        """New samples in latents of both sizes, with their captions."""
        g, spec, device = generator_for(self.seed, number), self.backbone.spec, self.backbone.device
        shown = self.drawn.draw(count, g)
        x = self.drawn.render(self.sprites, shown.to(device), spec.high[0]) * 2 - 1
        small = F.interpolate(x.reshape(-1, 1, *x.shape[-2:]), size=spec.low, mode="area")
        low = self.encoded(small.reshape(*x.shape[:-2], *spec.low))
        return {"high": self.encoded(x), "low": low}, self.drawn.captions(shown, g)

    @torch.no_grad()
    def still_block(self, number: int, count: int) -> Drawn:
        """New clips' frames at one instant in latents, with the clips' captions."""
        g, spec, device = generator_for(self.seed, STILL + number), self.backbone.spec, self.backbone.device
        shown = clips.draw(count, g)
        x = clips.render(self.sprites, shown.to(device), spec.high[0], torch.rand(1, generator=g)) * 2 - 1
        return {"still": self.encoded(x)}, clips.captions(shown, g)

    def encoded(self, pixels: Tensor) -> Tensor:
        """Latents (B, C, *S) float32 of pictures or clips in [−1, 1]."""
        backbone: Any = self.backbone
        with mixed(pixels.device):
            if pixels.ndim == 4 or not video_frames.suits(backbone.pipe.vae):
                return backbone.latents(pixels).contiguous()
            # as the class does it, in a third of the time
            z = video_frames.encode(backbone.pipe.vae, pixels).float()
        return backbone.scaled(z, backbone.pipe.vae).contiguous()
