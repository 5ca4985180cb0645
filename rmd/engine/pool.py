"""ModelPool: the resident backbone with its student, loaded on demand and warmed up once."""

from __future__ import annotations

import ctypes
import gc
import logging
import sys
import weakref
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from rmd.backbones import catalog
from rmd.backbones.base import Backbone
from rmd.backbones.cards import StudentSpec
from rmd.backbones.loading import StoredWeights, Weights, whole
from rmd.backbones.machine import best_device, free_gb
from rmd.backbones.parts import Part
from rmd.backbones.placement import WORKING_GB, Tuning, tune
from rmd.request import Decoder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """A backbone ready to run. `student` is None where there are no student weights."""

    teacher: Backbone
    student: Backbone | None
    card: StudentSpec | None
    decoder: nn.Module | None = None
    """The tiny decoder, where it was asked for; None for the pipeline's own."""


class ModelPool:
    """Keeps the last used backbone with its last student in memory. Callers hold the session's lock.

    tuning: how their networks compute. weights: where they come from, by default folders on this machine.
    """

    def __init__(
        self,
        device: torch.device | None = None,
        tuning: Tuning | None = None,
        weights: Weights | None = None,
    ):
        self.device = device or best_device()
        self.tuning = tuning or Tuning()
        self.weights: Weights = weights or StoredWeights()
        self.name: str | None = None
        """The backbone that is resident, as it was asked for; None before the first and while one is loaded."""
        self._student: str | None = None
        self._loaded: Loaded | None = None
        self._decoder: nn.Module | None = None
        self.warmed: set[tuple[Any, ...]] = set()
        """What was computed since loading, see `rmd.engine.warmup`."""

    def resident(self, backbone: str, student: str | None, decoder: Decoder = "full") -> bool:
        there = self._loaded is not None and (self.name, self._student) == (backbone, student)
        return there and (decoder == "full" or self._decoder is not None)

    def acquire(self, backbone: str, student: str | None, decoder: Decoder = "full") -> Loaded:
        """`loading`, in one go."""
        return whole(self.loading(backbone, student, decoder))

    def loading(self, backbone: str, student: str | None, decoder: Decoder = "full") -> Generator[Part, None, Loaded]:
        """Load a backbone (catalog id or folder) with a student (folder, file, id, None for its own, "none"), with a
        Part before each network that is read.

        Raises RequestError; what was not resident before is not then, nor when the generator is closed.
        """
        if decoder == "full":
            return (yield from self._loading(backbone, student))
        tiny = self._decoder if self.name == backbone else None
        # before the backbone: it is small, and may be missing
        tiny = tiny or self.weights.decoder(catalog.find(backbone), self.device)
        loaded = yield from self._loading(backbone, student)
        self._decoder = tiny
        return replace(loaded, decoder=tiny)

    def _loading(self, backbone: str, student: str | None) -> Generator[Part, None, Loaded]:
        if self._loaded is not None and self.resident(backbone, student):
            return self._loaded
        teacher, tiny = None, None
        if self._loaded is not None and self.name == backbone:  # only its student is another
            teacher, tiny = self._loaded.teacher, self._decoder
            self._forget()
        elif self._loaded is not None:
            self.unload()
        release_memory(self.device)
        if teacher is None:
            teacher = yield from self.weights.backbone(catalog.find(backbone), self.device)
            tune(teacher.network, self.tuning)
        yield Part("student")
        fast, card = self.weights.student(catalog.find(backbone), student, teacher) or (None, None)
        own = fast if fast is not teacher else None  # random weights have one network in both roles
        if own is not None:
            tune(own.network, self.tuning)
        self.name, self._student, self._decoder = backbone, student, tiny
        self._loaded = Loaded(teacher, fast, card)
        return self._loaded

    def _forget(self) -> None:
        self.name = self._student = self._loaded = self._decoder = None
        self.warmed.clear()

    def unload(self) -> bool:
        """Forget everything; True when nothing of it is left in memory."""
        if self._loaded is None:
            return True
        name, parts = self.name, [*modules_of(self._loaded), *([self._decoder] if self._decoder else ())]
        watched = [weakref.ref(module) for module in parts]
        del parts
        self._forget()
        release_memory(self.device)
        left = [module for ref in watched if (module := ref()) is not None]
        if left:
            log.warning("%s was unloaded, but its %s is still held", name, type(left[0]).__name__)
        return not left

    def spare(self, backbone: Backbone) -> None:
        """Called when prompts were encoded: let the text encoders go where memory is short."""
        if free_gb(self.device) < WORKING_GB:
            backbone.release_text_encoders()


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
