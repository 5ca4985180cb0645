"""The request and the one table of its settings.

Every field of `GenerateRequest` is a row: its range, default, label and help, who decides the default, and where it
counts. The page's controls, the command line, the HTTP endpoint, links, files, the history and the teacher cache are
made from `SETTINGS`, so a new setting is one row here and the code that obeys it.
"""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

from rmd.checks import Choice, Kind, Real, RequestError, Size, Stages, Text, Truth, Whole
from rmd.method.plan import MAX_STEPS, Mapping, Reinjection, Upsampler

PROMPT_LENGTH = 1000
SEED_LIMIT = 2**32
TEACHER_STEPS = (2, 100)
GUIDANCE = (1.0, 20.0)
MAX_SIDE = 8192  # pixels
MAX_FRAMES = 1000
MAX_COUNT = 16
Decoder = Literal["full", "tiny"]
NOISE = ("fresh: all new", "mix: the paper's blend", "band: keep the coarse part", "block: the same by blocks")
NO_STUDENT = "none"
"""Asks for the teacher's own weights where a student folder is expected."""


@dataclass(frozen=True)
class Setting:
    """One row of the table.

    label: its name on the page. help: what it does, the beginning of a sentence without its range (command line and
    endpoint). info: the line under its control, where the label does not say enough.
    """

    name: str
    kind: Kind
    default: Any
    label: str
    help: str
    info: str = ""
    decided_by: Literal["request", "backbone", "student"] = "request"
    """Whose default it has: this table's, the backbone's, or the student's (the backbone's where there is none)."""
    teacher: bool = False
    """Whether the teacher's output depends on it: then it enters the teacher cache's key."""
    place: Literal["model", "compose", "settings", "advanced", ""] = ""
    """The group of its control on the page; "" for a setting that the page and the endpoint do not offer."""
    linked: bool = False
    """Whether links always say it; others are said where they differ from the default."""
    flag: str = ""
    """Its name on the command line, where that is another."""

    @property
    def text(self) -> str:
        """Help and range in one line."""
        return f"{self.help}, {self.kind.allowed}" if isinstance(self.kind, Whole | Real) else self.help

    @property
    def option(self) -> str:
        """The command line's option."""
        return f"--{self.flag or self.name.replace('_', '-')}"


def row(kind: Kind, label: str, help: str, default: Any = ..., **more: Any) -> Any:
    """A field of `GenerateRequest` with its row of the table. default: none where the setting must be given."""
    metadata = {"row": {"kind": kind, "label": label, "help": help, "default": default, **more}}
    return field(metadata=metadata) if default is ... else field(default=default, metadata=metadata)


