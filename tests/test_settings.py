"""The one table of settings: a row added to it is found everywhere a setting has to be.

The package is copied, a row is written into the copy's `request.py`, and nothing else: what the copy then offers is
looked at from outside.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
ROW = """
    sparkle: int = row(
        Whole(1, 9), "Sparkle of the result", "how much it sparkles", 3, teacher=True, place="advanced",
        info="More is brighter.",
    )
"""
LOOK = """
import contextlib, io, json, sys
from pathlib import Path
import gradio as gr
from dataclasses import asdict, replace
from rmd.backbones import catalog
from rmd.engine.session import Session
from rmd.request import completed, make_request, teacher_key
from rmd.serve.api import endpoint
from rmd.serve.offer import Offer
from rmd.serve.runner import Runner, Saved, stored
from rmd.ui.draw.history import pair_table
from rmd.ui.page import build
from rmd.ui.rail import Rail
from rmd.ui.share import Share
import inspect
from rmd.cli import main
tiny, out = Path(sys.argv[1]), Path(sys.argv[2])
def said(*arguments):
    with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.redirect_stderr(text):
        try:
            status = main([*arguments])
        except SystemExit as end:
            status = end.code
    return [status, " ".join(text.getvalue().split())]
help_text = said("generate", "--help")[1]
ask = ["generate", "--prompt", "a fox", "--backbone", str(tiny), "--steps", "1", "--switch", "0", "--out", str(out)]
refused = said(*ask, "--sparkle", "10")
made = said(*ask, "--teacher-steps", "2", "--sparkle", "7")[0]
runner = Runner(Session(), Offer([tiny]), out / "files")
page = build(runner)
function = endpoint(runner)
request = make_request({"backbone": "x", "prompt": "a", "sparkle": 5})
with gr.Blocks():
    share = Share(runner, Rail(runner.offer))
saved = stored(out)
components = {c.label: c for c in page.blocks.values() if getattr(c, "label", None)}
slider = components["Sparkle of the result"]
print(json.dumps({
    "help": "how much it sparkles, 1 to 9" in help_text,
    "refused": refused,
    "made": made,
    "control": [slider.minimum, slider.maximum, slider.value, slider.info],
    "parameter": str(inspect.signature(function).parameters["sparkle"]),
    "documentation": [line.strip() for line in function.__doc__.splitlines() if "sparkle" in line],
    "file": saved.result.request.sparkle,
    "link": share.link_to(gr.Request(headers={"referer": "http://x/"}), saved),
    "key": teacher_key(request)["sparkle"],
    "old files": completed({"prompt": "a"})["sparkle"],
    "history": "Sparkle of the result" in pair_table([{"request": asdict(request)}] * 2),
}))
"""


def run(place: Path, *command: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(place), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *command], cwd=place, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("copy")
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "rmd", place / "rmd", ignore=skip)
    file = place / "rmd" / "request.py"
    before, mark, after = file.read_text(encoding="utf-8").partition("    student: str | None = row(")
    assert mark
    file.write_text(before + ROW + mark + after, encoding="utf-8")
    return place


def test_a_new_row_is_in_command_page_endpoint_links_files_history_and_cache_key(
    copy: Path, tiny_sdxl: Path, tmp_path: Path
) -> None:
    looked = run(copy, "-c", LOOK, str(tiny_sdxl), str(tmp_path))
    assert looked.returncode == 0, looked.stderr
    found: dict[str, Any] = json.loads(looked.stdout.splitlines()[-1])
    assert found.pop("refused") == [2, "sparkle must be a whole number from 1 to 9, not 10."]
    assert found.pop("link").endswith("&sparkle=7")
    assert found == {
        "help": True,
        "made": 0,
        "control": [1, 9, 3, "More is brighter."],
        "parameter": "sparkle: int | None = None",
        "documentation": ["sparkle: How much it sparkles, 1 to 9."],
        "file": 7,
        "key": 5,
        "old files": 3,
        "history": True,
    }
