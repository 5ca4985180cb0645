"""The history is the browser's: two tabs keep one, a reload keeps it, nonsense in it harms nobody."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.browsing import expect_result, fill_number, press_generate


def another_tab(page: Page, url: str) -> Page:
    """A second tab of the same browser."""
    other = page.context.new_page()
    other.goto(url)
    other.get_by_role("button", name="Generate", exact=True).wait_for()
    other.locator(".cmp[data-mode]").wait_for()
    return other


def draw(page: Page, prompt: str) -> None:
    page.get_by_label("What should it draw?").fill(prompt)
    page.get_by_role("button", name="Advanced").click()
    fill_number(page, "Teacher steps", 2)
    press_generate(page)
    expect_result(page)


def prompts(page: Page) -> list[str]:
    return page.locator(".history article b").all_inner_texts()


@pytest.mark.slow
def test_two_tabs_keep_one_history(page: Page, app_url: str) -> None:
    other = another_tab(page, app_url)
    draw(page, "a fox")
    draw(other, "a star")
    page.get_by_role("tab", name="History").click()
    expect(page.locator(".history article")).to_have_count(2)
    assert prompts(page) == ["a star", "a fox"], "the newest first, whichever tab it is of"
    page.get_by_role("tab", name="Compare").click()
    press_generate(page)
    expect_result(page)
    page.get_by_role("tab", name="History").click()
    expect(page.locator(".history article")).to_have_count(3)
    other.get_by_role("tab", name="History").click()
    expect(other.locator(".history article")).to_have_count(3)
    press_generate(page)  # while the other one looks at its list
    expect(other.locator(".history article")).to_have_count(4)
    other.reload()
    other.get_by_role("tab", name="History").click()
    expect(other.locator(".history article")).to_have_count(4)


def test_what_stands_in_the_store_may_be_anything(page: Page, app_url: str) -> None:
    for stored in ("no JSON", '"text"', "[1, null, {}]", '{"a": 1}'):
        page.evaluate("value => localStorage.setItem('rmd-history', value)", stored)
        page.reload()
        page.get_by_role("tab", name="History").click()
        expect(page.locator("#history")).to_be_visible()
    draw(page, "a fox")
    page.get_by_role("tab", name="History").click()
    assert "a fox" in prompts(page)
