"""The strip under the comparison: steps and switch by hand and by keyboard, estimates, stored pictures, honesty."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
import torch
from playwright.sync_api import Browser, Page, Route, expect

from rmd.cli import main
from rmd.engine.pool import ModelPool
from rmd.engine.session import Session
from rmd.serve.offer import Offer
from rmd.serve.runner import Runner
from rmd.ui.rail import Rail
from rmd.ui.strip import spread_counts, spread_sizes
from rmd.ui.tabs import examples
from rmd.ui.tabs.compare import Compare
from rmd.ui.tabs.examples import Examples
from tests.browsing import expect_result, fill_number, photograph, press_generate, visit

ROW = "#strip .strip-row"
NOT_RUN = "Not run yet: press Generate."
WRONG = ([8, 1], [0, 0], ["4", 1], [1, 1, 1], 3)


@pytest.fixture
def drawn(page: Page) -> Page:
    """A result of four steps, two of them low, with a short teacher."""
    page.get_by_role("button", name="Advanced").click()
    fill_number(page, "Teacher steps", 6)
    press_generate(page)
    expect_result(page)
    return page


def says(page: Page, steps: int, low: int) -> None:
    """Strip and rail agree."""
    expect(page.locator(ROW)).to_have_attribute("aria-valuetext", f"{steps} steps, {low} at low resolution")
    for label, value in (("Steps", steps), ("Low-resolution steps", low)):
        expect(page.get_by_label(f"number input for {label}", exact=True)).to_have_value(str(value))


def test_the_switch_moves_by_keyboard(drawn: Page) -> None:
    row = drawn.locator(ROW)
    expect(row).to_have_attribute("aria-valuenow", "2")
    row.press("ArrowRight")
    says(drawn, 4, 3)
    row.press("End")
    says(drawn, 4, 4)
    row.press("ArrowRight")
    says(drawn, 4, 4)
    row.press("+")
    says(drawn, 5, 4)
    row.press("-")
    row.press("-")
    says(drawn, 3, 3)
    row.press("Home")
    says(drawn, 3, 0)
    expect(drawn.locator("#schedule svg[role=img]")).to_have_attribute("aria-label", "3 steps, all at full resolution")


SEEN = """row => {
  const look = () => { const said = row.getAttribute("aria-valuetext"); if (said !== seen.at(-1)) seen.push(said); };
  const seen = window.seen = [];
  look();
  new MutationObserver(look).observe(row, { attributes: true });
}"""


@pytest.mark.slow
def test_however_slow_the_way_a_move_is_never_taken_back(drawn: Page) -> None:
    """Answers to what was before arrive all the time, those of Live too; each key begins where the last ended."""
    drawn.context.new_cdp_session(drawn).send("Emulation.setCPUThrottlingRate", {"rate": 4})
    row = drawn.locator(ROW)
    row.evaluate(SEEN)
    for key in ("ArrowRight", "End", "+"):
        row.press(key)
        drawn.wait_for_timeout(1800)
    row.press("-")
    row.press("Home")
    says(drawn, 4, 0)
    drawn.wait_for_timeout(3000)
    moves = [(4, 2), (4, 3), (4, 4), (5, 4), (4, 4), (4, 0)]
    assert drawn.evaluate("seen") == [f"{steps} steps, {low} at low resolution" for steps, low in moves]


@pytest.mark.slow
def test_a_move_that_is_never_answered_does_not_hold_back_the_next(drawn: Page) -> None:
    spoilt: list[str] = []

    def spoil(route: Route) -> None:
        said = route.request.post_data or ""
        first = '{"counts":[3,1]}' in said and not spoilt
        spoilt.extend([said] * first)
        route.continue_(post_data=said.replace('{"counts":[3,1]}', '{"counts":[99,0]}') if first else None)

    drawn.route("**/gradio_api/run/**", spoil)
    row = drawn.locator(ROW)
    row.press("ArrowRight")
    drawn.wait_for_timeout(500)
    row.press("ArrowRight")
    says(drawn, 4, 4)  # ten seconds later
    assert spoilt


def test_the_line_can_be_dragged(drawn: Page) -> None:
    box = drawn.locator(ROW).bounding_box()
    assert box
    y = box["y"] + box["height"] / 2
    drawn.mouse.move(box["x"] + box["width"] / 2, y)
    drawn.mouse.down()
    drawn.mouse.move(box["x"] + 0.27 * box["width"], y, steps=5)
    drawn.mouse.up()
    says(drawn, 4, 1)
    drawn.get_by_role("button", name="One step more").click()
    says(drawn, 5, 1)


def test_the_rail_moves_the_strip(drawn: Page) -> None:
    fill_number(drawn, "Steps", 6)
    expect(drawn.locator(ROW)).to_have_attribute("aria-valuetext", "6 steps, 2 at low resolution")
    expect(drawn.locator("#strip .strip-cell")).to_have_count(6)
    expect(drawn.locator("#strip .strip-cell[data-low]")).to_have_count(2)


def test_a_result_of_other_settings_is_greyed_until_it_is_run(drawn: Page) -> None:
    words, stage = drawn.locator("#strip .strip-words"), drawn.locator("#compare .cmp")
    expect(words).to_contain_text("Drag the line")
    drawn.get_by_label("Live: redraw while I move these").uncheck()
    drawn.locator(ROW).press("+")
    expect(words).to_have_text(NOT_RUN)
    expect(stage).to_have_attribute("data-stale", "")
    expect(stage).not_to_have_attribute("data-stale-teacher", "")  # it is the same for any plan
    expect(drawn.locator("#strip .strip-cell img")).to_have_count(0)
    drawn.locator(ROW).press("-")
    expect(words).to_contain_text("Drag the line")
    expect(stage).not_to_have_attribute("data-stale", "")
    drawn.get_by_label("What should it draw?").fill("a star")
    expect(words).to_have_text(NOT_RUN)
    expect(stage).to_have_attribute("data-stale-teacher", "")
    press_generate(drawn)
    expect(words).to_contain_text("Drag the line")
    expect(stage).not_to_have_attribute("data-stale", "")
    expect(stage).not_to_have_attribute("data-stale-teacher", "")
    expect(drawn.get_by_label("Live: redraw while I move these")).not_to_be_checked()  # what a visitor decided stays


def test_every_step_shows_what_it_knew(drawn: Page) -> None:
    expect(drawn.locator("#strip .strip-box img")).to_have_count(4)
    expect(drawn.locator("#strip .strip-above img")).to_have_count(4)
    scales = drawn.locator("#strip .strip-box").evaluate_all("boxes => boxes.map(b => b.offsetWidth)")
    assert scales[0] == scales[1] == pytest.approx(scales[2] / 2, abs=1), "at their true relative size"
    student = drawn.locator("#compare .cmp-frame.student")
    drawn.locator("#strip .strip-cell").nth(1).hover()
    expect(student).to_have_attribute("data-estimate", "rough")
    expect(student.locator(".cmp-estimate")).to_have_css("background-image", re.compile("data:image/webp"))
    expect(drawn.locator("#compare .cmp-frame.teacher")).to_have_attribute("data-estimate", "rough")
    photograph(drawn, "strip")
    drawn.mouse.move(5, 5)
    expect(student).not_to_have_attribute("data-estimate", "rough")
    drawn.locator(ROW).press("ArrowDown")
    expect(student).to_have_attribute("data-estimate", "rough")
    drawn.locator(ROW).press("Escape")
    expect(student).not_to_have_attribute("data-estimate", "rough")


def test_live_redraws_what_the_strip_asks_for(drawn: Page) -> None:
    expect(drawn.get_by_label("Live: redraw while I move these")).to_be_checked()  # by itself, where it is fast
    drawn.locator(ROW).press("+")
    expect(drawn.locator("#compare .cmp-caption.student")).to_contain_text("2 + 3 steps")
    expect(drawn.locator("#status")).to_contain_text("Live, seed")
    expect(drawn.locator("#strip .strip-words")).to_contain_text("Drag the line")


def test_a_plan_of_several_sizes_is_shown_as_it_is(drawn: Page) -> None:
    row, plan = drawn.locator(ROW), drawn.get_by_label("Plan of several sizes")
    plan.fill("32x32:1,48x48:2,64x64:1")
    expect(row).to_have_attribute("aria-valuetext", "4 steps at 3 sizes: 1, 2, 1")
    drawn.wait_for_function(
        """() => { const w = [...document.querySelectorAll("#strip .strip-box")].map(box => box.offsetWidth);
        return 0 < w[0] && w[0] < w[1] && w[1] === w[2] && w[2] < w[3]; }"""
    )
    row.press("ArrowLeft")
    expect(plan).to_have_value("32x32:1,48x48:1,64x64:2")
    drawn.get_by_role("button", name="One size fewer").click()
    expect(plan).to_have_value("")
    says(drawn, 4, 2)


def test_a_size_more_makes_a_plan_that_runs(drawn: Page) -> None:
    row, plan = drawn.locator(ROW), drawn.get_by_label("Plan of several sizes")
    drawn.get_by_role("button", name="One size more").click()
    expect(plan).to_have_value("32x32:1,48x48:1,64x64:2")
    expect(row).to_have_attribute("aria-valuetext", "4 steps at 3 sizes: 1, 1, 2")
    box = row.bounding_box()
    assert box
    y = box["y"] + box["height"] / 2
    drawn.mouse.move(box["x"] + 0.5 * box["width"], y)
    drawn.mouse.down()
    drawn.mouse.move(box["x"] + 0.76 * box["width"], y, steps=5)
    drawn.mouse.up()
    expect(plan).to_have_value("32x32:1,48x48:2,64x64:1")
    press_generate(drawn)
    expect(drawn.locator("#compare .cmp-caption.student")).to_contain_text("1 + 2 + 1 steps")
    expect(drawn.locator("#strip .strip-words")).to_contain_text("Drag the line")


@pytest.fixture(scope="module")
def offer(tiny_sdxl: Path, tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Offer:
    folder = shutil.copytree(tiny_sdxl, tmp_path_factory.mktemp("offer") / "tiny")
    shutil.copytree(tiny_student, folder / "student")
    return Offer([folder])


@pytest.fixture
def stored(offer: Offer, tmp_path: Path) -> Examples:
    """An example with its plans, as `make examples` writes them."""
    ask = ["--backbone", str(offer.entries["tiny"].folder), "--prompt", "a fox", "--seed", "5", "--film"]
    folder = tmp_path / "examples" / "1-fox"
    assert main(["generate", *ask, "--teacher-steps", "2", "--out", str(folder)]) == 0
    assert main(["sweep", *ask, "--plans", "4/1,4/3", "--out", str(folder / "plans")]) == 0
    return Examples(offer, examples.load(offer, tmp_path / "examples"))


def event(**data: Any) -> gr.EventData:
    return gr.EventData(None, data)


def compare_of(runner: Runner, stored: Examples) -> Compare:
    with gr.Blocks(), gr.Tabs() as tabs, gr.Tab("Compare"):
        return Compare(runner, Rail(runner.offer, stored.all[0].result.request), stored, tabs)


def test_a_stored_switch_stands_on_the_stage_at_once(offer: Offer, stored: Examples, tmp_path: Path) -> None:
    compare = compare_of(Runner(Session(ModelPool(torch.device("cpu"))), offer, tmp_path / "files"), stored)
    first = stored.all[0]
    assert set(stored.others(first)) == {(4, 1), (4, 2), (4, 3)}
    value = compare.steps.value
    assert set(value["stored"]) == {"4/1", "4/2", "4/3"}
    assert all(cell["student"] and cell["teacher"] for cell in value["cells"])
    given = {c: c.value for c in compare.rail.settings.values()} | {compare.last: first}
    assert compare.follow.is_shown(compare.rail.values(given), first), "the page opens with what its stage shows"
    moved = compare.strip_taken(given, event(counts=[3, 1]))
    saved = moved[compare.last]
    assert saved.result.plan.switch == 3
    assert saved.files["teacher"] == first.files["teacher"]
    assert moved[compare.rail.settings["switch"]] == 3
    assert stored.others(saved) == stored.others(first), "and from there to any other"
    assert moved[compare.steps]["cells"][0]["teacher"]
    away = compare.strip_taken(given, event(counts=[3, 2]))
    assert compare.last not in away
    given[compare.rail.settings["prompt"]] = "a star"
    assert compare.last not in compare.strip_taken(given, event(counts=[3, 1])), "that was another prompt"


def test_anything_else_from_the_strip_changes_nothing(offer: Offer, stored: Examples, tmp_path: Path) -> None:
    compare = compare_of(Runner(Session(), offer, tmp_path / "files"), stored)
    given = {c: c.value for c in compare.rail.settings.values()} | {compare.last: None}
    strange: list[dict[str, Any]] = [{}, {"sizes": 9}, {"counts": 3}]
    strange += [{"counts": counts} for counts in ([8, 1], [0, 0], ["4", 1], [1, 1, 1])]
    for data in strange:
        assert compare.strip_taken(given, event(**data)) == gr.skip(), data


@pytest.fixture
def phone(browser: Browser, app_url: str) -> Iterator[Page]:
    page = visit(browser, app_url, 390, 844, has_touch=True)
    yield page
    assert page.problems == []  # type: ignore[attr-defined]
    page.context.close()


def test_on_a_phone_a_tap_moves_the_switch(phone: Page) -> None:
    row = phone.locator(ROW)
    row.scroll_into_view_if_needed()
    box = row.bounding_box()
    assert box
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    phone.touchscreen.tap(box["x"] + 0.76 * box["width"], box["y"] + box["height"] / 2)
    expect(row).to_have_attribute("aria-valuetext", "4 steps, 3 at low resolution")
    assert phone.evaluate("document.documentElement.scrollWidth") == 390


def test_sizes_lie_evenly_between_the_two_and_steps_over_them(offer: Offer) -> None:
    outline = offer.outline("tiny")
    assert spread_sizes(outline, (32, 32), (64, 64), 3) == [(32, 32), (48, 48), (64, 64)]
    assert spread_sizes(outline, (56, 56), (64, 64), 4) == [(56, 56), (64, 64)], "the grid has no more"
    assert spread_counts([2, 2], 3) == [1, 1, 2]
    assert spread_counts([0, 4], 3) == [1, 1, 4]
    assert spread_counts([0, 8], 4) == [1, 1, 1, 5], "never more than a plan may have"
    assert spread_counts([3, 1], 4) == [1, 1, 1, 1]
    assert spread_counts([1, 1, 2], 2) == [2, 2]


def test_control_and_enter_generates(page: Page) -> None:

    page.get_by_label("What should it draw?").press("Control+Enter")
    expect(page.locator("#status")).to_contain_text(re.compile("Student|Teacher|Done"))


def test_the_address_follows_the_controls_and_a_reload_keeps_them(drawn: Page) -> None:
    drawn.locator(ROW).press("ArrowRight")
    drawn.get_by_label("What should it draw?").fill("a star")
    drawn.wait_for_function("location.search.includes('a+star') && location.search.includes('switch=3')")
    drawn.reload()
    drawn.locator(".cmp[data-mode]").wait_for()
    expect(drawn.get_by_label("What should it draw?")).to_have_value("a star")
    expect(drawn.locator(ROW)).to_have_attribute("aria-valuetext", "4 steps, 3 at low resolution")
    drawn.get_by_role("button", name="Advanced").click()
    expect(drawn.get_by_label("number input for Teacher steps")).to_have_value("6")
