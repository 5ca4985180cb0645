"""Requests and what backbones allow: every range and every message about bad input, in one place."""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from rmd.plan import MAX_STEPS, Mapping, Reinjection, Upsampler

PROMPT_LENGTH = 1000
SEED_LIMIT = 2**32
TEACHER_STEPS = (2, 100)
GUIDANCE = (1.0, 20.0)
SHIFT = (0.1, 20.0)
MAX_SIDE = 8192  # pixels
MAX_DETAIL = 1000.0  # mean square; latents have a variance of about 1
MAX_FRAMES = 1000
Decoder = Literal["full", "tiny"]
NO_STUDENT = "none"
"""Asks for the teacher's own weights where a student folder is expected."""


class RequestError(ValueError):
    """Bad input or an unusable file; the message is a sentence for the person who sent it."""


class Cancelled(Exception):
    """The request was stopped by its owner."""


@dataclass(frozen=True)
class BackboneSpec:
    """What a backbone is and its defaults. Sizes in pixels (height, width).

    Raises RequestError for impossible values.
    """

    id: str
    name: str
    high: tuple[int, int]
    low: tuple[int, int]
    teacher_steps: int
    guidance: float
    default_steps: int
    default_switch: int
    licence: str
    known_words: tuple[str, ...] = ()
    """Objects the model was trained on; empty when it is general."""
    colours: tuple[str, ...] = ()
    """Background colours the model was trained on."""
    prompts: tuple[str, ...] = ()
    """Prompts to suggest where one word is not enough of a prompt, as for clips."""
    shift_ratio: float | None = None
    """Ratio of the backbone's own timestep shifts, high size over low size; flow backbones only."""
    detail: float | None = None
    """Mean square of what the low size cannot hold of this backbone's clean latents (`transition.lost_detail`)."""
    frames: int = 1
    """Pictures in a result; 1 is a picture, more are a clip."""
    fps: int = 16
    """Frames per second of a clip."""
    shift: float | None = None
    """Timestep shift at the high size; None takes the scheduler's own. Flow backbones only."""

    def __post_init__(self) -> None:
        for name, size in (("high", self.high), ("low", self.low)):
            if len(size) != 2:
                raise RequestError(f"{name} must be a height and a width in pixels, not {shown(size)}.")
            for side in size:
                whole(name, side, 1, MAX_SIDE)
        if self.low[0] > self.high[0] or self.low[1] > self.high[1]:
            raise RequestError(f"low must not be larger than high, {shown(self.high)}, not {shown(self.low)}.")
        whole("frames", self.frames, 1, MAX_FRAMES)
        whole("fps", self.fps, 1, 120)
        if self.shift is not None:
            real("shift", self.shift, *SHIFT)
        whole("teacher_steps", self.teacher_steps, *TEACHER_STEPS)
        real("guidance", self.guidance, *GUIDANCE)
        if self.detail is not None:
            real("detail", self.detail, 0, MAX_DETAIL)
        whole("default_switch", self.default_switch, 0, whole("default_steps", self.default_steps, 1, MAX_STEPS))


@dataclass(frozen=True)
class StudentSpec:
    """What is known of a student's weights, from its `rmd.json` card. Raises RequestError for impossible values."""

    name: str
    base_model: str
    licence: str
    default_steps: int
    default_switch: int
    eta: float
    reinjection: Reinjection
    training: str
    """One sentence: data, budget, hardware."""
    quality: dict[str, Any]
    """Measured figures; empty when none were measured."""
    origin: Literal["rmd", "published"] = "rmd"
    """"published" weights were not trained for the cascade: they run in it as they are, "training-free"."""
    guidance: float = 1.0
    """The classifier-free guidance it is run with; 1 is none."""
    shift: float | None = None
    """The timestep shift it was trained with, where that is not the backbone's own. Flow backbones only."""
    times: tuple[float, ...] = ()
    """Its own times at full size, falling from 1, used when a request asks for as many steps; by default uniform."""

    @property
    def distilled(self) -> bool:
        """Whether it was trained for the cascade by this project's trainer."""
        return self.origin == "rmd"

    def __post_init__(self) -> None:
        whole("default_switch", self.default_switch, 0, whole("default_steps", self.default_steps, 1, MAX_STEPS))
        real("eta", self.eta, 0, 1)
        choice("reinjection", self.reinjection, get_args(Reinjection))
        choice("origin", self.origin, ("rmd", "published"))
        real("guidance", self.guidance, *GUIDANCE)
        if self.shift is not None:
            real("shift", self.shift, *SHIFT)
        for time in self.times:
            real("times", time, 0, 1)
        if not isinstance(self.quality, dict):  # pyright: ignore[reportUnnecessaryIsInstance]  # it comes from a file
            raise RequestError(f"quality must be an object, not {shown(self.quality)}.")


