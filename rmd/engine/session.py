"""Session: one request in, a stream of events out. Knows no user interface.

`generate` takes the accelerator's place, `compute` says where the work is done, `run` does it; a host that lends its
accelerator differently replaces `compute` alone (see `rmd.engine.zero`).

Timings are of network and decoder work alone: loading, warm-up, previews and whatever the listener does between two
events are not in them. The prompt's encoding is in "end to end" even when it came from the cache (with the time it
took when it was made), so that repeated prompts do not look faster.
"""

from __future__ import annotations

import math
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from rmd.backbones.base import Backbone
from rmd.backbones.lifting import enlarge
from rmd.backbones.machine import describe
from rmd.checks import Cancelled, RequestError
from rmd.engine.base import Frames
from rmd.engine.batch import sample
from rmd.engine.events import LEAST, Decoded, Event, Loading, Progress, Timing, Waiting
from rmd.engine.plans import draw, plan_for
from rmd.engine.pool import Loaded, ModelPool
from rmd.engine.results import Done, Output, StageTiming, Timings, median_of
from rmd.engine.stopwatch import Stopwatch
from rmd.engine.teacher import teacher_steps
from rmd.engine.warmup import warm_up
from rmd.method.cascade import CascadeSampler, Step, Switch
from rmd.method.denoiser import Conditioning, Denoiser
from rmd.method.plan import CascadePlan, ratio
from rmd.request import GenerateRequest

RUNS = 3
"""How often a student's calls are timed where it is compared with a teacher: few and short, one could be hit alone."""
OUT_OF_MEMORY = "The accelerator ran out of memory; choose fewer steps or a smaller backbone."


