"""A fleet of two replicas on this machine: the same results as one session's, two at once, and what goes wrong."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from gradio_client import Client
from gradio_client.exceptions import AppError
from gradio_client.utils import QueueError, Status
from PIL import ImageChops

from app import parse
from rmd.backbones import catalog
from rmd.backbones.outline import read_outline
from rmd.checks import Cancelled, RequestError
from rmd.engine.events import Event, Loading, Progress
from rmd.engine.fleet import GONE, Fleet, bounds_of
from rmd.engine.pool import ModelPool
from rmd.engine.replica import Replica, Setup
from rmd.engine.results import Done
from rmd.engine.session import Session
from rmd.engine.spread import fleet_at, spread
from rmd.request import GenerateRequest
from rmd.study.evidence.rows import Row
from rmd.study.evidence.study import Study
from rmd.study.sweep import points, sweep
from tests.servers import serving

LONG = 50
"""Teacher steps of a run that is to be met in its middle."""


@pytest.fixture(scope="module")
def named(tiny_sdxl: Path) -> Iterator[str]:
    """The tiny model by an id that replicas have to be told."""
    entry = catalog.register(tiny_sdxl)
    yield entry.id
    del catalog.REGISTERED[entry.id]


@pytest.fixture(scope="module", autouse=True)
def as_replicas_compute() -> Iterator[None]:
    """In what this machine is fast in (see tests/conftest.py), with as many threads as each of two replicas has: sums
    are rounded by how they are shared out."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cpu, "get_capabilities", torch._C._cpu._get_cpu_capability)  # type: ignore[attr-defined]
        torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def fleet(named: str) -> Iterator[Fleet]:
    with fleet_at("local:2") as found:
        yield found


def asked(named: str, **more: object) -> GenerateRequest:
    values = {"backbone": named, "prompt": "a fox", "seed": 5, "teacher_steps": 2, **more}
    return read_outline(catalog.find(named)).request(values)


def last(events: Iterator[Event]) -> Done:
    *_, done = events
    assert isinstance(done, Done)
    return done


def replicas() -> list[psutil.Process]:
    """The processes of this fleet's replicas."""
    return [one for one in psutil.Process().children(recursive=True) if "ServeReplica" in " ".join(one.cmdline())]


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def test_a_replica_makes_what_a_session_makes(fleet: Fleet, named: str) -> None:
    request = asked(named)
    there, here = list(fleet.generate(request)), list(Session(ModelPool(torch.device("cpu"))).generate(request))
    kinds = [[type(event) for event in events if not isinstance(event, Loading)] for events in (there, here)]
    assert kinds[0] == kinds[1], "loading apart, the same events come in the same order"
    one, other = last(iter(there)), last(iter(here))
    for role in ("student", "teacher"):
        assert ImageChops.difference(one.outputs[role].image, other.outputs[role].image).getbbox() is None
    assert one.student.latents is not None
    torch.testing.assert_close(one.student.latents, other.student.latents)
    assert one.result.request == other.result.request
    assert "CPU thread" in one.result.hardware, "the hardware is the replica's"
    frames, x0 = fleet.sample([request, replace(request, seed=6)], "student")
    assert len(frames) == 2
    torch.testing.assert_close(x0[:1], other.student.latents, atol=0.05, rtol=0.05)  # a batch is summed otherwise


def test_two_run_at_once_and_not_three(fleet: Fleet, named: str) -> None:
    assert fleet.places == 2
    slow, other = fleet.generate(asked(named, teacher_steps=LONG)), fleet.generate(asked(named, teacher_steps=LONG))
    assert not fleet.busy
    for events in (slow, other):
        while not isinstance(next(events), Progress):
            pass
    assert fleet.busy
    slow.close()
    other.close()
    assert not fleet.busy


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "cancelled"])
def test_a_run_that_is_stopped_frees_its_replica(fleet: Fleet, named: str, closed: bool) -> None:
    cancels = [threading.Event() for _ in range(2)]
    runs = [fleet.generate(asked(named, teacher_steps=100), cancel) for cancel in cancels]
    for run, cancel in zip(runs, cancels, strict=True):
        while not (isinstance(event := next(run), Progress) and event.role == "teacher"):
            pass
        if closed:
            run.close()
            continue
        cancel.set()
        with pytest.raises(Cancelled):
            list(run)
    with ThreadPoolExecutor(2) as pool:  # which both replicas are needed for, and neither is still at the long ones
        left = [pool.submit(last, fleet.generate(asked(named, teacher=False))) for _ in range(2)]
        assert all(future.result(timeout=30).teacher is None for future in left)


