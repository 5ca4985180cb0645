"""Running on ZeroGPU, Hugging Face's shared GPUs that are lent for the length of one call.

How a call is lent (the package `spaces`, present on such a Space): the decorated function runs in a process that is
forked from this one, where alone CUDA works; its arguments and what it yields travel pickled through queues. Hence:

- No thread of this process exists there. `Session` computes in one persistent thread (see `rmd.session.in_thread`),
  and handing work to that thread's pool in the fork would wait forever; so the fork runs the session's own generator
  directly. The reason for the thread, one team of CPU threads, does not hold on a GPU.
- A cancel event set here is not set there. It is looked at here between two events; closing the generator then makes
  `spaces` stop the fork's loop after its current step.
- What the fork loads is lost with it. The model is loaded here, once (`spaces` moves the weights to the GPU with the
  fork); the fork warms up, as every session does before it measures anything.
- An exception raised in the fork arrives as its bare name, so those with a sentence are yielded instead.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Any

import torch

from rmd.backbones.base import Backbone
from rmd.checks import Cancelled, RequestError
from rmd.engine.events import Event
from rmd.engine.pool import ModelPool
from rmd.engine.results import Done
from rmd.engine.session import OUT_OF_MEMORY, Session, check
from rmd.request import GenerateRequest

OVERHEAD = 10.0
"""Seconds for starting a process, moving weights and warming up."""
RATE = 1e14
"""Floating point operations a second expected of a lent GPU before anything was measured."""
MARGIN = 1.5
"""Asked for over what is expected: a call that takes longer than it asked for may be ended."""


TOO_LONG = (
    "This needs about {seconds} seconds of GPU, more than ZeroGPU lends at once; choose fewer teacher steps or leave "
    "the teacher out."
)
ABORTED = (
    "ZeroGPU ended the run, perhaps because it took longer than the {seconds} seconds that were asked for; choose "
    "fewer teacher steps or try again."
)
NO_GPU = "No GPU was free within a minute; please try again a little later."
QUOTA = "Your share of ZeroGPU is used up for now ({said}). Sign in for more, or leave the teacher out."
OTHER = "ZeroGPU could not run this ({said}); please try again."


def present() -> bool:
    """Whether this is a ZeroGPU Space."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


class LentSession(Session):
    """A session whose computing happens in lent calls.

    gpu: `spaces.GPU`, or a stand-in with its interface. refusal: the exception, with a title and a message, in which
    it says that it lends nothing.
    """

    draws_ahead = False  # it would cost the visitor a share

    def __init__(
        self,
        gpu: Callable[..., Any],
        refusal: type[Exception],
        pool: ModelPool | None = None,
        previews: bool = True,
    ):
        super().__init__(pool, previews)
        self.refusal = refusal
        self._pace: dict[str, float] = {}
        self._lent = gpu(duration=self.seconds)(self._compute)

    def compute(self, request: GenerateRequest, cancel: threading.Event, runs: int) -> Iterator[Event]:
        try:
            yield from self.load(request, cancel)
            with closing(self._lent(request, runs)) as events:
                for event in events:
                    check(cancel)
                    if isinstance(event, Exception):
                        raise event
                    if isinstance(event, Done):
                        self._learn(event)
                    yield event
        except self.refusal as error:
            raise RequestError(self.explained(error, self.seconds(request, runs))) from error
        except RuntimeError as error:
            if "closed by visitor" in str(error):  # they left while ZeroGPU looked for a GPU
                raise Cancelled(str(error)) from error
            raise

    def _compute(self, request: GenerateRequest, runs: int) -> Generator[Event | Exception]:
        """What runs in the fork; a fork may serve several calls."""
        try:
            yield from self.run(request, threading.Event(), runs)
        except RequestError as error:
            yield error
        except torch.OutOfMemoryError:
            yield RequestError(OUT_OF_MEMORY)

    def seconds(self, request: GenerateRequest, runs: int = 1) -> int:
        """What a request asks for: every network call at full resolution at the pace of the slowest run so far."""
        backbone = self.pool.acquire(request.backbone, request.student).teacher
        pace = self._pace.get(request.backbone) or first_guess(backbone)
        calls = request.steps * runs + (
            request.teacher_steps * (1 if request.guidance == 1 else 2) if request.teacher else 0
        )
        return math.ceil(OVERHEAD + MARGIN * pace * (calls + 2))  # two more for encoder and decoder

    def _learn(self, done: Done) -> None:
        for output in (done.teacher, done.student):
            if output is not None:
                pace = output.timings.denoiser / output.timings.nfe
                self._pace[done.request.backbone] = max(pace, self._pace.get(done.request.backbone, 0.0))

    def explained(self, error: Any, asked: int) -> str:
        """ZeroGPU's refusals and failures, with what to do about them; its own words where they have figures."""
        title, said = error.title or "", " ".join(str(error.message).split()).rstrip(".")
        if "illegal duration" in title:
            return TOO_LONG.format(seconds=asked)
        if "aborted" in said:
            return ABORTED.format(seconds=asked)
        if "No GPU was available" in said:
            return NO_GPU
        if "quota" in title or "credits" in title:
            return QUOTA.format(said=said)
        return OTHER.format(said=said)


def first_guess(backbone: Backbone) -> float:
    """Seconds of one network call at full size: two operations per parameter and token of four latent cells."""
    parameters = sum(p.numel() for p in backbone.network.parameters())
    tokens = math.prod(backbone.latent_size(backbone.spec.high)) / 4
    return 2 * parameters * tokens / RATE
