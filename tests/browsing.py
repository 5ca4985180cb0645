"""How the browser tests meet the page: the system's chromium, a fresh visitor, the usual clicks."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

# the shell first: it has no window around each page, whose own parts take a third of the time to open one
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((found for name in NAMES if (found := shutil.which(name))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
ARTIFACTS = Path(__file__).resolve().parents[1] / "test-artifacts"
PATIENCE = 120_000  # milliseconds; a busy machine is slow, not broken
expect.set_options(timeout=PATIENCE)


def visit(
    browser: Browser, url: str, width: int = 1440, height: int = 900, dark: bool = False, has_touch: bool = False
) -> Page:
    """A fresh visitor's page. Collects the hosts it talks to and the errors it reports."""
    scheme = "dark" if dark else "light"
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, has_touch=has_touch)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.hosts = set()  # type: ignore[attr-defined]
    page.problems = []  # type: ignore[attr-defined]
    page.on("request", lambda r: "://" in r.url and page.hosts.add(r.url.split("/")[2]))  # type: ignore[attr-defined]
    page.on("pageerror", lambda error: page.problems.append(str(error)))  # type: ignore[attr-defined]
    page.goto(url)
    page.get_by_role("button", name="Generate", exact=True).wait_for()
    page.locator(".cmp[data-mode]").wait_for()
    return page


def press_generate(page: Page) -> None:
    page.get_by_role("button", name="Generate", exact=True).click()


def expect_result(page: Page) -> None:
    """The new result, not a stored one that was there before; the run is over, so that Generate begins the next."""
    expect(page.locator("#status")).to_contain_text("Done, seed")
    expect(page.get_by_role("button", name="Stop", exact=True).first).to_be_disabled()
    expect(page.locator("#speed .big")).to_have_text(re.compile(r"^\d+(\.\d+)?×$"))
    expect(page.locator("#speed")).to_contain_text("Measured here on")


def picture_sizes(page: Page) -> list[int]:
    """Widths in the file of the pictures that are on the stage."""
    script = "images => images.filter(i => i.getAttribute('src')).map(i => i.naturalWidth)"
    return page.locator(".cmp-frame img").evaluate_all(script)


def photograph(page: Page, name: str) -> None:
    """A screenshot to look at; the folder is not tracked."""
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTIFACTS / f"{name}.png", full_page=True)


def fill_number(page: Page, label: str, value: int) -> None:
    """Type a number; once more where a slider that is just being mounted put its old one back (no hand is so fast)."""
    box = page.get_by_label(f"number input for {label}", exact=True)
    for _ in range(2):
        box.fill(str(value))
        box.blur()
        page.wait_for_timeout(30)
        if box.input_value() == str(value):
            break


def tab_to(page: Page, matches: str, limit: int = 60) -> None:
    """Press Tab until the focused element matches a selector."""
    for _ in range(limit):
        page.keyboard.press("Tab")
        if page.evaluate("part => document.activeElement.matches(part)", matches):
            return
    raise AssertionError(f"Tab does not get to {matches}")