def test_what_a_request_is_refused_with_is_a_sentence(fleet: Fleet, named: str, tmp_path: Path) -> None:
    bad = replace(asked(named), student=str(tmp_path / "nothing"))
    with pytest.raises(RequestError, match="nothing"):
        list(fleet.generate(bad))
    with pytest.raises(RequestError, match="nothing") as refused:
        fleet.sample([bad], "student")
    assert "\n" not in str(refused.value), "a sentence, without where it was raised"
    assert last(fleet.generate(asked(named, teacher=False))).student


def test_a_sweep_over_a_fleet_is_the_same(fleet: Fleet, named: str) -> None:
    request, wanted = asked(named), points([(2, 0), (2, 1), (2, 2), (1, 0), (1, 1)], ["mix"], [1.0])
    spread_out = {cell.point: cell for cell in sweep(fleet.generate, request, wanted, True, fleet.places)}
    alone = {cell.point: cell for cell in sweep(Session(ModelPool(torch.device("cpu"))).generate, request, wanted)}
    assert set(spread_out) == set(alone) == set(wanted)
    assert sum(cell.done is not None and cell.done.teacher is not None for cell in spread_out.values()) == 1
    for point in wanted:
        one, other = spread_out[point].image, alone[point].image
        assert one is not None
        assert other is not None
        assert ImageChops.difference(one, other).getbbox() is None


def test_a_study_over_a_fleet_makes_the_same_samples(fleet: Fleet, named: str, tmp_path: Path) -> None:
    session, outline = Session(ModelPool(torch.device("cpu"))), read_outline(catalog.find(named))
    rows = [Row("few", "student", {"steps": 2, "switch": 1}), Row("many", "teacher", {"teacher_steps": 2})]
    folders: list[dict[str, bytes]] = []
    for engine in (session, fleet):
        study = Study(session, engine, outline, ["a fox", "a lion"], 2, tmp_path / type(engine).__name__, batch=1)
        study.make(rows)
        folders.append({f"{p.parent.name}/{p.name}": p.read_bytes() for p in study.folder.rglob("*.png")})
    assert len(folders[0]) == 8
    assert folders[0] == folders[1]


def test_state_tells_how_many_run(fleet: Fleet) -> None:
    until(lambda: fleet.state() == {"replicas": 2, "places": 2})


@pytest.mark.slow
def test_the_page_takes_as_many_at_once_and_stops_one_alone(fleet: Fleet, tiny_sdxl: Path, tmp_path: Path) -> None:
    ask = {"prompt": "a fox", "seed": 1, "backbone": None, "teacher_steps": 100, "count": 4}
    with serving(tiny_sdxl, tmp_path, fleet) as server:
        assert server.health()["places"] == 2
        clients = [Client(server.url, verbose=False) for _ in range(3)]
        jobs = [client.submit(**ask, api_name="/generate") for client in clients]
        until(lambda: (found := server.health())["running"] == 2 and found["queued"] == 1 and fleet.busy)
        first = next(job for job in jobs if job.status().code != Status.IN_QUEUE)
        first.cancel()
        clients[jobs.index(first)].close()
        results = [job.result(timeout=60) for job in jobs if job is not first]
        assert [result[2]["request"]["teacher_steps"] for result in results] == [100, 100]
        until(lambda: server.health()["running"] == 0)


@pytest.mark.slow
def test_fifty_clients_at_once_are_answered_or_told_why(fleet: Fleet, tiny_sdxl: Path, tmp_path: Path) -> None:
    def one(seed: int) -> str:
        try:
            given = {"prompt": "a fox", "seed": seed, "teacher": False}
            result = Client(server.url, verbose=False).predict(**given, api_name="/generate")
            return "answered" if result[2]["request"]["seed"] == seed else "another's"
        except (AppError, QueueError) as error:
            return str(error)

    with serving(tiny_sdxl, tmp_path, fleet) as server, ThreadPoolExecutor(50) as pool:
        said = Counter(pool.map(one, range(50)))
        assert said["answered"] >= 24
        assert "another's" not in said
        assert not any("Traceback" in words for words in said)
        assert server.health() | {"replicas": 2} == {"ok": True, "replicas": 2, "places": 2, "running": 0, "queued": 0}


