"""Several results of one request: each is the same as alone, with times, seed and file of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from gradio_client import Client
from gradio_client.exceptions import AppError
from PIL import Image, ImageChops

from rmd.cli import main
from rmd.engine.files import read_settings
from rmd.engine.pool import ModelPool
from rmd.engine.results import Done
from rmd.engine.session import Session
from rmd.request import SEED_LIMIT, make_request, singles
from rmd.serve.offer import Offer
from rmd.serve.runner import Runner, Saved
from rmd.ui.draw.results import results_html
from tests.servers import serving


@pytest.fixture
def named(tiny_sdxl: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_sdxl, tmp_path / "tiny")


def same(a: Path, b: Path) -> bool:
    with Image.open(a) as one, Image.open(b) as other:
        return ImageChops.difference(one.convert("RGB"), other.convert("RGB")).getbbox() is None


def test_the_seeds_follow_one_another_and_begin_anew_at_the_end() -> None:
    request = make_request({"backbone": "x", "prompt": "a fox", "seed": SEED_LIMIT - 2, "count": 3})
    assert [one.seed for one in singles(request)] == [SEED_LIMIT - 2, SEED_LIMIT - 1, 0]
    assert {one.count for one in singles(request)} == {1}


def test_a_session_makes_one_at_a_time(tiny_sdxl: Path) -> None:
    request = make_request({"backbone": str(tiny_sdxl), "prompt": "a fox", "count": 2})
    with pytest.raises(ValueError, match="one result at a time, not 2"):
        next(iter(Session(ModelPool(torch.device("cpu"))).generate(request)))


def test_the_command_line_writes_each_as_it_would_alone(
    named: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = ["generate", "--backbone", str(named), "--prompt", "a fox", "--teacher-steps", "2", "--json"]
    assert main([*ask, "--seed", "5", "--count", "2", "--out", str(tmp_path / "both")]) == 0
    rows = json.loads(capsys.readouterr().out)["results"]
    assert [row["request"]["seed"] for row in rows] == [5, 6]
    assert [Path(row["files"]["student"]).name for row in rows] == ["student-5.png", "student-6.png"]
    assert main([*ask, "--seed", "6", "--out", str(tmp_path / "one")]) == 0
    alone = json.loads(capsys.readouterr().out)
    for role in ("student", "teacher"):
        assert same(Path(alone["files"][role]), Path(rows[1]["files"][role]))
    assert not same(Path(rows[0]["files"]["student"]), Path(rows[1]["files"]["student"]))
    stored = read_settings(Path(rows[1]["files"]["student"]))
    assert stored["request"] == alone["request"], "the file's settings make this very result"


def test_the_endpoint_lists_all_and_gives_the_first(named: Path, tmp_path: Path) -> None:
    with serving(named, tmp_path / "files", Session(ModelPool(torch.device("cpu")))) as server:
        client = Client(server.url, verbose=False, download_files=str(tmp_path / "downloads"))
        ask = {"prompt": "a fox", "seed": 5, "teacher": False}
        student, teacher, measured = client.predict(**ask, count=3, api_name="/generate")
        assert teacher is None
        assert [row["request"]["seed"] for row in measured["results"]] == [5, 6, 7]
        files = [Path(row["files"]["student"]) for row in measured["results"]]
        assert same(Path(student), files[0])
        second, _, alone = client.predict(**{**ask, "seed": 6}, api_name="/generate")
        assert same(Path(second), files[1])
        assert "results" not in alone
        with pytest.raises(AppError, match="count must be a whole number from 1 to 16, not 17"):
            client.predict(**ask, count=17, api_name="/generate")


def test_the_row_marks_the_one_on_the_stage(named: Path, tmp_path: Path) -> None:
    runner = Runner(Session(ModelPool(torch.device("cpu"))), Offer([named]), tmp_path / "files")
    asked = runner.request({"prompt": "a fox", "seed": 1, "count": 2, "teacher": False})
    found: list[Saved] = [runner.save(event) for event in runner.run(asked, "me") if isinstance(event, Done)]
    html = results_html(found, found[1])
    assert html.count("<button") == 2
    assert html.index(f'data-result="{found[1].id}" aria-pressed="true"') > html.index("seed 1")
    assert results_html(found[:1], found[0]) == ""
