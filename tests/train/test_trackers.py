"""A run's figures in the programs that show them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.train.test_command import distil


def test_tensorboard_gets_every_logged_figure(tiny_sdxl: Path, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert distil(tiny_sdxl, prompts, out, "--set", "tracker=tensorboard") == 0
    read = EventAccumulator(str(out / "rmd"))
    read.Reload()
    (last,) = read.Scalars("matching")
    assert last.step == 4
    assert last.value > 0


@pytest.mark.parametrize(
    ("tracker", "words"),
    [
        pytest.param(
            "wandb",
            "tracker: wandb is not installed here; `pip install wandb`",
            marks=pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="it is installed"),
        ),
        ("paper", "tracker must be one of tensorboard, wandb, trackio, mlflow, swanlab"),
    ],
)
def test_what_cannot_be_used_is_a_sentence(
    tiny_sdxl: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], tracker: str, words: str
) -> None:
    assert distil(tiny_sdxl, prompts, tmp_path / "run", "--set", f"tracker={tracker}") == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