class Session:
    """Runs requests one at a time on one device.

    previews: make a small picture after every step (never counted in the timings).
    """

    draws_ahead = True
    places = 1

    def __init__(self, pool: ModelPool | None = None, previews: bool = True):
        self.pool = pool or ModelPool()
        self.previews = previews
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._prompts: OrderedDict[tuple[str, str], tuple[Conditioning, float]] = OrderedDict()

    @property
    def busy(self) -> bool:
        """Whether somebody's request runs."""
        return self._lock.locked()

    def generate(
        self, request: GenerateRequest, cancel: threading.Event | None = None, runs: int = 1
    ) -> Generator[Event]:
        """Yield events until Done. Setting `cancel` (or closing the generator) stops within one network call.

        runs: how often the student's calls are made and timed, an odd number; the first makes the picture, the others
        come after the teacher. Its times are those of the median run.
        request: of one result (see `rmd.request.singles`); ValueError for more.

        Raises Cancelled, or RequestError for what only shows when loading. The lock is free afterwards in any case.
        """
        if request.count != 1:
            raise ValueError(f"a session makes one result at a time, not {request.count}")
        cancel = cancel or threading.Event()
        if not self._lock.acquire(blocking=False):
            yield Waiting()
            while not self._lock.acquire(timeout=0.1):
                check(cancel)
        try:
            yield from self.compute(request, cancel, runs)
        except torch.OutOfMemoryError as error:
            raise RequestError(OUT_OF_MEMORY) from error
        finally:
            self._lock.release()

    def sample(self, requests: Sequence[GenerateRequest], role: str) -> tuple[list[Frames], Tensor]:
        """See `Engine.sample`; waits for the accelerator's place."""
        first = requests[0]
        with self._lock:
            return sample(self.pool.acquire(first.backbone, first.student, first.decoder), requests, role)

    def state(self) -> dict[str, Any]:
        """The model that is in memory."""
        return {"model": self.pool.name}

    def compute(self, request: GenerateRequest, cancel: threading.Event, runs: int) -> Iterator[Event]:
        """The events, computed wherever this kind of session computes; called with the accelerator's place taken."""
        yield from in_thread(self._thread, self.run(request, cancel, runs))

    def load(self, request: GenerateRequest, cancel: threading.Event) -> Iterator[Loading]:
        """Bring the request's models into memory; yields Loading before each part that is not there yet."""
        if not self.pool.resident(request.backbone, request.student, request.decoder):
            yield Loading(request.backbone)
            self._prompts.clear()
            for part in self.pool.loading(request.backbone, request.student, request.decoder):
                check(cancel)
                yield Loading(request.backbone, part)

    @torch.inference_mode()
    def run(self, request: GenerateRequest, cancel: threading.Event, runs: int = 1) -> Generator[Event]:
        """The request's events, computed by whoever asks for them."""
        yield from self.load(request, cancel)
        loaded = self.pool.acquire(request.backbone, request.student, request.decoder)
        check(cancel)
        backbone = loaded.teacher
        positive, negative, encode = self._encode(backbone, request)
        self.pool.spare(backbone)
        fast = loaded.student or backbone
        plan = plan_for(request, fast, loaded.card)
        guidance = loaded.card.guidance if loaded.card else request.guidance
        calls = 1 if guidance == 1 else 2
        teacher_calls = (1 if request.guidance == 1 else 2) if request.teacher else 0
        warmed, compiled = self.pool.warmed, self.pool.tuning.compile
        for event in warm_up(loaded, plan, (positive, negative), calls, teacher_calls, warmed, compiled):
            check(cancel)
            yield event
        check(cancel)
        prompt = (positive, negative, encode)
        noise = draw(request, backbone, plan)[0].to(backbone.device)

        device, student = str(backbone.device), None
        where = device, dtype_name(backbone), describe(device)
        for event in self._student(request, loaded, plan, prompt):
            check(cancel)
            if isinstance(event, Decoded):
                student = event.output
                alone = Done(replace(request, teacher=False), plan, student, None, loaded.card, *where)
                event = replace(event, alone=alone)
            yield event
        assert student is not None
        teacher = None
        if request.teacher:
            for event in self._teacher(request, loaded, noise, prompt, cancel):
                teacher = event.output if isinstance(event, Decoded) else teacher
                yield event
        times = [student.timings]
        for index in range(2, runs + 1):
            yield Timing(index, runs)
            for event in self._student(request, loaded, plan, prompt, previews=False):
                if cancel.is_set():  # the pictures are finished, and stay with the times there are
                    break
                if isinstance(event, Decoded):
                    times.append(event.output.timings)
        student = replace(student, timings=median_of(times[: len(times) - 1 + len(times) % 2]))
        yield Done(request, plan, student, teacher, loaded.card, *where)

    def _encode(self, backbone: Backbone, request: GenerateRequest) -> tuple[Conditioning, Conditioning, float]:
        """Positive and negative conditioning and the seconds a first encoding of the positive one took.

        The first prompt after loading is encoded once more before that, as networks are warmed up: a first call also
        sets things up.
        """
        rows: list[tuple[Conditioning, float]] = []
        if not self._prompts:
            backbone.encode([request.prompt])
        for prompt in (request.prompt, request.negative):
            key = (request.backbone, prompt)
            if key not in self._prompts:
                watch = Stopwatch(backbone.device)
                watch.start()
                encoded = backbone.encode([prompt])
                watch.stop()
                self._prompts[key] = encoded, watch.seconds
                while len(self._prompts) > 64:
                    self._prompts.popitem(last=False)
            rows.append(self._prompts[key])
        return rows[0][0], rows[1][0], rows[0][1]

    def _student(
        self,
        request: GenerateRequest,
        loaded: Loaded,
        plan: CascadePlan,
        prompt: tuple[Conditioning, Conditioning, float],
        previews: bool = True,
    ) -> Iterator[Progress | Decoded]:
        """The cascade with the student's weights and no guidance, or undistilled with the teacher's weights and CFG."""
        positive, negative, encode = prompt
        backbone = loaded.student or loaded.teacher
        guidance = loaded.card.guidance if loaded.card else request.guidance
        positive, negative = (backbone.conditioned(one, plan.size) for one in (positive, negative))
        denoiser = Denoiser(backbone, positive, negative, guidance)
        watch = Stopwatch(backbone.device)
        sampler = CascadeSampler(backbone.schedule, plan, watch.now, partial(enlarge, backbone))
        noise, generator = draw(request, backbone, plan)
        x0 = noise = noise.to(backbone.device)
        seconds, switch = [0.0] * len(plan.stages), 0.0
        for event in watched(sampler.steps(denoiser, noise, generator), watch):
            x0 = event.estimate.x0
            if isinstance(event, Step):
                seconds[event.stage] += event.seconds
                size = plan.stages[event.stage].size
                small, level = self._preview(backbone, x0, previews), level_of(backbone, event.time, size, plan.size)
                yield Progress("student", event.index + 1, plan.steps, size, small, level)
            else:
                switch += event.seconds
        frames, decode = timed_decode(backbone, x0, watch, loaded.decoder)
        stages = tuple(
            StageTiming(stage.size, len(stage.times), taken)
            for stage, taken in zip(plan.stages, seconds, strict=True)
            if stage.times
        )
        timings = Timings(encode, stages, switch, decode, plan.steps * denoiser.calls_per_step, waited=watch.waited)
        yield Decoded("student", Output(frames, timings, backbone.spec.fps, x0.cpu()))

    def _teacher(
        self,
        request: GenerateRequest,
        loaded: Loaded,
        noise: Tensor,
        prompt: tuple[Conditioning, Conditioning, float],
        cancel: threading.Event,
    ) -> Iterator[Progress | Decoded]:
        """The pipeline itself, from the same noise, one Progress per step."""
        positive, negative, encode = prompt
        backbone = loaded.teacher
        watch = Stopwatch(backbone.device)
        size, steps = tuple(noise.shape[2:]), request.teacher_steps

        def run(on_step: Callable[[int, Tensor, float], None]) -> Tensor:
            return backbone.teacher(positive, negative, noise, steps, request.guidance, on_step)

        result = None
        for step in teacher_steps(run, watch):
            check(cancel)
            if step.latents is not None and not step.final:
                small, level = self._preview(backbone, step.latents), level_of(backbone, step.time, size, size)
                yield Progress("teacher", step.index + 1, steps, size, small, level)
            result = step
        assert result is not None and result.final and result.latents is not None
        stage = StageTiming(size, steps, watch.seconds)
        frames, decode = timed_decode(backbone, result.latents, watch, loaded.decoder)
        calls = 1 if request.guidance == 1 else 2
        timings = Timings(encode, (stage,), 0.0, decode, steps * calls, waited=watch.waited)
        yield Decoded("teacher", Output(frames, timings, backbone.spec.fps, result.latents.cpu()))

    def _preview(self, backbone: Backbone, x0: Tensor, wanted: bool = True) -> Image.Image | None:
        return backbone.preview(x0) if self.previews and wanted else None


