"""What a running request reports, in the order in which it happens."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from rmd.backbones.parts import Part
from rmd.engine.results import Done, Output

LEAST = -14.0
"""A flow begins at no signal at all, whose logSNR is infinitely small."""


@dataclass(frozen=True)
class Loading:
    """The models are being read from disk. part: the network that is next, None before the first."""

    backbone: str
    part: Part | None = None

    @property
    def sentence(self) -> str:
        """What is read, for a person."""
        return f"Loading {self.part.words if self.part else self.backbone} …"


@dataclass(frozen=True)
class Warming:
    """A first call of one of the request's shapes is about to be made, `index` of `total`; none of them is timed."""

    index: int
    total: int


@dataclass(frozen=True)
class Waiting:
    """Another request has the accelerator."""


@dataclass(frozen=True)
class Progress:
    """A finished step of "student" or "teacher"; `size` in latent cells. `preview` is its clean estimate, small, RGB.

    logsnr: of the noise it was made at, as it counts at the result's size (see `rmd.method.schedule`), at least LEAST.
    """

    role: str
    index: int
    total: int
    size: tuple[int, ...]
    preview: Image.Image | None
    logsnr: float = 0.0


@dataclass(frozen=True)
class Timing:
    """The student's calls are about to be made again, only to be timed: run `index` of `total`, the first included."""

    index: int
    total: int


@dataclass(frozen=True)
class Decoded:
    """One side is complete. alone: of the student, all there would be if it ended here."""

    role: str
    output: Output
    alone: Done | None = None


Event = Loading | Warming | Waiting | Progress | Timing | Decoded | Done
