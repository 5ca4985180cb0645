"""Real pictures of a caption: all as it says, and different in what it does not say."""

from __future__ import annotations

import pytest
import torch

from rmd.checks import RequestError
from rmd.worlds import emoji, views
from rmd.worlds.alike import alike, asked_for, pictures
from rmd.worlds.emoji_judge import parse_prompt


def test_every_picture_is_as_the_caption_says() -> None:
    g = torch.Generator().manual_seed(0)
    for prompt in asked_for(40, 3):
        asked, found = parse_prompt(prompt), alike(prompt, 3, g)
        assert len(found) == 3
        for row in range(3):
            assert emoji.concepts()[int(found.concept[row])].name == asked.name
            said = views.remarks(found, row)
            assert all(word in said[kind] for kind, word in asked.said.items())
            assert asked.colour in (None, list(emoji.COLOURS)[int(found.colour[row])])


def test_what_it_leaves_open_varies() -> None:
    found = alike("a fox on a green background", 60, torch.Generator().manual_seed(0))
    assert set(found.style.tolist()) == {0, 1}
    assert float(found.scale.std()) > 0.08
    assert float(found.x.std()) > 0.03
    assert len(set(alike("a fox", 60, torch.Generator().manual_seed(0)).colour.tolist())) > 5


def test_pictures_are_the_worlds() -> None:
    shown = pictures("a fox on a green background", 2, torch.Generator().manual_seed(0), emoji.load_sprites())
    assert shown.shape == (2, 3, emoji.SIZE, emoji.SIZE)
    corner = shown[:, :, :8, :8].mean(dim=(2, 3))
    assert bool((corner[:, 1] > corner[:, 0]).all()), "green"
    with pytest.raises(RequestError, match="is not of the form"):
        alike("a dragon", 1, torch.Generator())


def test_fewer_captions_are_the_first_of_more() -> None:
    assert asked_for(130, 3)[:40] == asked_for(40, 3)
    assert len(set(asked_for(130, 3))) > 100
