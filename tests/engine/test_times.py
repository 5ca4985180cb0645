"""Before and after the pictures: warm-up at the request's own sizes, and the student's calls timed again."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageChops

from rmd.checks import Cancelled
from rmd.engine.events import Loading, Progress, Timing, Warming
from rmd.engine.pool import ModelPool
from rmd.engine.results import Done
from rmd.engine.session import Session
from rmd.request import make_request

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def session() -> Session:
    return Session(ModelPool(CPU))


@pytest.fixture
def settings(tiny_sdxl: Path, tiny_student: Path) -> dict[str, Any]:
    return {
        "backbone": str(tiny_sdxl), "student": str(tiny_student), "prompt": "a fox on a blue background",
        "seed": 5, "teacher_steps": 6,
    }  # fmt: skip


def same(a: Image.Image, b: Image.Image) -> bool:
    return ImageChops.difference(a, b).getbbox() is None


def sizes_called(session: Session, settings: dict[str, Any]) -> list[tuple[int, ...]]:
    """Batch and latent size of every network call up to the first step."""
    loaded = session.pool.acquire(settings["backbone"], settings["student"])
    called: list[tuple[int, ...]] = []
    for backbone in (loaded.teacher, loaded.student):
        assert backbone is not None
        backbone.network.register_forward_pre_hook(lambda _, given: called.append(tuple(given[0].shape)))
    for event in session.generate(make_request(settings)):
        if isinstance(event, Progress):
            break
    return called[:-1]


def test_warm_up_takes_the_requests_own_sizes_and_each_once(settings: dict[str, Any]) -> None:
    fresh = Session(ModelPool(CPU))
    odd = {**settings, "size": "96x64", "low": "48x32", "teacher": False}
    assert sizes_called(fresh, odd) == [(1, 4, 4, 6), (1, 4, 8, 12)]
    events = list(fresh.generate(make_request(odd)))
    assert not any(isinstance(event, Warming) for event in events), "known shapes are not computed again"
    other = [
        e for e in fresh.generate(make_request({**odd, "size": "64x64", "low": "32x32"})) if isinstance(e, Warming)
    ]
    assert [(e.index, e.total) for e in other] == [(1, 3), (2, 3), (3, 3)]


def test_warm_up_can_be_stopped(settings: dict[str, Any]) -> None:
    fresh, cancel = Session(ModelPool(CPU)), threading.Event()
    events = fresh.generate(make_request(settings), cancel)
    assert isinstance(next(events), Loading)
    assert any(isinstance(event, Warming) for event in events)
    cancel.set()
    with pytest.raises(Cancelled):
        next(events)


def test_a_long_call_ends_the_warm_up(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rmd.engine.warmup.LONG", 0.0)
    events = list(Session(ModelPool(CPU)).generate(make_request(settings)))
    assert sum(isinstance(event, Warming) for event in events) == 1
    assert isinstance(events[-1], Done)


def test_the_students_calls_are_timed_again_after_the_teacher(session: Session, settings: dict[str, Any]) -> None:
    request = make_request(settings)
    once = list(session.generate(request))[-1]
    assert isinstance(once, Done)
    events = list(session.generate(request, runs=3))
    assert [type(e) for e in events][-3:] == [Timing, Timing, Done]
    last = events[-1]
    assert isinstance(last, Done)
    assert last.student.timings.runs == 3
    assert last.student.timings.fastest is not None
    assert last.student.timings.slowest is not None
    assert last.student.timings.fastest <= last.student.timings.computing <= last.student.timings.slowest
    assert last.teacher is not None
    assert last.teacher.timings.runs == 1
    assert same(last.student.image, once.student.image)


def test_stopping_while_it_is_timed_again_keeps_what_is_finished(session: Session, settings: dict[str, Any]) -> None:
    cancel, events = threading.Event(), []
    for event in session.generate(make_request(settings), cancel, runs=3):
        events.append(event)
        if isinstance(event, Timing):
            cancel.set()
    last = events[-1]
    assert isinstance(last, Done)
    assert last.teacher is not None
    assert last.student.timings.runs == 1
