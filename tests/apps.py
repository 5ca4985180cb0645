"""The real app as a server of its own, on a tiny model with random weights."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.browsing import CHROMIUM, FLAGS, visit
from tests.tiny_flow import WAN_CARD, tiny_wan

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def app_url(tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The app's address. It offers a tiny model, one damaged, one whose folder is gone, and one that makes clips."""
    place = tmp_path_factory.mktemp("app")
    folders = {name: shutil.copytree(tiny_sdxl, place / name) for name in ("tiny", "damaged", "gone")}
    weights = next((folders["damaged"] / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:2000])
    folders["clips"] = place / "clips"
    tiny_wan().save_pretrained(folders["clips"])
    (folders["clips"] / "backbone.json").write_text(json.dumps(WAN_CARD))
    command = [sys.executable, "app.py", "--port", "0"]
    for folder in folders.values():
        command += ["--backbone", str(folder)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "GRADIO_TEMP_DIR": str(place / "files"), "PYTHONUNBUFFERED": "1"}
    with (place / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT)
    try:
        url = address_of(server, place / "log")
        shutil.rmtree(folders["gone"])
        yield url
    finally:
        server.terminate()
        server.wait(20)
    before, found, after = (place / "log").read_text().partition("Traceback")
    assert not found, f"the app's own log holds a traceback:\n{before[-1000:]}{found}{after[:6000]}"


def address_of(server: subprocess.Popen[bytes], log: Path) -> str:
    """Where the app listens, as it says itself once it does."""
    end = time.monotonic() + 400
    while time.monotonic() < end and server.poll() is None:
        if said := re.search(r"http://127\.0\.0\.1:\d+", log.read_text()):
            urllib.request.urlopen(said[0])
            return said[0]
        time.sleep(0.3)
    raise RuntimeError(f"the app did not start:\n{log.read_text()}")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium is installed (apt install chromium)")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser, app_url: str) -> Iterator[Page]:
    page = visit(browser, app_url)
    yield page
    assert page.problems == []  # type: ignore[attr-defined]
    page.context.close()
