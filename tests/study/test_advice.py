"""The measured switch: the most low steps within the nearest plan's interval, for the weights that were measured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rmd.backbones import catalog
from rmd.backbones.outline import Outline, read_outline
from rmd.study.evidence.advice import FOLDER, measured_switch, report_of
from rmd.study.evidence.samples import made_with

PLAN = {"reinjection": "band", "eta": 1.0, "mapping": "logsnr", "upsampler": "bilinear"}


@pytest.fixture
def outline(tiny_sdxl: Path, tiny_student: Path, tmp_path: Path) -> Outline:
    folder = shutil.copytree(tiny_sdxl, tmp_path / "tiny")
    shutil.copytree(tiny_student, folder / "student")
    return read_outline(catalog.find(str(folder)))


def report(outline: Outline, values: dict[int, float], **changes: Any) -> dict[str, Any]:
    made = {**PLAN, "steps": 4, "weights": made_with(outline.entry.folder, outline.entry.student), **changes}
    rows = {
        f"student, {switch}": {
            "made_by": {**made, "switch": switch},
            "fd_teacher": {"value": value, "low": value - 4, "high": value + 4},
        }
        for switch, value in values.items()
    }
    return {"reference": "student, 2", "count": 400, "rows": rows}


def advice(outline: Outline, found: dict[str, Any], place: Path, steps: int = 4) -> Any:
    place.mkdir()
    (place / f"{Path(outline.entry.id).name}.json").write_text(json.dumps(found))
    return measured_switch(outline, steps, place)


def test_the_most_low_steps_that_are_as_near(outline: Outline, tmp_path: Path) -> None:
    found = advice(outline, report(outline, {0: 43, 1: 45, 2: 44, 3: 54}), tmp_path / "a")
    assert found.switch == 2
    assert "FD 44" in found.words
    assert "(43 ± 4); with 3 it is 54" in found.words


def test_other_steps_other_weights_and_other_noise_are_no_measurement(outline: Outline, tmp_path: Path) -> None:
    values = {1: 45.0, 2: 44.0, 3: 46.0}
    assert advice(outline, report(outline, values), tmp_path / "a", steps=6) is None
    assert advice(outline, report(outline, values, weights="other"), tmp_path / "b") is None
    mixed = report(outline, values)
    mixed["rows"]["student, 3"]["made_by"]["reinjection"] = "mix"
    assert advice(outline, mixed, tmp_path / "c").switch == 2
    assert measured_switch(outline, 4, tmp_path / "nowhere") is None


def test_another_number_of_steps_may_be_of_the_study_of_all_plans(outline: Outline, tmp_path: Path) -> None:
    more = report(outline, {3: 41.0, 4: 42.0, 5: 60.0}, steps=6) | {"reference": "student, 4"}
    tmp_path.joinpath("a").mkdir()
    (tmp_path / "a" / f"{Path(outline.entry.id).name}-plans.json").write_text(json.dumps(more))
    assert measured_switch(outline, 6, tmp_path / "a").switch == 4  # type: ignore[union-attr]
    assert measured_switch(outline, 4, tmp_path / "a") is None


def test_the_bundled_default_is_the_recommended_plan() -> None:
    shipped = read_outline(catalog.find("emoji-sdxl"))
    card, found = shipped.card, measured_switch(shipped, 4)
    assert card is not None
    assert found is not None
    rows = report_of(FOLDER / "emoji-sdxl-plans.json")["rows"]  # type: ignore[index]
    four = {low: rows[f"student, {low}+{4 - low}"] for low in range(4)}
    assert card.default_steps == 4
    assert card.default_switch == found.switch
    assert four[card.default_switch]["fd_teacher"]["value"] <= min(row["fd_teacher"]["high"] for row in four.values())
    assert four[card.default_switch]["fd_real"]["value"] <= min(row["fd_real"]["high"] for row in four.values())
