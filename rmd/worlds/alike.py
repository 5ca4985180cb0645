"""Real pictures of given captions: many for each, differing in all that the caption leaves open."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from rmd.worlds import emoji, views
from rmd.worlds.emoji_judge import parse_prompt
from rmd.worlds.views import Views

TRIES = 64
BLOCK = 100  # captions that are drawn at once, so that a larger study begins with a smaller one's


def alike(prompt: str, count: int, generator: torch.Generator) -> Views:
    """Random views that a caption describes; RequestError for a caption that is not of the world."""
    asked, found = parse_prompt(prompt), []
    concept = [c.name for c in emoji.concepts()].index(asked.name)
    while sum(map(len, found)) < count:
        some = views.draw(TRIES, generator)
        some = replace(some, concept=torch.full_like(some.concept, concept))
        if asked.colour:
            some = replace(some, colour=torch.full_like(some.colour, list(emoji.COLOURS).index(asked.colour)))
        fits = [i for i in range(TRIES) if all(w in views.remarks(some, i)[k] for k, w in asked.said.items())]
        found += [some.rows(slice(i, i + 1)) for i in fits]
    rows = found[:count]
    return Views(*(torch.cat([getattr(one, name) for one in rows]) for name in vars(rows[0])))


def pictures(prompt: str, count: int, generator: torch.Generator, sprites: Tensor) -> Tensor:
    """(count, 3, H, W) in [−1, 1]; sprites: as `emoji.load_sprites` gives them."""
    return views.render(sprites, alike(prompt, count, generator)) * 2 - 1


def asked_for(count: int, seed: int) -> list[str]:
    """Captions as the world's own pictures have them; fewer are the first of more."""
    g = torch.Generator().manual_seed(seed)
    return [caption for _ in range(0, count, BLOCK) for caption in views.draw_captions(BLOCK, g)][:count]
