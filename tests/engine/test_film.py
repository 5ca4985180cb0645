"""The film of a run: every estimate with its noise, kept beside the result, read back only where it is one of ours."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from rmd.backbones import catalog
from rmd.backbones.outline import read_outline
from rmd.cli import main
from rmd.engine.events import LEAST, Progress
from rmd.engine.film import KEPT, PICTURE, Film, film_path, nearest, read_film, thinned
from rmd.engine.pool import ModelPool
from rmd.engine.session import Session


def frames(levels: list[float]) -> list[dict[str, Any]]:
    return [{"size": [8, 8], "logsnr": level, "src": PICTURE} for level in levels]


def test_a_runs_film_is_written_beside_it(tiny_sdxl: Path, tmp_path: Path) -> None:
    ask = ["generate", "--backbone", str(tiny_sdxl), "--prompt", "a fox", "--seed", "1", "--out", str(tmp_path)]
    assert main(ask) == 0
    assert not list(tmp_path.glob("*.film.json"))
    assert main([*ask, "--film"]) == 0
    film = read_film(tmp_path / "student.png")
    assert [frame["size"] for frame in film["student"]] == [[4, 4], [4, 4], [8, 8], [8, 8]]
    assert len(film["teacher"]) == 6
    for role in film:
        levels = [frame["logsnr"] for frame in film[role]]
        assert levels == sorted(levels), "less and less noise"


def test_the_noise_is_counted_at_the_results_size(tiny_sdxl: Path) -> None:
    """With matched times a step at the low size has the noise that the uniform time has at the full one."""
    outline = read_outline(catalog.find(str(tiny_sdxl)))
    request = outline.request({"prompt": "a fox", "seed": 1, "steps": 4, "switch": 2, "teacher": False})
    events = Session(ModelPool(torch.device("cpu"))).generate(request)
    levels = [event.logsnr for event in events if isinstance(event, Progress)]
    at = [float(outline.schedule.logsnr(t)) for t in (1.0, 0.75, 0.5, 0.25)]
    assert levels[1:] == pytest.approx(at[1:], abs=1e-3)
    assert levels[0] < at[0], "pure noise holds less at the low size"
    assert all(level >= LEAST for level in levels)


def test_a_long_teacher_is_thinned_evenly_by_noise() -> None:
    kept = thinned(frames([-8 + 0.1 * i for i in range(100)]))
    levels = [frame["logsnr"] for frame in kept]
    assert len(kept) == KEPT
    assert (levels[0], levels[-1]) == (-8, pytest.approx(1.9))
    assert max(b - a for a, b in pairwise(levels)) < 0.8
    assert thinned(frames([0, 1])) == frames([0, 1])
    assert nearest(kept, -7.9) == 0


@pytest.mark.parametrize(
    "content",
    [
        "no json", "[]", '{"student": []}', '{"student": [1], "teacher": []}', "[" * 200_000,
        '{"student": [{"size": [1, 1], "logsnr": 0, "src": "https://elsewhere/x.png"}], "teacher": []}',
        '{"student": [{"size": [1, 1], "logsnr": "x", "src": "data:image/webp;base64,"}], "teacher": []}',
    ],
)  # fmt: skip
def test_what_is_no_film_is_none(content: str, tmp_path: Path) -> None:
    film_path(tmp_path / "a.png").write_text(content)
    assert read_film(tmp_path / "a.png") == {"student": [], "teacher": []}


def test_nothing_else_of_a_frame_is_kept(tmp_path: Path) -> None:
    frame = {"size": [1, 1], "logsnr": 0, "src": PICTURE, "onclick": "x"}
    film_path(tmp_path / "a.png").write_text(json.dumps({"student": [frame], "teacher": []}))
    assert read_film(tmp_path / "a.png")["student"] == [{"size": [1, 1], "logsnr": 0.0, "src": PICTURE}]


def test_a_full_disk_leaves_no_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film = Film()
    film.take(Progress("student", 1, 1, (8, 8), Image.new("RGB", (8, 8)), 0.5))
    shutil.rmtree(tmp_path)
    tmp_path.write_text("a file where the folder should be")
    with pytest.raises(Exception, match="cannot be written"):
        film.save(tmp_path / "a.png")
