"""DMD2's adversarial head (arXiv 2405.14867, 4.3): fake_score's features tell the student's samples from real ones.

The student is moved to be taken for real, beside matching: what a teacher does badly, real latents do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rmd.backbones.base import Backbone
from rmd.method.denoiser import Conditioning

WIDTH = 256
SHARE = 0.01
"""Of the head's loss beside fake_score's own, DMD2's for SDXL."""


class Adversary(nn.Module):
    """A small network on what leaves the middle of another, whose weights are not its own.

    call: the backbone with that network. prompt: any one, to ask it once how wide its features are.
    """

    def __init__(self, call: Backbone, prompt: Conditioning):
        super().__init__()
        self.seen: list[Tensor] = []
        self.looks = False
        outer: Any = call.network
        network = getattr(outer, "network", outer)  # within `Replayed`
        middle(getattr(network, "base", network)).register_forward_hook(self.note)
        with torch.no_grad(), self.looking():
            x = torch.zeros(1, call.channels, *call.latent_size(call.spec.low), device=call.device)
            call.predict(x, 0.5, {name: value[:1] for name, value in prompt.items()})
        width = places(self.seen.pop()).shape[-1]
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, WIDTH), nn.SiLU(), nn.Linear(WIDTH, 1))
        self.to(call.device)

    def note(self, module: nn.Module, given: Any, output: Any) -> None:
        if self.looks:
            self.seen.append(output[-1] if isinstance(output, tuple) else output)

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Within this the next call's features are kept for `scores`."""
        self.looks = True
        try:
            yield
        finally:
            self.looks = False

    def scores(self) -> Tensor:
        """How real what was seen last looks, (B,): above 0 for what is taken for real."""
        return self.head(places(self.seen.pop()).float()).mean(dim=(1, 2))


def places(features: Tensor) -> Tensor:
    """(B, C, H, W) or (B, N, C) as (B, N, C)."""
    return features.flatten(2).transpose(1, 2) if features.ndim == 4 else features


def middle(network: nn.Module) -> nn.Module:
    """A UNet's middle block, or the one in the middle of a transformer's longest row of blocks."""
    found = getattr(network, "mid_block", None)
    if isinstance(found, nn.Module):
        return found
    rows = [child for child in network.children() if isinstance(child, nn.ModuleList)]
    blocks = max(rows, key=len)
    return blocks[len(blocks) // 2]


def telling_loss(made: Tensor, real: Tensor) -> Tensor:
    """The head's loss on scores of the student's samples and of real ones."""
    return F.softplus(made).mean() + F.softplus(-real).mean()


def passing_loss(made: Tensor) -> Tensor:
    """The student's: to be taken for real."""
    return F.softplus(-made).mean()
