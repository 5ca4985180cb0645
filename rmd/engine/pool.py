"""ModelPool: the resident backbones with their students, loaded on demand and warmed up once."""

from __future__ import annotations

import ctypes
import gc
import logging
import sys
import time
import weakref
from collections import OrderedDict
from dataclasses import dataclass, replace

import torch
from torch import nn

from rmd.backbones import catalog
from rmd.backbones.base import Backbone
from rmd.backbones.cards import StudentSpec
from rmd.backbones.loading import StoredWeights, Weights
from rmd.backbones.machine import best_device, free_gb
from rmd.backbones.placement import WORKING_GB, Tuning, tune
from rmd.checks import RequestError
from rmd.method.denoiser import Denoiser
from rmd.request import Decoder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """A backbone ready to run. `student` is None where there are no student weights."""

    teacher: Backbone
    student: Backbone | None
    card: StudentSpec | None
    seconds: float
    """Loading and warm-up time; 0 when it was resident."""
    decoder: nn.Module | None = None
    """The tiny decoder, where it was asked for; None for the pipeline's own."""


class ModelPool:
    """Keeps the last used backbones, each with its last student, in memory. Callers hold the session's lock.

    budget: how many backbones stay; the one that was not used for longest makes room for another.
    tuning: how their networks compute. warm: run every shape once after loading; False leaves that to whoever computes.
    weights: where they come from, by default folders on this machine.
    """

    def __init__(
        self,
        device: torch.device | None = None,
        budget: int = 1,
        tuning: Tuning | None = None,
        warm: bool = True,
        weights: Weights | None = None,
    ):
        self.device, self.warm = device or best_device(), warm
        self.budget = max(1, budget)
        self.tuning = tuning or Tuning()
        self.weights: Weights = weights or StoredWeights()
        self._kept: OrderedDict[str, tuple[str | None, Loaded]] = OrderedDict()
        self._decoders: dict[str, nn.Module] = {}

    @property
    def name(self) -> str | None:
        """The backbone used last, as it was asked for; None before the first and while one is loaded."""
        return next(iter(reversed(list(self._kept))), None)

    def resident(self, backbone: str, student: str | None, decoder: Decoder = "full") -> bool:
        there = backbone in self._kept and self._kept[backbone][0] == student
        return there and (decoder == "full" or backbone in self._decoders)

    def acquire(self, backbone: str, student: str | None, decoder: Decoder = "full") -> Loaded:
        """Load a backbone (catalog id or folder) with a student (folder, file, id, None for its own, "none").

        Raises RequestError; what was not resident before is not then.
        """
        if decoder == "full":
            return self._acquire(backbone, student)
        start, tiny = time.perf_counter(), self._decoders.get(backbone)
        fresh = tiny is None
        # before the backbone: it is small, and may be missing
        tiny = tiny or self.weights.decoder(catalog.find(backbone), self.device)
        loaded = self._acquire(backbone, student)
        if fresh and self.warm:
            warm_up_decoder(loaded.teacher, tiny)
        self._decoders[backbone] = tiny
        return replace(loaded, decoder=tiny, seconds=time.perf_counter() - start if fresh else loaded.seconds)

    def _acquire(self, backbone: str, student: str | None) -> Loaded:
        if self.resident(backbone, student):
            self._kept.move_to_end(backbone)
            kept = self._kept[backbone][1]
            return Loaded(kept.teacher, kept.student, kept.card, 0.0)
        start = time.perf_counter()
        teacher = self._kept.pop(backbone)[1].teacher if backbone in self._kept else None
        tiny = self._decoders.pop(backbone, None)
        while len(self._kept) >= self.budget:
            self._unload(next(iter(self._kept)))
        release_memory(self.device)
        entry = catalog.find(backbone)
        if teacher is None:
            teacher = self.weights.backbone(entry, self.device)
            tune(teacher.network, self.tuning)
        fast, card = self.weights.student(entry, student, teacher) or (None, None)
        own = fast if fast is not teacher else None  # random weights have one network in both roles
        if own is not None:
            tune(own.network, self.tuning)
        for one in (teacher, own) if self.warm else ():
            if one is not None:
                self._warm_up(one)
        loaded = Loaded(teacher, fast, card, time.perf_counter() - start)
        self._kept[backbone] = (student, loaded)
        if tiny is not None:
            self._decoders[backbone] = tiny
        return loaded

    def unload(self) -> bool:
        """Forget everything; True when nothing of it is left in memory."""
        gone = [self._unload(name) for name in list(self._kept)]
        return all(gone)

    def spare(self, backbone: Backbone) -> None:
        """Called when prompts were encoded: let the text encoders go where memory is short."""
        if free_gb(self.device) < WORKING_GB:
            backbone.release_text_encoders()

    def _unload(self, backbone: str) -> bool:
        _, loaded = self._kept.pop(backbone)
        tiny = self._decoders.pop(backbone, None)
        watched = [weakref.ref(module) for module in (*modules_of(loaded), *([tiny] if tiny else ()))]
        del loaded, tiny
        release_memory(self.device)
        left = [module for ref in watched if (module := ref()) is not None]
        if left:
            log.warning("%s was unloaded, but its %s is still held", backbone, type(left[0]).__name__)
        return not left

    def _warm_up(self, backbone: Backbone) -> None:
        try:
            warm_up(backbone)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            if not self.tuning.compile:
                raise
            words = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            raise RequestError(f"compile cannot be used here: {words.rstrip('.')}.") from error


def modules_of(loaded: Loaded) -> list[nn.Module]:
    """The networks and the autoencoder of what is loaded."""
    backbones = [one for one in (loaded.teacher, loaded.student) if one is not None]
    return [*(one.network for one in backbones), *loaded.teacher.parts()]


def release_memory(device: torch.device) -> None:
    """Give back what nothing refers to any more: Python's cycles, CUDA's cache, the C library's free lists."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, others need it not
        if trim is not None:
            trim(0)


@torch.inference_mode()
def warm_up(backbone: Backbone) -> None:
    """One call per shape, so that kernels are chosen and compiled before anything is timed."""
    prompt, empty = backbone.encode(["warm-up"]), backbone.encode([""])
    for pixels in (backbone.spec.low, backbone.spec.high):
        x = torch.zeros(1, backbone.channels, *backbone.latent_size(pixels), device=backbone.device)
        for guidance in (1.0, 2.0):
            Denoiser(backbone, prompt, empty, guidance)(x, 0.5)
    backbone.decode(x)


@torch.inference_mode()
def warm_up_decoder(backbone: Backbone, decoder: nn.Module) -> None:
    """One call at the size of results."""
    size = backbone.latent_size(backbone.spec.high)
    backbone.decode(torch.zeros(1, backbone.channels, *size, device=backbone.device), decoder)