@pytest.mark.slow
def test_killed_replicas_end_their_runs_with_a_sentence_and_come_back(fleet: Fleet, named: str) -> None:
    run = fleet.generate(asked(named, teacher_steps=100))
    while not isinstance(next(run), Progress):
        pass
    for process in replicas():
        process.send_signal(signal.SIGKILL)
    with pytest.raises(RequestError, match=GONE):
        list(run)
    assert last(fleet.generate(asked(named, teacher=False))).student, "the next one waits for a new replica"
    until(lambda: fleet.state()["replicas"] == 2)


@pytest.mark.slow
def test_a_restart_loses_nothing(fleet: Fleet, named: str) -> None:
    before = {process.pid for process in replicas()}
    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(last, fleet.generate(asked(named, seed=i, teacher_steps=LONG))) for i in range(8)]
        until(lambda: any(future.done() for future in asking))
        fleet.restart()
        assert {future.result(timeout=120).request.seed for future in asking} == set(range(8))
    until(lambda: len(replicas()) == 2)
    assert before.isdisjoint({process.pid for process in replicas()})


def test_a_replica_whose_accelerator_failed_says_so(monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    """What Serve asks every few seconds; it replaces a replica that answers with an exception."""
    failing: list[Exception] = [RequestError("no such thing"), torch.AcceleratorError("device-side assert")]

    def generate(*arguments: object) -> Iterator[Event]:
        yield Loading(named)
        raise failing.pop(0)

    async def nothing(self: Replica) -> None:
        pass

    async def all_of(replica: Replica) -> list[object]:
        return [event async for event in replica.generate(asked(named), 1)]

    replica = Replica(Setup())
    monkeypatch.setattr(replica.session, "generate", generate)
    monkeypatch.setattr(Replica, "_chosen", nothing)
    events = asyncio.run(all_of(replica))
    assert isinstance(events[-1], RequestError), "a refusal is part of the stream"
    replica.check_health()
    with pytest.raises(torch.AcceleratorError):
        asyncio.run(all_of(replica))
    with pytest.raises(torch.AcceleratorError, match="device-side assert"):
        replica.check_health()


@pytest.mark.parametrize("text", ["0", "2-1", "x", "-", "2000", "1-", "1.5"])
def test_bounds_that_cannot_be_are_a_sentence(text: str) -> None:
    if text == "1-":
        assert bounds_of(text, "--replicas").most == 1
        return
    with pytest.raises(RequestError, match="--replicas must be a number of replicas from 1 to 1024"):
        bounds_of(text, "--replicas")


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("local:none", "--fleet must be a number of replicas"),
        ("local:1000", "1000 replicas need as many .*, but there are"),
        ("127.0.0.1:1", "no Ray cluster answers at '127.0.0.1:1'"),
    ],
)
def test_a_fleet_that_cannot_be_is_refused_at_once(place: str, words: str) -> None:
    with pytest.raises(RequestError, match=words), fleet_at(place):
        pass


def test_the_app_takes_replicas_with_a_fleet_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(["--fleet", "local", "--replicas", "1-2"]).replicas == "1-2"
    with pytest.raises(SystemExit):
        parse(["--replicas", "2"])
    assert "--replicas goes with --fleet" in capsys.readouterr().err


def test_work_is_spread_without_running_ahead() -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        return item * item

    results = spread(work, range(100), 3)
    first = [next(results) for _ in range(3)]
    assert all(found == item * item for item, found in first)
    assert len(begun) <= 7, "no more than what was asked for, and three that run"
    results.close()  # type: ignore[attr-defined]
    assert len(begun) <= 7
    assert sorted(spread(work, range(20), 3)) == [(i, i * i) for i in range(20)]

    def fails(item: int) -> int:
        raise ValueError(item)

    with pytest.raises(ValueError, match="0"):
        list(spread(fails, [0], 2))
