"""The nearest-clip classifier on drawn stand-ins for the pictures (the real ones are not in the repository)."""

import random
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

from rmd.config import RequestError
from rmd.evaluate import motion
from rmd.train import emoji
from rmd.train.video import clips


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> motion.ClipTemplates:
    """References of four objects, each a drawing of its own."""
    root = tmp_path_factory.mktemp("data")
    folder = emoji.picture_folder(root)
    folder.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clips, "OBJECTS", clips.OBJECTS[:4])
        for number, concept in enumerate(clips.objects()):
            draw = random.Random(number)
            picture = Image.new("RGBA", (256, 256), (0, 0, 0, 0))
            for _ in range(3):
                x, y = draw.randint(20, 120), draw.randint(20, 120)
                box = (x, y, x + draw.randint(40, 110), y + draw.randint(40, 110))
                ImageDraw.Draw(picture).ellipse(box, fill=(*(draw.randint(0, 255) for _ in range(3)), 255))
            picture.save(folder / concept.file)
        return motion.ClipTemplates(root)


def made(templates: motion.ClipTemplates, prompt: str) -> torch.Tensor:
    name, doing, colour = motion.parse_prompt(prompt)
    return clips.clip(templates.pictures[name], doing, colour, torch.Generator().manual_seed(0)) * 2 - 1


def test_it_tells_object_motion_and_background(templates: motion.ClipTemplates) -> None:
    said = ["a fox sliding left on a blue background", "a cat bouncing on a white background"]
    right = templates.score(torch.stack([made(templates, p) for p in said]), said)
    assert (right["object"], right["motion"], right["both"], right["background"]) == (1, 1, 1, 1)
    assert right["detail_error"] < 0.1
    seen = ["a fox sliding right on a blue background", "a panda bouncing on a pink background"]
    wrong = templates.score(torch.stack([made(templates, p) for p in seen]), said)
    assert (wrong["object"], wrong["motion"], wrong["both"], wrong["background"]) == (0.5, 0.5, 0, 0.5)


def test_a_clip_played_backwards_is_another_motion(templates: motion.ClipTemplates) -> None:
    clip = made(templates, "a fox zooming in on a green background")
    assert templates.shown((clip + 1) / 2) == ("fox", "zooming in")
    assert templates.shown((clip.flip(1) + 1) / 2) == ("fox", "zooming out")


def test_the_detail_error_sees_blur(templates: motion.ClipTemplates, monkeypatch: pytest.MonkeyPatch) -> None:
    squares = (torch.arange(256) // 32 % 2).byte() * 255
    checkers = torch.stack([squares.expand(256, 256) ^ squares[:, None]] * 3 + [torch.full((256, 256), 255).byte()])
    monkeypatch.setitem(templates.pictures, "pig", checkers)
    prompt = "a pig spinning on a gray background"
    name, doing, _ = motion.parse_prompt(prompt)
    sharp = (made(templates, prompt) + 1) / 2
    blurred = F.avg_pool2d(F.pad(sharp, (4,) * 4, mode="replicate"), 9, stride=1)
    assert templates.detail_error(blurred, name, doing) > 1.5 * templates.detail_error(sharp, name, doing)


def test_real_clips_are_told_apart(templates: motion.ClipTemplates, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips, "OBJECTS", clips.OBJECTS[:4])
    assert motion.on_real(templates, count=8)["both"] >= 0.8


def test_prompts_must_be_of_the_plain_form() -> None:
    name, doing, colour = motion.parse_prompt("a tropical fish zooming out on a light blue background")
    assert (name, doing.doing, colour) == ("tropical fish", "zooming out", "light blue")
    with pytest.raises(RequestError, match="zebra"):
        motion.parse_prompt("a zebra spinning on a blue background")


def test_every_fixed_prompt_is_known() -> None:
    lines = (Path(__file__).parents[2] / "assets" / "prompts_video.txt").read_text().splitlines()
    assert len(lines) >= 20
    assert len({motion.parse_prompt(line)[0] for line in lines}) == len(lines)
    assert {motion.parse_prompt(line)[1] for line in lines} == set(clips.MOTIONS)
