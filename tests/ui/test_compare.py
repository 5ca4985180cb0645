"""The compare view by mouse, keyboard and touch: the same pictures, zoom and place on both sides."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageStat
from playwright.sync_api import Browser, Page, expect

from tests.browsing import expect_result, fill_number, photograph, press_generate, visit

FRAMES = "#compare .cmp-frame img"


@pytest.fixture(scope="module")
def drawn(browser: Browser, app_url: str) -> Iterator[Page]:
    """A page with a finished comparison, on a touch screen; the tests leave it unzoomed."""
    page = visit(browser, app_url, has_touch=True)
    press_generate(page)
    expect_result(page)
    yield page
    assert page.problems == []  # type: ignore[attr-defined]
    page.context.close()


def choose(page: Page, mode: str) -> None:
    page.get_by_role("radio", name=mode).click()
    expect(page.locator("#compare .cmp")).to_have_attribute("data-mode", mode.split()[0].lower())


def places(page: Page) -> list[str]:
    """How each of the two pictures is moved and enlarged."""
    return page.locator(FRAMES).evaluate_all("images => images.map(i => getComputedStyle(i).transform)")


def place(page: Page) -> tuple[float, float, float]:
    """(zoom, x, y) of both, which must be the same."""
    left, right = places(page)
    assert left == right
    numbers = [float(part) for part in left.removeprefix("matrix(").removesuffix(")").split(",")]
    return numbers[0], numbers[4], numbers[5]


def test_full_screen_by_button_and_by_key(drawn: Page) -> None:
    button = drawn.get_by_role("button", name="Full screen")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    assert drawn.evaluate("document.fullscreenElement.matches('#compare .cmp')")
    box = drawn.locator("#compare .cmp-frame").nth(1).bounding_box()
    assert box
    drawn.mouse.move(box["x"] + 10, box["y"] + 10)
    drawn.mouse.wheel(0, -100)  # here the wheel alone zooms
    expect(drawn.locator("#compare .cmp-zoom output")).to_have_text("120%")
    drawn.locator("#compare .cmp-view").press("f")
    expect(button).to_have_attribute("aria-pressed", "false")
    expect(drawn.locator("#compare .cmp-zoom output")).to_have_text("100%")


def test_on_a_phone_the_pictures_stay_in_sight(browser: Browser, app_url: str) -> None:
    page = visit(browser, app_url, 390, 844, has_touch=True)
    press_generate(page)
    expect_result(page)
    stage, picture = page.locator("#compare .cmp"), page.locator("#compare .cmp-frame.student")
    page.get_by_text("New seed each time").scroll_into_view_if_needed()
    page.evaluate("document.querySelector('#settings').scrollIntoView()")
    expect(stage).to_have_attribute("data-pinned", "")
    box = picture.bounding_box()
    assert box
    assert 0 <= box["y"] < 20
    assert 120 < box["height"] < 844 / 3
    photograph(page, "phone-pinned")
    height = page.evaluate("document.documentElement.scrollHeight")
    page.evaluate("window.scrollTo(0, 0)")
    expect(stage).not_to_have_attribute("data-pinned", "")
    assert page.evaluate("document.documentElement.scrollHeight") == height, "nothing jumps"
    page.context.close()


def test_zoom_and_place_stay_in_step_by_keyboard(drawn: Page) -> None:
    choose(drawn, "Side by side")
    view = drawn.locator("#compare .cmp-view")
    view.focus()
    for key in ("+", "+", "ArrowRight", "ArrowDown"):
        view.press(key)
    assert place(drawn) == (2.25, -40, -40)
    for _ in range(30):
        view.press("ArrowLeft")
    zoom, x, _ = place(drawn)
    width = drawn.locator("#compare .cmp-frame").first.bounding_box()["width"]  # type: ignore[index]
    assert x == pytest.approx(width * (zoom - 1) / 2, abs=0.5)  # the picture's edge: never beyond it
    expect(drawn.locator("#compare .cmp-zoom output")).to_have_text("225%")
    view.press("0")
    assert place(drawn) == (1, 0, 0)


def test_the_mouse_drags_and_the_wheel_enlarges_where_it_points(drawn: Page) -> None:
    choose(drawn, "Side by side")
    frame = drawn.locator("#compare .cmp-frame").nth(1)
    frame.scroll_into_view_if_needed()
    box = frame.bounding_box()
    assert box
    corner = box["x"] + box["width"] / 4, box["y"] + box["height"] / 4
    drawn.mouse.move(*corner)
    drawn.keyboard.down("Control")
    drawn.mouse.wheel(0, -100)
    drawn.keyboard.up("Control")
    drawn.wait_for_function("document.querySelector('#compare .cmp').hasAttribute('data-zoomed')")
    zoom, x, y = place(drawn)
    assert zoom == pytest.approx(1.2)
    assert x == pytest.approx(0.2 * box["width"] / 4, abs=1)  # what is under the pointer stays there
    drawn.mouse.down()
    drawn.mouse.move(corner[0] - 10, corner[1] - 5)
    drawn.mouse.up()
    assert place(drawn)[1:] == pytest.approx((x - 10, y - 5), abs=0.5)
    drawn.locator("#compare .cmp-view").press("0")


def test_two_fingers_enlarge_and_one_moves(drawn: Page) -> None:
    choose(drawn, "Side by side")
    frame = drawn.locator("#compare .cmp-frame").first
    frame.scroll_into_view_if_needed()
    box = frame.bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    touch(drawn, [[(x - 30, y), (x + 30, y)], [(x - 60, y), (x + 60, y)]])
    zoom, *before = place(drawn)
    assert zoom == pytest.approx(2, abs=0.1)
    assert before == pytest.approx([0, 0], abs=4)  # the fingers' moves arrive one by one
    touch(drawn, [[(x, y)], [(x + 20, y + 10)]])
    assert place(drawn) == pytest.approx((zoom, before[0] + 20, before[1] + 10), abs=0.5)
    drawn.locator("#compare .cmp-view").press("0")


def test_a_finger_moves_the_line(drawn: Page) -> None:
    choose(drawn, "Slider")
    view = drawn.locator("#compare .cmp-view")
    view.scroll_into_view_if_needed()
    box = view.bounding_box()
    assert box
    y = box["y"] + box["height"] / 3
    touch(drawn, [[(box["x"] + box["width"] / 2, y)], [(box["x"] + box["width"] / 4, y)]])
    handle = drawn.get_by_role("slider", name="Dividing line: Student left, Teacher right")
    expect(handle).to_have_attribute("aria-valuenow", "25")
    shown = drawn.locator("#compare .cmp-frame.teacher").evaluate("e => getComputedStyle(e).clipPath")
    assert "25%" in shown


def test_flicker_can_be_stopped_and_flipped_by_hand(drawn: Page) -> None:
    choose(drawn, "Flicker")
    root, now = drawn.locator("#compare .cmp"), drawn.locator("#compare .cmp-now")
    drawn.wait_for_function("document.querySelector('#compare .cmp').dataset.shown === 'teacher'")  # it plays by itself
    drawn.get_by_role("button", name="Pause").click()
    before = root.get_attribute("data-shown")
    drawn.wait_for_timeout(1500)
    assert root.get_attribute("data-shown") == before
    drawn.locator("#compare .cmp-view").press(" ")
    assert root.get_attribute("data-shown") != before
    expect(now).to_have_text((root.get_attribute("data-shown") or "").capitalize())
    drawn.locator("#compare .cmp-view").tap()
    assert root.get_attribute("data-shown") == before
    drawn.get_by_role("button", name="Play").click()
    drawn.wait_for_function(f"document.querySelector('#compare .cmp').dataset.shown !== '{before}'")


def test_the_difference_is_the_difference(drawn: Page) -> None:
    """Two known pictures in place of the tiny model's, which are nearly black."""
    choose(drawn, "Difference")
    ramp = Image.linear_gradient("L").resize((64, 64))
    files = [Image.merge("RGB", (ramp, ramp, ramp.rotate(90))), Image.new("RGB", (64, 64), (128, 100, 140))]
    known = [data_address(file) for file in files]
    swap = "(images, known) => images.map((image, i) => [image.src, (image.src = known[i])][0])"
    before = drawn.locator(FRAMES).evaluate_all(swap, known)
    drawn.locator(FRAMES).evaluate_all("images => Promise.all(images.map(image => image.decode()))")
    picture = drawn.locator("#compare .cmp-view").screenshot()
    drawn.locator(FRAMES).evaluate_all(swap, before)
    seen = Image.open(io.BytesIO(picture)).convert("RGB").resize((32, 32), Image.Resampling.BOX)
    wanted = ImageChops.difference(*files).point(lambda v: min(255, 4 * v)).resize((32, 32), Image.Resampling.BOX)
    off = ImageStat.Stat(ImageChops.difference(seen, wanted)).mean
    assert max(off) < 6, off  # of 255: enlarging smooths, and corners are rounded
    assert min(ImageStat.Stat(wanted).stddev) > 40


