"""Defects that visitors met, each with what holds now; see also the tests of the parts they were in."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browsing import expect_result, press_generate, visit
from tests.servers import Server, serving

STRIP = "#strip .strip-row"
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


def test_a_number_box_never_sends_what_no_run_can_have(bundled: Page) -> None:
    refused = []
    bundled.on("response", lambda answer: refused.append(answer.url) if answer.status >= 400 else None)
    steps, low = (
        bundled.get_by_label(f"number input for {name}", exact=True) for name in ("Steps", "Low-resolution steps")
    )
    for typed, left in [("", "4"), ("12", "8"), ("99", "8"), ("0", "1"), ("-3", "1"), ("2.5", "3"), ("7", "7")]:
        for box, value in ((steps, "4"), (low, "2")):
            box.fill(value)
            box.blur()
        expect(bundled.locator(STRIP)).to_have_attribute("aria-valuetext", "4 steps, 2 at low resolution")
        steps.fill(typed)
        bundled.wait_for_timeout(200)  # long enough for what was typed to be sent
        steps.blur()
        expect(steps).to_have_value(left)
        expect(bundled.get_by_label("range slider for Steps", exact=True)).to_have_value(left)
        words = re.compile(f"^{left} steps?, {min(2, int(left))} at low resolution$")
        expect(bundled.locator(STRIP)).to_have_attribute("aria-valuetext", words)
    assert refused == []


def test_an_emptied_box_leaves_the_switch_alone(bundled: Page) -> None:
    steps, low = (
        bundled.get_by_label(f"number input for {name}", exact=True) for name in ("Steps", "Low-resolution steps")
    )
    steps.fill("")
    bundled.wait_for_timeout(200)
    expect(low).to_have_value("2")
    steps.fill("3")
    steps.blur()
    expect(low).to_have_value("2")
    low.fill("")
    low.blur()
    expect(low).to_have_value("2")
    expect(bundled.locator(STRIP)).to_have_attribute("aria-valuetext", "3 steps, 2 at low resolution")


def test_the_tab_key_closes_the_list_that_it_leaves(bundled: Page) -> None:
    model = bundled.get_by_label("Model", exact=True)
    model.focus()
    expect(model).to_have_attribute("aria-expanded", "true")
    bundled.keyboard.press("Tab")
    expect(bundled.get_by_label("Student", exact=True)).to_be_focused()
    expect(model).to_have_attribute("aria-expanded", "false")
    bundled.keyboard.press("Tab")
    expect(bundled.get_by_role("listbox")).to_have_count(0)


def test_the_api_panel_opens_without_a_refusal(bundled: Page) -> None:
    with bundled.expect_response("**/monitoring/summary") as answer:
        bundled.get_by_role("button", name="Use via API").click()
    assert answer.value.json() == {"functions": {}}
    expect(bundled.get_by_role("heading", name="MCP documentation")).to_be_visible()
