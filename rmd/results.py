"""What a request gives back: pictures or clips, timings, speed-ups; as objects, as JSON and inside PNG files."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from rmd.config import GenerateRequest, RequestError, StudentSpec
from rmd.hardware import describe
from rmd.plan import CascadePlan


@dataclass(frozen=True)
class StageTiming:
    """Network time of the steps at one resolution. size in latent cells."""

    size: tuple[int, ...]
    steps: int
    seconds: float


@dataclass(frozen=True)
class Timings:
    """Seconds per part of one run; loading, warm-up and previews are not in any of them."""

    encode: float
    stages: tuple[StageTiming, ...]
    switch: float
    decode: float

    @property
    def denoiser(self) -> float:
        """All network calls and the switch between resolutions."""
        return sum(stage.seconds for stage in self.stages) + self.switch

    @property
    def end_to_end(self) -> float:
        """Prompt encoding, denoiser and decoder."""
        return self.encode + self.denoiser + self.decode

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "denoiser": self.denoiser, "end_to_end": self.end_to_end}


@dataclass(frozen=True)
class Output:
    """One side's picture or clip. nfe: network function evaluations, guidance counted twice."""

    frames: tuple[Image.Image, ...]
    timings: Timings
    nfe: int
    distilled: bool
    fps: int = 16
    """Frames per second, where there are several."""

    @property
    def image(self) -> Image.Image:
        """The picture, or a clip's first frame."""
        return self.frames[0]


@dataclass(frozen=True)
class Done:
    """The whole result of a request."""

    request: GenerateRequest
    plan: CascadePlan
    student: Output
    teacher: Output | None
    card: StudentSpec | None
    device: str
    dtype: str
    teacher_cached: str | None = None
    """Where and when the teacher was measured if it came from the cache; then the speed-up is not of one run."""

    @property
    def label(self) -> str:
        """Whose picture the few-step one is, in words."""
        if self.card is None:
            return "not distilled: the teacher's own weights in the cascade"
        return (
            self.card.name if self.card.distilled else f"{self.card.name}: training-free cascade, not distilled by us"
        )

    @property
    def speedup(self) -> dict[str, float] | None:
        """Teacher over student, denoiser only and end to end; None without a teacher run."""
        if self.teacher is None:
            return None
        fast, slow = self.student.timings, self.teacher.timings
        return {"denoiser": slow.denoiser / fast.denoiser, "end_to_end": slow.end_to_end / fast.end_to_end}

    def as_dict(self) -> dict[str, Any]:
        """Everything but the pictures, JSON-ready. frames and fps describe the result: 1 frame is a picture."""
        sides = {"student": self.student, "teacher": self.teacher}
        return {
            "request": asdict(self.request),
            "plan": self.plan.as_dict(),
            "student": self.label,
            "distilled": self.student.distilled,
            "frames": len(self.student.frames),
            "fps": self.student.fps,
            "timings": {k: {**o.timings.as_dict(), "nfe": o.nfe} for k, o in sides.items() if o},
            "speedup": self.speedup,
            "teacher_cached": self.teacher_cached,
            "device": self.device,
            "hardware": describe(self.device),
            "dtype": self.dtype,
        }


def save_png(image: Image.Image, path: Path, settings: dict[str, Any]) -> None:
    """Write a PNG with the settings as a text chunk named "rmd"; all of it or nothing.

    Raises RequestError when the folder cannot be written or the disk is full.
    """
    info = PngImagePlugin.PngInfo()
    info.add_itxt("rmd", json.dumps(settings, ensure_ascii=False))
    write_whole(path, lambda temporary: image.save(temporary, format="PNG", pnginfo=info))


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write(temporary path)` and rename it to `path`; on failure nothing is left and RequestError is raised."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".rmd-", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise RequestError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def ensure_writable(folder: Path) -> None:
    """Create the folder and try a file in it, so that an unusable one is known before any work is done."""
    write_whole(folder / ".rmd-probe", lambda temporary: None)
    (folder / ".rmd-probe").unlink(missing_ok=True)
