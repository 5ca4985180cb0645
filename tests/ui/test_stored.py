"""What was measured before: stored examples and the plans of the quality-and-speed map bring their settings."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from rmd.serve.runner import Saved, stored
from rmd.ui.tabs.examples import FOLDER
from tests.browsing import fill_number, photograph, press_generate, visit
from tests.servers import Server, SlowSession, serving, wait_until

EXAMPLES = [saved for place in sorted(FOLDER.glob("*")) if (saved := stored(place))]
"""As they are shipped, in the order of their buttons."""


@pytest.fixture(scope="module")
def server(tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Its first model is the tiny one: examples and plans, which are of bundled models, have to change that as well."""
    place = tmp_path_factory.mktemp("stored")
    session = SlowSession()
    session.pause = 0.2
    with serving(shutil.copytree(tiny_sdxl, place / "tiny"), place / "files", session) as server:
        yield server


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    page = visit(browser, server.url)
    page.get_by_role("button", name="Advanced").click()
    fill_number(page, "Steps", 1)  # the switch has to come back from the limit that this sets
    expect_settings(page, steps=1, switch=1)
    yield page
    assert page.problems == []  # type: ignore[attr-defined]
    page.context.close()


def expect_settings(page: Page, **values: Any) -> None:
    labels = {"steps": "Steps", "switch": "Low-resolution steps", "eta": "Noise kept between steps (η)"}
    for name, value in values.items():
        if name == "reinjection":
            expect(page.get_by_role("radio", name=f"{value}:")).to_be_checked()
        else:
            box = page.get_by_label(f"number input for {labels[name]}", exact=True)
            expect(box).to_have_value(f"{value:g}")


def expect_model(page: Page, server: Server, backbone: str) -> str:
    """The model that is chosen on the page; returns its name."""
    name = server.runner.offer.outline(backbone).spec.name
    expect(page.get_by_label("Model", exact=True)).to_have_value(name)
    return name


def expect_example(page: Page, server: Server, saved: Saved) -> None:
    """The stored files themselves on the stage, labelled as what they are, and their settings in the rail."""
    request: dict[str, Any] = asdict(saved.result.request)
    expect(page.get_by_label("What should it draw?")).to_have_value(request["prompt"])
    expect(page.get_by_label("Seed", exact=True)).to_have_value(str(request["seed"]))
    expect(page.get_by_label("New seed each time")).not_to_be_checked()
    expect_settings(page, **{name: request[name] for name in ("steps", "switch", "eta", "reinjection")})
    name, hardware = expect_model(page, server, request["backbone"]), saved.result.hardware
    expect(page.locator("#status")).to_contain_text(f"A stored example of {name}, made earlier on {hardware}.")
    expect(page.locator("#speed")).to_contain_text(f"Stored, not measured now: made on {hardware}")
    for role in ("student", "teacher"):
        source = page.locator(f"#compare .cmp-frame.{role} :is(img, video)[src]").get_attribute("src")
        assert source
        assert page.request.get(source).body() == saved.files[role].read_bytes()


@pytest.mark.parametrize("index", [0, len(EXAMPLES) - 1], ids=["picture", "clip"])
def test_an_example_brings_its_pictures_and_its_settings(page: Page, server: Server, index: int) -> None:
    seen = server.seen
    page.locator("#examples button").nth(index).click()
    expect_example(page, server, EXAMPLES[index])
    drawing = page.locator("#schedule svg[role=img]")
    expect(drawing).to_have_attribute("aria-label", words(asdict(EXAMPLES[index].result.request)))
    assert server.seen == seen  # nothing was computed for it


def words(plan: dict[str, Any]) -> str:
    """How the schedule picture describes a plan with steps of both sizes."""
    return f"{plan['switch']} at low resolution, then {plan['steps'] - plan['switch']} at full resolution"


@pytest.mark.slow
def test_an_example_does_not_wait_for_the_accelerator(browser: Browser, server: Server, page: Page) -> None:
    other = visit(browser, f"{server.url}/?backbone=tiny&prompt=a+fox&teacher_steps=100")
    expect(other.get_by_label("What should it draw?")).to_have_value("a fox")
    press_generate(other)
    expect(other.locator("#status")).to_contain_text("Teacher: step")
    page.locator("#examples button").last.click()
    expect_example(page, server, EXAMPLES[-1])
    assert server.health()["running"] == 1
    other.context.close()
    wait_until(lambda: server.health()["running"] == 0)


def dots(page: Page) -> Locator:
    return page.locator("#maps .map button[data-model='emoji-sdxl']")


def expect_plan(page: Page, server: Server, steps: int, switch: int) -> None:
    """In the rail, with the noise it was measured with, and the stage in sight."""
    expect(page.get_by_role("tab", name="Compare")).to_have_attribute("aria-selected", "true")
    expect_model(page, server, "emoji-sdxl")
    card = server.runner.offer.outline("emoji-sdxl").card
    assert card
    expect_settings(page, steps=steps, switch=switch, reinjection=card.reinjection, eta=card.eta)


def test_a_dot_of_the_map_brings_its_plan(page: Page, server: Server) -> None:
    """By keyboard, as dots may lie on one another."""
    for steps, switch in [(8, 6), (4, 1), (3, 2)]:
        page.get_by_role("tab", name="Models").click()
        dots(page).and_(page.locator(f"[data-steps='{steps}'][data-switch='{switch}']")).press("Enter")
        expect_plan(page, server, steps, switch)
        label = words({"steps": steps, "switch": switch})
        expect(page.locator("#schedule svg[role=img]")).to_have_attribute("aria-label", label)


FREE = """dots => {
  dots[0].scrollIntoView({ block: "center" });
  return dots.findIndex((dot) => {
    const box = dot.getBoundingClientRect();
    return dot.contains(document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2));
  });
}"""
"""The first dot that no other lies on."""


def test_a_dot_says_what_it_is_and_can_be_clicked(page: Page, server: Server) -> None:
    page.get_by_role("tab", name="Models").click()
    dot = dots(page).nth(dots(page).evaluate_all(FREE))
    label = dot.locator("b")
    dot.hover()
    expect(label).to_have_css("opacity", "1")
    photograph(page, "map")
    steps, switch = (int(part) for part in label.inner_text().split("/"))
    dot.click()
    expect_plan(page, server, steps, switch)
