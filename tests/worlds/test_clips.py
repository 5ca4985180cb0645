"""Clips move as their captions say, stay on the canvas, and captions say nothing that is not so."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rmd.worlds import clips, emoji, views
from rmd.worlds.clips import MOTIONS, Clips
from rmd.worlds.clips_judge import parse_prompt

SPRITES = torch.zeros(len(emoji.concepts()), 2, 4, 256, 256, dtype=torch.uint8)
"""A disc in the place of every object, a white half disc (the right half) in the flat style."""
AXIS = torch.linspace(-1, 1, 256)
SPRITES[:] = ((AXIS[:, None] ** 2 + AXIS**2) < 0.8) * 255
SPRITES[:, 1, :, :, :128] = 0


def moving(doing: str, flat: bool = False, seed: int = 0) -> Clips:
    """One clip of a motion, on black."""
    some = clips.draw(400, torch.Generator().manual_seed(seed))
    row = next(i for i in range(400) if MOTIONS[int(some.motion[i])].doing == doing)
    one = some.rows(slice(row, row + 1))
    black = torch.tensor([list(emoji.COLOURS).index("black")])
    base = replace(one.base, style=torch.tensor([int(flat)]), mirrored=torch.tensor([0]), colour=black)
    return replace(one, base=replace(base, slope=torch.zeros(1, 2)))


def centres(shown: Clips) -> tuple[Tensor, Tensor, Tensor]:
    """Mean column and row of what is seen, in pixels, and its share of the canvas, per frame."""
    weight = (clips.render(SPRITES, shown)[0].mean(dim=0) > 0.5).float()
    axis, total = torch.arange(clips.HIGH, dtype=torch.float32), weight.sum(dim=(1, 2))
    return (weight.sum(1) @ axis) / total, (weight.sum(2) @ axis) / total, total / clips.HIGH**2


def test_objects_move_as_their_captions_say() -> None:
    x, y, _ = centres(moving("sliding left"))
    assert (x.diff() < -1).all()
    assert y.std() < 0.5
    assert (centres(moving("sliding right"))[0].diff() > 1).all()
    x, y, _ = centres(moving("bouncing"))
    assert x.std() < 0.5
    assert min(y[0] - y[3], y[6] - y[3], y[6] - y[9]) > 10  # rises from the ground, falls back, rises again
    assert (centres(moving("zooming in"))[2].diff() > 0).all()
    assert (centres(moving("zooming out"))[2].diff() < 0).all()


def test_spinning_is_one_clockwise_turn_and_wiggling_goes_to_both_sides() -> None:
    half = moving("spinning", flat=True)
    middle = [(float(place[0]) + 0.5) * clips.HIGH - 0.5 for place in (half.base.x, half.base.y)]
    x, y, _ = centres(half)
    assert x[0] > middle[0] + 4
    assert y[3] > middle[1] + 4  # a quarter later it is below
    assert x[6] < middle[0] - 4
    assert abs(x[12] - x[0]) < 0.5
    _, y, _ = centres(moving("wiggling", flat=True))
    still = y[0]
    assert (y - still).max() > 0.8
    assert (y - still).min() < -0.8


def test_objects_stay_on_the_canvas_and_clips_differ() -> None:
    shown = clips.draw(300, torch.Generator().manual_seed(1))
    poses = clips.poses(shown, clips.instants())
    for place in (poses.x, poses.y):
        assert float((place.abs() + poses.scale / 2).max()) <= 0.5 + 1e-6
    assert float(poses.scale.min()) > 0.2
    assert {int(c) for c in shown.base.concept} == set(clips.known())
    for name in ("scale", "x", "y"):
        assert float(getattr(shown.base, name).std()) > 0.04
    a, b = moving("bouncing"), moving("bouncing", seed=1)
    assert not torch.allclose(a.base.x, b.base.x)


def test_a_small_clip_is_the_average_of_the_full_one() -> None:
    shown = clips.draw(2, torch.Generator().manual_seed(0))
    full = clips.shrink(clips.render(SPRITES, shown))
    assert full.shape == (2, 3, clips.FRAMES, clips.LOW, clips.LOW)
    assert float((full - clips.render(SPRITES, shown, clips.LOW)).abs().mean()) < 0.006


@pytest.mark.parametrize("seed", range(3))
def test_captions_say_what_is_so(seed: int) -> None:
    shown = clips.draw(120, torch.Generator().manual_seed(seed))
    said = clips.captions(shown, torch.Generator().manual_seed(seed))
    more = 0
    for row, caption in enumerate(said):
        asked, base = parse_prompt(caption), shown.base
        assert asked.name == emoji.concepts()[int(base.concept[row])].name
        assert asked.motion == MOTIONS[int(shown.motion[row])]
        assert asked.colour in (None, list(emoji.COLOURS)[int(base.colour[row])])
        for kind, word in asked.said.items():
            assert word in clips.remarks(shown, row)[kind]
            more += 1
    assert more > 20


def test_the_fullest_caption() -> None:
    bounce = MOTIONS[clips.BOUNCE]
    full = {"size": "small", "place": "on the left", "side": "mirrored", "style": "flat"}
    words = "a small fox bouncing on the left, mirrored, flat style, on a green background"
    assert clips.phrase("fox", bounce, "green", full) == words
    assert clips.phrase("fox", bounce, "green", {}) == "a fox bouncing on a green background"
    assert parse_prompt(words).said == full


def test_words_of_place_and_size_are_for_what_stays() -> None:
    shown = clips.draw(400, torch.Generator().manual_seed(2))
    for row in range(len(shown)):
        motion, known = MOTIONS[int(shown.motion[row])], clips.remarks(shown, row)
        if 0 in motion.along:
            assert not {"on the left", "on the right"} & set(known["place"])
        if 1 in motion.along:
            assert not {"at the top", "at the bottom"} & set(known["place"])
        if "zooming" in motion.doing:
            assert not known["size"]
    assert views.ASIDE < 0.14  # a place that sliding things can have across