@dataclass(frozen=True)
class GenerateRequest:
    """One click. Build with `make_request`, which checks everything."""

    backbone: str = row(
        Text(PROMPT_LENGTH), "Model", "catalog id or a local diffusers folder", teacher=True, place="model", linked=True
    )
    prompt: str = row(
        Text(PROMPT_LENGTH, advice="describe the picture you want, for example “a fox on a blue background”"),
        "What should it draw?", "what to draw", teacher=True, place="compose", linked=True,
    )  # fmt: skip
    steps: int = row(
        Whole(1, MAX_STEPS), "Steps", "network calls of the few-step student", 4, decided_by="student",
        info="How many times the fast model looks at the picture. Fewer is faster.", place="settings", linked=True,
    )  # fmt: skip
    switch: int = row(
        Whole(0, MAX_STEPS, at_most="steps"), "Low-resolution steps", "how many of them run at low resolution", 2,
        info="So many of them come first, on a small picture, where each is much cheaper.", decided_by="student",
        place="settings", linked=True,
    )  # fmt: skip
    size: str | None = row(
        Size(MAX_SIDE), "Size", "width and height of the result in pixels", None, decided_by="backbone", teacher=True,
        place="settings",
    )  # fmt: skip
    low: str | None = row(
        Size(MAX_SIDE), "Low size", "size of the low-resolution steps, in the proportion of size when left out", None,
        decided_by="backbone", place="advanced",
    )  # fmt: skip
    plan: str | None = row(
        Stages(Size(MAX_SIDE), MAX_STEPS), "Plan of several sizes",
        "steps at any number of sizes, in place of steps, switch, size and low", None, decided_by="student",
        info="Size:steps with commas between them, smallest first; in place of the two sizes and their steps.",
        place="advanced",
    )  # fmt: skip
    frames: int | None = row(
        Whole(1, MAX_FRAMES), "Frames", "frames of a clip; 1 for models of pictures", None, decided_by="backbone",
        teacher=True, place="advanced",
    )  # fmt: skip
    seed: int = row(
        Whole(0, SEED_LIMIT - 1), "Seed", "whole number, random when left out", 0, teacher=True, place="settings",
        info="The same number gives the same picture.", linked=True,
    )  # fmt: skip
    count: int = row(
        Whole(1, MAX_COUNT), "How many", "results: this seed and the next ones, one after another", 1,
        info="With this seed and the next ones, each a result of its own.", place="advanced",
    )  # fmt: skip
    teacher: bool = row(
        Truth(),
        "Run the teacher as well",
        "run the many-step teacher as well, for the comparison",
        True,
        place="advanced",
    )
    teacher_steps: int = row(
        Whole(*TEACHER_STEPS), "Teacher steps", "steps of the teacher", 50, decided_by="backbone", teacher=True,
        place="advanced",
    )  # fmt: skip
    guidance: float = row(
        Real(*GUIDANCE), "Guidance (CFG) of the teacher",
        "classifier-free guidance of the teacher (and of an undistilled cascade)", 3.5, decided_by="backbone",
        info="How strongly the teacher follows the prompt; the trained student needs none.", teacher=True,
        place="advanced", flag="cfg",
    )  # fmt: skip
    negative: str = row(
        Text(PROMPT_LENGTH, empty=True), "Negative prompt", "what to avoid (only guided runs use it)", "",
        decided_by="backbone", teacher=True, place="advanced",
    )  # fmt: skip
    reinjection: Reinjection = row(
        Choice(get_args(Reinjection), NOISE),
        "Noise at the switch (re-injection)", "noise at the switch", "band", decided_by="student",
        info="What is added when the picture is enlarged.", place="advanced", linked=True,
    )  # fmt: skip
    eta: float = row(
        Real(0, 1, step=0.05), "Noise kept between steps (η)", "share of predicted noise kept", 1.0,
        decided_by="student", place="advanced", linked=True,
        info="1 keeps the predicted noise (deterministic, like DDIM), 0 draws new noise (like LCM).",
    )  # fmt: skip
    mapping: Mapping = row(
        Choice(get_args(Mapping)), "Time mapping between resolutions", "time mapping between the resolutions", "logsnr",
        info="logsnr matches the information of both sizes; shift uses the model's own timestep shifts.",
        decided_by="student", place="advanced",
    )  # fmt: skip
    upsampler: Upsampler = row(
        Choice(get_args(Upsampler)), "Upsampler", "how the clean estimate is enlarged", "bilinear",
        decided_by="student", place="advanced",
        info="How the latents are enlarged at the switch; selflift also decodes, enlarges and encodes them again.",
    )  # fmt: skip
    decoder: Decoder = row(
        Choice(get_args(Decoder), ("full: the model's own", "tiny: fast, a little less exact")), "Decoder",
        "what makes pixels of the last latent, for both pictures; tiny is fast, where the model has a tiny one here",
        "full", teacher=True, place="advanced", info="What makes pixels of the last latent, for both pictures.",
    )  # fmt: skip
    student: str | None = row(
        Text(PROMPT_LENGTH), "Student",
        'folder or .safetensors file of student weights, a published one by its id, or "none" for the teacher\'s own '
        "weights; the model's own student when left out",
        None, place="model",
    )  # fmt: skip


SETTINGS: dict[str, Setting] = {f.name: Setting(f.name, **f.metadata["row"]) for f in fields(GenerateRequest)}
"""Every setting by its name, in the order of the request's fields."""


def offered() -> list[Setting]:
    """The settings of the page, links and the endpoint; what must be given comes first."""
    there = [setting for setting in SETTINGS.values() if setting.place]
    return sorted(there, key=lambda setting: setting.name != "prompt")


def make_request(values: dict[str, Any]) -> GenerateRequest:
    """Check and normalise a request given as plain values; a missing or None seed is drawn at random.

    Raises RequestError on the first bad field, unknown fields included.
    """
    for name in values:
        if name not in SETTINGS:
            raise RequestError(f"{name} is not a setting; the settings are {', '.join(sorted(SETTINGS))}.")
    checked: dict[str, Any] = {}
    for name, setting in SETTINGS.items():
        value = values.get(name)
        if value is None:
            value = secrets.randbelow(SEED_LIMIT) if name == "seed" else setting.default
        kind = setting.kind
        if isinstance(kind, Whole) and kind.at_most:
            kind = replace(kind, high=checked[kind.at_most])
        if value is not None:
            value = kind.check(name, "" if value is ... else value)
        checked[name] = value
    return GenerateRequest(**checked)


def singles(request: GenerateRequest) -> list[GenerateRequest]:
    """The requests of one result each that a request stands for: its seed and the next ones, after the last the first.

    They run one after another, so that every time is that of one result and each can be had again alone.
    """
    return [replace(request, seed=(request.seed + i) % SEED_LIMIT, count=1) for i in range(request.count)]


def completed(stored: dict[str, Any]) -> dict[str, Any]:
    """The settings of a stored request; what was not a setting yet when it was stored has its default."""
    known = {name: value for name, value in stored.items() if name in SETTINGS}
    return {**{name: s.default for name, s in SETTINGS.items() if s.default is not ...}, **known}


def teacher_key(request: GenerateRequest) -> dict[str, Any]:
    """The settings that decide the teacher's output: two requests with the same ones have the same teacher."""
    values = asdict(request)
    return {name: values[name] for name, setting in SETTINGS.items() if setting.teacher}


def student_key(request: GenerateRequest) -> GenerateRequest:
    """The request without what its student does not depend on: two with the same one have the same student."""
    return replace(request, teacher=False, teacher_steps=2, count=1)
