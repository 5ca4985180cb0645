"""The running server: limits, health, leaving, deadlines, sign-in, files and the command line."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

import app
from rmd.engine.session import Session
from rmd.request import offered
from rmd.serve import runner as files
from rmd.serve.offer import Offer
from rmd.serve.runner import Runner
from rmd.serve.server import RATE, Options
from tests.servers import Server, SlowSession, serving, wait_until

STUDENT = {"prompt": "a fox", "teacher": False}


@pytest.fixture(scope="module")
def named(tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(tiny_sdxl, tmp_path_factory.mktemp("serving") / "tiny")


@pytest.fixture(scope="module")
def slow(named: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Pictures take seconds here, and six of them are everybody's whole allowance for an hour."""
    folder = tmp_path_factory.mktemp("slow")
    with serving(named, folder, SlowSession(), rate_limit=0.01, proxies=1) as server:
        yield server


def client(number: int) -> dict[str, str]:
    """Headers of one of many clients, as the proxy in front writes them."""
    return {"X-Forwarded-For": f"6.6.6.6, 198.51.100.{number}"}


def test_health_needs_no_model_and_says_which_is_there(slow: Server) -> None:
    assert slow.health() == {"ok": True, "model": None, "running": 0, "queued": 0}
    slow.words(STUDENT, **client(1))
    assert slow.health()["model"] == "tiny"


def test_who_asks_too_often_is_told_how_long_to_wait(slow: Server) -> None:
    answers = [slow.words({**STUDENT, "steps": 0}, **client(2)) for _ in range(12)]
    assert sum("steps must be" in words for words in answers) == 10
    assert re.search(r"asked for many pictures in a short time; please wait \d{4} seconds", answers[-1])
    assert "event: complete" in slow.words(STUDENT, **client(3)), "others are served"
    python = Client(slow.url, headers=client(2), verbose=False)
    with pytest.raises(AppError, match=r"please wait \d{4} seconds"):
        python.predict(prompt="a fox", api_name="/generate")


def test_a_run_ends_when_its_api_client_is_gone(slow: Server) -> None:
    seen, stored = slow.seen, len(list(slow.runner.folder.iterdir()))
    answer = slow.ask({"prompt": "a fox", "teacher_steps": 100}, **client(4))
    wait_until(lambda: slow.seen > seen + 10)
    answer.close()
    wait_until(lambda: slow.health()["running"] == 0)
    assert slow.seen < seen + 100
    assert len(list(slow.runner.folder.iterdir())) == stored


def test_a_run_past_its_deadline_is_a_sentence(slow: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow.runner, "deadline", 1.0)
    words = slow.words({"prompt": "a fox", "teacher_steps": 100}, **client(5))
    assert "took longer than 1 seconds and was stopped" in words


def test_while_one_runs_the_others_are_counted(slow: Server) -> None:
    answers = [slow.ask({**STUDENT, "steps": 8}, **client(6)) for _ in range(3)]
    assert slow.health()["running"] <= 1
    assert slow.health()["queued"] >= 1
    assert all("event: complete" in answer.read().decode() for answer in answers)
    assert slow.health()["queued"] == 0


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("call/nothing", {"data": []}, 400),
        ("call/v2/nothing", {}, 400),
        ("call/v2/generate", {"prompt": "a fox", "colour": "red"}, 400),
        ("queue/join", {"data": [], "fn_index": 10**6, "session_hash": "x"}, 400),
        ("run/generate", {"data": ["a fox"]}, 404),  # there is no way past the queue
    ],
)
def test_what_is_not_understood_is_a_sentence(slow: Server, path: str, body: object, status: int) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        slow.post(path, body)
    assert caught.value.code == status
    assert json.load(caught.value)["detail"].endswith(".")


def test_the_stream_of_a_session_that_is_gone_ends(slow: Server, caplog: pytest.LogCaptureFixture) -> None:
    with urllib.request.urlopen(f"{slow.url}/gradio_api/queue/data?session_hash=gone") as stream:
        event = json.loads(stream.read().removeprefix(b"data: "))  # to its end: a broken one raises
    assert event["session_not_found"]
    assert [record for record in caplog.records if record.exc_info] == []


def test_too_few_values_are_a_sentence(slow: Server) -> None:
    event = slow.post("call/generate", {"data": ["a fox"]})["event_id"]
    with urllib.request.urlopen(f"{slow.url}/gradio_api/call/generate/{event}") as answer:
        words = answer.read().decode()
    assert f"generate takes {len(offered())} values" in words
    assert "object at 0x" not in words


@pytest.mark.parametrize("path", ["/monitoring", "/gradio_api/runs"])
def test_pages_nobody_asked_for_are_off(slow: Server, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(slow.url + path)


def test_with_a_password_only_health_is_open(named: Path, tmp_path: Path) -> None:
    with serving(named, tmp_path, auth=("ann", "secret")) as server:
        assert server.health()["ok"]
        with pytest.raises(urllib.error.HTTPError) as caught:
            server.post("call/v2/generate", STUDENT)
        assert caught.value.code == 401
        signed_in = Client(server.url, auth=("ann", "secret"), verbose=False, download_files=str(tmp_path / "down"))
        assert signed_in.predict(**STUDENT, api_name="/generate")[2]["request"]["prompt"] == "a fox"


def test_old_files_and_too_many_of_them_go(named: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = Runner(Session(), Offer([named]), tmp_path)
    now = time.time()
    for name, age, size in (("old", files.KEEP + 60, 1), ("second", 50, 600), ("first", 10, 600), ("third", 90, 1)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(b"x" * size)
        os.utime(tmp_path / name, (now - age, now - age))
    runner.prune()
    assert {folder.name for folder in tmp_path.iterdir()} == {"first", "second", "third"}
    monkeypatch.setattr(files, "KEEP_BYTES", 1000)
    runner.prune()
    assert {folder.name for folder in tmp_path.iterdir()} == {"first"}


def test_the_limit_is_for_servers_that_others_reach() -> None:
    assert Options().allowance == 0
    assert Options(share=True).allowance == RATE
    assert Options(host="0.0.0.0").allowance == RATE
    assert Options(host="0.0.0.0", rate_limit=0).allowance == 0
    assert Options(rate_limit=3).allowance == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--auth", "ann"], "--auth must look like NAME:PASSWORD"),
        (["--port", "x"], "--port must be a number from 0 to 65535, not 'x'"),
        (["--port", "80.5"], "--port must be a number"),
        (["--rate-limit", "nan"], "--rate-limit must be a number from 0 to 10000"),
        (["--proxies", "-1"], "--proxies must be a number from 0 to 9"),
        (["--deadline", "0"], "--deadline must be a number from 1 to 86400"),
    ],
)
def test_bad_options_end_with_a_sentence(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        app.parse(arguments)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_a_hosted_copy_is_set_up_by_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"GRADIO_SERVER_NAME": "0.0.0.0", "RMD_AUTH": "a:b:c", "RMD_RATE_LIMIT": "5"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RMD_PROXIES", "1")
    args = app.parse([])
    assert (args.host, args.port, args.auth, args.rate_limit, args.proxies) == ("0.0.0.0", 7860, "a:b:c", 5, 1)
