"""Sweeps: which cells there are, isolation of failures, the cost estimate and the files."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from rmd.checks import Cancelled, RequestError
from rmd.cli import main
from rmd.engine.events import Event
from rmd.engine.files import read_settings, save_output
from rmd.engine.results import Done, Output, StageTiming, Timings
from rmd.method.plan import two_stage
from rmd.method.schedule import scaled_linear
from rmd.request import GenerateRequest
from rmd.study.sweep import Cell, Pair, Point, estimate, low_steps, pairs, points, reference_of, stored_cell, sweep
from rmd.study.sweep_files import HEADER, contact_sheet, csv_text, row, write_results

REQUEST = GenerateRequest(backbone="x", prompt="a fox", seed=5, teacher=True)
SMALL, LARGE = (4, 4), (8, 8)
TOO_MUCH = 19.0
"""A guidance with which the teacher fails."""


def run(request: GenerateRequest) -> Iterator[Event]:
    """A session whose low steps take 1 s, high steps 4 s, everything else 1 s; three steps fail."""
    if request.steps == 3:
        raise RequestError("Three steps are not possible.")
    plan = two_stage(
        scaled_linear(), request.steps, request.switch, SMALL, LARGE, eta=request.eta, reinjection=request.reinjection
    )
    stages = tuple(
        StageTiming(stage.size, len(stage.times), len(stage.times) * (1.0 if stage.size == SMALL else 4.0))
        for stage in plan.stages
        if stage.times
    )
    picture = Image.new("RGB", (64, 64), "red")
    output = Output((picture,), Timings(0.5, stages, 0.25, 0.25, request.steps))
    teacher = None
    if request.teacher:
        if request.guidance == TOO_MUCH:
            raise RequestError("The teacher does not fit into the memory.")
        grey = Image.new("RGB", (64, 64), (204, 0, 0))
        teacher = Output((grey,), Timings(0.5, (StageTiming(LARGE, 50, 59.25),), 0.0, 0.25, 100))
    yield Done(request, plan, output, teacher, None, "cpu", "float32", "a CPU")


def test_pairs_hold_every_switch_that_the_steps_allow() -> None:
    assert pairs([2, 1, 2]) == [(1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]


def plain(wanted: list[Pair]) -> list[Point]:
    return points(wanted, ["band"], [1.0])


def test_only_cells_that_differ_are_made() -> None:
    kinds, etas = ("band", "mix", "fresh"), (0.0, 1.0)
    # one step: nothing is enlarged before a step and no noise is added after the first
    assert points([(1, 0), (1, 1)], kinds, etas) == [Point(1, 0, "band", 0.0), Point(1, 1, "band", 0.0)]
    # all at one size: only the noise between the steps differs
    assert points([(2, 0)], kinds, etas) == [Point(2, 0, "band", 0.0), Point(2, 0, "band", 1.0)]
    # one step of each size with fresh noise: η keeps nothing
    assert Point(2, 1, "fresh", 1.0) not in points([(2, 1)], kinds, etas)
    assert len(points([(2, 1)], kinds, etas)) == 5
    assert len(points([(4, 2)], kinds, etas)) == 6


def test_a_failing_cell_does_not_stop_the_others() -> None:
    wanted = plain([(2, 1), (3, 1), (4, 4)])
    cells = list(sweep(run, REQUEST, wanted))
    assert [cell.point for cell in cells] == wanted
    assert [cell.error for cell in cells] == ["", "Three steps are not possible.", ""]


def test_one_cell_brings_the_teacher_that_all_are_held_against() -> None:
    cells = list(sweep(run, REQUEST, plain([(3, 1), (2, 0), (2, 1)]), teacher=True))
    found = [reference for cell in cells if (reference := reference_of(cell))]
    assert [bool(cell.error) for cell in cells] == [True, False, False], "what fails without a teacher is no reason"
    (reference,) = found
    assert reference_of(cells[1]) == reference
    assert reference.seconds == 60.0
    assert cells[2].result is not None
    assert reference.speedup(cells[2].result) == pytest.approx(60 / 6)
    assert cells[2].image is not None
    assert reference.difference(cells[2].image) == pytest.approx((255 - 204) / 255 / 3)
    assert reference.difference(Image.new("RGB", (32, 32))) is None
    assert reference.fits(replace(REQUEST, steps=2, switch=2))
    assert not reference.fits(replace(REQUEST, guidance=2.0))
    line = row(cells[2], reference)
    assert (line["teacher_end_to_end"], line["speedup"]) == (60.0, 10.0)


def test_a_teacher_that_cannot_be_run_costs_no_cell() -> None:
    wanted = plain([(1, 0), (2, 0), (2, 1)])
    cells = list(sweep(run, replace(REQUEST, guidance=TOO_MUCH), wanted, teacher=True))
    assert [cell.error for cell in cells] == ["", "", ""]
    assert [reference_of(cell) for cell in cells] == [None] * 3


def test_stopping_passes_through() -> None:
    def stopped(request: GenerateRequest) -> Iterator[Event]:
        raise Cancelled
        yield

    with pytest.raises(Cancelled):
        list(sweep(stopped, REQUEST, plain([(1, 0), (1, 1)])))


@pytest.mark.parametrize("measured", [(2, 1), (2, 0), (2, 2)], ids=["both sizes", "high only", "low only"])
def test_the_estimate_is_what_the_cells_take(measured: tuple[int, int]) -> None:
    first = next(sweep(run, REQUEST, plain([measured])))
    assert first.done is not None
    wanted = plain([(2, 0), (2, 1), (4, 3)])
    actual = sum(c.done.student.timings.end_to_end for c in sweep(run, REQUEST, wanted) if c.done)
    assert estimate(wanted, first.done.result, area=4) == pytest.approx(actual)


def test_the_csv_has_a_line_per_cell() -> None:
    rows = list(csv.DictReader(io.StringIO(csv_text(list(sweep(run, REQUEST, plain([(2, 1), (3, 1)])))))))
    assert rows[0]["low"] == "1.0"
    assert rows[0]["high"] == "4.0"
    assert rows[0]["end_to_end"] == "6.0"
    assert rows[1]["error"] == "Three steps are not possible."


def test_the_contact_sheet_has_a_row_per_steps_and_a_column_per_switch() -> None:
    sheet = contact_sheet(list(sweep(run, REQUEST, plain(pairs([1, 2, 3])))), side=64)
    assert sheet.size == (4 * 74 + 10, 3 * 100 + 10 + HEADER)


def test_the_contact_sheet_begins_with_the_teacher() -> None:
    cells = list(sweep(run, REQUEST, plain(pairs([1, 2])), teacher=True))
    sheet = contact_sheet(cells, reference_of(cells[0]), side=64)
    assert sheet.size == (3 * 74 + 10, 3 * 100 + 10 + HEADER)
    assert sheet.getpixel((40, HEADER + 40)) == (204, 0, 0)
    assert sheet.getpixel((40, HEADER + 140)) == (255, 0, 0)


def test_other_kinds_of_noise_have_rows_of_their_own() -> None:
    cells = list(sweep(run, REQUEST, points([(2, 1)], ["band", "mix"], [0.0, 1.0])))
    assert contact_sheet(cells, side=64).size == (2 * 74 + 10, 4 * 118 + 10 + HEADER)
    rows = list(csv.DictReader(io.StringIO(csv_text(cells))))
    assert [(row["reinjection"], row["eta"]) for row in rows[:2]] == [("band", "0.0"), ("band", "1.0")]


@pytest.mark.parametrize("frames", [1, 3], ids=["picture", "clip"])
def test_a_cell_with_the_same_settings_is_stored_cell(tmp_path: Path, frames: int) -> None:
    point = plain([(2, 1)])[0]
    done = next(sweep(run, REQUEST, [point])).done
    assert done is not None
    output = replace(done.student, frames=done.student.frames * frames)
    path = save_output(output, tmp_path, point.name, {"role": "student", **done.result.as_dict()})[0]
    found = stored_cell(tmp_path, REQUEST, point)
    assert found is not None
    assert found[1] == path
    assert found[0].result is not None
    assert found[0].result.timings == done.result.timings
    assert found[0].image is not None
    assert found[0].image.size == (64, 64)
    assert row(found[0]) == row(Cell(point, done.result))
    assert stored_cell(tmp_path, replace(REQUEST, seed=6), point) is None
    assert stored_cell(tmp_path, REQUEST, plain([(2, 0)])[0]) is None
    path.write_bytes(path.read_bytes()[:40])
    assert stored_cell(tmp_path, REQUEST, point) is None


def test_the_files_hold_everything(tmp_path: Path) -> None:
    wanted = plain(pairs([1]))
    cells = list(sweep(run, REQUEST, wanted))
    picture = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(picture)
    files = write_results(cells, dict.fromkeys(wanted, picture), tmp_path / "out")
    assert [file.name for file in files] == ["sweep.png", "sweep.csv", "sweep.zip"]
    names = zipfile.ZipFile(files[2]).namelist()
    assert names == ["sweep.png", "sweep.csv", "steps-1-low-0-band-eta-1.png", "steps-1-low-1-band-eta-1.png"]


def test_plans_of_several_sizes_are_cells_too(tiny_sdxl: Path, tmp_path: Path) -> None:
    plan = "32x32:1,48x48:1,64x64:2"
    kinds, etas = ("band", "fresh"), (0.0, 1.0)
    found = points([(2, 1)], ["band"], [1.0], [plan])
    assert found == [Point(2, 1, "band", 1.0), Point(4, 2, "band", 1.0, plan)]
    assert len(points([], kinds, etas, [plan])) == 4
    assert len(points([], kinds, etas, ["32x32:1,64x64:0"])) == 1, "one step, enlarged: no noise is added"
    out = tmp_path / "sweep"
    ask = ["sweep", "--backbone", str(tiny_sdxl), "--prompt", "a fox", "--seed", "3", "--out", str(out)]
    assert main([*ask, "--plan", plan, "--plan", "32x32:1,64x64:1"]) == 0
    lines = list(csv.DictReader((out / "sweep.csv").open()))
    assert [line["plan"] for line in lines] == [plan, "32x32:1,64x64:1"], "no other cell, where plans are named"
    stored = read_settings(out / "plan-32x32-1-48x48-1-64x64-2-band-eta-1.png")
    assert [(stage["size"], len(stage["times"])) for stage in stored["plan"]["stages"]] == [
        ([4, 4], 1), ([6, 6], 1), ([8, 8], 2),
    ]  # fmt: skip
    assert (stored["request"]["low"], stored["request"]["size"]) == ("32x32", "64x64")


def test_a_bad_plan_of_a_sweep_is_a_sentence(
    tiny_sdxl: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = ["sweep", "--backbone", str(tiny_sdxl), "--prompt", "a fox", "--out", str(tmp_path / "out")]
    for plan, words in (("64x64:9", "1 to 8 steps"), ("32x32:1,60x64:1", "multiples of 8"), ("fox", "plan must be")):
        assert main([*ask, "--plan", plan]) == 2
        assert words in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*"))


def test_the_cost_of_a_plan_counts_its_sizes() -> None:
    plan = "32x32:1,48x48:2,64x64:1"
    point = points([], ["band"], [1.0], [plan])[0]
    assert low_steps(point, 4.0) == pytest.approx(1 + 2 * (48 / 32) ** 2)
    assert low_steps(Point(4, 2, "band", 1.0), 4.0) == 2
