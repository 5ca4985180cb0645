"""What every training stage shares: resumable state, weight averages, a log, a learning-rate curve."""

from __future__ import annotations

import copy
import json
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from rmd.backbones.machine import default_dtype, describe
from rmd.disk import write_whole
from rmd.train.shares import local, share_like, whole_like
from rmd.train.together import Together

CPU = torch.device("cpu")
STATE, LOG = "state.pt", "log.jsonl"


def cosine(step: int, steps: int, warmup: int = 100, floor: float = 0.02) -> float:
    """Learning-rate factor in (0, 1]: linear warm-up, then a half cosine down to `floor`."""
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def mixed(device: torch.device = CPU, cache: bool = True) -> torch.autocast:
    """Networks compute in bf16 where this device has instructions for it, else in fp32.

    cache: keep the cast weights for the block; not where the same weight is first used without gradient.
    """
    dtype = default_dtype(device)
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16, cache_enabled=cache)


class Average:
    """Exponential moving average of several modules' weights, with a warm-up so that early weights fade fast."""

    def __init__(self, modules: dict[str, nn.Module], decay: float):
        self.modules, self.decay, self.updates = modules, decay, 0
        self.values = {
            name: {k: local(v).detach().float().clone() for k, v in module.state_dict().items()}
            for name, module in modules.items()
        }

    @torch.no_grad()
    def update(self) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, module in self.modules.items():
            state = {k: local(v) for k, v in module.state_dict().items() if v.is_floating_point()}
            kept = [self.values[name][k] for k in state]
            torch._foreach_lerp_(kept, [v.float() for v in state.values()], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the modules' weights with the averages; call twice to get back."""
        for name, module in self.modules.items():
            for key, weight in module.state_dict().items():
                current = local(weight).float().clone()
                local(weight).copy_(self.values[name][key])
                self.values[name][key] = current

    def state_dict(self) -> dict[str, Any]:
        """Whole tensors; where networks are shared out, all processes have to ask."""
        weights = {name: module.state_dict() for name, module in self.modules.items()}
        values = {
            name: {key: whole_like(value, weights[name][key]) for key, value in own.items()}
            for name, own in self.values.items()
        }
        return {"values": values, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, values in state["values"].items():
            weights = self.modules[name].state_dict()
            for key, value in values.items():
                self.values[name][key].copy_(share_like(value, weights[key]))
        self.updates = state["updates"]


class Run:
    """A stage's working folder: `state.pt` (resume), `log.jsonl`, sample sheets; a progress bar over the steps.

    parts: name → anything with state_dict/load_state_dict. The state is written to a temporary file and
    renamed, so an interruption at any moment leaves the last complete one.
    minutes: end when so much time has passed even if steps are left; `progress` then follows the clock, so that curves
    over it come out whole on any hardware. together: the processes that train this together.
    """

    def __init__(
        self,
        folder: Path,
        parts: dict[str, Any],
        minutes: float | None = None,
        device: torch.device = CPU,
        save_every_seconds: float = 120,
        together: Together | None = None,
    ):
        self.folder, self.parts, self.save_every, self.together = folder, parts, save_every_seconds, together
        self.minutes, self.hardware = minutes, describe(device.type)
        folder.mkdir(parents=True, exist_ok=True)
        self.step, self.seconds, self.samples, self.total, self.stopping = 0, 0.0, 0, 1, False
        self._last_save = time.monotonic()
        if (folder / STATE).exists():
            state = torch.load(folder / STATE, map_location="cpu", weights_only=True)
            for name, part in parts.items():
                part.load_state_dict(state["parts"][name])
            self.step, self.seconds, self.samples = state["step"], state["seconds"], state["samples"]

    def steps(self, total: int, label: str) -> Iterator[int]:
        """Yield the step numbers still to do; saves on the way and at the end.

        An interrupt or a request to end (SIGINT, SIGTERM) lets the step in progress finish, saves, and then raises
        KeyboardInterrupt.
        """
        bar = tqdm(total=total, initial=self.step, desc=label, mininterval=5, disable=not self.first)
        self.total = total
        with self.listening():
            while self.progress < 1 and not self.stopping:
                start = time.monotonic()
                yield self.step
                self.step += 1
                self.seconds += time.monotonic() - start
                unsaved = time.monotonic() - self._last_save
                if self.together is not None:  # all end and save at the same step, and follow one clock
                    self.stopping = self.together.any(self.stopping)
                    self.seconds, unsaved = self.together.first_ones([self.seconds, unsaved])
                bar.update()
                if unsaved > self.save_every:
                    self.save()
        bar.close()
        self.save()
        if self.stopping:
            raise KeyboardInterrupt

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Signals that ask to end set `stopping`; the handlers that were there come back afterwards."""
        if threading.current_thread() is not threading.main_thread():  # only there can handlers be set
            yield
            return

        def stop(*_: object) -> None:
            self.stopping = True

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @property
    def progress(self) -> float:
        """How much of the run is done, 0 … 1."""
        clock = 0.0 if self.minutes is None else self.seconds / 60 / self.minutes
        return min(1.0, max(clock, self.step / self.total))

    @property
    def last(self) -> bool:
        """Whether this step ends the run as far as its number tells."""
        return self.step + 1 == self.total

    def save(self) -> None:
        """Write the state; RequestError where it cannot be written, the last one then stays.

        All processes have to call it: what they hold shares of is put together.
        """
        self._last_save = time.monotonic()
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        if not self.first:
            return
        state = {
            "parts": parts,
            "step": self.step,
            "seconds": self.seconds,
            "samples": self.samples,
            "hardware": self.hardware,
        }
        write_whole(self.folder / STATE, lambda path: torch.save(state, path))

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.together is None or self.together.first

    def log(self, **values: float) -> None:
        if self.together is not None:
            self.together.track(values, self.step)
        if not self.first:
            return
        row: dict[str, Any] = {"step": self.step, "minutes": round(self.seconds / 60, 2), "samples": self.samples}
        row |= {k: round(v, 5) for k, v in values.items()} | {"hardware": self.hardware}
        with (self.folder / LOG).open("a") as file:
            file.write(json.dumps(row) + "\n")
        tqdm.write(" ".join(f"{k}={v}" for k, v in row.items()), file=sys.stderr)


def generator_for(seed: int, step: int) -> torch.Generator:
    """One generator per (seed, step), so that a resumed run draws what an uninterrupted one would."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The rate for every group; a group's own "share" scales it."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("share", 1.0)


class Replicas:
    """Data parallelism inside one process: each thread runs its share of a batch on its own copy of the modules.

    The copies share the originals' weights and have gradients of their own. On a few CPU cores one computing thread
    per copy is faster than all cores together on each small operation, because
    nothing waits at the end of every operation.
    """

    def __init__(self, modules: tuple[nn.Module, ...], count: int):
        self.copies = [modules, *(copy.deepcopy(modules) for _ in range(count - 1))]
        for other in self.copies[1:]:
            for mine, theirs in zip(parameters(modules), parameters(other), strict=True):
                theirs.data = mine.data
        self._pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))

    def accumulate(self, work: Callable[..., dict[str, float]], shares: Sequence[tuple[Any, ...]]) -> dict[str, float]:
        """Run `work(*modules, *share)` per share, each on its own copy, and average gradients and returned values.

        `work` calls backward itself; the averaged gradients end up in the original modules.
        """
        results = list(self._pool.map(lambda modules, share: work(*modules, *share), self.copies, shares))
        rows = zip(*(parameters(modules) for modules in self.copies[: len(shares)]), strict=True)
        for mine, *others in rows:
            for theirs in others:
                if mine.grad is not None and theirs.grad is not None:
                    mine.grad.add_(theirs.grad)
                theirs.grad = None
            if mine.grad is not None:
                mine.grad.div_(len(shares))
        return {name: sum(r[name] for r in results) / len(results) for name in results[0]}


def parameters(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    return [p for module in modules for p in module.parameters()]
