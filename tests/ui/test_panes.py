"""Several pictures in step and the blind vote: nothing tells which is which, and the votes are a file."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browsing import expect_result, fill_number, photograph, press_generate, visit
from tests.servers import Server, serving


@pytest.fixture(scope="module")
def server(tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("panes")
    with serving(shutil.copytree(tiny_sdxl, place / "tiny"), place / "files") as server:
        yield server


@pytest.fixture(scope="module")
def swept(browser: Browser, server: Server) -> Iterator[Page]:
    """A sweep of three cells and their teacher."""
    page = visit(browser, server.url)
    page.get_by_role("tab", name="Sweep").click()
    steps = page.locator("#stage fieldset").filter(has_text="Numbers of steps")
    for count in range(1, 9):
        steps.get_by_label(str(count), exact=True).set_checked(count == 2)
    page.locator("#sweep-start").click()
    expect(page.locator("#sweep-status .status")).to_have_text("3 of 3 pictures.")
    yield page
    assert page.problems == []  # type: ignore[attr-defined]
    page.context.close()


def test_the_cells_and_their_teacher_stand_in_step(swept: Page) -> None:
    panes = swept.locator("#sweep-panes")
    names = ["teacher", "2 steps, 0 low", "2 steps, 1 low", "2 steps, 2 low"]
    expect(panes.locator("figcaption b")).to_have_text(names)
    swept.wait_for_function("[...document.querySelectorAll('#sweep-panes img')].every(i => i.naturalWidth === 64)")
    panes.locator(".panes-view").press("+")
    moved = panes.locator("img").evaluate_all("all => all.map(i => getComputedStyle(i).transform)")
    assert len(set(moved)) == 1
    assert moved[0].startswith("matrix(1.5,")
    panes.locator(".panes-view").press("0")
    photograph(swept, "panes")


def test_a_blind_vote_tells_nothing_and_becomes_a_file(swept: Page) -> None:
    panes = swept.locator("#sweep-panes")
    panes.get_by_label("Pictures at once").select_option("3")
    panes.get_by_role("button", name="Vote blind").click()
    words = panes.locator(".panes-words")
    chosen: list[str] = []
    for vote in range(6):
        expect(words).to_have_text(
            f"Which is the best? Click it, or press 1 to 3. {vote} vote{'' if vote == 1 else 's'}."
        )
        frames = panes.locator(".pane-frame")
        assert panes.locator("figcaption").all_inner_texts() == ["1", "2", "3"]
        assert frames.evaluate_all("all => all.map(f => f.getAttribute('aria-label'))") == [
            f"Picture {i}" for i in (1, 2, 3)
        ]
        chosen.append(str(frames.nth(vote % 3).locator("img").get_attribute("src")))
        if vote % 2:
            frames.nth(vote % 3).click()
        else:
            panes.locator(".panes-view").press(str(vote % 3 + 1))
    assert len(set(chosen)) > 1, "they are shuffled"
    panes.get_by_role("button", name="Skip").click()
    expect(words).to_contain_text("6 votes")
    panes.get_by_role("button", name="End and show").click()
    expect(words).to_have_text("6 votes; the most chosen first.")
    photograph(swept, "panes-votes")
    table = panes.locator(".panes-tally tbody tr")
    won = {row.split("\t")[0]: int(row.split("\t")[1]) for row in table.all_inner_texts()}
    assert sum(won.values()) == 6
    with swept.expect_download() as download:
        panes.get_by_role("button", name="Votes (CSV)").click()
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8"))))
    assert len(rows) == 6
    for row in rows:
        assert row["chosen"] in (row["1"], row["2"], row["3"])
        assert row["4"] == ""
        assert row["backbone"] == "tiny"
        assert row["prompt"]
    assert {name: sum(row["chosen"] == name for row in rows) for name in won} == won


@pytest.mark.slow
def test_three_of_the_history_stand_in_step(browser: Browser, server: Server) -> None:
    page = visit(browser, server.url)
    page.get_by_role("button", name="Advanced").click()
    page.get_by_label("Run the teacher as well").uncheck()
    fill_number(page, "How many", 3)
    press_generate(page)
    expect(page.locator("#status")).to_contain_text("Done, seed")
    page.get_by_role("tab", name="History").click()
    marks = page.locator(".history .mark")
    expect(marks).to_have_count(3)
    for i in range(3):
        marks.nth(i).click()
    panes = page.locator("#history-panes")
    expect(panes.locator("figcaption b")).to_have_count(3)
    assert [name.split(":")[0] for name in panes.locator("figcaption b").all_inner_texts()] == ["A", "B", "C"]
    expect(page.locator("#pair")).to_be_hidden()
    marks.nth(0).click()  # two are left: the compare view again
    expect(page.locator("#pair")).to_be_visible()
    expect(panes.locator("figcaption")).to_have_count(0)
    assert page.problems == []  # type: ignore[attr-defined]
    page.context.close()


@pytest.mark.slow
def test_back_and_forward_bring_results_back(browser: Browser, server: Server) -> None:
    page = visit(browser, server.url)
    page.get_by_role("button", name="Advanced").click()
    fill_number(page, "Teacher steps", 2)
    found: list[tuple[str, str]] = []
    seed, picture = page.locator("#seed input"), page.locator("#compare .cmp-frame.student img")
    for _ in range(3):
        press_generate(page)
        expect_result(page)
        page.wait_for_function("seed => location.search.includes(`seed=${seed}`)", arg=seed.input_value())
        found.append((seed.input_value(), str(picture.get_attribute("src"))))
    assert len(set(found)) == 3

    def stands(index: int) -> None:
        expect(seed).to_have_value(found[index][0])
        expect(picture).to_have_attribute("src", found[index][1])
        expect(page.locator("#compare .cmp")).not_to_have_attribute("data-stale", "")
        page.wait_for_function("seed => location.search.includes(`seed=${seed}`)", arg=found[index][0])

    page.go_back()
    stands(1)
    page.go_forward()
    stands(2)
    step = "way => new Promise(done => { addEventListener('popstate', done, { once: true }); history[way](); })"
    for pause in (0, 200):  # a second step before the first one's answer, or in the midst of it
        for way, end in (("back", 0), ("forward", 2)):
            page.evaluate(step, way)
            page.wait_for_timeout(pause)
            page.evaluate(step, way)
            stands(end)
    assert page.problems == []  # type: ignore[attr-defined]
    page.context.close()
