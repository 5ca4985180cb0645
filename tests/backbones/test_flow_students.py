"""Students of the flow families: a request from click to result, and what does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from rmd.backbones import loading
from rmd.checks import RequestError
from rmd.cli import main
from rmd.engine.pool import ModelPool
from rmd.engine.results import Done
from rmd.engine.session import Session
from rmd.request import make_request
from tests.tiny_flow import FLOW_STUDENT_CARD, tiny_sd3_transformer, tiny_wan_transformer
from tests.tiny_qwen import tiny_flux2_transformer, tiny_zimage_transformer

CPU = torch.device("cpu")
PROMPT = "a fox on a blue background"
FAMILIES = ["sd3", "wan", "zimage", "flux2"]
NETWORKS = {
    "sd3": tiny_sd3_transformer, "wan": tiny_wan_transformer, "zimage": tiny_zimage_transformer,
    "flux2": tiny_flux2_transformer,
}  # fmt: skip


def student_folder(kind: str, folder: Path, more_layers: int = 0) -> Path:
    made = NETWORKS[kind](7, (1 if kind == "flux2" else 2) + more_layers)
    made.save_pretrained(folder / "transformer")
    (folder / "rmd.json").write_text(json.dumps(FLOW_STUDENT_CARD))
    return folder


@pytest.mark.parametrize("name", FAMILIES)
def test_a_request_from_click_to_result(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    student = student_folder(name, tmp_path / "student")
    values = {"backbone": str(folders[name]), "student": str(student), "prompt": PROMPT, "seed": 5, "teacher_steps": 3}
    session = Session(ModelPool(CPU))
    done = next(e for e in session.generate(make_request(values)) if isinstance(e, Done))
    assert done.result.distilled
    assert done.student.timings.nfe == 4
    assert done.teacher is not None
    for output in (done.student, done.teacher):
        assert len(output.frames) == (9 if name == "wan" else 1)
        assert all(isinstance(f, Image.Image) for f in output.frames)
    info = json.loads(json.dumps(done.result.as_dict()))
    assert info["plan"]["stages"][0]["size"] == ([3, 4, 4] if name == "wan" else [4, 4])
    assert info["frames"] == len(done.student.frames)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_sweep_over_switches(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    command = ["sweep", "--backbone", str(folders[name]), "--student", str(student_folder(name, tmp_path / "student"))]
    grid = ["--prompt", PROMPT, "--seed", "5", "--plans", "2/0,2/1,4/2", "--out", str(tmp_path / "out")]
    assert main([*command, *grid]) == 0
    results = [path.read_bytes() for path in (tmp_path / "out").glob("steps-*")]
    assert len(set(results)) == len(results) == 3
    assert (tmp_path / "out" / "sweep.csv").read_text().count("band") == 3


@pytest.mark.parametrize("name", FAMILIES)
def test_a_student_that_does_not_fit_is_refused(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    made = loading.open_backbone(folders[name], name, CPU, torch.float32)
    with pytest.raises(RequestError, match=r"does not fit Tiny .*: (num|n)_layers differ"):
        loading.open_student(student_folder(name, tmp_path / "a", more_layers=1), made)
    other = student_folder("sd3" if name == "wan" else "wan", tmp_path / "b")
    with pytest.raises(RequestError, match=r"does not fit Tiny .*_class_name"):
        loading.open_student(other, made)
