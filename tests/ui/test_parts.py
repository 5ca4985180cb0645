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

from rmd.backbones import catalog
from rmd.backbones.outline import read_outline
from rmd.checks import RequestError
from rmd.cli import main
from rmd.engine.plans import plan_for
from rmd.engine.session import Session
from rmd.request import GenerateRequest
from rmd.serve.offer import Offer
from rmd.serve.runner import Runner, Saved
from rmd.ui import text
from rmd.ui.draw.chips import chips_html
from rmd.ui.draw.history import pair_table
from rmd.ui.draw.map import Chart, Spot, chart_html, pareto, read_chart
from rmd.ui.draw.schedule import schedule_svg
from rmd.ui.draw.verdict import speed
from rmd.ui.rail import Rail
from rmd.ui.tabs import examples
from rmd.ui.tabs.compare import Compare
from rmd.ui.tabs.examples import Examples
from rmd.ui.tabs.history import History, entry, figures
from rmd.ui.tabs.models import Models
from rmd.ui.view import complete, with_teacher_of


def event(**data: Any) -> gr.EventData:
    return gr.EventData(None, data)


def compare_of(runner: Runner, stored: list[Saved] | None = None) -> Compare:
    """The Compare tab with its rail, of a page that is not launched."""
    with gr.Blocks(), gr.Tabs() as tabs, gr.Tab("Compare"):
        return Compare(runner, Rail(runner.offer), Examples(runner.offer, stored or []), tabs)


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
    return schedule_svg(outline, plan_for(request, outline, None), outline.latent_size(outline.spec.low))


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
    assert "4 steps, 2 at low resolution: 22×, 0.22" in page
    assert "a &lt;fast&gt; machine" in page

    def top(switch: int) -> float:
        found = re.search(rf'data-switch="{switch}" style="left:[\d.]+%;top:([\d.]+)%', page)
        assert found
        return float(found[1])

    assert top(0) < top(2)  # less error is higher up
    assert page.count('<polyline class="family"') == 1


@pytest.mark.parametrize("rising", [True, False])
def test_the_pareto_line_holds_what_none_beats_in_both(rising: bool) -> None:
    sign = 1 if rising else -1
    found = {(20, 1): True, (15, 3): True, (10, 2): False, (5, 4): True, (4, 4): False}
    spots = tuple(Spot(4, i, gain, sign * quality) for i, (gain, quality) in enumerate(found))
    best = pareto(Chart(spots, 0.0, "x", rising, 40, "here"))
    assert {(spot.gain, sign * spot.quality) for spot in best} == {plan for plan, on in found.items() if on}
    assert [spot.gain for spot in best] == sorted(spot.gain for spot in best)


def test_a_plan_of_the_map_brings_the_settings_it_was_measured_with(offer: Offer, tmp_path: Path) -> None:
    compare = compare_of(Runner(Session(), offer, tmp_path / "files"))
    with gr.Blocks():
        models = Models(offer, compare.rail, compare)
    chosen = models.picked(event(model="tiny", steps="6", switch="3"))
    assert {name: chosen[c] for name, c in compare.rail.settings.items() if c in chosen} == {
        "backbone": "tiny", "steps": 6, "switch": 3, "reinjection": "band", "eta": 1.0, "mapping": "logsnr",
        "upsampler": "bilinear",
    }  # fmt: skip
    for wrong in ({"steps": "9", "switch": "1"}, {"steps": "2", "switch": "3"}, {"steps": "x", "switch": "0"}, {}):
        with pytest.raises(RequestError, match="does not exist"):
            models.picked(event(model="tiny", **wrong))
    with pytest.raises(RequestError, match="backbone must be one of"):
        models.picked(event(model="../x", steps="1", switch="1"))


@pytest.fixture
def stored(offer: Offer, tmp_path: Path) -> list[Saved]:
    """Examples as `make examples` makes them, of the tiny model."""
    arguments = ["generate", "--backbone", str(offer.entries["tiny"].folder), "--teacher-steps", "2", "--seed", "5"]
    assert main([*arguments, "--prompt", "a fox", "--out", str(tmp_path / "examples" / "1-fox")]) == 0
    (tmp_path / "examples" / "2-empty").mkdir()
    return examples.load(offer, tmp_path / "examples")


