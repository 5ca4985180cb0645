"""The teacher's pipeline call as a stream of steps, although diffusers only offers a callback.

The pipeline runs in a thread of its own; its callback hands over each latent and waits until the listener comes back,
so the two never compute at once and what the listener does is not in the measured time.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rmd.engine.stopwatch import Stopwatch


@dataclass(frozen=True)
class TeacherStep:
    """After step `index`, whose network call was at `time`: the latent, the clean result when `final`."""

    index: int
    latents: Tensor | None
    final: bool
    time: float = 0.0


class _Abandoned(Exception):
    """The listener went away."""


def teacher_steps(
    run: Callable[[Callable[[int, Tensor, float], None]], Tensor], watch: Stopwatch
) -> Iterator[TeacherStep]:
    """Call `run(on_step)` in a thread and yield a TeacherStep per callback and a final one with its result.

    watch: runs while the pipeline does, and stands while the listener has the step.

    Closing the iterator stops `run` at its next callback; an exception of `run` is raised here.
    """
    steps: queue.Queue[TeacherStep | BaseException] = queue.Queue()
    go_on = threading.Semaphore(0)
    abandoned = threading.Event()

    def work() -> None:
        index = -1

        def on_step(number: int, latents: Tensor, time: float) -> None:
            nonlocal index
            watch.stop()
            index = number
            steps.put(TeacherStep(number, latents, False, time))
            go_on.acquire()
            if abandoned.is_set():
                raise _Abandoned
            watch.start()

        try:
            watch.start()
            with torch.inference_mode():
                result = run(on_step)
            watch.stop()
            steps.put(TeacherStep(index, result, True))
        except BaseException as error:
            steps.put(error)

    thread = threading.Thread(target=work, name="teacher", daemon=True)
    thread.start()
    try:
        while True:
            item = steps.get()
            if isinstance(item, BaseException):
                raise item
            yield item
            if item.final:
                return
            go_on.release()
    finally:
        abandoned.set()
        go_on.release()
        thread.join()
