"""What is evaluated is what a click on Generate makes: the same request gives the same pixels, bit for bit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rmd.backbones import catalog
from rmd.backbones.outline import read_outline
from rmd.engine.results import Done
from rmd.engine.session import Session
from rmd.study.quality import SEED, evaluate, pixels_of

PROMPTS = ("a fox", "a red car")


class Recording:
    """A judge that keeps what it is shown."""

    def __init__(self) -> None:
        self.shown: list[Tensor] = []

    def score(self, pixels: Tensor, prompts: Sequence[str]) -> dict[str, float]:
        assert len(pixels) == len(prompts)
        self.shown.append(pixels)
        return {"mean": float(pixels.mean())}


@pytest.fixture
def guided_student(tiny_student: Path, tmp_path: Path) -> Path:
    """A student with times of its own and guidance, which an evaluation must not lose."""
    folder = shutil.copytree(tiny_student, tmp_path / "student")
    card = json.loads((folder / "rmd.json").read_text())
    card |= {"times": [1.0, 0.7, 0.35], "guidance": 2.5, "origin": "published", "default_steps": 3, "default_switch": 1}
    (folder / "rmd.json").write_text(json.dumps(card))
    return folder


def test_an_evaluated_picture_is_the_apps_own(tiny_sdxl: Path, guided_student: Path, tmp_path: Path) -> None:
    student = str(guided_student)
    outline = read_outline(catalog.find(str(tiny_sdxl)), student)
    judge, plans = Recording(), [(3, 1), (2, 0)]
    report = evaluate(Session(previews=False), outline, student, PROMPTS, plans, judge, tmp_path / "sheets")
    assert [(row["steps"], row["switch"]) for row in report["student"]] == plans
    teachers, _, third, second = judge.shown
    for number, prompt in enumerate(PROMPTS):
        click = outline.request(
            {"backbone": outline.entry.id, "student": student, "prompt": prompt, "seed": SEED + number}
        )
        done = next(event for event in Session().generate(click) if isinstance(event, Done))
        assert done.plan.stages[1].times == (0.7, 0.35)
        assert done.student.timings.nfe == 6
        assert torch.equal(third[number : number + 1], pixels_of([done.student]))
        assert done.teacher is not None
        assert torch.equal(teachers[number : number + 1], pixels_of([done.teacher]))
    assert not torch.equal(second, third)
    names = {"teacher.png", "cascade-not-distilled.png", "student.png"}
    assert {path.name for path in (tmp_path / "sheets").iterdir()} == names