def data_address(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def test_two_pictures_of_the_history_are_compared(page: Page) -> None:
    page.get_by_role("button", name="Advanced").click()
    page.get_by_label("Run the teacher as well").uncheck()
    for steps in (4, 2):
        fill_number(page, "Steps", steps)
        press_generate(page)
        expect(page.locator("#speed")).to_contain_text("without a teacher")
        words = "2 + 2 steps" if steps == 4 else "2 steps"
        expect(page.locator("#compare .cmp-caption.student .sub")).to_contain_text(words)
    page.get_by_role("tab", name="History").click()
    marks = page.locator(".history .mark")
    expect(marks).to_have_count(2)
    marks.nth(0).press("Enter")
    expect(page.locator("#history [role=status]")).to_contain_text("mark another")
    expect(marks.nth(0)).to_have_attribute("aria-pressed", "true")
    marks.nth(1).press("Enter")
    expect(page.locator("#pair-table tr.differs").filter(has_text="Steps")).to_contain_text("24")
    captions = page.locator("#pair .cmp-caption")
    expect(captions.nth(0)).to_contain_text("Picture A 2 steps, 2 low")
    expect(captions.nth(1)).to_contain_text("Picture B 4 steps, 2 low")
    page.wait_for_function("[...document.querySelectorAll('#pair .cmp-frame img')].every(i => i.naturalWidth == 64)")
    for mode in ("Slider", "Flicker", "Difference", "Side by side"):
        page.locator("#pair").get_by_role("radio", name=mode).click()
        expect(page.locator("#pair .cmp")).to_have_attribute("data-mode", mode.split()[0].lower())
    photograph(page, "history-compared")


def touch(page: Page, moves: list[list[tuple[float, float]]]) -> None:
    """Fingers go down, move and leave; each entry of `moves` holds the place of every finger."""
    session = page.context.new_cdp_session(page)

    def send(kind: str, points: list[tuple[float, float]]) -> None:
        fingers: list[dict[str, Any]] = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})

    send("touchStart", moves[0])
    for before, after in pairwise(moves):
        for share in (0.2, 0.4, 0.6, 0.8, 1):
            pairs = zip(before, after, strict=True)
            send("touchMove", [(a + (c - a) * share, b + (d - b) * share) for (a, b), (c, d) in pairs])
    send("touchEnd", [])
    session.detach()
