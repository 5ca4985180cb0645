"""Where a run's prompts come from, and the latents that belong to them: for all of `pretrain`, for a warm-up else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rmd.checks import RequestError, Text
from rmd.request import SETTINGS


class Source(ABC):
    """What a run learns from. texts: all that there can be, where they are few enough to encode them once."""

    texts: Sequence[str] | None = None
    step = 0

    @abstractmethod
    def prompts(self, count: int, generator: torch.Generator) -> list[str]: ...

    def at(self, step: int) -> None:
        """Told before every step of a run: a source may renew what it gives."""
        self.step = step

    def latents(self, count: int, full: bool, generator: torch.Generator) -> tuple[Tensor, list[str]] | None:
        """Clean latents (B, C, *S) of full or low size with their prompts; None where there are none."""
        return None

    def stills(self, count: int, generator: torch.Generator) -> tuple[Tensor, list[str]] | None:
        """Latents (B, C, 1, H, W) of single frames of clips, of full size, with their prompts.

        Autoencoders of clips are causal: the first latent frame is that of the first frame alone.
        """
        given = self.latents(count, True, generator)
        return given and (given[0][:, :, :1], given[1])

    def held_out(self, count: int) -> tuple[Tensor, list[str]] | None:
        """Latents of full size with their prompts that `latents` never gives from now on."""
        return None


class PromptFile(Source):
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
        self.texts = self.lines

    def prompts(self, count: int, generator: torch.Generator) -> list[str]:
        return [self.lines[i] for i in torch.randint(len(self.lines), (count,), generator=generator).tolist()]
