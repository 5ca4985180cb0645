"""Warm-up: every shape of a request computed once, so that kernels are chosen and compiled before anything is timed.

It takes the request's own sizes, and one call of each, so it is never longer than the run it comes before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from rmd.checks import RequestError
from rmd.engine.events import Warming
from rmd.engine.pool import Loaded
from rmd.method.denoiser import Conditioning, Denoiser
from rmd.method.plan import CascadePlan

LONG = 5.0
"""Seconds of one call after which the others are left out: of calls that long, what warming up saves is nothing."""

Shape = tuple[Any, ...]


def warm_up(
    loaded: Loaded,
    plan: CascadePlan,
    prompt: tuple[Conditioning, Conditioning],
    calls: int,
    teacher_calls: int,
    warmed: set[Shape],
    compiled: bool,
) -> Iterator[Warming]:
    """Yield a Warming before every call of a shape that is not in `warmed` yet, and note it there.

    calls, teacher_calls: function evaluations per step of student and teacher; 0 where it is not run.
    compiled: whether networks are compiled, whose failure then is a RequestError.
    """
    teacher, student = loaded.teacher, loaded.student or loaded.teacher
    wanted: list[tuple[Shape, Callable[[], Any]]] = []

    def network(backbone: Any, size: tuple[int, ...], evaluations: int) -> None:
        def call() -> None:
            x = torch.zeros(1, backbone.channels, *size, device=backbone.device)
            Denoiser(backbone, *prompt, float(evaluations))(x, 0.5)

        wanted.append((("network", id(backbone.network), size, evaluations), call))

    for stage in plan.stages:
        if stage.times:
            network(student, stage.size, calls)
    if teacher_calls:
        network(teacher, plan.size, teacher_calls)

    def decode() -> None:
        size = (1, teacher.channels, *plan.size)
        teacher.decode(torch.zeros(size, device=teacher.device), loaded.decoder)

    wanted.append((("decoder", loaded.decoder is not None, plan.size), decode))
    cold = dict(one for one in wanted if one[0] not in warmed)
    for index, (shape, call) in enumerate(cold.items(), start=1):
        yield Warming(index, len(cold))
        begun = time.perf_counter()
        try:
            call()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            if not compiled:
                raise
            words = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            raise RequestError(f"compile cannot be used here: {words.rstrip('.')}.") from error
        warmed.add(shape)
        if time.perf_counter() - begun > LONG and not compiled:
            warmed.update(cold)
            return
