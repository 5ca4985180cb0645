"""The other switches of a result, drawn in idle moments: which, when, and that the line then shows them at once."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from rmd.checks import RequestError
from rmd.engine.files import read_settings
from rmd.engine.results import Done
from rmd.engine.session import Session
from rmd.engine.zero import LentSession
from rmd.serve.offer import Offer
from rmd.serve.runner import Runner, Saved
from rmd.ui.beside import FAST, draw, missing, plans_of
from tests.browsing import expect_result, fill_number, press_generate

STRIP = "#strip .strip-row"
PICTURE = "#compare .cmp-frame.student img"


@pytest.fixture
def runner(tiny_sdxl: Path, tmp_path: Path) -> Runner:
    return Runner(Session(), Offer([tiny_sdxl]), tmp_path / "files")


@pytest.fixture
def saved(runner: Runner) -> Saved:
    values = {"prompt": "a fox", "steps": 3, "switch": 1, "teacher_steps": 2, "seed": 5}
    *_, done = runner.run(runner.request(values), "visitor")
    assert isinstance(done, Done)
    return runner.save(done)


def test_the_nearest_switches_come_first_and_each_once(runner: Runner, saved: Saved) -> None:
    drawn = []
    while draw(runner, saved, "visitor"):
        drawn.append(max(plans_of(saved).values(), key=lambda one: one.files["student"].stat().st_mtime_ns))
    assert [one.result.plan.switch for one in drawn] == [0, 2, 3]
    others = plans_of(saved)
    assert set(others) == {(3, switch) for switch in range(4)}
    assert others[3, 1] is saved
    alone = runner.request({**drawn[1].result.request.__dict__, "student": None})
    *_, done = runner.run(alone, "visitor")
    assert isinstance(done, Done)
    again = runner.save(done)
    assert again.files["student"].read_bytes() != saved.files["student"].read_bytes()
    pictures = [Image.open(one.files["student"]).tobytes() for one in (others[3, 2], again)]
    assert pictures[0] == pictures[1], "what was drawn ahead is what a run draws"
    assert read_settings(others[3, 2].files["student"])["request"] == read_settings(again.files["student"])["request"]


def test_what_was_made_comes_without_another_teacher(runner: Runner, saved: Saved) -> None:
    asked = replace(saved.result.request, teacher=False)
    assert runner.made(asked) is saved
    other = runner.made(replace(asked, teacher_steps=7))
    assert other is not None
    assert other.files == {"student": saved.files["student"]}
    assert other.result.teacher is None
    assert other.result.request.teacher_steps == 7, "what the rail says"
    assert all(one.result.request.teacher_steps == 7 for one in plans_of(other).values())
    assert runner.made(replace(asked, seed=6)) is None


def test_from_one_to_any_other(runner: Runner, saved: Saved) -> None:
    draw(runner, saved, "visitor")
    there = plans_of(saved)
    neighbour = there[3, 0]
    assert neighbour.beside
    assert not saved.beside
    assert neighbour.files["teacher"] == saved.files["teacher"]
    assert neighbour.result.teacher == saved.result.teacher
    assert neighbour.teacher_earlier
    back = plans_of(neighbour)
    assert set(back) == set(there)
    assert back[3, 1].files == saved.files
    assert not back[3, 1].beside
    assert not back[3, 1].teacher_earlier
    found = runner.find(saved.id)
    assert found is not None
    assert found.files == saved.files


def test_not_where_it_would_cost_somebody(runner: Runner, saved: Saved) -> None:
    slow = replace(saved.result.student, encode=FAST + 1)
    request = replace(saved.result.request, plan="32x32:1,48x48:1,64x64:1")
    for one in (
        replace(saved, stored=True),
        replace(saved, result=replace(saved.result, student=slow)),
        replace(saved, result=replace(saved.result, request=request)),
        replace(saved, result=replace(saved.result, frames=9)),
        None,
    ):
        assert missing(runner, one, {}) == []
    lent = Runner(LentSession(lambda **_: lambda run: run, RequestError), runner.offer, runner.folder)
    assert missing(lent, saved, {}) == []
    assert len(missing(runner, saved, {})) == 4


def test_not_while_somebody_waits_for_a_picture(runner: Runner, saved: Saved) -> None:
    events = runner.session.generate(saved.result.request, threading.Event())
    next(events)
    assert runner.session.busy
    assert not draw(runner, saved, "visitor")
    list(events)
    assert draw(runner, saved, "visitor")


def test_what_is_old_goes_with_its_neighbours(runner: Runner, saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(runner, saved, "visitor")
    room = sum(file.stat().st_size for file in saved.files["student"].parent.glob("*.*"))
    monkeypatch.setattr("rmd.serve.runner.KEEP_BYTES", room)  # enough for the result, not for its neighbour
    runner.prune()
    assert not saved.files["student"].exists()


def test_the_line_shows_another_switch_at_once(page: Page) -> None:
    page.get_by_role("button", name="Advanced").click()
    fill_number(page, "Teacher steps", 2)
    press_generate(page)
    expect_result(page)
    page.get_by_label("Live: redraw while I move these").uncheck()
    first = page.locator(PICTURE).get_attribute("src")
    steps, low = (
        int(page.get_by_label(f"number input for {name}", exact=True).input_value())
        for name in ("Steps", "Low-resolution steps")
    )
    expect(page.locator("#strip .strip")).to_have_attribute("data-stored", str(steps + 1))
    row = page.locator(STRIP)
    row.press("ArrowLeft")
    expect(row).to_have_attribute("aria-valuetext", f"{steps} steps, {low - 1} at low resolution")
    expect(page.locator("#status")).to_contain_text("Drawn in an idle moment, seed")
    expect(page.locator("#compare .cmp")).not_to_have_attribute("data-stale", "")
    assert page.locator(PICTURE).get_attribute("src") != first
    row.press("ArrowRight")
    expect(page.locator(PICTURE)).to_have_attribute("src", str(first))
    page.get_by_role("tab", name="History").click()
    expect(page.locator(".history .mark")).to_have_count(1)
