"""The nearest-clip classifier on the stills and drawn stand-ins for the animations (not in the repository)."""

import random
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

from rmd.checks import RequestError
from rmd.worlds import clips, emoji
from rmd.worlds import clips_judge as motion


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> motion.ClipTemplates:
    """References of four objects, each a drawing of its own."""
    root = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clips, "OBJECTS", clips.OBJECTS[:4])
        animations = emoji.package_folder(root, clips.ANIMATIONS[-1]) / "package" / "assets"
        animations.mkdir(parents=True)
        for number, concept in enumerate(clips.objects()):
            draw = random.Random(number)
            boxes = []
            for _ in range(3):
                x, y = draw.randint(20, 120), draw.randint(20, 120)
                boxes.append((x, y, x + draw.randint(40, 110), y + draw.randint(40, 110)))
            colours = [(*(draw.randint(0, 255) for _ in range(3)), 255) for _ in boxes]
            if concept.name in clips.ANIMATED:
                rows = [ellipses(boxes, colours, 20 * (k % 3)) for k in range(30)]
                rows[0].save(animations / concept.file, save_all=True, append_images=rows[1:], duration=40)
        return motion.ClipTemplates(root)


def ellipses(boxes: list[tuple[int, ...]], colours: list[tuple[int, ...]], down: int) -> Image.Image:
    picture = Image.new("RGBA", (256, 256), (0, 0, 0, 0))
    for (x, y, right, bottom), colour in zip(boxes, colours, strict=True):
        ImageDraw.Draw(picture).ellipse((x, y + down, right, bottom + down), fill=colour)
    return picture


def made(templates: motion.ClipTemplates, prompt: str) -> torch.Tensor:
    name, doing, colour = motion.parse_prompt(prompt)
    return clips.clip(templates.sources[name, doing.doing], doing, colour, torch.Generator().manual_seed(0)) * 2 - 1


def test_it_tells_object_motion_and_background(templates: motion.ClipTemplates) -> None:
    said = ["a fox sliding left on a blue background", "a strawberry bouncing on a white background"]
    right = templates.score(torch.stack([made(templates, p) for p in said]), said)
    assert (right["object"], right["motion"], right["both"], right["background"]) == (1, 1, 1, 1)
    assert right["detail_error"] < 0.1
    seen = ["a fox sliding right on a blue background", "a panda bouncing on a pink background"]
    wrong = templates.score(torch.stack([made(templates, p) for p in seen]), said)
    assert (wrong["object"], wrong["motion"], wrong["both"], wrong["background"]) == (0.5, 0.5, 0, 0.5)


def test_a_clip_played_backwards_is_another_motion(templates: motion.ClipTemplates) -> None:
    clip = made(templates, "a fox zooming in on a green background")
    assert templates.nearest((clip + 1) / 2) == ("fox", "zooming in")
    assert templates.nearest((clip.flip(1) + 1) / 2) == ("fox", "zooming out")


def test_an_animation_plays_from_its_first_frame_to_its_last(templates: motion.ClipTemplates) -> None:
    frames = templates.sources["fox", "wiggling"]
    assert frames.shape == (clips.FRAMES, 4, 256, 256)
    assert not torch.equal(frames[0], frames[1])
    clip = made(templates, "a panda wiggling on a green background")
    assert templates.nearest((clip + 1) / 2) == ("panda", "wiggling")
    assert ("strawberry", "wiggling") not in templates.sources


def test_the_detail_error_sees_blur(templates: motion.ClipTemplates, monkeypatch: pytest.MonkeyPatch) -> None:
    squares = (torch.arange(256) // 32 % 2).byte() * 255
    checkers = torch.stack([squares.expand(256, 256) ^ squares[:, None]] * 3 + [torch.full((256, 256), 255).byte()])
    monkeypatch.setitem(templates.sources, ("car", "spinning"), checkers)
    prompt = "a car spinning on a gray background"
    name, doing, _ = motion.parse_prompt(prompt)
    sharp = (made(templates, prompt) + 1) / 2
    blurred = F.avg_pool2d(F.pad(sharp, (4,) * 4, mode="replicate"), 9, stride=1)
    assert templates.detail_error(blurred, name, doing) > 1.5 * templates.detail_error(sharp, name, doing)


def test_real_clips_are_told_apart(templates: motion.ClipTemplates, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips, "OBJECTS", clips.OBJECTS[:4])
    assert motion.on_real(templates, count=8)["both"] >= 0.8


def test_prompts_must_be_of_the_plain_form() -> None:
    name, doing, colour = motion.parse_prompt("a soccer ball zooming out on a light blue background")
    assert (name, doing.doing, colour) == ("soccer ball", "zooming out", "light blue")
    with pytest.raises(RequestError, match="zebra"):
        motion.parse_prompt("a zebra spinning on a blue background")


def test_every_fixed_prompt_is_known() -> None:
    lines = (Path(__file__).parents[2] / "assets" / "prompts_video.txt").read_text().splitlines()
    assert len(lines) >= 20
    assert len({motion.parse_prompt(line)[0] for line in lines}) == len(lines)
    assert {motion.parse_prompt(line)[1] for line in lines} == set(clips.MOTIONS)
