"""Session: one request in, a stream of events out. Knows no user interface.

`generate` takes the accelerator's place, `compute` says where the work is done, `run` does it; a host that lends its
accelerator differently replaces `compute` alone (see `rmd.engine.zero`).

Timings are of network and decoder work alone: loading, warm-up, previews and whatever the listener does between two
events are not in them. The prompt's encoding is in "end to end" even when it came from the cache (with the time it
took when it was made), so that repeated prompts do not look faster.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from PIL import Image
from torch import Tensor, nn

from rmd.backbones.base import Backbone
from rmd.checks import Cancelled, RequestError
from rmd.engine.events import Decoded, Event, Loading, Progress, Waiting
from rmd.engine.plans import plan_for
from rmd.engine.pool import Loaded, ModelPool
from rmd.engine.results import Done, Output, StageTiming, Timings
from rmd.engine.teacher import teacher_steps
from rmd.method.cascade import CascadeSampler, Step
from rmd.method.denoiser import Conditioning, Denoiser
from rmd.method.plan import CascadePlan
from rmd.request import GenerateRequest

OUT_OF_MEMORY = "The accelerator ran out of memory; choose fewer steps or a smaller backbone."


class Session:
    """Runs requests one at a time on one device.

    previews: make a small picture after every step (never counted in the timings).
    """

    def __init__(self, pool: ModelPool | None = None, previews: bool = True):
        self.pool = pool or ModelPool()
        self.previews = previews
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._prompts: OrderedDict[tuple[str, str], tuple[Conditioning, float]] = OrderedDict()

    def generate(self, request: GenerateRequest, cancel: threading.Event | None = None) -> Iterator[Event]:
        """Yield events until Done. Setting `cancel` (or closing the generator) stops within one network call.

        Raises Cancelled, or RequestError for what only shows when loading. The lock is free afterwards in any case.
        """
        cancel = cancel or threading.Event()
        if not self._lock.acquire(blocking=False):
            yield Waiting()
            while not self._lock.acquire(timeout=0.1):
                check(cancel)
        try:
            yield from self.compute(request, cancel)
        except torch.OutOfMemoryError as error:
            raise RequestError(OUT_OF_MEMORY) from error
        finally:
            self._lock.release()

    def compute(self, request: GenerateRequest, cancel: threading.Event) -> Iterator[Event]:
        """The events, computed wherever this kind of session computes; called with the accelerator's place taken."""
        yield from in_thread(self._thread, self.run(request, cancel))

    def load(self, request: GenerateRequest) -> Iterator[Loading]:
        """Bring the request's models into memory; yields Loading when they are not there yet."""
        if not self.pool.resident(request.backbone, request.student, request.decoder):
            yield Loading(request.backbone)
            self._prompts.clear()
            self.pool.acquire(request.backbone, request.student, request.decoder)

    @torch.inference_mode()
    def run(self, request: GenerateRequest, cancel: threading.Event) -> Generator[Event]:
        """The request's events, computed by whoever asks for them."""
        yield from self.load(request)
        loaded = self.pool.acquire(request.backbone, request.student, request.decoder)
        check(cancel)
        backbone = loaded.teacher
        positive, negative, encode = self._encode(backbone, request)
        self.pool.spare(backbone)
        fast = loaded.student or backbone
        plan = plan_for(request, fast, loaded.card)
        generator = torch.Generator().manual_seed(request.seed)
        noise = torch.randn((1, backbone.channels, *plan.size), generator=generator).to(backbone.device)

        student = None
        for event in self._student(request, loaded, plan, noise, generator, (positive, negative, encode)):
            check(cancel)
            student = event.output if isinstance(event, Decoded) else student
            yield event
        assert student is not None
        teacher = None
        if request.teacher:
            for event in self._teacher(request, loaded, noise, (positive, negative, encode), cancel):
                teacher = event.output if isinstance(event, Decoded) else teacher
                yield event
        yield Done(request, plan, student, teacher, loaded.card, str(backbone.device), dtype_name(backbone))

    def _encode(self, backbone: Backbone, request: GenerateRequest) -> tuple[Conditioning, Conditioning, float]:
        """Positive and negative conditioning and the seconds a first encoding of the positive one took."""
        rows: list[tuple[Conditioning, float]] = []
        for prompt in (request.prompt, request.negative):
            key = (request.backbone, prompt)
            if key not in self._prompts:
                clock = clock_for(backbone)
                start = clock()
                self._prompts[key] = (backbone.encode([prompt]), clock() - start)
                while len(self._prompts) > 64:
                    self._prompts.popitem(last=False)
            rows.append(self._prompts[key])
        return rows[0][0], rows[1][0], rows[0][1]

    def _student(
        self,
        request: GenerateRequest,
        loaded: Loaded,
        plan: CascadePlan,
        noise: Tensor,
        generator: torch.Generator,
        prompt: tuple[Conditioning, Conditioning, float],
    ) -> Iterator[Progress | Decoded]:
        """The cascade with the student's weights and no guidance, or undistilled with the teacher's weights and CFG."""
        positive, negative, encode = prompt
        backbone = loaded.student or loaded.teacher
        guidance = loaded.card.guidance if loaded.card else request.guidance
        denoiser = Denoiser(backbone, positive, negative, guidance)
        clock = clock_for(backbone)
        sampler = CascadeSampler(backbone.schedule, plan, clock)
        seconds, switch, x0 = [0.0] * len(plan.stages), 0.0, noise
        for event in sampler.steps(denoiser, noise, generator):
            x0 = event.estimate.x0
            if isinstance(event, Step):
                seconds[event.stage] += event.seconds
                size = plan.stages[event.stage].size
                yield Progress("student", event.index + 1, plan.steps, size, self._preview(backbone, x0))
            else:
                switch += event.seconds
        frames, decode = timed_decode(backbone, x0, clock, loaded.decoder)
        stages = tuple(
            StageTiming(stage.size, len(stage.times), taken)
            for stage, taken in zip(plan.stages, seconds, strict=True)
            if stage.times
        )
        timings = Timings(encode, stages, switch, decode, plan.steps * denoiser.calls_per_step)
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
        clock = clock_for(backbone)
        size, steps = tuple(noise.shape[2:]), request.teacher_steps

        def run(on_step: Callable[[int, Tensor, float], None]) -> Tensor:
            return backbone.teacher(positive, negative, noise, steps, request.guidance, on_step)

        result = None
        for step in teacher_steps(run, clock):
            check(cancel)
            if step.latents is not None and not step.final:
                yield Progress("teacher", step.index + 1, steps, size, self._preview(backbone, step.latents))
            result = step
        assert result is not None and result.final and result.latents is not None
        frames, decode = timed_decode(backbone, result.latents, clock, loaded.decoder)
        calls = 1 if request.guidance == 1 else 2
        timings = Timings(encode, (StageTiming(size, steps, result.seconds),), 0.0, decode, steps * calls)
        yield Decoded("teacher", Output(frames, timings, backbone.spec.fps, result.latents.cpu()))

    def _preview(self, backbone: Backbone, x0: Tensor) -> Image.Image | None:
        return backbone.preview(x0) if self.previews else None


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


def clock_for(backbone: Backbone) -> Callable[[], float]:
    """Seconds, after the device has finished what it was given."""
    if backbone.device.type != "cuda":
        return time.perf_counter

    def clock() -> float:
        torch.cuda.synchronize(backbone.device)
        return time.perf_counter()

    return clock


def timed_decode(
    backbone: Backbone, x0: Tensor, clock: Callable[[], float], decoder: nn.Module | None
) -> tuple[tuple[Image.Image, ...], float]:
    start = clock()
    frames = backbone.decode(x0, decoder)[0]
    return frames, clock() - start


def dtype_name(backbone: Backbone) -> str:
    """What most of the network's weights are in: some parts, as Wan's first layer, stay in fp32."""
    sizes: Counter[torch.dtype] = Counter()
    for weight in backbone.network.parameters():
        sizes[weight.dtype] += weight.numel()
    return str(sizes.most_common(1)[0][0]).removeprefix("torch.")
