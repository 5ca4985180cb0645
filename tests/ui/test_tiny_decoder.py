"""The choice of the decoder on the page: only where there is one, and in what is made with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import constants
from playwright.sync_api import Browser, expect

from rmd.backbones import catalog
from tests.backbones.test_decoder import TINY, put_into_cache
from tests.browsing import expect_result, press_generate, visit
from tests.servers import serving
from tests.tiny_flow import SD3_CARD, tiny_sd3


@pytest.mark.slow
def test_the_tiny_decoder_is_a_choice_where_there_is_one(
    browser: Browser, tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "sd3"
    tiny_sd3(False).save_pretrained(folder)
    (folder / "backbone.json").write_text(json.dumps({**SD3_CARD, "name": "With a tiny decoder"}))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    put_into_cache(tmp_path / "hub")
    entry = catalog.Entry("sd3", "SD3", folder, folder / "student", decoder=TINY)
    monkeypatch.setattr(catalog, "ENTRIES", (entry,))
    with serving(tiny_sdxl, tmp_path / "files") as server:
        page = visit(browser, server.url)
        choice = page.get_by_role("radio", name="tiny: fast")
        page.get_by_role("button", name="Advanced").click()
        expect(page.get_by_role("radio", name="bicubic")).to_be_visible()
        expect(choice).to_have_count(0)
        page.get_by_role("combobox", name="Model").click()
        page.get_by_role("option", name="With a tiny decoder").click()
        choice.check()
        press_generate(page)
        expect_result(page)
        expect(page.locator("#speed")).to_contain_text("with the tiny decoder")
        page.get_by_role("button", name="Share, load and save settings").click()
        link = page.locator("#link textarea, #link input").input_value()
        assert "decoder=tiny" in link
        page.context.close()

        page = visit(browser, link)
        page.get_by_role("button", name="Advanced").click()
        expect(page.get_by_role("radio", name="tiny: fast")).to_be_checked()
        page.get_by_role("combobox", name="Model").click()
        page.get_by_role("option", name="Tiny", exact=True).click()
        expect(page.get_by_role("radio", name="tiny: fast")).to_have_count(0)
        press_generate(page)
        expect_result(page)
        expect(page.locator("#speed")).not_to_contain_text("decoder")
        assert page.problems == []  # type: ignore[attr-defined]
        page.context.close()
