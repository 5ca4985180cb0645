"""Hands on the page: everything by keyboard, wide and narrow, and the switch moved fast in live mode."""

from __future__ import annotations

import io
import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.browsing import expect_result, press_generate, tab_to, visit
from tests.servers import Server, SlowSession, serving

STEPS, SWITCH = (f"[aria-label='range slider for {name}']" for name in ("Steps", "Low-resolution steps"))


@pytest.fixture(scope="module")
def session() -> SlowSession:
    return SlowSession()


@pytest.fixture(scope="module")
def server(tiny_sdxl: Path, session: SlowSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("hands")
    with serving(shutil.copytree(tiny_sdxl, place / "tiny"), place / "files", session) as server:
        yield server


def arrive(browser: Browser, server: Server, width: int, **settings: int) -> Page:
    """A fresh visitor with settings from the address."""
    query = "".join(f"&{name}={value}" for name, value in settings.items())
    page = visit(browser, f"{server.url}/?backbone=tiny&prompt=a+fox{query}", width, 844)
    expect(page.get_by_label("What should it draw?")).to_have_value("a fox")
    return page


def settings_of(picture: bytes) -> dict[str, Any]:
    return json.loads(Image.open(io.BytesIO(picture)).info["rmd"])["request"]


@pytest.mark.parametrize("width", [1440, pytest.param(390, marks=pytest.mark.slow)], ids=["wide", "phone"])
def test_the_whole_way_by_keyboard(browser: Browser, server: Server, session: SlowSession, width: int) -> None:
    page = arrive(browser, server, width, teacher_steps=60)
    keys = page.keyboard
    tab_to(page, "#prompt textarea")
    keys.press("Control+A")
    keys.type("a star on a blue background")
    for slider, presses in ((STEPS, 2), (SWITCH, 1)):
        tab_to(page, slider)
        for _ in range(presses):
            keys.press("ArrowRight")
    drawing = page.locator("#schedule svg[role=img]")
    expect(drawing).to_have_attribute("aria-label", "3 at low resolution, then 3 at full resolution")
    tab_to(page, "#generate")
    session.pause = 0.1
    keys.press("Enter")
    expect(page.locator("#status")).to_contain_text("Teacher: step")
    keys.press("Tab")
    expect(page.locator("#stop")).to_be_focused()
    keys.press("Space")
    expect(page.locator("#status")).to_contain_text("Stopped")
    session.pause = 0
    expect(page.locator("#generate")).to_be_enabled()
    keys.press("Shift+Tab")
    expect(page.locator("#generate")).to_be_focused()
    keys.press("Space")
    expect_result(page)
    expect(page.locator("#compare .cmp-caption.student .sub")).to_contain_text("3 + 3 steps")
    page.context.close()


def test_only_another_model_brings_its_own_settings(browser: Browser, server: Server) -> None:
    page = arrive(browser, server, 1440, teacher_steps=2, steps=7, switch=5)
    numbers = [page.get_by_label(f"number input for {name}", exact=True) for name in ("Steps", "Low-resolution steps")]
    tab_to(page, "#model input")
    page.keyboard.press("Tab")  # past the model
    page.wait_for_timeout(1000)  # whatever came of it has come
    page.keyboard.press("Shift+Tab")
    for number, value in zip(numbers, (7, 5), strict=True):
        expect(number).to_have_value(str(value))
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    outline = server.runner.offer.outline("emoji-sdxl")
    expect(page.get_by_label("Model", exact=True)).to_have_value(outline.spec.name)
    for number, name in zip(numbers, ("steps", "switch"), strict=True):
        expect(number).to_have_value(str(outline.defaults()[name]))
    page.context.close()


@pytest.fixture(scope="module")
def live(browser: Browser, server: Server, session: SlowSession) -> Iterator[Page]:
    """A page with a finished comparison and live mode on."""
    session.pause = 0
    page = arrive(browser, server, 1440, teacher_steps=2)
    press_generate(page)
    expect_result(page)
    page.get_by_label("Live: redraw").check()
    yield page
    assert page.problems == []  # type: ignore[attr-defined]
    page.context.close()


def by_keys(page: Page) -> None:
    page.locator(SWITCH).focus()
    for key in ("Home", *["ArrowRight"] * 4, *["ArrowLeft"] * 3):
        page.keyboard.press(key)


def by_mouse(page: Page) -> None:
    box = page.locator(SWITCH).bounding_box()
    assert box
    places = [box["x"] + 8 + (box["width"] - 16) * low / 4 for low in (1, 4, 0, 2, 4, 1, 3)]
    y = box["y"] + box["height"] / 2
    page.mouse.move(places[0], y)
    page.mouse.down()
    for x in places[1:]:
        page.mouse.move(x, y, steps=3)
    page.mouse.up()


def by_steps(page: Page) -> None:
    """The steps go below the switch, which follows them."""
    page.locator(STEPS).focus()
    for key in (*["ArrowRight"] * 4, *["ArrowLeft"] * 6):
        page.keyboard.press(key)


@pytest.mark.parametrize(
    ("move", "plan", "words"),
    [(by_keys, (4, 1), "1 + 3 steps"), (by_mouse, (4, 3), "3 + 1 steps"), (by_steps, (2, 2), "2 steps")],
    ids=["keys", "mouse", "steps"],
)
def test_the_last_position_wins(
    live: Page, server: Server, session: SlowSession, move: Any, plan: tuple[int, int], words: str
) -> None:
    teacher = live.locator("#compare .cmp-frame.teacher img").get_attribute("src")
    drawn = len(list(server.runner.folder.glob("*")))
    session.pause = 0.3  # all moves are made while the first of them is drawn
    move(live)
    session.pause = 0
    caption = live.locator("#compare .cmp-caption.student .sub")
    expect(caption).to_have_text(re.compile(rf"^{re.escape(words)},"))
    settled(server)
    expect(caption).to_have_text(re.compile(rf"^{re.escape(words)},"))
    expect(live.get_by_label("number input for Low-resolution steps")).to_have_value(str(plan[1]))
    source = live.locator("#compare .cmp-frame.student img").get_attribute("src")
    assert source
    inside = settings_of(live.request.get(source).body())
    assert (inside["steps"], inside["switch"]) == plan
    assert live.locator("#compare .cmp-frame.teacher img").get_attribute("src") == teacher
    assert 1 <= len(list(server.runner.folder.glob("*"))) - drawn < 7  # most positions in between were passed over


def settled(server: Server) -> None:
    """Wait until nothing has been computed for a while."""
    seen = -1
    while seen != server.seen:
        seen = server.seen
        time.sleep(0.4)
