"""The teacher's pipeline as a stream of steps: its clock, its errors, its thread."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

from rmd.engine.stopwatch import Stopwatch
from rmd.engine.teacher import TeacherStep, teacher_steps


def watch() -> Stopwatch:
    return Stopwatch(torch.device("cpu"))


def test_the_teachers_seconds_exclude_the_listener() -> None:
    now, timer = [0.0], watch()
    timer.now = lambda: now[0]  # type: ignore[method-assign]
    so_far: list[float] = []

    def run(on_step: Any) -> torch.Tensor:
        for i in range(3):
            now[0] += 1
            on_step(i, torch.zeros(1), 0.0)
        now[0] += 1
        return torch.ones(1)

    steps: list[TeacherStep] = []
    for step in teacher_steps(run, timer):
        steps.append(step)
        so_far.append(timer.seconds)
        now[0] += 100
    assert so_far == [1, 2, 3, 4]
    assert [s.final for s in steps] == [False, False, False, True]


def test_an_error_in_the_teachers_thread_comes_out_here() -> None:
    def run(on_step: Any) -> torch.Tensor:
        on_step(0, torch.zeros(1), 0.0)
        raise ZeroDivisionError("in the pipeline")

    steps = teacher_steps(run, watch())
    next(steps)
    with pytest.raises(ZeroDivisionError, match="in the pipeline"):
        next(steps)


def test_leaving_early_ends_the_thread() -> None:
    finished = threading.Event()

    def run(on_step: Any) -> torch.Tensor:
        try:
            for i in range(1000):
                on_step(i, torch.zeros(1), 0.0)
        finally:
            finished.set()
        return torch.ones(1)

    steps = teacher_steps(run, watch())
    assert next(steps).index == 0
    assert not finished.is_set()
    steps.close()  # type: ignore[attr-defined]
    assert finished.is_set()


def test_the_pipeline_waits_for_the_listener() -> None:
    """The two never compute at once."""
    reached: list[int] = []

    def run(on_step: Any) -> torch.Tensor:
        for i in range(3):
            reached.append(i)
            on_step(i, torch.zeros(1), 0.0)
        return torch.ones(1)

    for expected, step in enumerate(teacher_steps(run, watch())):
        if not step.final:
            threading.Event().wait(0.02)
            assert reached == list(range(expected + 1))
