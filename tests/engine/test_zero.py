"""Computing in a forked process that is lent for one call, as ZeroGPU does it."""

from __future__ import annotations

import math
import multiprocessing
import os
import pickle
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from rmd.checks import Cancelled, RequestError
from rmd.engine.events import Loading, Progress
from rmd.engine.pool import ModelPool
from rmd.engine.results import Done
from rmd.engine.session import Session
from rmd.engine.zero import OVERHEAD, LentSession, present
from rmd.request import GenerateRequest, make_request

FORK = multiprocessing.get_context("fork")


class Lender:
    """`spaces.GPU` in small: the task runs in a fork, and arguments and yields travel pickled through pipes."""

    def __init__(self) -> None:
        self.durations: list[int] = []
        self.processes: list[Any] = []

    def __call__(self, duration: Callable[..., int]) -> Callable[..., Any]:
        def decorate(task: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
            def lent(*arguments: Any) -> Iterator[Any]:
                self.durations.append(duration(*arguments))
                here, there = FORK.Pipe()
                process = FORK.Process(target=work, args=(task, pickle.dumps(arguments), here, there), daemon=True)
                self.processes.append(process)
                process.start()
                there.close()
                try:
                    while True:
                        try:
                            yield pickle.loads(here.recv_bytes())
                        except EOFError:
                            return
                finally:
                    here.close()
                    process.join(60)

            return lent

        return decorate


def work(task: Callable[..., Iterator[Any]], arguments: bytes, reading: Any, out: Any) -> None:
    reading.close()  # or this process would keep the pipe open for itself
    events = task(*pickle.loads(arguments))
    try:
        for event in events:
            out.send_bytes(pickle.dumps(event))
    except BrokenPipeError:
        events.close()  # type: ignore[attr-defined]
    finally:
        out.close()
        os._exit(0)


@pytest.fixture
def request_(tiny_sdxl: Path) -> GenerateRequest:
    return make_request({"backbone": str(tiny_sdxl), "prompt": "a fox", "seed": 3, "teacher_steps": 3})


def final(events: Iterator[Any]) -> Done:
    return next(event for event in events if isinstance(event, Done))


def test_a_lent_call_gives_the_same_pictures(request_: GenerateRequest) -> None:
    usual = Session()
    expected = final(usual.generate(request_))  # this process has a computing thread now, which no fork has
    lender = Lender()
    session = LentSession(lender, gr.Error)
    events = list(session.generate(request_))
    assert isinstance(events[0], Loading)
    done = final(iter(events))
    assert done.student.image.tobytes() == expected.student.image.tobytes()
    assert done.teacher is not None
    assert expected.teacher is not None
    assert done.teacher.image.tobytes() == expected.teacher.image.tobytes()
    assert not any(isinstance(event, Loading) for event in session.generate(request_)), "loaded once, here"
    assert lender.durations[0] > OVERHEAD


def test_more_work_asks_for_more_time_and_measuring_makes_it_honest(request_: GenerateRequest) -> None:
    session = LentSession(Lender(), gr.Error)
    done = final(session.generate(request_))
    session._pace[request_.backbone] = 0.5
    asked = [session.seconds(make_request({**vars(request_), **more})) for more in ({"teacher": False}, {})]
    assert asked == [math.ceil(OVERHEAD + 1.5 * 0.5 * (4 + 2)), OVERHEAD + 1.5 * 0.5 * (4 + 6 + 2)]
    session._learn(done)
    assert session._pace[request_.backbone] == 0.5, "the slowest run counts"


def test_stopping_ends_the_fork(request_: GenerateRequest) -> None:
    lender, cancel = Lender(), threading.Event()
    session = LentSession(lender, gr.Error)
    events = session.generate(make_request({**vars(request_), "teacher_steps": 100}), cancel)
    while not isinstance(event := next(events), Progress) or event.role != "teacher":
        pass
    cancel.set()
    with pytest.raises(Cancelled):
        next(events)
    lender.processes[0].join(60)
    assert not lender.processes[0].is_alive()
    assert final(session.generate(request_)).teacher is not None, "the next one is served"


def test_a_sentence_survives_the_fork(tiny_sdxl: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_sdxl, tmp_path / "tiny")
    session = LentSession(Lender(), gr.Error)
    request = make_request({"backbone": str(folder), "prompt": "a fox", "mapping": "shift"})
    with pytest.raises(RequestError, match="mapping 'shift' needs a backbone with timestep shifts"):
        list(session.generate(request))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (gr.Error("You have exceeded your free ZeroGPU quota (60s requested vs. 10s left). Try again in 1:00:00. ",
                  title="ZeroGPU quota exceeded"), r"used up for now \(You have exceeded .* Try again in 1:00:00\)"),
        (gr.Error("The requested GPU duration (900s) is larger than the maximum allowed",
                  title="ZeroGPU illegal duration"), "needs about [0-9]+ seconds of GPU, more than ZeroGPU lends"),
        (gr.Error("No GPU was available after 60s", title="ZeroGPU queue timeout"), "No GPU was free within a minute"),
        (gr.Error("GPU task aborted", title="ZeroGPU worker error"), "ZeroGPU ended the run"),
        (gr.Error("Expired ZeroGPU proxy token", title="ZeroGPU client error"), "Expired ZeroGPU proxy token"),
    ],
    ids=lambda value: value.title if isinstance(value, gr.Error) else "",
)  # fmt: skip
def test_zerogpus_failures_are_sentences(request_: GenerateRequest, error: gr.Error, words: str) -> None:
    def failing(**_: Any) -> Callable[..., Any]:
        def lent(*_: Any) -> Iterator[Any]:
            raise error
            yield

        return lambda task: lent

    session = LentSession(failing, gr.Error)
    with pytest.raises(RequestError, match=words) as caught:
        list(session.generate(request_))
    assert str(caught.value).endswith(".")
    assert session._lock.acquire(blocking=False), "the lock is free"


def test_the_real_decorator_changes_nothing_outside_zerogpu(request_: GenerateRequest) -> None:
    spaces = pytest.importorskip("spaces", reason="pip install spaces")
    assert not present()
    expected = final(Session().generate(request_))
    done = final(LentSession(spaces.GPU, gr.Error, ModelPool()).generate(request_))
    assert done.student.image.tobytes() == expected.student.image.tobytes()
