"""Whatever is sent to the API: a picture or a sentence, never a crash, a traceback or a file elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.servers import Server, serving, wait_until

PATHS = [
    "/etc/passwd",
    "../../../etc/passwd",
    "C:\\boot.ini",
    "file:///etc/passwd",
    "~/.ssh/id_rsa",
    "/dev/zero",
    "a/\0b",
]
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, -(10**30), 2**32, 0, -1, 9, 101]),
    st.floats(),  # NaN and infinities too; Python writes and reads them as JSON
    st.text(max_size=40),
    st.sampled_from([*PATHS, "x" * 100_000, "\ud800", "e\u0301", "<script>alert(1)</script>", "{prompt}", "%s%n"]),
    st.recursive(st.none() | st.text(max_size=3), lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(), x)),
    st.builds(lambda path: {"path": path, "meta": {"_type": "gradio.FileData"}}, st.sampled_from(PATHS)),
    st.builds(lambda url: {"url": url, "path": url}, st.sampled_from(["http://127.0.0.1:9/x", "http://[::1]"])),
)
GOOD = {
    "prompt": st.text(min_size=1, max_size=20),
    "backbone": st.just("tiny"),
    "steps": st.integers(1, 8),
    "switch": st.integers(0, 2),
    "seed": st.integers(0, 2**32 - 1),
    "teacher": st.just(False),  # a teacher takes its time; junk may still ask for one
    "teacher_steps": st.integers(2, 4),
    "guidance": st.floats(1, 20),
    "negative": st.text(max_size=20),
    "reinjection": st.sampled_from(["band", "mix", "fresh", "block"]),
    "eta": st.floats(0, 1),
    "mapping": st.just("logsnr"),
    "upsampler": st.sampled_from(["bilinear", "bicubic", "nearest"]),
    "decoder": st.just("full"),
}
ORDER = list(GOOD)
VALUES = st.fixed_dictionaries({name: st.one_of(good, good, JUNK) for name, good in GOOD.items()})
EXTRA = st.dictionaries(
    st.text(max_size=8) | st.sampled_from(["student", "__class__", "session_hash"]), JUNK, max_size=1
)
BODIES = st.one_of(
    st.tuples(st.just("call/v2/generate"), st.builds(lambda a, b: {**b, **a}, VALUES, EXTRA)),
    st.tuples(st.just("call/v2/generate"), st.dictionaries(st.sampled_from(ORDER), JUNK, max_size=4)),
    st.tuples(st.just("call/generate"), st.builds(lambda v: {"data": [v[name] for name in ORDER]}, VALUES)),
    st.tuples(st.just("call/generate"), st.builds(lambda v: {"data": v}, st.lists(JUNK, max_size=16) | JUNK)),
    st.tuples(st.sampled_from(["call/generate", "run/generate", "call/../x", "call/v2/stop", "cancel"]), JUNK),
)

written: list[str] | None = None
"""Paths opened for writing and paths of PATHS opened at all, while a fuzz test runs."""


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    if written is None or event not in ("open", "os.mkdir", "os.rename", "os.remove"):
        return
    if isinstance(arguments[0], int):  # a descriptor that was opened before
        return
    path, changes = str(arguments[0]), True
    if event == "open":
        mode, flags = arguments[1], arguments[2]
        changes = bool(set("wax+") & set(mode or "")) or bool((flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    if changes or any(bad in path for bad in PATHS[:5]):
        written.append(path)


sys.addaudithook(watch)


@pytest.fixture(scope="module")
def server(tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("fuzz")
    with serving(shutil.copytree(tiny_sdxl, place / "tiny"), place / "output") as server:
        server.words({"prompt": "a fox", "teacher": False})  # everything that is loaded once is loaded
        yield server


def send(server: Server, path: str, body: Any) -> tuple[int, str]:
    """Status and text of the answer, the event stream's where one was opened."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    call = urllib.request.Request(f"{server.url}/gradio_api/{path}", data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(call) as answer:
            event = json.load(answer).get("event_id")
        if not event:
            return 200, ""
        with urllib.request.urlopen(f"{server.url}/gradio_api/call/generate/{event}") as answer:
            return 200, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def attack(server: Server, examples: int) -> None:
    """Send that many requests and look at every answer."""
    global written
    home = str(server.runner.folder.parent)

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(BODIES)
    def one(request: tuple[str, Any]) -> None:
        status, answer = send(server, *request)
        assert status in (200, 400, 404, 405, 413, 422, 503), (status, answer)
        assert "Traceback" not in answer
        assert "object at 0x" not in answer
        if "event: complete" not in answer:  # a result names its files by their whole path, as Gradio does
            assert home not in answer
            assert "site-packages" not in answer
        if "event: error" in answer:
            reason = json.loads(answer.partition("data: ")[2])["error"]
            assert reason, "an empty reason"
            assert reason.endswith("."), reason

    written = []
    try:
        one()
        wait_until(lambda: server.health()["running"] == 0)
        expected = (home, "/dev/null", "/proc/", str(Path.cwd() / ".hypothesis"))
        outside = [path for path in written if not path.startswith(expected)]
    finally:
        written = None
    assert outside == []
    assert server.health()["ok"]
    assert "event: complete" in server.words({"prompt": "a fox", "teacher": False})
    assert not list(server.runner.folder.rglob(".rmd-*"))


def test_sixty_odd_requests(server: Server) -> None:
    attack(server, 60)


@pytest.mark.slow
def test_two_thousand_odd_requests(server: Server) -> None:
    attack(server, 2000)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"prompt": 1e999999}', b'{"prompt": "a"' * 9]
)
def test_what_is_no_json_is_refused(server: Server, body: bytes) -> None:
    status, answer = send(server, "call/v2/generate", body)
    assert status in (400, 422) or "prompt must be text" in answer
    assert "Traceback" not in answer


@pytest.mark.parametrize(
    "path", ["file=/etc/passwd", "file=../../etc/passwd", "file=app.py", "proxy=http://127.0.0.1:9/", "upload_progress"]
)
def test_no_file_of_the_server_is_given_out(server: Server, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{server.url}/gradio_api/{path}")
    assert caught.value.code in (400, 403, 404, 422)
