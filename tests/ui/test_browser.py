"""The page as a person meets it, in the system's chromium."""

from __future__ import annotations

import io
import re
import zipfile

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.browsing import PATIENCE, expect_result, fill_number, photograph, picture_sizes, press_generate, visit


def test_one_click_gives_two_pictures_and_a_speedup(page: Page) -> None:
    press_generate(page)
    expect_result(page)
    page.wait_for_function("[...document.querySelectorAll('.cmp-frame img')].every(i => i.naturalWidth == 64)")
    assert picture_sizes(page) == [64, 64]
    expect(page.locator("#speed")).to_contain_text("not distilled")
    expect(page.locator("#speed")).to_contain_text("warm-up")
    expect(page.locator("#bars svg")).to_be_visible()
    photograph(page, "wide-light")
    expect(page.get_by_role("button", name="Stop", exact=True)).to_be_disabled()


def test_nothing_is_fetched_from_other_hosts(page: Page, app_url: str) -> None:
    press_generate(page)
    expect_result(page)
    assert page.hosts == {app_url.split("/")[2]}  # type: ignore[attr-defined]


def test_a_download_holds_the_settings(page: Page) -> None:
    press_generate(page)
    expect_result(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save the student's result").click()
    name = download.value.suggested_filename
    assert re.fullmatch(r"a-fox-on-a-blue-background-\d+-student\.png", name)
    assert b"rmd" in download.value.path().read_bytes()


STOP_IN_THE_MIDDLE = """() => {
  const status = document.querySelector("#status"), stop = document.querySelector("#stop");
  const watch = new MutationObserver(() => {
    if (status.textContent.includes("Teacher: step")) { watch.disconnect(); stop.click(); }
  });
  watch.observe(status, { childList: true, subtree: true, characterData: true });
}"""
"""Presses Stop at the teacher's first steps: the tiny model would be ready before a hand gets there."""


def test_stop_ends_a_run_and_the_next_one_works(page: Page, app_url: str) -> None:
    page.goto(app_url + "/?backbone=tiny&size=128x128&low=64x64&teacher_steps=100")  # long enough to be stopped
    page.get_by_role("button", name="Advanced").click()
    expect(page.get_by_label("number input for Teacher steps", exact=True)).to_have_value("100")
    page.evaluate(STOP_IN_THE_MIDDLE)
    press_generate(page)
    expect(page.locator("#status")).to_contain_text("Stopped")
    fill_number(page, "Teacher steps", 2)
    press_generate(page)
    expect_result(page)


def test_measure_again_times_the_same_comparison_once_more(page: Page) -> None:
    press_generate(page)
    expect_result(page)
    done = re.compile("Done, seed [0-9]+[.]").search(page.locator("#status").inner_text())
    first = page.locator(".cmp-frame img").first.get_attribute("src")
    assert done
    expect(page.locator("#speed")).to_contain_text("the student 3 times, the median counts")
    page.get_by_role("button", name="Measure again").click()
    page.wait_for_function(
        "first => ![null, '', first].includes(document.querySelector('.cmp-frame img').getAttribute('src'))", arg=first
    )
    expect_result(page)
    expect(page.locator("#status")).to_contain_text(done[0])


def test_bad_input_is_a_sentence(page: Page) -> None:
    page.get_by_label("What should it draw?").fill("  ")
    press_generate(page)
    expect(page.get_by_test_id("toast-body")).to_contain_text("prompt is empty")
    expect(page.get_by_role("button", name="Stop", exact=True)).to_be_disabled()


def test_suggestions_fill_the_prompt_and_unknown_words_are_mentioned(page: Page) -> None:
    prompt = page.get_by_label("What should it draw?")
    page.locator("#suggestions").get_by_role("button", name="a star").first.click()
    expect(prompt).to_have_value("a star on a blue background")
    prompt.fill("a zeppelin on a blue background")
    expect(page.locator("#note")).to_contain_text("zeppelin")
    prompt.fill("a fox on a blue background")
    expect(page.locator("#note")).not_to_contain_text("zeppelin")


def test_the_switch_stays_within_the_steps_and_the_schedule_follows(page: Page) -> None:
    drawing = page.locator("#schedule svg[role=img]")
    expect(drawing).to_have_attribute("aria-label", "2 at low resolution, then 2 at full resolution")
    fill_number(page, "Steps", 1)
    expect(page.get_by_label("number input for Low-resolution steps")).to_have_value("1")
    expect(drawing).to_have_attribute("aria-label", "1 step at low resolution, then the result is enlarged")


def test_the_slider_listens_to_the_keyboard(page: Page) -> None:
    press_generate(page)
    expect_result(page)
    page.get_by_role("radio", name="Slider").click()
    handle = page.get_by_role("slider", name="Dividing line")
    handle.focus()
    for key, place in (("ArrowRight", "52"), ("Shift+ArrowLeft", "42"), ("Home", "0"), ("End", "100")):
        handle.press(key)
        expect(handle).to_have_attribute("aria-valuenow", place)
    handle.press("4")
    expect(page.get_by_role("radio", name="Difference")).to_be_checked()


@pytest.mark.parametrize("dark", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["light", "dark"])
def test_a_phone_shows_everything_without_sideways_scrolling(browser: Browser, app_url: str, dark: bool) -> None:
    page = visit(browser, app_url, 390, 844, dark)
    order = [page.locator(name) for name in ("#generate", "#compare", "#settings")]
    tops = [place.bounding_box()["y"] for place in order]  # type: ignore[index]
    assert tops == sorted(tops)
    assert tops[0] < 844  # Generate is on the first screen
    press_generate(page)
    expect_result(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    photograph(page, f"phone-{'dark' if dark else 'light'}")
    page.context.close()


def test_live_mode_follows_the_switch_and_keeps_the_teacher(page: Page) -> None:
    press_generate(page)
    expect_result(page)
    teacher = page.locator(".cmp-frame.teacher img").get_attribute("src")
    expect(page.get_by_label("Live: redraw")).to_be_checked()  # it goes on by itself where a picture takes no second
    fill_number(page, "Low-resolution steps", 3)
    expect(page.locator(".cmp-caption.student .sub")).to_contain_text("3 + 1 steps")
    assert page.locator(".cmp-frame.teacher img").get_attribute("src") == teacher
    expect(page.locator("#speed")).to_contain_text("from your last full run")


def test_a_sweep_fills_its_grid_and_a_cell_goes_to_the_stage(page: Page) -> None:
    press_generate(page)
    expect_result(page)
    page.get_by_role("tab", name="Sweep").click()
    expect(page.locator("#sweep-status")).to_contain_text("10 pictures and the teacher, about")
    page.locator("#sweep-start").click()
    expect(page.locator("#sweep-status")).to_contain_text("10 of 10 pictures.")
    expect(page.locator("table.sweep img")).to_have_count(10)
    expect(page.get_by_role("button", name="Timings (CSV)")).to_be_enabled()
    photograph(page, "sweep")
    with page.expect_download() as download:
        page.get_by_role("button", name="Everything (ZIP)").click()
    assert len(zipfile.ZipFile(download.value.path()).namelist()) == 13
    page.get_by_title("4 steps, 1 at low resolution").click()
    expect(page.locator(".cmp-caption.student .sub")).to_contain_text("1 + 3 steps")
    expect(page.get_by_label("number input for Low-resolution steps")).to_have_value("1")


def test_history_link_and_file_bring_the_settings_back(page: Page, app_url: str) -> None:
    page.get_by_label("What should it draw?").fill("a star on a blue background")
    fill_number(page, "Steps", 3)
    press_generate(page)
    expect_result(page)
    page.get_by_role("button", name="Share, load").click()
    expect(page.locator("#link textarea, #link input")).to_have_value(re.compile(r"prompt=a\+star.*steps=3"))
    link = page.locator("#link textarea, #link input").input_value()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save the student's result").click()
    file = download.value.path()

    page.goto(app_url)  # the same visitor again
    page.get_by_role("tab", name="History").click()
    page.locator(".history button.open").first.click()
    expect(page.get_by_label("What should it draw?")).to_have_value("a star on a blue background")
    expect(page.locator(".cmp-caption.student .sub").first).to_contain_text("2 + 1 steps")
    expect(page.locator("#speed")).to_contain_text("Measured here on")

    page.goto(link)
    expect(page.get_by_label("number input for Steps", exact=True)).to_have_value("3")
    expect(page.get_by_label("What should it draw?")).to_have_value("a star on a blue background")

    page.goto(app_url)
    page.get_by_role("button", name="Share, load").click()
    page.locator("input[type=file]").set_input_files(
        {"name": "x.png", "mimeType": "image/png", "buffer": file.read_bytes()}
    )
    expect(page.get_by_label("number input for Steps", exact=True)).to_have_value("3")


def test_a_bad_link_is_answered_with_a_sentence(browser: Browser, app_url: str) -> None:
    page = visit(browser, f"{app_url}?steps=99&prompt=x")
    expect(page.get_by_test_id("toast-body")).to_contain_text(
        "steps must be a whole number from 1 to 8", timeout=PATIENCE
    )
    page.context.close()


def test_a_picture_without_settings_is_answered_with_a_sentence(page: Page) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, format="PNG")
    page.get_by_role("button", name="Share, load").click()
    page.locator("input[type=file]").set_input_files(
        {"name": "x.png", "mimeType": "image/png", "buffer": buffer.getvalue()}
    )
    expect(page.get_by_test_id("toast-body")).to_contain_text("holds no settings")


def test_the_models_tab_says_what_cannot_be_used(page: Page) -> None:
    page.get_by_role("tab", name="Models").click()
    expect(page.locator("#models")).to_contain_text("usable")
    expect(page.locator("#models")).to_contain_text("2 things")
    photograph(page, "models")


@pytest.mark.parametrize("dark", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["light", "dark"])
def test_every_width_in_both_looks(browser: Browser, app_url: str, dark: bool) -> None:
    page = visit(browser, app_url, 1440, 900, dark)
    press_generate(page)
    expect_result(page)
    frame = page.locator("#compare .cmp-frame.student")
    for width, height in ((1920, 1080), (1440, 900), (820, 1180), (390, 844)):
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_function("width => innerWidth === width", arg=width)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        share = frame.bounding_box()["width"] / width  # type: ignore[index]
        assert share > (0.4 if width <= 820 else 0.25), f"a picture takes {share:.0%} of {width} px"
        photograph(page, f"{width}-{'dark' if dark else 'light'}")
    page.context.close()
