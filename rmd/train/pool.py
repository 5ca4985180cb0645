"""Samples of a bundled world to draw batches from, so that drawing costs a share of what a new one each time would."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor
from tqdm import tqdm

Drawn = tuple[dict[str, Tensor], list[str]]
"""A block of samples: what they are in tensors (B, …) by name, and their captions."""


class Pool:
    """Every step a new block takes the place of the oldest of `blocks`.

    A sample is so used a few times, each time with another noise. What the pool holds at a step depends on the step
    alone, so that a resumed run finds what it would have had. draw: makes the block of a number.
    """

    def __init__(self, draw: Callable[[int], Drawn], blocks: int):
        self.draw, self.blocks, self.next = draw, blocks, -1
        self.rows: dict[str, Tensor] = {}
        self.captions: list[str] = []

    def at(self, step: int) -> None:
        """Hold what belongs to this step; steps come in order."""
        new = range(max(step, self.next), step + self.blocks)
        for number in tqdm(new, desc="samples", leave=False, disable=len(new) < 2, file=sys.stderr):
            self.put(number)
        self.next = step + self.blocks

    def put(self, number: int) -> None:
        """A block in the place of the oldest."""
        made, said = self.draw(number)
        if not self.rows:
            self.rows = {
                name: value.new_empty(self.blocks * len(value), *value.shape[1:]) for name, value in made.items()
            }
            self.captions = [""] * (self.blocks * len(said))
        start = number % self.blocks * len(said)
        place = slice(start, start + len(said))
        for name, value in made.items():
            self.rows[name][place] = value
        self.captions[place] = said

    def pick(self, name: str, count: int, generator: torch.Generator) -> tuple[Tensor, list[str]]:
        """Random samples by the tensors of one name, with their captions."""
        picked = torch.randint(len(self.captions), (count,), generator=generator)
        rows = self.rows[name]
        return rows[picked.to(rows.device)], [self.captions[index] for index in picked.tolist()]
