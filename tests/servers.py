"""The real app in this very process, on the tiny model: for tests that look inside or need their own options."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from rmd.engine.base import Engine
from rmd.engine.session import Session
from rmd.serve.offer import Offer
from rmd.serve.runner import Runner
from rmd.serve.server import Options, launch
from rmd.ui import style
from rmd.ui.page import build


class SlowSession(Session):
    """The engine with a pause after each event, so that a run can be caught in its middle on any machine."""

    draws_ahead = False
    pause = 0.05
    seen = 0

    def generate(self, *args: Any, **more: Any) -> Iterator[Any]:
        for event in super().generate(*args, **more):
            self.seen += 1
            yield event
            time.sleep(self.pause)


@dataclass
class Server:
    url: str
    page: gr.Blocks
    runner: Runner

    @property
    def seen(self) -> int:
        """Events that a SlowSession has given so far."""
        assert isinstance(self.runner.session, SlowSession)
        return self.runner.session.seen

    def health(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/health") as answer:
            return json.load(answer)

    def post(self, path: str, body: Any, **headers: str) -> Any:
        data = json.dumps(body).encode()
        call = urllib.request.Request(
            f"{self.url}/gradio_api/{path}", data, {"Content-Type": "application/json", **headers}
        )
        with urllib.request.urlopen(call) as answer:
            return json.load(answer)

    def ask(self, settings: dict[str, Any], **headers: str) -> Any:
        """The open event stream of a request by names, as curl would send it."""
        event = self.post("call/v2/generate", settings, **headers)["event_id"]
        return urllib.request.urlopen(f"{self.url}/gradio_api/call/generate/{event}")

    def words(self, settings: dict[str, Any], **headers: str) -> str:
        """The whole answer as text."""
        with self.ask(settings, **headers) as answer:
            return answer.read().decode()


@contextmanager
def serving(
    tiny: Path | None,
    folder: Path,
    session: Engine | None = None,
    deadline: float = 600.0,
    downloads: bool = False,
    **options: Any,
) -> Iterator[Server]:
    """The app on a free port until the block ends. tiny: a model before the bundled ones. folder: for all its files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        runner = Runner(session or Session(), Offer([tiny] if tiny else []), folder / "rmd", deadline)
        page = build(runner, downloads)
        chosen = replace(Options(port=None), **options)
        _, url, _ = launch(page, runner, chosen, prevent_thread_lock=True, quiet=True, **style.look())
        try:
            yield Server(url.rstrip("/"), page, runner)
        finally:
            page.close()


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