@dataclass(frozen=True)
class GenerateRequest:
    """One click. Build with `make_request`, which checks everything."""

    backbone: str
    prompt: str
    negative: str = ""
    steps: int = 4
    switch: int = 2
    seed: int = 0
    student: str | None = None
    """Folder of student weights; None takes the backbone's own if it has one; "none" asks for the teacher's weights."""
    teacher: bool = True
    teacher_steps: int = 50
    guidance: float = 3.5
    """Classifier-free guidance of the teacher (and of an undistilled cascade)."""
    reinjection: Reinjection = "band"
    eta: float = 1.0
    mapping: Mapping = "logsnr"
    upsampler: Upsampler = "bilinear"
    decoder: Decoder = "full"
    """The pipeline's own decoder, or a small one for the same latents where there is one; for both pictures."""


def whole(name: str, value: Any, low: int, high: int) -> int:
    """value as a whole number in [low, high]; raises RequestError naming the field, the value and the range."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not low <= value <= high or value != int(value):
        raise RequestError(f"{name} must be a whole number from {low} to {high}, not {shown(value)}.")
    return int(value)


def real(name: str, value: Any, low: float, high: float) -> float:
    """value as a number in [low, high]; raises RequestError naming the field, the value and the range."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise RequestError(f"{name} must be a number from {low:g} to {high:g}, not {shown(value)}.")
    return float(value)


def choice(name: str, value: Any, options: tuple[str, ...]) -> Any:
    if value not in options:
        raise RequestError(f"{name} must be one of {', '.join(options)}, not {shown(value)}.")
    return value


def text(name: str, value: Any, empty: bool) -> str:
    if not isinstance(value, str):
        raise RequestError(f"{name} must be text, not {shown(value)}.")
    if not empty and not value.strip():
        raise RequestError(f"{name} is empty; describe the picture you want, for example “a fox on a blue background”.")
    if len(value) > PROMPT_LENGTH:
        raise RequestError(f"{name} has {len(value)} characters; at most {PROMPT_LENGTH} are allowed.")
    if any(ord(c) < 32 and c not in "\t\n\r" for c in value) or any(0xD800 <= ord(c) < 0xE000 for c in value):
        raise RequestError(f"{name} holds control characters; please use plain text.")
    return " ".join(value.split())


def shown(value: Any) -> str:
    """A short, safe form of a bad value for a message."""
    if isinstance(value, int) and abs(value) > 10**30:  # Python refuses to write out integers of thousands of digits
        return "a huge number"
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "…"


def make_request(values: dict[str, Any]) -> GenerateRequest:
    """Check and normalise a request given as plain values; a missing or None seed is drawn at random.

    Raises RequestError on the first bad field, unknown fields included.
    """
    known = {f.name for f in fields(GenerateRequest)}
    for name in values:
        if name not in known:
            raise RequestError(f"{name} is not a setting; the settings are {', '.join(sorted(known))}.")
    request = replace(GenerateRequest(backbone="", prompt=""), **{k: v for k, v in values.items() if v is not None})
    seed = values.get("seed")
    steps = whole("steps", request.steps, 1, MAX_STEPS)
    if not isinstance(request.teacher, bool):  # pyright: ignore[reportUnnecessaryIsInstance]  # as given by the caller
        raise RequestError(f"teacher must be true or false, not {shown(request.teacher)}.")
    return replace(
        request,
        backbone=text("backbone", request.backbone, empty=False),
        prompt=text("prompt", request.prompt, empty=False),
        negative=text("negative", request.negative, empty=True),
        steps=steps,
        switch=whole("switch", request.switch, 0, steps),
        seed=secrets.randbelow(SEED_LIMIT) if seed is None else whole("seed", seed, 0, SEED_LIMIT - 1),
        student=None if request.student is None else text("student", request.student, empty=False),
        teacher_steps=whole("teacher_steps", request.teacher_steps, *TEACHER_STEPS),
        guidance=real("guidance", request.guidance, *GUIDANCE),
        reinjection=choice("reinjection", request.reinjection, get_args(Reinjection)),
        eta=real("eta", request.eta, 0, 1),
        mapping=choice("mapping", request.mapping, get_args(Mapping)),
        upsampler=choice("upsampler", request.upsampler, get_args(Upsampler)),
        decoder=choice("decoder", request.decoder, get_args(Decoder)),
    )


def completed(stored: dict[str, Any]) -> dict[str, Any]:
    """The settings of a stored request; what was not a setting yet when it was stored has its default."""
    return {**asdict(GenerateRequest(backbone="", prompt="")), **stored}


def unknown_words(spec: BackboneSpec, prompt: str) -> list[str]:
    """Words of the prompt that a small model with a known vocabulary never saw; empty for general models."""
    if not spec.known_words:
        return []
    glue = {"a", "an", "the", "on", "background", "3d", "emoji", "of"}
    known = glue | {word for phrase in (*spec.known_words, *spec.colours) for word in phrase.lower().split()}
    words = "".join(c if c.isalnum() else " " for c in prompt.lower()).split()
    return list(dict.fromkeys(word for word in words if word not in known))
