"""What a request gives back: pictures or clips, and everything measured as plain data that reads its own JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from PIL import Image
from torch import Tensor

from rmd.backbones.cards import StudentSpec
from rmd.checks import RequestError
from rmd.engine.stopwatch import READY_SHARE
from rmd.method.plan import CascadePlan, plan_from_dict
from rmd.request import GenerateRequest, completed, make_request

BUSY = "Measured while the machine was busy: these times are not to be trusted."
ROLES = ("student", "teacher")
APART = 1.3
"""The median run over the fastest, from which on the times are doubtful."""


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
    nfe: int = 0
    """Network function evaluations, guidance counted twice."""
    runs: int = 1
    """How often it was run; with several, all times are those of the median run."""
    fastest: float | None = None
    """Network calls, switch and decoder of the fastest of several runs."""
    slowest: float | None = None
    waited: float = 0.0
    """The share of the time that other work on the machine took, 0 to 1 (see `rmd.engine.stopwatch`)."""

    @property
    def busy(self) -> bool:
        """Whether other work on the machine makes these times doubtful."""
        apart = self.fastest is not None and self.computing > APART * self.fastest
        return self.waited > READY_SHARE or apart

    @property
    def computing(self) -> float:
        """Network calls, switch and decoder."""
        return self.denoiser + self.decode

    @property
    def denoiser(self) -> float:
        """All network calls and the switch between resolutions."""
        return sum(stage.seconds for stage in self.stages) + self.switch

    @property
    def end_to_end(self) -> float:
        """Prompt encoding, denoiser and decoder."""
        return self.encode + self.denoiser + self.decode

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, sums included; `from_dict` reads it back."""
        return {**asdict(self), "denoiser": self.denoiser, "end_to_end": self.end_to_end, "busy": self.busy}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Timings:
        stages = tuple(StageTiming(tuple(s["size"]), s["steps"], s["seconds"]) for s in data["stages"])
        later = {name: data[name] for name in ("nfe", "runs", "fastest", "slowest", "waited") if name in data}
        return cls(data["encode"], stages, data["switch"], data["decode"], **later)


def median_of(runs: Sequence[Timings]) -> Timings:
    """The median run of an odd number of runs of the same plan, with their spread."""
    ordered = sorted(runs, key=lambda one: one.computing)
    return replace(
        ordered[len(ordered) // 2],
        runs=len(ordered),
        fastest=ordered[0].computing,
        slowest=ordered[-1].computing,
    )


@dataclass(frozen=True)
class Output:
    """One side's picture or clip."""

    frames: tuple[Image.Image, ...]
    timings: Timings
    fps: int = 16
    """Frames per second, where there are several."""
    latents: Tensor | None = None
    """The clean latent it was decoded from, (1, C, *S) on the CPU, where it was run just now."""

    @property
    def image(self) -> Image.Image:
        """The picture, or a clip's first frame."""
        return self.frames[0]


@dataclass(frozen=True)
class Result:
    """Everything about a finished request but its pictures."""

    request: GenerateRequest
    plan: CascadePlan
    label: str
    """Whose picture the few-step one is, in words."""
    distilled: bool
    """Whether the student was trained for the cascade by this project's trainer."""
    student: Timings
    teacher: Timings | None
    device: str
    hardware: str
    dtype: str
    frames: int = 1
    """Pictures in a result; 1 is a picture, more are a clip."""
    fps: int = 16
    teacher_cached: str | None = None
    """Where and when the teacher was measured if it came from the cache; then the speed-up is not of one run."""

    @property
    def timings(self) -> dict[str, Timings]:
        """By role, of the sides that were run."""
        both = {"student": self.student, "teacher": self.teacher}
        return {role: timings for role, timings in both.items() if timings is not None}

    @property
    def busy(self) -> bool:
        """Whether other work on the machine makes the times doubtful."""
        return any(timings.busy for timings in self.timings.values())

    @property
    def speedup(self) -> dict[str, float] | None:
        """Teacher over student, denoiser only and end to end; None without a teacher run."""
        if self.teacher is None:
            return None
        fast, slow = self.student, self.teacher
        return {"denoiser": slow.denoiser / fast.denoiser, "end_to_end": slow.end_to_end / fast.end_to_end}

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it back."""
        return {
            "request": asdict(self.request),
            "plan": self.plan.as_dict(),
            "student": self.label,
            "distilled": self.distilled,
            "frames": self.frames,
            "fps": self.fps,
            "timings": {role: timings.as_dict() for role, timings in self.timings.items()},
            "speedup": self.speedup,
            "busy": self.busy,
            "teacher_cached": self.teacher_cached,
            "device": self.device,
            "hardware": self.hardware,
            "dtype": self.dtype,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Result:
        """The inverse of `as_dict`, for files of earlier versions too; raises RequestError for what does not fit."""
        try:
            timings = data["timings"]
            return cls(
                request=make_request(completed(data["request"])),
                plan=plan_from_dict(data["plan"]),
                label=str(data["student"]),
                distilled=bool(data["distilled"]),
                student=Timings.from_dict(timings["student"]),
                teacher=Timings.from_dict(timings["teacher"]) if "teacher" in timings else None,
                device=str(data["device"]),
                hardware=str(data.get("hardware", data["device"])),
                dtype=str(data["dtype"]),
                frames=int(data.get("frames", 1)),
                fps=int(data.get("fps", 16)),
                teacher_cached=data.get("teacher_cached"),
            )
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, RequestError):
                raise
            raise RequestError("These settings are not of a finished run.") from error


@dataclass(frozen=True)
class Done:
    """The last event of a request: its pictures and what is known of them."""

    request: GenerateRequest
    plan: CascadePlan
    student: Output
    teacher: Output | None
    card: StudentSpec | None
    device: str
    dtype: str
    hardware: str
    """The device's product name, on the machine that computed."""
    teacher_cached: str | None = None

    @property
    def outputs(self) -> dict[str, Output]:
        """By role, of the sides that were run."""
        both = {"student": self.student, "teacher": self.teacher}
        return {role: output for role, output in both.items() if output is not None}

    @property
    def result(self) -> Result:
        """Everything but the pictures."""
        return Result(
            request=self.request,
            plan=self.plan,
            label=label_of(self.card),
            distilled=self.card is not None and self.card.distilled,
            student=self.student.timings,
            teacher=self.teacher.timings if self.teacher else None,
            device=self.device,
            hardware=self.hardware,
            dtype=self.dtype,
            frames=len(self.student.frames),
            fps=self.student.fps,
            teacher_cached=self.teacher_cached,
        )


def label_of(card: StudentSpec | None) -> str:
    """Whose picture the few-step one is, in words."""
    if card is None:
        return "not distilled: the teacher's own weights in the cascade"
    words = card.name if card.distilled else f"{card.name}: training-free cascade, not distilled by us"
    return f"{words}; {card.left_out}" if card.left_out else words
