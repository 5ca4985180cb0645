"""Clips on the page: a video backbone's two sides play, stop and scrub as one."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from rmd.engine.files import read_settings
from tests.browsing import expect_result, photograph, press_generate, visit
from tests.tiny_flow import WAN_CARD

LOADED = "[...document.querySelectorAll('#compare video')].every(v => v.readyState >= 2 && !v.seeking)"
THERE = "[...document.querySelectorAll('#compare video')].every(v => v.videoWidth > 0)"
"""While they play they seek all the time."""
TIMES = "videos => videos.map(v => v.currentTime)"


def choose_clips(page: Page) -> None:
    page.get_by_label("Model", exact=True).click()
    page.get_by_role("option", name=WAN_CARD["name"], exact=True).click()


def made(page: Page) -> None:
    """A finished comparison of two clips on the stage."""
    choose_clips(page)
    page.locator("#prompt textarea").fill("a fox bouncing on a blue background")
    press_generate(page)
    expect_result(page)
    page.wait_for_function(THERE)
    inside = "videos => videos.every(v => v.getBoundingClientRect().y == v.parentElement.getBoundingClientRect().y)"
    assert page.locator("#compare video").evaluate_all(inside)


def scrub_to(page: Page, frame: int) -> list[float]:
    page.get_by_role("slider", name="Frame").fill(str(frame))
    page.wait_for_function(LOADED)
    return page.locator("#compare video").evaluate_all(TIMES)


def test_both_clips_move_as_one(page: Page) -> None:
    made(page)
    sizes = page.locator("#compare video").evaluate_all("videos => videos.map(v => [v.videoWidth, v.videoHeight])")
    assert page.locator("#schedule svg").count() == 1
    assert sizes == [[WAN_CARD["high"][1], WAN_CARD["high"][0]]] * 2
    transport = page.get_by_role("group", name="Playback of both clips")
    expect(transport).to_be_visible()
    seen: set[Any] = set()
    for _ in range(200):  # it plays by itself
        seen.add(transport.locator("output").inner_text())
        if len(seen) > 2:
            break
        page.wait_for_timeout(30)
    assert len(seen) > 2
    frame = 5
    first, second = scrub_to(page, frame)
    assert first == second == pytest.approx((frame + 0.5) / WAN_CARD["fps"], abs=1e-3)
    expect(transport.get_by_role("button", name="Play")).to_be_visible()  # scrubbing stops it
    page.locator("#compare .cmp-view").focus()
    page.keyboard.press(".")
    expect(transport.locator("output")).to_have_text(f"{frame + 2} / {WAN_CARD['frames']}")
    photograph(page, "clips")
    page.keyboard.press(" ")
    expect(transport.get_by_role("button", name="Pause")).to_be_visible()


@pytest.mark.slow
def test_the_frame_on_the_stage_is_saved_as_a_picture(page: Page) -> None:
    made(page)
    scrub_to(page, 3)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save frame").click()
    assert download.value.suggested_filename == "frame-4-student-teacher.png"
    sheet = Image.open(download.value.path())
    assert sheet.size == (2 * WAN_CARD["high"][1], WAN_CARD["high"][0])
    left, right = (sheet.crop((x, 0, x + sheet.width // 2, sheet.height)).tobytes() for x in (0, sheet.width // 2))
    assert left != right


def test_a_clip_is_saved_with_its_settings_and_brings_them_back(page: Page) -> None:
    made(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save the student's").click()
    path = download.value.path().with_suffix(".mp4")
    download.value.save_as(path)
    assert read_settings(path)["request"]["prompt"] == "a fox bouncing on a blue background"
    page.locator("#prompt textarea").fill("something else")
    page.get_by_role("button", name="Share, load").click()
    page.locator("input[type=file]").set_input_files(path)
    expect(page.locator("#prompt textarea")).to_have_value("a fox bouncing on a blue background")


@pytest.mark.slow
def test_a_link_opens_with_a_mapping_that_only_clips_have(browser: Browser, app_url: str) -> None:
    page = visit(browser, f"{app_url}/?backbone=clips&mapping=shift&prompt=a+fox&teacher_steps=2")
    page.get_by_role("button", name="Advanced").click()
    mappings = page.locator("#advanced fieldset").filter(has_text="Time mapping").get_by_role("radio")
    expect(mappings.and_(page.get_by_label("shift", exact=True))).to_be_checked()
    press_generate(page)
    expect_result(page)
    page.get_by_label("Model", exact=True).click()
    page.get_by_role("option").first.click()
    expect(mappings).to_have_count(2)
    expect(mappings.and_(page.get_by_label("logsnr", exact=True))).to_be_checked()
    assert page.problems == []  # type: ignore[attr-defined]
    page.context.close()


@pytest.mark.slow
def test_pictures_come_back_after_clips(page: Page) -> None:
    made(page)
    page.get_by_label("Model", exact=True).click()
    page.get_by_role("option").first.click()
    press_generate(page)
    page.wait_for_function("[...document.querySelectorAll('#compare img')].every(i => i.naturalWidth == 64)")
    expect_result(page)
    expect(page.get_by_role("group", name="Playback of both clips")).to_be_hidden()


@pytest.mark.slow
def test_clips_on_a_phone(browser: Browser, app_url: str) -> None:
    page = visit(browser, app_url, 390, 844, dark=True)
    made(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    photograph(page, "clips-phone")
    assert page.problems == []  # type: ignore[attr-defined]
    page.context.close()
