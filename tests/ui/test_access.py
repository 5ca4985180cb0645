"""For everybody: axe-core finds nothing serious, the keyboard is enough, a phone's width is enough."""

from __future__ import annotations

import time
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.browsing import expect_result, photograph, press_generate, tab_to, visit

TABS = ("Compare", "Sweep", "History", "Models", "About")
EXCUSED: dict[tuple[str, str], str] = {}
"""(rule, part of the selector) of findings inside Gradio's own components that nothing here can change: the reason."""


def open_tab(page: Page, name: str) -> None:
    """On a narrow screen Gradio puts the last tabs into a menu."""
    tab = page.get_by_role("tab", name=name, exact=True)
    if not tab.is_visible():
        page.locator(".overflow-menu > button").click()
        page.locator(".overflow-dropdown").get_by_role("button", name=name, exact=True).click()
    else:
        tab.click()


def findings(page: Page) -> list[str]:
    """Serious and critical violations that are not excused, one line each."""
    result: dict[str, Any] = Axe().run(page, options={"resultTypes": ["violations"]}).response
    rows = []
    for violation in result["violations"]:
        if violation["impact"] not in ("serious", "critical"):
            continue
        for node in violation["nodes"]:
            place = " ".join(map(str, node["target"]))
            if not any(rule == violation["id"] and part in place for rule, part in EXCUSED):
                rows.append(f"{violation['id']} at {place}: {node['failureSummary']}")
    return rows


@pytest.mark.parametrize(
    ("width", "dark"),
    [
        pytest.param(1440, False, id="wide-light"),
        pytest.param(390, True, id="phone-dark", marks=pytest.mark.slow),
        pytest.param(1440, True, id="wide-dark", marks=pytest.mark.slow),
        pytest.param(390, False, id="phone-light", marks=pytest.mark.slow),
    ],
)
def test_axe_finds_nothing_serious(browser: Browser, app_url: str, width: int, dark: bool) -> None:
    page = visit(browser, app_url, width, 900, dark)
    press_generate(page)
    expect_result(page)
    page.get_by_role("button", name="Advanced").click()
    found = {}
    for tab in TABS:
        open_tab(page, tab)
        page.wait_for_timeout(500)  # colours change gradually
        found[tab] = findings(page)
        assert page.evaluate("document.documentElement.scrollWidth") == width, f"{tab} scrolls sideways"
        photograph(page, f"{'phone' if width < 800 else 'wide'}-{'dark' if dark else 'light'}-{tab.lower()}")
    page.context.close()
    assert not any(found.values()), "\n".join(row for rows in found.values() for row in rows)


def test_the_keyboard_is_enough(page: Page) -> None:
    tab_to(page, "#prompt textarea")
    page.keyboard.press("Control+A")
    page.keyboard.type("a star on a blue background")
    tab_to(page, "#generate")
    page.keyboard.press("Enter")
    expect_result(page)
    tab_to(page, "#switch input[type=range]")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#schedule svg[role=img]")).to_have_attribute(
        "aria-label", "3 at low resolution, then 1 at full resolution"
    )
    tab_to(page, "#stage [role=tab]")
    tab_to(page, "#compare [role=radio]")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="Slider")).to_be_checked()
    tab_to(page, "#compare .cmp-handle")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#compare .cmp-handle")).to_have_attribute("aria-valuenow", "52")


def test_what_has_the_focus_is_seen(page: Page) -> None:
    """Everything that Tab reaches has an outline of its own."""
    bare = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        bare.add(
            page.evaluate("""() => {
              const e = document.activeElement, style = getComputedStyle(e);
              const seen = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2;
              return seen || e === document.body ? '' : e.outerHTML.slice(0, 160);
            }""")
        )
    assert bare == {""}


@pytest.mark.slow
def test_the_schedule_follows_within_200_milliseconds(page: Page) -> None:
    """From the key press to the new picture, on a machine that does nothing else."""
    drawing, taken = page.locator("#schedule svg[role=img]"), []
    slider = page.locator("#switch input[type=range]")
    slider.focus()
    for number, key in enumerate(["ArrowRight", "ArrowLeft"] * 5):
        low = 3 if number % 2 == 0 else 2
        page.evaluate(
            """words => { window.redrawn = 0; const start = performance.now();
               const look = () => document.querySelector('#schedule svg[role=img]')?.ariaLabel.startsWith(words)
                 ? (window.redrawn = performance.now() - start) : requestAnimationFrame(look);
               addEventListener('keydown', look, { once: true }); }""",
            f"{low} at low",
        )
        slider.press(key)
        page.wait_for_function("window.redrawn > 0")
        taken.append(page.evaluate("window.redrawn"))
        expect(drawing).to_be_visible()
        time.sleep(0.2)
    assert sorted(taken)[len(taken) // 2] < 200, taken