def test_examples_are_labelled_with_what_made_them(offer: Offer, stored: list[Saved], tmp_path: Path) -> None:
    assert len(stored) == 1
    compare = compare_of(Runner(Session(), offer, tmp_path / "files"), stored)
    assert re.fullmatch(
        r"A stored example of Tiny, made earlier on \d+ CPU thread.*", compare.examples.label(stored[0])
    )
    assert compare.strip.value.count("<button") == 1
    update = compare.example_taken(event(index="0"))
    assert update[compare.last] is stored[0]
    assert "stored example" in update[compare.status]
    request = asdict(replace(stored[0].result.request, backbone="tiny"))
    shown = {name: update[c] or None for name, c in compare.rail.settings.items()}
    assert {k: v for k, v in shown.items() if k not in ("low", "size", "frames")} == {
        name: request[name] or None for name in shown if name not in ("low", "size", "frames")
    }
    assert update[compare.rail.randomise] is False  # the seed stays
    with pytest.raises(RequestError, match="does not exist"):
        compare.example_taken(event(index="3"))


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
    compare = compare_of(runner)
    with gr.Blocks():
        history = History(runner, compare.rail, compare)
    first = entry(Saved(stored[0].result, {r: kept / p.name for r, p in stored[0].files.items()}))
    second = {**first, "id": "b" * 32, "request": {**first["request"], "steps": 2, "prompt": "<b>"}}
    given = {history.entries: [first, second]}
    shown = history.compared(given, event(marks=["0", "1"]))
    pair, rows = shown[history.pair], shown[history.pair_table]
    assert shown[history.pair_block]["visible"] is True
    assert pair["student"]["name"] == "Picture A"
    assert pair["student"]["file"]["path"] == str(kept / "student.png")
    assert pair["teacher"]["src"].startswith("data:image/webp")  # the server does not have it
    assert "small copy" in pair["teacher"]["sub"]
    assert '<tr class="differs"><th scope="row">Steps</th><td>4</td><td>2</td></tr>' in rows
    assert "&lt;b&gt;" in rows
    assert "<b>" not in rows
    assert '<tr><th scope="row">Seed</th><td>5</td><td>5</td></tr>' in rows
    assert figures(stored[0].result)["hardware"] in rows
    for wrong in ({"marks": ["0"]}, {"marks": ["0", "7"]}, {"marks": ["x", "0"]}, {}):
        with pytest.raises(RequestError, match="no longer be compared"):
            history.compared(given, event(**wrong))
    assert "–" in pair_table([{}, {}])  # entries of an older version hold less


def test_shipped_examples_are_complete() -> None:
    """Each has both pictures, a distilled student and the hardware that made it."""
    for folder in sorted(examples.FOLDER.glob("*")):
        found = examples.stored(folder)
        assert found is not None, folder
        assert set(found.files) == {"student", "teacher"}
        assert found.result.distilled
        assert found.result.hardware
        assert found.result.request.teacher_steps >= 20


def test_times_of_a_busy_machine_are_shown_as_such(stored: list[Saved]) -> None:
    idle, result = {"waited": 0.0, "fastest": None, "slowest": None}, stored[0].result
    assert result.teacher is not None
    quiet = replace(result, student=replace(result.student, **idle), teacher=replace(result.teacher, **idle))
    assert text.BUSY not in speed(replace(stored[0], result=quiet))
    disturbed = replace(stored[0], result=replace(quiet, student=replace(quiet.student, waited=0.5)))
    assert text.BUSY in speed(disturbed)
    assert "doubtful" in speed(disturbed)
    assert disturbed.result.as_dict()["busy"] is True


def test_chips_tell_what_prompts_may_say() -> None:
    spec = read_outline(catalog.find("emoji-sdxl")).spec
    html = chips_html(replace(spec, prompts=("a small fox on the left",), attributes=("small", "on the left")))
    assert 'data-text="a small fox on the left"' in html
    assert "fox, " in html
    assert "purple; also small, on the left" in html
