"""The mean of several students is a student, with the runs behind it; and what cannot be averaged is a sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rmd import cli
from rmd.backbones.loading import open_backbone, open_student
from tests.train.test_command import distil

CPU = torch.device("cpu")


@pytest.fixture
def students(tiny_sdxl: Path, tmp_path: Path, prompts: Path) -> list[Path]:
    """Two distillations that differ in their seeds."""
    for seed in ("1", "2"):
        assert distil(tiny_sdxl, prompts, tmp_path / seed, "--set", f"seed={seed}") == 0
    return [tmp_path / seed / "student" for seed in ("1", "2")]


def weights(student: Path) -> dict[str, torch.Tensor]:
    return load_file(next((student / "unet").glob("*.safetensors")))


def test_the_mean_is_a_student_that_knows_where_it_comes_from(
    tiny_sdxl: Path, tmp_path: Path, prompts: Path, students: list[Path]
) -> None:
    out = tmp_path / "mean"
    assert cli.main(["train", "average", *map(str, students), "--out", str(out)]) == 0
    first, second, mean = (weights(folder) for folder in (*students, out))
    for name, value in mean.items():
        assert value.dtype == first[name].dtype
        expected = (first[name].float() + second[name].float()) / 2
        torch.testing.assert_close(value.float(), expected, atol=1e-3, rtol=1e-3)
    assert any(not torch.equal(mean[name], first[name]) for name in mean)
    card = open_student(out, open_backbone(tiny_sdxl, "tiny", CPU, torch.float32))[1]
    assert card.training.startswith("the mean of the weights of 2 students: 5 iterations in ")
    assert [row["steps"] for row in json.loads((out / "training.json").read_text())] == [5, 5]
    assert not (out / "settings.json").exists(), "no one run's settings made it"

    assert distil(tiny_sdxl, prompts, tmp_path / "more", "--student", str(out), "--steps", "6") == 0
    rows = json.loads((tmp_path / "more" / "student" / "training.json").read_text())
    assert [row["steps"] for row in rows] == [5, 5, 6]
    assert set(rows[-1]) == {"stage", "steps", "samples", "minutes", "hardware"}
    ask = ["train", "average", str(tmp_path / "more" / "student"), str(out), "--out", str(tmp_path / "again")]
    assert cli.main(ask) == 0
    assert json.loads((tmp_path / "again" / "training.json").read_text()) == rows, "what both come from is there once"


def test_what_has_no_mean_is_refused_and_nothing_is_written(
    tiny_sdxl: Path, tmp_path: Path, prompts: Path, students: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    one, out = students[0], tmp_path / "mean"
    assert distil(tiny_sdxl, prompts, tmp_path / "lora", "--lora", "2") == 0
    other = shutil.copytree(students[1], tmp_path / "other")
    shutil.rmtree(other / "unet")
    cases = {
        "students must be two or more, not 1": [one],
        "the mean of LoRAs is no LoRA": [one, tmp_path / "lora" / "student"],
        "students must be folders with rmd.json": [one, tmp_path],
        "students must be of one architecture": [one, other],
    }
    for words, asked in cases.items():
        assert cli.main(["train", "average", *map(str, asked), "--out", str(out)]) == 2
        assert words in capsys.readouterr().err
        assert not out.exists()
    before = weights(students[1])
    assert cli.main(["train", "average", *map(str, students), "--out", str(students[1])]) == 2
    assert "is there already" in capsys.readouterr().err
    assert all(torch.equal(value, before[name]) for name, value in weights(students[1]).items())
