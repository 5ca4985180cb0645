"""The judge of the image model's world on the world's own pictures: what it must see, and what it must not overlook."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from rmd.arguments import parse_plans
from rmd.checks import RequestError
from rmd.worlds import emoji, views
from rmd.worlds.emoji_judge import Judge, keeps, on_real, parse_prompt


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge()


def test_it_reads_real_pictures(judge: Judge) -> None:
    real = on_real(judge, count=24)
    assert real["object_top1"] >= 0.98
    assert real["background"] >= 0.98
    assert real["words"] >= 0.98
    assert real["detail_error"] < 0.03


def test_the_detail_error_sees_blur_that_the_name_does_not(judge: Judge) -> None:
    shown = views.draw(6, torch.Generator().manual_seed(1))
    prompts = [f"{emoji.concepts()[int(i)].name}" for i in shown.concept]
    sharp = views.render(judge.sprites, shown) * 2 - 1
    blurred = F.avg_pool2d(F.pad(sharp, (6,) * 4, mode="replicate"), 13, stride=1)
    clear, soft = judge.score(sharp, prompts), judge.score(blurred, prompts)
    assert soft["object_top5"] == clear["object_top5"] == 1
    assert soft["detail_error"] > 2 * clear["detail_error"]


def test_the_score_counts_what_prompts_say_and_pictures_show(judge: Judge) -> None:
    g = torch.Generator().manual_seed(2)
    shown = views.draw(16, g)
    prompts, pictures = views.captions(shown, g), views.render(judge.sprites, shown) * 2 - 1
    others = replace(shown, concept=(shown.concept + 7) % 60, colour=(shown.colour + 5) % 10, x=-shown.x, y=-shown.y)
    others = replace(others, style=1 - shown.style, angle=-shown.angle, scale=1.45 - shown.scale)
    right = judge.score(pictures, prompts)
    wrong = judge.score(views.render(judge.sprites, others) * 2 - 1, prompts)
    assert (right["object_top1"], right["background"]) == (1, 1)
    assert wrong["object_top1"] < 0.1
    assert wrong["background"] < 0.1
    assert wrong["words"] < 0.5 < 0.9 < right["words"]
    assert wrong["detail_error"] > 3 * right["detail_error"]


def test_prompts_are_read_as_they_were_written() -> None:
    g = torch.Generator().manual_seed(3)
    shown = views.draw(600, g)
    for row, caption in enumerate(views.captions(shown, g)):
        asked = parse_prompt(caption)
        assert asked.name == emoji.concepts()[int(shown.concept[row])].name
        assert asked.colour in (None, list(emoji.COLOURS)[int(shown.colour[row])])
        pose = [float(getattr(shown, name)[row]) for name in ("scale", "x", "y", "angle")]
        style = emoji.STYLES[int(shown.style[row])]
        assert all(keeps(word, pose, bool(shown.mirrored[row]), style) for word in asked.said.values())


def test_a_small_fox_on_the_left_is_neither_big_nor_on_the_right() -> None:
    pose = (0.5, -0.2, 0.0, math.radians(12))
    for word in ("small", "on the left", "tilted right", "mirrored", "flat"):
        assert keeps(word, pose, True, "flat")
    for word in ("big", "on the right", "at the top", "at the bottom", "in the middle", "tilted left", "3d"):
        assert not keeps(word, pose, True, "flat")


def test_words_that_are_not_of_the_world_are_named() -> None:
    with pytest.raises(RequestError, match="zebra"):
        parse_prompt("a zebra on a blue background")


def test_plans_are_checked() -> None:
    assert parse_plans("4/2, 1/0") == [(4, 2), (1, 0)]
    assert len(parse_plans("all")) == sum(k + 1 for k in range(1, 9))
    for bad in ("9/1", "4/5", "4", "four/two", "0/0"):
        with pytest.raises(RequestError, match=bad):
            parse_plans(bad)
