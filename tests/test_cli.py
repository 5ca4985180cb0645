"""The command line on a tiny real pipeline: files, JSON on standard output, one sentence and exit code 2."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from rmd.backbones import catalog
from rmd.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    try:
        code = main(arguments)
    except SystemExit as error:
        code = int(error.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def test_generate_writes_both_pictures_and_one_json_object(tiny_sdxl: Path, tiny_student: Path, tmp_path: Path) -> None:
    arguments = ["generate", "--backbone", str(tiny_sdxl), "--student", str(tiny_student), "--prompt", "a fox"]
    arguments += ["--steps", "3", "--switch", "1", "--seed", "5", "--teacher-steps", "4"]
    done = subprocess.run(
        [sys.executable, "-m", "rmd", *arguments, "--out", str(tmp_path), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(done.stdout)  # exactly one object, nothing else
    assert result["request"]["seed"] == 5
    assert result["distilled"] is True
    assert [len(stage["times"]) for stage in result["plan"]["stages"]] == [1, 2]
    assert result["timings"]["student"]["nfe"] == 3
    assert result["timings"]["teacher"]["nfe"] == 8
    assert result["speedup"]["denoiser"] > 0
    assert "step 4/4" in done.stderr
    for role in ("student", "teacher"):
        with Image.open(result["files"][role]) as picture:
            assert picture.size == (64, 64)
            assert json.loads(picture.info["rmd"])["request"]["prompt"] == "a fox"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["student.png", "teacher.png"]


def test_without_teacher_and_without_student(
    capsys: pytest.CaptureFixture[str], tiny_sdxl: Path, tmp_path: Path
) -> None:
    code, out, _ = run(
        capsys, "generate", "--backbone", str(tiny_sdxl), "--prompt", "fox", "--no-teacher", "--out", str(tmp_path)
    )
    assert code == 0
    assert "not distilled" in out
    assert [p.name for p in tmp_path.iterdir()] == ["student.png"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--prompt", ""], ["prompt", "empty"]),
        (["--prompt", "x" * 10_000], ["prompt", "10000", "1000"]),
        (["--prompt", "fox", "--steps", "0"], ["steps", "0", "1 to 8"]),
        (["--prompt", "fox", "--steps", "99"], ["steps", "99", "1 to 8"]),
        (["--prompt", "fox", "--steps", "nan"], ["steps", "nan", "1 to 8"]),
        (["--prompt", "fox", "--steps", "many"], ["steps", "many", "1 to 8"]),
        (["--prompt", "fox", "--steps", "4", "--switch", "5"], ["switch", "5", "0 to 4"]),
        (["--prompt", "fox", "--seed", "-1"], ["seed", "-1"]),
        (["--prompt", "fox", "--eta", "inf"], ["eta", "inf", "0 to 1"]),
        (["--prompt", "fox", "--reinjection", "magic"], ["reinjection", "magic", "band"]),
        (["--prompt", "fox", "--student", "/nowhere"], ["/nowhere", "rmd.json"]),
        (["--prompt", "fox", "--nonsense", "3"], ["--nonsense"]),
        (["--prompt", "fox", "--frames", "3"], ["frames", "1 for a model of pictures", "3"]),
        (["--prompt", "fox", "--size", "big"], ["size", "WIDTHxHEIGHT", "'big'"]),
        (["--prompt", "fox", "--size", "60x64"], ["size", "8 to 128", "multiples of 8", "60x64", "nearest is 64x64"]),
        (["--prompt", "fox", "--size", "64x4096"], ["size", "8 to 128", "64x4096", "nearest is 64x128"]),
        (["--prompt", "fox", "--low", "96x96"], ["low", "not be larger than size, 64x64", "96x96"]),
        (["--prompt", "fox", "--plan", "64x64"], ["plan", "SIZE:STEPS", "64x64"]),
        (["--prompt", "fox", "--plan", "64x64:1,32x32:1"], ["plan", "grow", "64x64 to 32x32"]),
        (["--prompt", "fox", "--plan", "32x32:0,64x64:1"], ["plan", "at least one"]),
        (["--prompt", "fox", "--plan", "32x32:5,64x64:4"], ["plan", "1 to 8 steps"]),
        (["--prompt", "fox", "--plan", "20x20:1,64x64:1"], ["plan", "multiples of 8", "20x20"]),
        ([], ["--prompt"]),
    ],
)
def test_bad_input_is_one_sentence_and_code_2(
    capsys: pytest.CaptureFixture[str], tiny_sdxl: Path, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    out_folder = tmp_path / "out"
    code, out, err = run(
        capsys, "generate", "--backbone", str(tiny_sdxl), "--out", str(out_folder), "--no-teacher", *arguments
    )
    assert code == 2
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert all(word in err for word in words), err
    assert not out_folder.exists()


def test_sweep_writes_every_cell_a_sheet_and_a_table(
    capsys: pytest.CaptureFixture[str], tiny_sdxl: Path, tmp_path: Path
) -> None:
    arguments = ["--backbone", str(tiny_sdxl), "--prompt", "fox", "--seed", "3", "--out", str(tmp_path)]
    code, out, err = run(capsys, "sweep", *arguments, "--plans", "2/1,1/0", "--json")
    assert code == 0
    result = json.loads(out)
    assert [(c["steps"], c["switch"], c["seed"]) for c in result["cells"]] == [(2, 1, 3), (1, 0, 3)]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "steps-1-low-0-band-eta-1.png", "steps-2-low-1-band-eta-1.png", "sweep.csv", "sweep.png", "sweep.zip",
        "teacher.png",
    ]  # fmt: skip
    assert "2 steps, 1 low" in err
    assert "teacher, 6 steps" in err
    assert all(c["speedup"] > 0 and 0 < c["difference"] < 1 for c in result["cells"])

    # again with more cells: what is there stays
    before, teacher = (
        (tmp_path / f"{name}.png").stat().st_mtime_ns for name in ("steps-2-low-1-band-eta-1", "teacher")
    )
    code, out, err = run(capsys, "sweep", *arguments, "--plans", "2/1,1/0", "--reinjection", "band,fresh", "--json")
    assert code == 0
    assert "2 of 3 cells are there already" in err
    again = json.loads(out)
    assert [c for c in again["cells"] if c["reinjection"] == "band"] == result["cells"]
    assert (tmp_path / "steps-2-low-1-band-eta-1.png").stat().st_mtime_ns == before
    assert (tmp_path / "teacher.png").stat().st_mtime_ns == teacher

    # weights that changed since make other pictures
    folder = shutil.copytree(tiny_sdxl, tmp_path / "mine")
    mine = ["--backbone", str(folder), *arguments[2:-1], str(tmp_path / "cells"), "--plans", "1/0", "--json"]
    assert run(capsys, "sweep", *mine)[0] == 0
    assert "1 of 1 cells are there already" in run(capsys, "sweep", *mine)[2]
    later = (tmp_path / "cells" / "teacher.png").stat().st_mtime + 5
    os.utime(next((folder / "unet").glob("*.safetensors")), (later, later))
    err = run(capsys, "sweep", *mine)[2]
    assert "there already" not in err
    assert "teacher, 6 steps" in err

    # another number of its steps is another teacher; none is none
    assert run(capsys, "sweep", *arguments, "--plans", "1/1", "--teacher-steps", "3")[0] == 0
    assert (tmp_path / "teacher.png").stat().st_mtime_ns != teacher
    code, out, err = run(capsys, "sweep", *arguments, "--plans", "2/2", "--no-teacher", "--json")
    assert "teacher" not in err
    assert "speedup" not in json.loads(out)["cells"][0]
    (tmp_path / "teacher.png").unlink()
    code, out, err = run(capsys, "sweep", *arguments, "--plans", "2/2", "--json")
    assert "teacher, 6 steps" in err, "the cells are there, the teacher is not"
    assert json.loads(out)["cells"][0]["speedup"] > 0


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--reinjection", "band,none", "reinjection must be one of fresh, mix, band"),
        ("--eta", "0,2", "eta must be a number from 0 to 1, not 2"),
        ("--eta", "0,", "eta must be values with commas between them"),
        ("--eta", "0,much", "eta must be a number from 0 to 1"),
    ],
)
def test_sweep_refuses_noise_that_cannot_be(
    capsys: pytest.CaptureFixture[str], tiny_sdxl: Path, tmp_path: Path, option: str, value: str, words: str
) -> None:
    arguments = ["--backbone", str(tiny_sdxl), "--prompt", "fox", "--out", str(tmp_path), option, value]
    code, _, err = run(capsys, "sweep", *arguments)
    assert code == 2
    assert words in err
    assert list(tmp_path.iterdir()) == []


def test_sweep_refuses_plans_that_cannot_be(capsys: pytest.CaptureFixture[str], tiny_sdxl: Path) -> None:
    code, _, err = run(capsys, "sweep", "--backbone", str(tiny_sdxl), "--prompt", "fox", "--plans", "2/3")
    assert code == 2
    assert "2/3" in err


def test_an_unknown_backbone_names_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "generate", "--backbone", "nope", "--prompt", "fox")
    assert code == 2
    assert catalog.DEFAULT in err


def test_an_unwritable_output_folder_is_known_before_any_work(
    capsys: pytest.CaptureFixture[str], tiny_sdxl: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    target = tmp_path / "file" / "out"
    code, _, err = run(capsys, "generate", "--backbone", str(tiny_sdxl), "--prompt", "fox", "--out", str(target))
    assert code == 2
    assert str(target) in err
    assert "step" not in err


def test_models_lists_the_bundled_backbone_and_why_one_is_unusable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = catalog.Entry("broken", "Broken", tmp_path / "gone", tmp_path / "gone-student")
    monkeypatch.setattr(catalog, "ENTRIES", (*catalog.ENTRIES, broken))
    code, out, _ = run(capsys, "models", "--json")
    assert code == 0
    rows = {row["id"]: row for row in json.loads(out)}
    assert catalog.DEFAULT in rows
    assert rows["broken"]["usable"] is False
    assert "gone" in rows["broken"]["problem"]


def test_train_refuses_a_stage_whose_input_is_missing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, "train", "start", "--runs", str(tmp_path), "--data", str(tmp_path))
    assert code == 2
    assert "text/encoder" in err
    (tmp_path / "text" / "encoder").mkdir(parents=True)
    for stage, missing in (
        ("start", "autoencoder/vae"),
        ("video-start", "video-autoencoder/vae"),
        ("text", "emojibase-data"),
    ):
        code, _, err = run(capsys, "train", stage, "--runs", str(tmp_path), "--data", str(tmp_path))
        assert code == 2
        assert missing in err
