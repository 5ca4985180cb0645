"""The nearest-template classifier on drawn stand-ins for the pictures (the real ones are not in the repository)."""

import random
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

from rmd.checks import RequestError
from rmd.study.evaluate import parse_plans
from rmd.study.quality import score
from rmd.worlds import emoji
from rmd.worlds.emoji_judge import Templates, on_real, parse_prompt


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder in which every known object is a drawing of its own: three coloured ellipses."""
    root = tmp_path_factory.mktemp("data")
    folder = emoji.picture_folder(root)
    folder.mkdir(parents=True)
    for number, concept in enumerate(emoji.concepts()):
        draw = random.Random(number)
        picture = Image.new("RGBA", (256, 256), (0, 0, 0, 0))
        for _ in range(3):
            x, y = draw.randint(20, 120), draw.randint(20, 120)
            box = (x, y, x + draw.randint(40, 110), y + draw.randint(40, 110))
            ImageDraw.Draw(picture).ellipse(box, fill=(*(draw.randint(0, 255) for _ in range(3)), 255))
        picture.save(folder / concept.file)
    return root


@pytest.fixture(scope="module")
def templates(data: Path) -> Templates:
    return Templates(data)


def test_it_names_what_is_there(templates: Templates, data: Path) -> None:
    real = on_real(templates, data, count=30)
    assert real["accuracy"] >= 0.9
    assert real["detail_error"] < 0.1


def test_the_detail_error_sees_blur_that_the_name_does_not(templates: Templates, data: Path) -> None:
    g = torch.Generator().manual_seed(0)
    concept = emoji.concepts()[0]
    picture = emoji.load_picture(emoji.picture_folder(data) / concept.file)
    sharp = emoji.compose(picture, emoji.COLOURS["blue"], g)
    blurred = F.avg_pool2d(F.pad(sharp[None], (12,) * 4, mode="replicate"), 25, stride=1)[0]
    assert templates.object_ranks(blurred, "blue")[0] == concept.name
    assert templates.detail_error(blurred, concept.name, "blue") > 1.3 * templates.detail_error(
        sharp, concept.name, "blue"
    )


def test_the_score_counts_right_objects_and_backgrounds(templates: Templates, data: Path) -> None:
    g = torch.Generator().manual_seed(0)
    prompts = ["a fox on a blue background", "a star on a white background"]
    pictures = []
    for prompt in prompts:
        name, colour = parse_prompt(prompt)
        concept = next(c for c in emoji.concepts() if c.name == name)
        picture = emoji.load_picture(emoji.picture_folder(data) / concept.file)
        pictures.append(emoji.compose(picture, emoji.COLOURS[colour], g, (0.93, 0.95)) * 2 - 1)
    right = score(torch.stack(pictures), prompts, templates)
    assert (right.object_top1, right.background) == (1.0, 1.0)
    wrong = score(torch.stack(pictures[::-1]), prompts, templates)
    assert (wrong.object_top1, wrong.background) == (0.0, 0.0)


def test_prompts_are_read_longest_name_first() -> None:
    assert parse_prompt("a hot dog on a light blue background") == ("hot dog", "light blue")
    assert parse_prompt("an orange fruit on an orange background") == ("orange fruit", "orange")
    with pytest.raises(RequestError, match="zebra"):
        parse_prompt("a zebra on a blue background")


def test_missing_pictures_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="train data"):
        Templates(tmp_path)


def test_plans_are_checked() -> None:
    assert parse_plans("4/2, 1/0") == [(4, 2), (1, 0)]
    assert len(parse_plans("all")) == sum(k + 1 for k in range(1, 9))
    for bad in ("9/1", "4/5", "4", "four/two", "0/0"):
        with pytest.raises(RequestError, match=bad):
            parse_plans(bad)
