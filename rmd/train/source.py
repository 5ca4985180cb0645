"""Where a distillation's prompts come from and, for its warm-up, latents that belong to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from rmd.backbones.base import Backbone
from rmd.train.bundled.image_teacher import latents_of
from rmd.worlds import clips, emoji, views


class Source(Protocol):
    """What a run learns from."""

    def prompts(self, count: int, generator: torch.Generator) -> list[str]: ...

    def latents(self, count: int, full: bool, generator: torch.Generator) -> tuple[Tensor, list[str]]:
        """Clean latents (B, C, *S) of full or low size with their prompts."""
        ...


class Pictures:
    """The bundled image model's world, drawn as it is needed."""

    def __init__(self, backbone: Backbone):
        self.backbone: Any = backbone
        self.sprites = emoji.load_sprites().to(backbone.device)

    def prompts(self, count: int, generator: torch.Generator) -> list[str]:
        return views.draw_captions(count, generator)

    def latents(self, count: int, full: bool, generator: torch.Generator) -> tuple[Tensor, list[str]]:
        shown = views.draw(count, generator)
        high, low = latents_of(self.backbone.pipe.vae, self.sprites, shown)
        return high if full else low, views.captions(shown, generator)


class Clips:
    """The bundled video model's world, from the latents that its teacher's training stored."""

    def __init__(self, stored: Path):
        self.stored: dict[str, Tensor] = torch.load(stored, weights_only=True)

    def prompts(self, count: int, generator: torch.Generator) -> list[str]:
        return clips.draw_captions(count, generator)

    def latents(self, count: int, full: bool, generator: torch.Generator) -> tuple[Tensor, list[str]]:
        store = self.stored["high" if full else "low"]
        pick = torch.randint(len(store), (count,), generator=generator)
        return store[pick].float(), clips.captions_of(self.stored, pick, generator)
