"""Many at once, many in a row, and a process that is killed while it writes."""

from __future__ import annotations

import gc
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from gradio_client import Client
from PIL import Image

from rmd.engine.session import Session
from rmd.serve import runner as files
from tests.servers import Server, serving

ROOT = Path(__file__).resolve().parents[2]
STUDENT = {"prompt": "a fox", "teacher": False, "steps": 2}
pytestmark = pytest.mark.slow


class CountingSession(Session):
    """The engine, and how many were inside it at once."""

    inside = most = 0

    def generate(self, *args: Any, **more: Any) -> Iterator[Any]:
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            yield from super().generate(*args, **more)
        finally:
            self.inside -= 1


@pytest.fixture
def named(tiny_sdxl: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_sdxl, tmp_path / "tiny")


def files_in(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def answered(server: Server, start: threading.Barrier) -> str:
    start.wait()
    try:
        return server.words({**STUDENT, "teacher": True, "teacher_steps": 10})
    except urllib.error.HTTPError as error:
        return f"refused with {error.code}: {json.load(error)['detail']}"


def test_fifty_clients_at_once(named: Path, tmp_path: Path) -> None:
    session, start = CountingSession(), threading.Barrier(50)
    with serving(named, tmp_path / "files", session) as server:
        server.words(STUDENT)
        with ThreadPoolExecutor(50) as clients:
            answers = list(clients.map(lambda _: answered(server, start), range(50)))
        drawn = [words for words in answers if "event: complete" in words]
        refused = [words for words in answers if words.startswith("refused with 503: Queue is full")]
        assert len(drawn) + len(refused) == 50, set(answers) - {*drawn, *refused}
        assert len(drawn) >= 24, "the queue holds 24"
        assert session.most == 1
        assert server.health() == {"ok": True, "model": "tiny", "running": 0, "queued": 0}
        assert "event: complete" in server.words(STUDENT)


def test_two_hundred_in_a_row_leave_nothing_behind(
    named: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "KEEP_BYTES", 300_000)
    process, memory = psutil.Process(), []
    with serving(named, tmp_path / "files") as server:
        threads = 0
        stored = files_in(tmp_path / "files")  # copies of the example on the stage
        # one visitor: every new one brings a session of its own, of which the server keeps 200
        client = Client(server.url, download_files=False, verbose=False)
        for i in range(200):
            client.predict(**{**STUDENT, "teacher": i % 4 == 0, "teacher_steps": 2}, api_name="/generate")
            if i % 10 == 9:
                gc.collect()
                memory.append(process.memory_info().rss)
                threads = threads or threading.active_count()
        grown = max(memory[-5:]) - max(memory[:5])
        assert grown < max(0.02 * memory[4], 8e6), [round(rss / 1e6, 1) for rss in memory]
        assert threading.active_count() <= threads + 5
        kept = files_in(server.runner.folder)
        assert sum(path.stat().st_size for path in kept) < 400_000
        assert all(path.suffix == ".png" for path in kept)
        assert files_in(tmp_path / "files") == kept | stored
        assert server.health()["queued"] == 0
        assert len(server.page._queue.event_ids_to_events) == 0


WRITER = """
import sys
from pathlib import Path
from PIL import Image
from rmd.results import save_png
picture = Image.effect_noise((512, 512), 90)
print("ready", flush=True)
for i in range(10**6):
    save_png(picture, Path(sys.argv[1]) / f"{i % 5}.png", {"i": i})
"""


def test_killed_while_writing_leaves_no_half_file(tmp_path: Path) -> None:
    for _ in range(12):
        command = [sys.executable, "-c", WRITER, str(tmp_path)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, env={**os.environ}) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            time.sleep(random.uniform(0.05, 0.6))
            writer.send_signal(signal.SIGKILL)
        for path in tmp_path.glob("[0-9].png"):
            with Image.open(path) as picture:
                picture.load()
                assert json.loads(picture.info["rmd"])["i"] % 5 == int(path.stem)
    assert list(tmp_path.glob("[0-9].png"))