def level_of(backbone: Backbone, t: float, size: tuple[int, ...], full: tuple[int, ...]) -> float:
    """The logSNR of time t at a size as it counts at the full one, where it is 2·ln(ratio) less."""
    return max(LEAST, float(backbone.schedule.logsnr(t)) - 2 * math.log(ratio(size, full)))


def watched(events: Iterator[Step | Switch], watch: Stopwatch) -> Iterator[Step | Switch]:
    """The events, with the watch running while they are computed."""
    while True:
        watch.start()
        event = next(events, None)
        watch.stop()
        if event is None:
            return
        yield event


def in_thread(thread: ThreadPoolExecutor, events: Generator[Event]) -> Iterator[Event]:
    """The events, computed in one thread whoever asks for them.

    A web server asks for every event from another thread; on a CPU each of these would start a team of computing
    threads of its own while the last one's still spins, which makes few-step pictures slower.
    """
    try:
        while (event := thread.submit(next, events, None).result()) is not None:
            yield event
    finally:
        thread.submit(events.close).result()


def check(cancel: threading.Event) -> None:
    if cancel.is_set():
        raise Cancelled("The request was stopped.")


def timed_decode(
    backbone: Backbone, x0: Tensor, watch: Stopwatch, decoder: nn.Module | None
) -> tuple[tuple[Image.Image, ...], float]:
    before = watch.seconds
    watch.start()
    frames = backbone.decode(x0, decoder)[0]
    watch.stop()
    return frames, watch.seconds - before


def dtype_name(backbone: Backbone) -> str:
    """What most of the network's weights are in: some parts, as Wan's first layer, stay in fp32."""
    sizes: Counter[torch.dtype] = Counter()
    for weight in backbone.network.parameters():
        sizes[weight.dtype] += weight.numel()
    return str(sizes.most_common(1)[0][0]).removeprefix("torch.")
