"""Parts of the page made without a browser: the advice on the switch, the quality map, examples, compared entries."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from rmd.checks import RequestError
from rmd.cli import main
from rmd.engine.plans import plan_for
from rmd.engine.session import Session
from rmd.request import GenerateRequest
from rmd.serve.runner import Offer, Runner, Saved
from rmd.ui import examples
from rmd.ui.pairs import Pairs, figures, table
from rmd.ui.plots import schedule_svg
from rmd.ui.quality import Maps, chart_html, read_chart
from rmd.ui.sharing import Sharing
from rmd.ui.stage import complete, with_teacher_of


def event(**data: Any) -> gr.EventData:
    return gr.EventData(None, data)


@pytest.fixture
def offer(tiny_sdxl: Path, tiny_student: Path, tmp_path: Path) -> Offer:
    """The tiny model with its student."""
    folder = shutil.copytree(tiny_sdxl, tmp_path / "tiny")
    shutil.copytree(tiny_student, folder / "student")
    return Offer([folder])


def drawing(offer: Offer, detail: float | None, steps: int, switch: int) -> str:
    outline = offer.outline("tiny")
    outline = replace(outline, spec=replace(outline.spec, detail=detail))
    request = GenerateRequest(backbone="tiny", prompt="x", steps=steps, switch=switch)
    return schedule_svg(outline, plan_for(request, outline, None))


def test_the_recommended_switch_is_drawn_with_its_reason(offer: Offer) -> None:
    picture = drawing(offer, 1.0, 4, 1)
    assert "Recommended for 4 steps: 2 at low resolution." in picture
    assert re.search(r"the noise \([\d.]+\) still covers the detail a small picture cannot hold \(1,", picture)
    assert 'data-switch="2"' in picture
    assert picture.count('class="limit"') == picture.count('class="best"') == 1
    assert "data-switch" not in drawing(offer, 1.0, 4, 2)  # it is chosen already
    assert "Recommended for 1 step: none" in drawing(offer, 1.0, 1, 1)
    assert "Recommended" not in drawing(offer, None, 4, 1)  # not measured


def test_the_map_shows_only_what_was_measured(offer: Offer, tmp_path: Path) -> None:
    outline = offer.outline("tiny")
    assert outline.card is not None
    rows = [{"steps": 4, "switch": switch, "detail_error": 0.2 + switch / 100} for switch in range(5)]
    quality = {"prompts": 40, "teacher": {"detail_error": 0.19, "object_top1": 1}, "student": rows}
    bench = {
        "backbone": outline.entry.id,
        "student": outline.card.name,
        "hardware": "a <fast> machine",
        "rows": {f"4/{switch}": {"speedup": {"end_to_end": 20.0 + switch}} for switch in (0, 2)}
        | {"8/1": {"speedup": {"end_to_end": 9.0}}},
    }
    folder = tmp_path / "bench"
    folder.mkdir()
    assert read_chart(outline, folder) is None
    (outline.entry.student / "quality.json").write_text(json.dumps(quality))
    assert read_chart(outline, folder) is None
    (folder / "a.json").write_text(json.dumps(bench))
    (folder / "other.json").write_text(json.dumps({**bench, "student": "another"}))
    chart = read_chart(outline, folder)
    assert chart is not None
    assert [(spot.steps, spot.switch, spot.gain, spot.quality) for spot in chart.spots] == [
        (4, 0, 20.0, 0.2),
        (4, 2, 22.0, 0.22),
    ]
    page = chart_html(chart, "tiny")
    assert page.count("<button") == 2
    assert "4 steps, 2 at low resolution: 22×, 0.220" in page
    assert "a &lt;fast&gt; machine" in page

    def top(switch: int) -> float:
        found = re.search(rf'data-switch="{switch}" style="left:[\d.]+%;top:([\d.]+)%', page)
        assert found
        return float(found[1])

    assert top(0) < top(2)  # less error is higher up


def test_a_plan_of_the_map_brings_the_settings_it_was_measured_with(offer: Offer) -> None:
    chosen = Maps(offer).picked(event(model="tiny", steps="6", switch="3"))
    assert chosen[:7] == ["tiny", 6, 3, "band", 1.0, "logsnr", "bilinear"]
    for wrong in ({"steps": "9", "switch": "1"}, {"steps": "2", "switch": "3"}, {"steps": "x", "switch": "0"}, {}):
        with pytest.raises(RequestError, match="does not exist"):
            Maps(offer).picked(event(model="tiny", **wrong))
    with pytest.raises(RequestError, match="backbone must be one of"):
        Maps(offer).picked(event(model="../x", steps="1", switch="1"))


@pytest.fixture
def stored(offer: Offer, tmp_path: Path) -> list[Saved]:
    """Examples as `make examples` makes them, of the tiny model."""
    arguments = ["generate", "--backbone", str(offer.entries["tiny"].folder), "--teacher-steps", "2", "--seed", "5"]
    assert main([*arguments, "--prompt", "a fox", "--out", str(tmp_path / "examples" / "1-fox")]) == 0
    (tmp_path / "examples" / "2-empty").mkdir()
    return examples.load(offer, tmp_path / "examples")


def test_examples_are_labelled_with_what_made_them(offer: Offer, stored: list[Saved], tmp_path: Path) -> None:
    assert len(stored) == 1
    strip = examples.Examples(Sharing(Runner(Session(), offer, tmp_path / "files")), offer, stored)
    assert re.fullmatch(r"A stored example of Tiny, made earlier on \d+ CPU thread.*", strip.label(stored[0]))
    assert strip.strip().count("<button") == 1
    update = strip.picked(event(index="0"))
    assert update[6] is stored[0]  # what is now last
    assert "stored example" in update[7]
    assert update[8:] == strip.sharing.controls(
        strip.sharing.runner.request({**asdict(stored[0].result.request), "backbone": "tiny"})
    )
    assert update[-1] is False  # the seed stays
    with pytest.raises(RequestError, match="does not exist"):
        strip.picked(event(index="3"))


def test_a_stored_teacher_lends_its_picture_but_not_its_time(stored: list[Saved]) -> None:
    old = stored[0]
    fresh = Saved(replace(old.result, teacher=None), {"student": old.files["student"]})
    both = with_teacher_of(fresh, old)
    assert both.files["teacher"] == old.files["teacher"]
    assert both.result.speedup is None
    assert complete(both)["teacher"]["sub"] == "from the stored example"


def test_two_entries_are_compared_by_picture_settings_and_times(
    offer: Offer, stored: list[Saved], tmp_path: Path
) -> None:
    runner = Runner(Session(), offer, tmp_path / "files")
    kept = runner.folder / ("a" * 32)
    shutil.copytree(stored[0].files["student"].parent, kept)
    sharing = Sharing(runner)
    first = sharing.entry(Saved(stored[0].result, {r: kept / p.name for r, p in stored[0].files.items()}))
    second = {**first, "id": "b" * 32, "request": {**first["request"], "steps": 2, "prompt": "<b>"}}
    block, pair, rows = Pairs(runner).compared([first, second], event(first="0", second="1"))
    assert block["visible"] is True
    assert pair["student"]["name"] == "Picture A"
    assert pair["student"]["file"]["path"] == str(kept / "student.png")
    assert pair["teacher"]["src"].startswith("data:image/webp")  # the server does not have it
    assert "small copy" in pair["teacher"]["sub"]
    assert '<tr class="differs"><th scope="row">Steps</th><td>4</td><td>2</td></tr>' in rows
    assert "&lt;b&gt;" in rows
    assert "<b>" not in rows
    assert '<tr><th scope="row">Seed</th><td>5</td><td>5</td></tr>' in rows
    assert figures(stored[0].result)["hardware"] in rows
    for wrong in ({"first": "0"}, {"first": "0", "second": "7"}, {"first": "x", "second": "0"}):
        with pytest.raises(RequestError, match="no longer be compared"):
            Pairs(runner).compared([first, second], event(**wrong))
    assert "–" in table([{}, {}])  # entries of an older version hold less


def test_shipped_examples_are_complete() -> None:
    """Each has both pictures, a distilled student and the hardware that made it."""
    for folder in sorted(examples.FOLDER.glob("*")):
        found = examples.stored(folder)
        assert found is not None, folder
        assert set(found.files) == {"student", "teacher"}
        assert found.result.distilled
        assert found.result.hardware
        assert found.result.request.teacher_steps >= 20
