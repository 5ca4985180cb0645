"""ModelPool: the one resident backbone with its student, loaded on demand and warmed up once."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass

import torch

from rmd.backbones import catalog, loading
from rmd.backbones.base import Backbone
from rmd.backbones.machine import best_device
from rmd.config import StudentSpec
from rmd.denoiser import Denoiser


@dataclass(frozen=True)
class Loaded:
    """A backbone ready to run. `student` is None where there are no student weights."""

    teacher: Backbone
    student: Backbone | None
    card: StudentSpec | None
    seconds: float
    """Loading and warm-up time; 0 when it was resident."""


class ModelPool:
    """Keeps the last used backbone and student in memory; others replace them. Callers hold the session's lock."""

    def __init__(self, device: torch.device | None = None):
        self.device = device or best_device()
        self._key: tuple[str, str | None] | None = None
        self._loaded: Loaded | None = None

    @property
    def name(self) -> str | None:
        """The backbone that is in memory, as it was asked for; None before the first and while one is loaded."""
        return self._key[0] if self._key else None

    def resident(self, backbone: str, student: str | None) -> bool:
        return self._key == (backbone, student)

    def acquire(self, backbone: str, student: str | None) -> Loaded:
        """Load a backbone (catalog id or folder) with a student (folder, None for its own, "none" for without).

        Raises RequestError; what was resident before is gone then.
        """
        if self._loaded is not None and self.resident(backbone, student):
            kept = self._loaded
            return Loaded(kept.teacher, kept.student, kept.card, 0.0)
        start = time.perf_counter()
        teacher = self._loaded.teacher if self._loaded and self._key and self._key[0] == backbone else None
        self._key, self._loaded = None, None
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        entry = catalog.find(backbone)
        if teacher is None:
            catalog.check_there(entry)
            teacher = loading.open_backbone(entry.folder, entry.id, self.device, spec=entry.spec)
        pair = None
        folder = catalog.student_folder(entry, student)
        if folder is not None:
            pair = loading.open_student(folder, teacher, catalog.known_card(entry, student))
        warm_up(teacher)
        if pair:
            warm_up(pair[0])
        self._loaded = Loaded(teacher, *(pair or (None, None)), time.perf_counter() - start)
        self._key = (backbone, student)
        return self._loaded


@torch.inference_mode()
def warm_up(backbone: Backbone) -> None:
    """One call per shape, so that kernels are chosen and compiled before anything is timed."""
    prompt, empty = backbone.encode(["warm-up"]), backbone.encode([""])
    for pixels in (backbone.spec.low, backbone.spec.high):
        x = torch.zeros(1, backbone.channels, *backbone.latent_size(pixels), device=backbone.device)
        for guidance in (1.0, 2.0):
            Denoiser(backbone, prompt, empty, guidance)(x, 0.5)
    backbone.decode(x)
