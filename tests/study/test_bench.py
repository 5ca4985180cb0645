"""The benchmark runs what it reports; how fast is not a matter of tests."""

import json
from pathlib import Path

import pytest

from rmd.cli import main


def test_bench_reports_every_plan_and_the_teacher(
    capsys: pytest.CaptureFixture[str], tiny_sdxl: Path, tiny_student: Path, tmp_path: Path
) -> None:
    arguments = ["bench", "--backbone", str(tiny_sdxl), "--student", str(tiny_student), "--plans", "2/1,1/0"]
    assert main([*arguments, "--repeats", "2", "--json", "--out", str(tmp_path / "new" / "a.json")]) == 0
    report = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "new" / "a.json").read_text()) == report
    rows = report["rows"]
    assert list(rows) == ["teacher", "2/1", "1/0"]
    assert (rows["teacher"]["nfe"], rows["2/1"]["nfe"], rows["1/0"]["nfe"]) == (12, 2, 1)
    assert rows["teacher"]["speedup"]["denoiser"] == 1
    fast, slow = rows["2/1"], rows["teacher"]
    assert fast["speedup"]["denoiser"] == pytest.approx(slow["denoiser"]["median"] / fast["denoiser"]["median"])
    assert fast["stage 4×4"]["min"] <= fast["stage 4×4"]["median"] <= fast["stage 4×4"]["max"]


def test_bad_repeats_are_refused(capsys: pytest.CaptureFixture[str], tiny_sdxl: Path) -> None:
    assert main(["bench", "--backbone", str(tiny_sdxl), "--repeats", "0"]) == 2
    assert "repeats must be a whole number from 1 to 1000, not 0" in capsys.readouterr().err
