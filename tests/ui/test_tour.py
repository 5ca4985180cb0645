"""The guided minute: every caption moves the controls and shows its own picture; it can be skipped and linked."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from rmd.ui import text
from tests.browsing import photograph, visit
from tests.servers import Server, serving

BEGIN = text.TOUR_BEGIN
STRIP = "#strip .strip-row"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The bundled model alone, as a stranger meets it."""
    with serving(None, tmp_path_factory.mktemp("tour")) as server:
        yield server


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    page = visit(browser, server.url)
    yield page
    assert page.problems == []  # type: ignore[attr-defined]
    page.context.close()


def says(page: Page, index: int, title: str, low: int) -> str:
    """The caption, the controls and the stage agree; returns the student's picture's address."""
    expect(page.locator("#tour h3")).to_have_text(f"{title} {index} of 4")
    expect(page.locator(STRIP)).to_have_attribute("aria-valuetext", f"4 steps, {low} at low resolution")
    expect(page.get_by_label("number input for Low-resolution steps", exact=True)).to_have_value(str(low))
    expect(page.locator("#compare .cmp")).not_to_have_attribute("data-stale", "")
    return str(page.locator("#compare .cmp-frame.student img").get_attribute("src"))


def test_four_captions_show_four_pictures(page: Page) -> None:
    page.get_by_role("button", name=BEGIN).click()
    shown = [says(page, 1, "Full size only", 0)]
    page.locator("#tour").get_by_role("button", name="Next").click()
    shown.append(says(page, 2, "Small first, then large", 2))
    photograph(page, "tour")
    page.locator("#tour").get_by_role("button", name="Next").click()
    shown.append(says(page, 3, "Small only", 4))
    page.locator("#tour").get_by_role("button", name="Back").click()
    assert says(page, 2, "Small first, then large", 2) == shown[1]
    page.locator("#tour").get_by_role("button", name="Next").click()
    assert says(page, 3, "Small only", 4) == shown[2]
    page.locator("#tour").get_by_role("button", name="Next").click()
    expect(page.locator("#status")).to_contain_text("Without distillation, made here in")
    expect(page.locator("#compare .cmp-caption.student")).to_contain_text("not distilled")
    shown.append(says(page, 4, "Without distillation", 2))
    expect(page.get_by_label("Student", exact=True)).to_have_value("none: the teacher's own weights")
    assert len(set(shown)) == 4
    page.locator("#tour").get_by_role("button", name="Done").click()
    expect(page.locator("#tour").get_by_role("button", name=BEGIN)).to_be_visible()


def test_it_can_be_skipped_and_linked(browser: Browser, server: Server) -> None:
    page = visit(browser, f"{server.url}/?tour=3")
    says(page, 3, "Small only", 4)
    page.locator("#tour").get_by_role("button", name="Skip").click()
    expect(page.locator("#tour").get_by_role("button", name=BEGIN)).to_be_visible()
    page.context.close()


@pytest.mark.parametrize("wanted", ["5", *(pytest.param(one, marks=pytest.mark.slow) for one in ("0", "-1", "x", ""))])
def test_an_address_for_no_caption_opens_the_page(browser: Browser, server: Server, wanted: str) -> None:
    page = visit(browser, f"{server.url}/?tour={wanted}")
    expect(page.locator("#tour").get_by_role("button", name=BEGIN)).to_be_visible()
    assert page.problems == []  # type: ignore[attr-defined]
    page.context.close()


def test_without_the_example_there_is_no_tour(
    browser: Browser, tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rmd.ui.tabs.examples.load", lambda offer: [])
    with serving(shutil.copytree(tiny_sdxl, tmp_path / "tiny"), tmp_path / "files") as server:
        page = visit(browser, server.url)
        expect(page.get_by_role("button", name=BEGIN)).to_have_count(0)
        page.context.close()
