"""Sweeps: which cells there are, isolation of failures, the cost estimate and the files."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from rmd.config import Cancelled, GenerateRequest, RequestError
from rmd.plan import two_stage
from rmd.results import Done, Output, StageTiming, Timings
from rmd.schedule import scaled_linear
from rmd.session import Event
from rmd.sweep import contact_sheet, csv_text, estimate, pairs, sweep, write_results

REQUEST = GenerateRequest(backbone="x", prompt="a fox", seed=5, teacher=True)
SMALL, LARGE = (4, 4), (8, 8)


def run(request: GenerateRequest) -> Iterator[Event]:
    """A session whose low steps take 1 s, high steps 4 s, everything else 1 s; three steps fail."""
    if request.steps == 3:
        raise RequestError("Three steps are not possible.")
    assert not request.teacher
    plan = two_stage(
        scaled_linear(), request.steps, request.switch, SMALL, LARGE, eta=request.eta, reinjection=request.reinjection
    )
    stages = tuple(
        StageTiming(stage.size, len(stage.times), len(stage.times) * (1.0 if stage.size == SMALL else 4.0))
        for stage in plan.stages
        if stage.times
    )
    picture = Image.new("RGB", (64, 64), "red")
    output = Output((picture,), Timings(0.5, stages, 0.25, 0.25), request.steps, False)
    yield Done(request, plan, output, None, None, "cpu", "float32")


def test_pairs_hold_every_switch_that_the_steps_allow() -> None:
    assert pairs([2, 1, 2]) == [(1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]


def test_a_failing_cell_does_not_stop_the_others() -> None:
    cells = list(sweep(run, REQUEST, [(2, 1), (3, 1), (4, 4)]))
    assert [cell.pair for cell in cells] == [(2, 1), (3, 1), (4, 4)]
    assert [cell.error for cell in cells] == ["", "Three steps are not possible.", ""]


def test_stopping_passes_through() -> None:
    def stopped(request: GenerateRequest) -> Iterator[Event]:
        raise Cancelled
        yield

    with pytest.raises(Cancelled):
        list(sweep(stopped, REQUEST, [(1, 0), (1, 1)]))


@pytest.mark.parametrize("measured", [(2, 1), (2, 0), (2, 2)], ids=["both sizes", "high only", "low only"])
def test_the_estimate_is_what_the_cells_take(measured: tuple[int, int]) -> None:
    first = next(sweep(run, REQUEST, [measured]))
    assert first.done is not None
    wanted = [(2, 0), (2, 1), (4, 3)]
    actual = sum(c.done.student.timings.end_to_end for c in sweep(run, REQUEST, wanted) if c.done)
    assert estimate(wanted, first.done.as_dict(), area=4) == pytest.approx(actual)


def test_the_csv_has_a_line_per_cell() -> None:
    rows = list(csv.DictReader(io.StringIO(csv_text(list(sweep(run, REQUEST, [(2, 1), (3, 1)]))))))
    assert rows[0]["low"] == "1.0"
    assert rows[0]["high"] == "4.0"
    assert rows[0]["end_to_end"] == "6.0"
    assert rows[1]["error"] == "Three steps are not possible."


def test_the_contact_sheet_has_a_row_per_steps_and_a_column_per_switch() -> None:
    sheet = contact_sheet(list(sweep(run, REQUEST, pairs([1, 2, 3]))), side=64)
    assert sheet.size == (4 * 74 + 10, 3 * 100 + 10)


def test_the_files_hold_everything(tmp_path: Path) -> None:
    cells = list(sweep(run, REQUEST, pairs([1])))
    picture = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(picture)
    files = write_results(cells, {(1, 0): picture, (1, 1): picture}, tmp_path / "out")
    assert [file.name for file in files] == ["sweep.png", "sweep.csv", "sweep.zip"]
    names = zipfile.ZipFile(files[2]).namelist()
    assert names == ["sweep.png", "sweep.csv", "steps-1-low-0.png", "steps-1-low-1.png"]
