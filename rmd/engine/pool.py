"""ModelPool: the resident backbone with its student, loaded on demand and warmed up once."""

from __future__ import annotations

import ctypes
import gc
import logging
import sys
import weakref
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
    decoder: nn.Module | None = None
    """The tiny decoder, where it was asked for; None for the pipeline's own."""


class ModelPool:
    """Keeps the last used backbone with its last student in memory. Callers hold the session's lock.

    tuning: how their networks compute. warm: run every shape once after loading; False leaves that to whoever computes.
    weights: where they come from, by default folders on this machine.
    """

    def __init__(
        self,
        device: torch.device | None = None,
        tuning: Tuning | None = None,
        warm: bool = True,
        weights: Weights | None = None,
    ):
        self.device, self.warm = device or best_device(), warm
        self.tuning = tuning or Tuning()
        self.weights: Weights = weights or StoredWeights()
        self.name: str | None = None
        """The backbone that is resident, as it was asked for; None before the first and while one is loaded."""
        self._student: str | None = None
        self._loaded: Loaded | None = None
        self._decoder: nn.Module | None = None

    def resident(self, backbone: str, student: str | None, decoder: Decoder = "full") -> bool:
        there = self._loaded is not None and (self.name, self._student) == (backbone, student)
        return there and (decoder == "full" or self._decoder is not None)

    def acquire(self, backbone: str, student: str | None, decoder: Decoder = "full") -> Loaded:
        """Load a backbone (catalog id or folder) with a student (folder, file, id, None for its own, "none").

        Raises RequestError; what was not resident before is not then.
        """
        if decoder == "full":
            return self._acquire(backbone, student)
        tiny = self._decoder if self.name == backbone else None
        fresh = tiny is None
        # before the backbone: it is small, and may be missing
        tiny = tiny or self.weights.decoder(catalog.find(backbone), self.device)
        loaded = self._acquire(backbone, student)
        if fresh and self.warm:
            warm_up_decoder(loaded.teacher, tiny)
        self._decoder = tiny
        return replace(loaded, decoder=tiny)

    def _acquire(self, backbone: str, student: str | None) -> Loaded:
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
            teacher = self.weights.backbone(catalog.find(backbone), self.device)
            tune(teacher.network, self.tuning)
        fast, card = self.weights.student(catalog.find(backbone), student, teacher) or (None, None)
        own = fast if fast is not teacher else None  # random weights have one network in both roles
        if own is not None:
            tune(own.network, self.tuning)
        for one in (teacher, own) if self.warm else ():
            if one is not None:
                self._warm_up(one)
        self.name, self._student, self._decoder = backbone, student, tiny
        self._loaded = Loaded(teacher, fast, card)
        return self._loaded

    def _forget(self) -> None:
        self.name = self._student = self._loaded = self._decoder = None

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
