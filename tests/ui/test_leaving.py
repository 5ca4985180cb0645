"""What a visitor's leaving does to the run they started and to the place they had in the queue."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browsing import PATIENCE, photograph
from tests.servers import Server, SlowSession, serving, wait_until


@pytest.fixture(scope="module")
def server(tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("leaving")
    session = SlowSession()
    session.pause = 0.2
    with serving(shutil.copytree(tiny_sdxl, place / "tiny"), place / "files", session) as server:
        yield server


def generating(browser: Browser, url: str) -> Page:
    """A visitor who has pressed Generate with a hundred teacher steps."""
    page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(f"{url}/?prompt=a+fox&teacher_steps=100")
    expect(page.get_by_label("What should it draw?")).to_have_value("a fox", timeout=PATIENCE)
    page.get_by_role("button", name="Generate", exact=True).click()
    return page


def test_a_closed_tab_stops_the_teacher_and_gives_up_its_place(browser: Browser, server: Server) -> None:
    first = generating(browser, server.url)
    expect(first.locator("#status")).to_contain_text("Teacher: step", timeout=PATIENCE)
    second = generating(browser, server.url)
    place = second.locator("#status .progress-text")
    expect(place).to_contain_text("queue: 1/1", timeout=PATIENCE)
    expect(place).to_be_in_viewport()  # also not cut off by a box around it
    photograph(second, "queue")
    assert server.health()["queued"] == 1
    seen = server.seen
    second.context.close()
    first.context.close()
    wait_until(lambda: (server.health()["running"], server.health()["queued"]) == (0, 0))
    assert server.seen < seen + 60  # most teacher steps were not made
    assert not server.runner.folder.exists()  # nothing was saved
