"""Defects that visitors met, each with what holds now; see also the tests of the parts they were in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browsing import expect_result, press_generate, visit
from tests.servers import Server, serving

STUDENT, TEACHER = (f"#compare .cmp-frame.{role} img" for role in ("student", "teacher"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The bundled models alone."""
    with serving(None, tmp_path_factory.mktemp("defects")) as server:
        yield server


@pytest.fixture
def bundled(browser: Browser, server: Server) -> Iterator[Page]:
    page = visit(browser, server.url)
    yield page
    assert page.problems == []  # type: ignore[attr-defined]
    page.context.close()


def live(page: Page) -> None:
    page.get_by_label("Live: redraw while I move these").check()
    expect(page.locator("#status")).to_contain_text("Live, seed")


def test_live_first_thing_keeps_the_teacher(bundled: Page) -> None:
    before = bundled.locator(TEACHER).get_attribute("src")
    live(bundled)
    expect(bundled.locator(TEACHER)).to_have_attribute("src", str(before))
    expect(bundled.locator("#compare .cmp")).to_have_attribute("data-have", "both")
    expect(bundled.locator(".toast-body")).to_have_count(0)


def test_live_after_a_stored_example_redraws_it(bundled: Page) -> None:
    bundled.locator("#examples button").nth(1).click()
    expect(bundled.get_by_label("What should it draw?")).to_have_value("a rocket on a black background")
    stored = bundled.locator(STUDENT).get_attribute("src")
    live(bundled)
    expect(bundled.locator(STUDENT)).not_to_have_attribute("src", str(stored))
    expect(bundled.locator("#compare .cmp")).to_have_attribute("data-have", "both")
    expect(bundled.locator(".toast-body")).to_have_count(0)


def test_knob_and_box_agree_after_a_link(browser: Browser, app_url: str) -> None:
    page = visit(browser, f"{app_url}/?prompt=a+fox&backbone=tiny&steps=8&switch=7&seed=5")
    for label, value in (("Steps", "8"), ("Low-resolution steps", "7")):
        expect(page.get_by_label(f"number input for {label}", exact=True)).to_have_value(value)
        expect(page.get_by_label(f"range slider for {label}", exact=True)).to_have_value(value)
    press_generate(page)
    expect_result(page)
    expect(page.locator("#compare .cmp-caption.student")).to_contain_text("7 + 1 steps")
    page.context.close()
