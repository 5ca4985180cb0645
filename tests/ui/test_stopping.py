"""Stop in the middle of a comparison: nothing that is finished is lost."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from rmd.engine.film import Film
from rmd.engine.results import Done
from rmd.ui.halves import Halves
from tests.browsing import expect_result, fill_number, press_generate, visit
from tests.servers import Server, SlowSession, serving


@pytest.fixture(scope="module")
def server(tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Its teachers run for seconds: long enough to be seen and stopped."""
    place = tmp_path_factory.mktemp("stopping")
    with serving(shutil.copytree(tiny_sdxl, place / "tiny"), place / "files", SlowSession()) as server:
        yield server


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    page = visit(browser, server.url)
    yield page
    assert page.problems == []  # type: ignore[attr-defined]
    page.context.close()


def test_stop_keeps_a_finished_student(page: Page) -> None:
    """In the stage, in Save and in History, with its own numbers; what Save held before is not offered meanwhile."""
    page.get_by_role("button", name="Advanced").click()
    fill_number(page, "Teacher steps", 2)
    press_generate(page)
    expect_result(page)
    save = page.get_by_role("button", name="Save the student's result")
    expect(save).to_be_enabled()
    fill_number(page, "Teacher steps", 100)
    press_generate(page)
    expect(page.locator("#status")).to_contain_text("Teacher: step")
    expect(save).to_be_disabled()
    page.get_by_role("button", name="Stop", exact=True).first.click()
    expect(page.locator("#status")).to_contain_text("the student was finished and stays")
    expect(save).to_be_enabled()
    expect(page.locator("#speed")).to_contain_text("without a teacher to compare with")
    expect(page.locator("#strip .strip-box img")).to_have_count(4)
    expect(page.locator("#strip .strip-above img")).to_have_count(0)  # a teacher's first steps are no teacher
    page.get_by_role("tab", name="History").click()
    expect(page.locator(".history article")).to_have_count(2)


@pytest.mark.slow
def test_stop_keeps_all_that_one_run_finished(page: Page) -> None:
    """The first of several results, complete, and the second one's student."""
    page.get_by_role("button", name="Advanced").click()
    fill_number(page, "How many", 3)
    fill_number(page, "Teacher steps", 100)
    press_generate(page)
    expect(page.locator("#speed")).to_contain_text("Measured here on")  # the first is done
    expect(page.locator("#status")).to_contain_text(re.compile(r"Teacher: step [1-5]?\d of"))  # the second's
    page.get_by_role("button", name="Stop", exact=True).first.click()
    expect(page.locator("#status")).to_contain_text("the student was finished and stays")
    expect(page.locator(".results button")).to_have_count(2)
    page.get_by_role("tab", name="History").click()
    expect(page.locator(".history article")).to_have_count(2)


def test_a_half_is_taken_once_and_shown_again_once(server: Server) -> None:
    """What was kept of one run never comes back at the end of another."""
    runner, halves = server.runner, Halves(server.runner)
    done = list(runner.run(runner.request({"prompt": "a fox", "teacher": False}), "me"))[-1]
    assert isinstance(done, Done)
    halves.note("me", (done, Film(), []))
    assert halves.kept("me") == []  # nothing was kept so far
    half = halves.take("me")
    assert half
    assert halves.take("me") is None
    assert halves.kept("me") == []
    kept = halves.keep("me", half)
    assert [one.result.request.prompt for one in kept] == ["a fox"]
    assert halves.kept("me") == kept
    assert halves.kept("me") == []
