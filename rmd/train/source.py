"""Where a distillation's prompts come from and, for its warm-up, latents that belong to them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from rmd.backbones.base import Backbone
from rmd.checks import RequestError, Text
from rmd.request import SETTINGS
from rmd.train.bundled.image_teacher import latents_of
from rmd.worlds import clips, emoji, views


class Source(Protocol):
    """What a run learns from. texts: all that there can be, where they are few enough to encode them once."""

    @property
    def texts(self) -> Sequence[str] | None: ...

    def prompts(self, count: int, generator: torch.Generator) -> list[str]: ...

    def latents(self, count: int, full: bool, generator: torch.Generator) -> tuple[Tensor, list[str]] | None:
        """Clean latents (B, C, *S) of full or low size with their prompts; None where there are none."""
        ...


class Pictures:
    """The bundled image model's world, drawn as it is needed."""

    texts = None

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
    """The bundled video model's world, with the latents that its teacher's training stored, where they are."""

    texts = None

    def __init__(self, stored: Path):
        self.stored: dict[str, Tensor] = torch.load(stored, weights_only=True) if stored.exists() else {}

    def prompts(self, count: int, generator: torch.Generator) -> list[str]:
        return clips.draw_captions(count, generator)

    def latents(self, count: int, full: bool, generator: torch.Generator) -> tuple[Tensor, list[str]] | None:
        if not self.stored:
            return None
        store = self.stored["high" if full else "low"]
        pick = torch.randint(len(store), (count,), generator=generator)
        return store[pick].float(), clips.captions_of(self.stored, pick, generator)


class PromptFile:
    """A text file with a prompt per line; empty lines and what follows a # at a line's start are left out.

    Raises RequestError for a file that cannot be read, is not UTF-8, or holds no prompt or one that is too long.
    """

    def __init__(self, path: Path):
        kind = SETTINGS["prompt"].kind
        assert isinstance(kind, Text)
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except OSError as error:
            raise RequestError(f"prompts: {path} cannot be read: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise RequestError(f"prompts: {path} is not UTF-8 text (byte {error.start}).") from error
        numbered = [(i, line) for i, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
        self.lines = [kind.check(f"prompts: line {number}", line) for number, line in numbered]
        if not self.lines:
            raise RequestError(f"prompts: {path} holds no prompt; write one per line.")
        self.texts: Sequence[str] = self.lines

    def prompts(self, count: int, generator: torch.Generator) -> list[str]:
        return [self.lines[i] for i in torch.randint(len(self.lines), (count,), generator=generator).tolist()]

    def latents(self, count: int, full: bool, generator: torch.Generator) -> None:
        return None
