"""The Sweep tab in the browser: noise axes, stopping and going on, failed cells, cells on the stage, the files."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from playwright.sync_api import Browser, Download, Locator, Page, expect

from rmd.engine.results import Done
from rmd.request import GenerateRequest
from rmd.study.sweep_files import HEADER
from tests.browsing import expect_result, fill_number, photograph, press_generate, visit
from tests.servers import Server, SlowSession, serving, wait_until

TIME = re.compile(r"^[\d.,]+ (ms|s)$")
GRID = "2 steps, band, η 0", "2 steps, band, η 1", "2 steps, mix, η 0", "2 steps, mix, η 1"
"""The rows of the sweep over two steps with both noise axes; eight cells, as some would only repeat others."""


class SmallSession(SlowSession):
    """Notes what it finished. Cells with `too_large` low steps do not fit into its memory."""

    pause = 0.0
    too_large: int | None = None

    def __init__(self) -> None:
        super().__init__()
        self.finished: list[GenerateRequest] = []

    def generate(self, *args: Any, **more: Any) -> Iterator[Any]:
        for event in super().generate(*args, **more):
            if isinstance(event, Done):
                self.finished.append(event.request)
            yield event

    def run(self, request: GenerateRequest, *args: Any) -> Any:
        if request.switch == self.too_large:
            raise torch.OutOfMemoryError
        yield from super().run(request, *args)


@pytest.fixture(scope="module")
def session() -> SmallSession:
    return SmallSession()


@pytest.fixture(scope="module")
def server(tiny_sdxl: Path, session: SmallSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("sweeps")
    with serving(shutil.copytree(tiny_sdxl, place / "tiny"), place / "files", session) as server:
        yield server


@pytest.fixture(scope="module")
def swept(browser: Browser, server: Server) -> Iterator[Page]:
    """A page whose grid over both noise axes is complete."""
    page = sweep_tab(browser, server, [2])
    page.get_by_role("button", name="Vary the noise, or try plans of several sizes").click()
    for label in ("band", "mix", "0", "1"):
        axis(page, "Re-injections" if label.isalpha() else "Values of η").get_by_label(label, exact=True).check()
    expect(status(page)).to_have_text("8 pictures and the teacher, as much work as 22 full-resolution steps.")
    press_start(page)
    expect(status(page)).to_have_text("8 of 8 pictures.")
    yield page
    assert page.problems == []  # type: ignore[attr-defined]
    page.context.close()


def sweep_tab(browser: Browser, server: Server, steps: list[int]) -> Page:
    """A fresh visitor at the Sweep tab, with these numbers of steps chosen."""
    page = visit(browser, server.url)
    page.get_by_role("tab", name="Sweep").click()
    for count in range(1, 9):
        axis(page, "Numbers of steps").get_by_label(str(count), exact=True).set_checked(count in steps)
    return page


def axis(page: Page, label: str) -> Locator:
    return page.locator("#stage fieldset").filter(has_text=label)


def status(page: Page) -> Locator:
    return page.locator("#sweep-status .status")


def press_start(page: Page) -> None:
    expect(page.locator("#sweep-stop")).to_be_disabled()  # its last picture may be there before a run is over
    page.locator("#sweep-start").click()


def cells(page: Page) -> dict[str, str]:
    """The finished cells by name with what they say about themselves, their time included."""
    found = page.locator("table.sweep button").evaluate_all("all => all.map(b => [b.dataset.cell, b.title])")
    return dict(found)


def saved(page: Page, button: str) -> Download:
    with page.expect_download() as download:
        page.get_by_role("button", name=button).click()
    return download.value


@pytest.mark.slow
def test_the_noise_axes_have_rows_of_their_own(swept: Page) -> None:
    rows = swept.locator("table.sweep tbody th").all_inner_texts()
    assert [row.replace("\n", ", ") for row in rows] == list(GRID)
    columns = [f"{switch} low" for switch in range(3)]
    assert swept.locator("table.sweep thead th").all_inner_texts() == columns
    pictures = swept.locator("table.sweep img")
    assert pictures.evaluate_all("all => all.map(i => i.naturalWidth)") == [64] * 8
    times = swept.locator("table.sweep button > span").all_inner_texts()
    assert len(times) == 8
    assert all(TIME.match(words) for words in times), times
    assert set(cells(swept)) == {
        *(f"steps-2-low-{low}-band-eta-{eta}" for low in range(3) for eta in (0, 1)),
        *(f"steps-2-low-1-mix-eta-{eta}" for eta in (0, 1)),
    }
    photograph(swept, "sweep-noise")


def test_the_sheet_and_the_figures_hold_every_cell(swept: Page) -> None:
    sheet = Image.open(saved(swept, "Contact sheet (PNG)").path())
    assert sheet.size == (3 * 266 + 10, 5 * 310 + 10 + HEADER)  # the teacher's row first
    assert json.loads(sheet.info["rmd"])["role"] == "sweep"
    listing = saved(swept, "Timings (CSV)").path().read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(listing)))
    names = {f"steps-{r['steps']}-low-{r['switch']}-{r['reinjection']}-eta-{float(r['eta']):g}" for r in rows}
    assert names == set(cells(swept))
    assert all(float(row["end_to_end"]) > 0 and not row["error"] for row in rows)
    assert len({row["teacher_end_to_end"] for row in rows}) == 1
    for row in rows:
        assert float(row["speedup"]) == pytest.approx(float(row["teacher_end_to_end"]) / float(row["end_to_end"]))
        assert 0 < float(row["difference"]) < 1


def test_the_bundle_opens_and_its_pictures_know_their_settings(swept: Page) -> None:
    with zipfile.ZipFile(saved(swept, "Everything (ZIP)").path()) as bundle:
        assert bundle.testzip() is None
        assert json.loads(Image.open(bundle.open("teacher.png")).info["rmd"])["role"] == "teacher"
        for name in cells(swept):
            inside = json.loads(Image.open(bundle.open(f"{name}.png")).info["rmd"])["request"]
            point = f"steps-{inside['steps']}-low-{inside['switch']}-{inside['reinjection']}-eta-{inside['eta']:g}"
            assert point == name


def test_a_cell_brings_its_settings_and_its_picture(swept: Page) -> None:
    prompt = swept.get_by_label("What should it draw?")
    drawn = prompt.input_value()
    prompt.fill("something else")
    swept.get_by_role("tab", name="Sweep").click()
    swept.locator("[data-cell='steps-2-low-1-mix-eta-0']").click()
    expect(swept.get_by_role("tab", name="Compare")).to_have_attribute("aria-selected", "true")
    expect(swept.locator("#compare .cmp-caption.student .sub")).to_contain_text("1 + 1 steps")
    swept.get_by_role("button", name="Advanced").click()
    for label, value in (("Steps", "2"), ("Low-resolution steps", "1"), ("Noise kept between steps (η)", "0")):
        expect(swept.get_by_label(f"number input for {label}", exact=True)).to_have_value(value)
    expect(swept.get_by_role("radio", name="mix: the paper's blend")).to_be_checked()
    expect(swept.get_by_label("New seed each time")).not_to_be_checked()
    expect(prompt).to_have_value(drawn)  # the teacher is to draw the same
    file = saved(swept, "Save the student's result").path().read_bytes()
    inside = json.loads(Image.open(io.BytesIO(file)).info["rmd"])["request"]
    assert [inside[name] for name in ("steps", "switch", "reinjection", "eta")] == [2, 1, "mix", 0]
    shown = swept.locator("#compare .cmp-frame.student img").get_attribute("src")
    assert shown
    assert swept.request.get(shown).body() == file


def test_every_cell_is_held_against_one_teacher(swept: Page) -> None:
    swept.get_by_role("tab", name="Sweep").click()
    said = swept.locator("table.sweep button small").all_inner_texts()
    assert len(said) == 8
    assert all(re.fullmatch(r"[\d.]+×, differs \d+\.\d%", words) for words in said), said
    teacher = swept.locator(".sweep-teacher")
    expect(teacher).to_contain_text("6 steps")
    photograph(swept, "sweep-teacher")
    sources = []
    for name in ("steps-2-low-0-band-eta-0", "steps-2-low-2-band-eta-1"):
        swept.locator(f"[data-cell='{name}']").click()
        expect(swept.get_by_role("tab", name="Compare")).to_have_attribute("aria-selected", "true")
        sources.append(swept.locator("#compare .cmp-frame.teacher img").get_attribute("src"))
        swept.get_by_role("tab", name="Sweep").click()
        expect(swept.locator(f"[data-cell='{name}']")).to_have_attribute("aria-current", "true")
    assert sources[0] == sources[1]
    assert sources[0]
    teacher.click()
    expect(swept.locator("#compare .cmp-frame.teacher img")).to_have_attribute("src", sources[0])
    expect(teacher).to_be_hidden()
    assert swept.locator("table.sweep [aria-current]").count() == 0


def test_stop_keeps_what_is_done_and_start_goes_on(browser: Browser, server: Server, session: SmallSession) -> None:
    page = sweep_tab(browser, server, [4])
    session.finished.clear()
    session.pause = 0.1
    press_start(page)
    expect(status(page)).to_have_text("2 of 5 pictures.")
    session.pause = 1  # however slow this page is, the third is not ready when Stop is pressed
    page.locator("#sweep-stop").click()
    expect(status(page)).to_have_text("Stopped. Start again to go on where it ended.")
    expect(page.locator("#sweep-stop")).to_be_disabled()
    session.pause = 0
    wait_until(lambda: server.health()["running"] == 0)
    before = cells(page)
    assert 2 <= len(before) < 5
    expect(page.locator("table.sweep .empty")).to_have_count(5 - len(before))
    listing = saved(page, "Timings (CSV)").path().read_text(encoding="utf-8")
    assert len(listing.splitlines()) == 1 + len(before)
    press_start(page)
    expect(status(page)).to_have_text("5 of 5 pictures.")
    after = cells(page)
    assert len(after) == 5
    assert {name: after[name] for name in before} == before  # the same runs, with the same times
    assert [request.switch for request in session.finished] == [0, 1, 2, 3, 4]  # none was drawn again
    page.context.close()


@pytest.mark.slow
def test_a_reload_loses_no_cell(browser: Browser, server: Server, session: SmallSession) -> None:
    page = sweep_tab(browser, server, [3])
    page.get_by_label("Seed", exact=True).fill("77")
    page.wait_for_function("location.search.includes('seed=77')")
    session.finished.clear()
    session.pause = 0.3
    press_start(page)
    expect(status(page)).to_have_text(re.compile("^[23] of 4 pictures"))
    page.reload()
    page.get_by_role("tab", name="Sweep").click()
    session.pause = 0
    wait_until(lambda: server.health()["running"] == 0)
    expect(axis(page, "Numbers of steps").get_by_label("3", exact=True)).to_be_checked()
    expect(axis(page, "Numbers of steps").get_by_label("1", exact=True)).not_to_be_checked()
    press_start(page)
    expect(status(page)).to_have_text("4 of 4 pictures.")
    assert len(cells(page)) == 4
    expect(page.locator("button.sweep-teacher")).to_be_visible()
    drawn = [request.switch for request in session.finished]
    assert drawn[:4] == [0, 1, 2, 3], "none was drawn again"
    assert drawn[4:] in ([], [0]), "but the one that brings the teacher"
    page.context.close()


def test_a_failed_cell_leaves_the_others_and_is_tried_again(
    browser: Browser, server: Server, session: SmallSession
) -> None:
    page = sweep_tab(browser, server, [2])
    page.get_by_label("Seed", exact=True).fill("78")
    page.wait_for_function("location.search.includes('seed=78')")
    session.too_large = 1
    press_start(page)
    expect(status(page)).to_have_text("3 of 3 pictures, 1 failed.")
    failed = page.locator("table.sweep .empty")
    expect(failed).to_have_text("failed")
    expect(failed).to_have_attribute("title", re.compile("ran out of memory"))
    assert len(cells(page)) == 2
    session.too_large = None
    session.finished.clear()
    press_start(page)
    expect(status(page)).to_have_text("3 of 3 pictures.")
    assert [request.switch for request in session.finished] == [1]
    page.context.close()


def test_the_cost_is_known_before_the_start(browser: Browser, server: Server) -> None:
    page = sweep_tab(browser, server, [])
    expect(status(page)).to_have_text("Choose at least one number of steps.")
    axis(page, "Numbers of steps").get_by_label("4", exact=True).check()
    expect(status(page)).to_have_text("5 pictures and the teacher, as much work as 24 full-resolution steps.")
    page.get_by_role("button", name="Advanced").click()
    fill_number(page, "Teacher steps", 2)
    press_generate(page)
    page.get_by_role("tab", name="Compare").click()
    expect_result(page)
    page.get_by_role("tab", name="Sweep").click()
    expect(status(page)).to_have_text(
        re.compile(r"^5 pictures and the teacher, about [\d.]+ (ms|s) going by your last picture\.$")
    )
    page.get_by_label("Model", exact=True).click()
    page.get_by_role("option", name="Emoji SDXL").click()
    expect(status(page)).to_contain_text("as much work as")  # the last picture was another model's
    page.context.close()
