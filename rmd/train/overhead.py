"""What a distillation costs beside the network calls that it is made of."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from rmd.backbones.base import Backbone
from rmd.backbones.machine import peak_gb
from rmd.train.distiller import Distiller
from rmd.train.loop import Average, generator_for
from rmd.train.settings import Settings
from rmd.train.source import Source


@dataclass(frozen=True)
class Cost:
    """Seconds of some iterations, and those of them in the networks' calls, backward passes and optimisers."""

    iterations: int
    seconds: float
    inside: float
    memory: float
    """The most in use, in GB: of tensors on a CUDA device, elsewhere of the process."""

    @property
    def around(self) -> float:
        """Everything else (rollout, re-noising, losses' own calls, prompts, averages) as a share of the inside."""
        return self.seconds / self.inside - 1


class Inside:
    """Counts the seconds in networks and optimisers, with all that a device has to do until the end of each."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.seconds, self._since = device, 0.0, 0.0

    def now(self) -> float:
        if self.device.type == "cuda":  # where a call returns before its work is done
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def enter(self, *_: Any) -> None:
        self._since = self.now()

    def leave(self, *_: Any) -> None:
        self.seconds += self.now() - self._since

    @contextmanager
    def watching(self, networks: Sequence[nn.Module], optimizers: Sequence[torch.optim.Optimizer]) -> Iterator[None]:
        backward = Tensor.backward

        def timed(*args: Any, **more: Any) -> None:
            self.enter()
            backward(*args, **more)
            self.leave()

        with ExitStack() as stack:
            Tensor.backward = timed  # type: ignore[method-assign]
            stack.callback(setattr, Tensor, "backward", backward)
            for network in networks:
                handles = network.register_forward_pre_hook(self.enter), network.register_forward_hook(self.leave)
                for handle in handles:
                    stack.callback(handle.remove)
            for optimizer in optimizers:
                ends = optimizer.register_step_pre_hook(self.enter), optimizer.register_step_post_hook(self.leave)
                for handle in ends:
                    stack.callback(handle.remove)
            yield


def measure(backbone: Backbone, source: Source, settings: Settings, iterations: int) -> Cost:
    """Some iterations of matching, after one that is not counted."""
    device = backbone.device
    for part in backbone.parts():
        part.requires_grad_(False)
    distiller, inside = Distiller(backbone, settings), Inside(device)
    distiller.begin_matching()
    average, noise = Average({"student": distiller.student.master}, settings.average), torch.Generator(device)

    def iterate(step: int) -> None:
        noise.manual_seed(step)
        distiller.iterate(source, True, generator_for(settings.seed, step), noise)
        average.update()

    calls = (distiller.teacher, distiller.student_call, distiller.fake_call)
    watching = inside.watching([call.network for call in calls], [distiller.optimizer, distiller.fake_optimizer])
    with TemporaryDirectory() as folder:
        if source.texts is not None:
            distiller.remember(Path(folder), source.texts)
        iterate(0)
        with watching:
            start = inside.now()
            for step in range(1, iterations + 1):
                iterate(step)
            return Cost(iterations, inside.now() - start, inside.seconds, peak_gb(device))
