"""The Models tab's downloads: progress, Stop, going on, what cannot be fetched, and who may."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from rmd.backbones.hub import OnBytes
from rmd.checks import Cancelled, RequestError
from rmd.serve.fetch import Fetch
from rmd.serve.server import Options
from tests.browsing import photograph, visit
from tests.servers import serving

WHOLE = 7_000_000_000


class SlowHub:
    """In the place of `catalog.download`: bytes arrive as the test lets them."""

    def __init__(self) -> None:
        self.go, self.asked = threading.Event(), list[str]()

    def __call__(self, name: str, on_bytes: OnBytes) -> Path:
        self.asked.append(name)
        if name == "z-image":
            raise RequestError("Tongyi-MAI/Z-Image needs 20.6 GB more on the disk.")
        on_bytes(WHOLE // 4, WHOLE)
        while not self.go.wait(0.02):
            on_bytes(WHOLE // 4, WHOLE)
        return Path()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> SlowHub:
    made = SlowHub()
    monkeypatch.setattr("rmd.ui.page.Fetch", lambda: Fetch(made))
    return made


@pytest.fixture
def models(browser: Browser, slow: SlowHub, tiny_sdxl: Path, tmp_path: Path) -> Iterator[Page]:
    with serving(shutil.copytree(tiny_sdxl, tmp_path / "tiny"), tmp_path / "files", downloads=True) as server:
        page = visit(browser, server.url)
        page.get_by_role("tab", name="Models").click()
        yield page
        assert page.problems == []  # type: ignore[attr-defined]
        page.context.close()


def choose(page: Page, words: str) -> None:
    page.get_by_label("Fetch from the Hugging Face Hub").click()
    page.get_by_role("option", name=words).first.click()


@pytest.mark.slow
def test_bytes_are_counted_and_the_end_is_said(models: Page, slow: SlowHub) -> None:
    status, start = models.locator("#fetch-status"), models.locator("#fetch-start")
    expect(status).to_contain_text("About 7 GB to download")
    expect(status).to_contain_text("GB are free on the disk")
    choose(models, "Wan2.1 text to video 14B")
    expect(status).to_contain_text("About 80 GB to download")
    choose(models, "SDXL 1.0")
    start.click()
    expect(status).to_contain_text("sdxl: 1.75 of 7.00 GB, 25%.")
    photograph(models, "download")
    slow.go.set()
    expect(status).to_contain_text("sdxl is here now. Start the app again to offer it.")
    expect(start).to_be_enabled()
    assert slow.asked == ["sdxl"]


def test_stop_ends_it_and_the_next_try_goes_on(models: Page, slow: SlowHub) -> None:
    status, start = models.locator("#fetch-status"), models.locator("#fetch-start")
    start.click()
    expect(status).to_contain_text("25%")
    models.locator("#fetch-stop").click()
    expect(status).to_contain_text("Stopped. What has arrived is kept")
    expect(start).to_be_enabled()
    start.click()
    expect(status).to_contain_text("25%")
    slow.go.set()
    expect(status).to_contain_text("is here now")


def test_what_cannot_be_fetched_is_a_sentence_that_stays(models: Page) -> None:
    choose(models, "Z-Image, about")
    models.locator("#fetch-start").click()
    expect(models.locator("#fetch-status .status")).to_have_text("Tongyi-MAI/Z-Image needs 20.6 GB more on the disk.")
    expect(models.locator("#fetch-status")).not_to_contain_text("Error")


def test_one_at_a_time_and_who_comes_back_sees_it() -> None:
    slow = SlowHub()
    fetch = Fetch(slow)
    first = fetch.watch("sdxl")
    next(first)
    with pytest.raises(RequestError, match="sdxl is being downloaded"):
        next(fetch.watch("wan2.1-14b"))
    again = fetch.watch("sdxl")
    next(again)
    fetch.stop()
    for watcher in (first, again):
        with pytest.raises(Cancelled):
            list(watcher)
    assert slow.asked == ["sdxl"]


def test_only_this_machine_may(browser: Browser, tiny_sdxl: Path, tmp_path: Path) -> None:
    assert Options().private
    assert not Options(host="0.0.0.0").private
    assert not Options(share=True).private
    with serving(shutil.copytree(tiny_sdxl, tmp_path / "tiny"), tmp_path / "files") as server:
        page = visit(browser, server.url)
        page.get_by_role("tab", name="Models").click()
        expect(page.locator("#fetch-status")).to_contain_text("fetched by whoever runs this app")
        expect(page.locator("#fetch-start")).to_be_hidden()
        page.context.close()
