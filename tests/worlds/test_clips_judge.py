"""The judge of clips: right on real ones, and it sees what is wrong with others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from rmd.checks import RequestError
from rmd.worlds import clips, emoji
from rmd.worlds import clips_judge as judging


@pytest.fixture(scope="module")
def judge() -> judging.Judge:
    return judging.Judge()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer rounds than a study's."""
    monkeypatch.setattr(judging, "GLANCE", (12, 5))
    monkeypatch.setattr(judging, "LOOK", (25, 5))


def real(judge: judging.Judge, prompt: str) -> torch.Tensor:
    """(1, 3, F, 128, 128) in [−1, 1]."""
    return judging.pictures(prompt, 1, torch.Generator().manual_seed(0), judge.sprites)


def test_it_tells_object_motion_background_and_words(judge: judging.Judge) -> None:
    said = ["a fox sliding left, flat style, on a blue background", "a small strawberry bouncing on a white background"]
    right = judge.score(torch.cat([real(judge, prompt) for prompt in said]), said)
    assert {right[name] for name in ("object", "motion", "both", "background", "words")} == {1.0}
    assert right["detail_error"] < 0.08
    seen = [
        "a fox sliding right, 3d style, on a blue background",
        "a big panda bouncing on a pink background",
    ]
    wrong = judge.score(torch.cat([real(judge, prompt) for prompt in seen]), said)
    names = ("object", "motion", "both", "background", "words")
    assert [wrong[name] for name in names] == [0.5, 0.5, 0, 0.5, 0]


def test_a_clip_played_backwards_is_another_motion(judge: judging.Judge) -> None:
    prompt = "a fox zooming in on a green background"
    assert judge.score(real(judge, prompt), [prompt])["motion"] == 1
    assert judge.score(real(judge, prompt).flip(2), [prompt])["motion"] == 0


def test_the_detail_error_sees_blur_and_jumps(judge: judging.Judge) -> None:
    prompt = "a ladybug spinning on a gray background"
    asked, sharp = judging.parse_prompt(prompt), real(judge, prompt)[0]
    blurred = F.avg_pool2d(F.pad(sharp.transpose(0, 1), (6,) * 4, mode="replicate"), 13, stride=1).transpose(0, 1)
    jumping = sharp[:, torch.randperm(clips.FRAMES, generator=torch.Generator().manual_seed(0))]
    errors = [judge.marks(one, asked)["detail_error"][0] for one in (sharp, blurred, jumping)]
    assert errors[1] > 1.5 * errors[0]
    assert errors[2] > 1.5 * errors[0]


def test_real_clips_are_told_apart(judge: judging.Judge) -> None:
    found = judging.on_real(judge, count=6)
    assert found["both"] == found["background"] == 1


def test_a_fit_finds_what_was_drawn(judge: judging.Judge) -> None:
    shown = clips.draw(3, torch.Generator().manual_seed(3))
    x = clips.render(judge.sprites, shown) * 2 - 1
    for row in range(3):
        one = shown.rows(slice(row, row + 1))
        moved = replace(one, base=replace(one.base, x=one.base.x + 0.03, scale=one.base.scale - 0.02))
        error, found = judge.fit(x[row], moved, judging.DETAIL, 40, 5)
        assert float(error.sqrt()) < 0.03
        assert float((found.base.x - one.base.x).abs()) < 0.01


def test_only_words_of_the_world_are_understood() -> None:
    asked = judging.parse_prompt("a soccer ball zooming out on a light blue background")
    assert (asked.name, asked.motion.doing, asked.colour, asked.said) == (
        "soccer ball", "zooming out", "light blue", {}
    )  # fmt: skip
    assert judging.parse_prompt("a flat emoji of a star that wiggles on a pink background").motion.does == "wiggles"
    for strange in (
        "a zebra spinning on a blue background",
        "a fox on a blue background",
        "a lion spinning",
        "a fox spinning, tilted left",
    ):
        with pytest.raises(RequestError, match="is not of the form"):
            judging.parse_prompt(strange)


def test_clips_alike_are_what_the_caption_says_and_differ() -> None:
    prompt = "a big fox spinning, flat style"
    found = judging.alike(prompt, 5, torch.Generator().manual_seed(0))
    assert len(found) == 5
    for row in range(5):
        assert "big" in clips.remarks(found, row)["size"]
        assert clips.MOTIONS[int(found.motion[row])].doing == "spinning"
        assert emoji.STYLES[int(found.base.style[row])] == "flat"
    assert len({int(colour) for colour in found.base.colour}) > 1


def test_every_fixed_prompt_is_known() -> None:
    lines = (Path(__file__).parents[2] / "assets" / "prompts_video.txt").read_text().splitlines()
    assert len(lines) >= 20
    assert len({judging.parse_prompt(line).name for line in lines}) == len(lines)
    assert {judging.parse_prompt(line).motion for line in lines} == set(clips.MOTIONS)
