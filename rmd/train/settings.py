"""What a run of the loop does: a table of settings, filled from a recipe, the command line and `--set`.

A recipe is a TOML file of these settings, nothing else. Sources of their values: the official RMD code (Wan: rates 5e-6
and 2e-5, 300 iterations), DMD2's SDXL recipe, SwD (LoRA of rank 64), and what was measured here (method.md, 4).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar, get_args

from rmd.arguments import number
from rmd.checks import Choice, Real, RequestError, Size, Text, Whole
from rmd.method.plan import MAX_STEPS, Reinjection
from rmd.train.rollout import Renoising
from rmd.train.together import TRACKERS

RECIPES = Path(__file__).with_name("recipes")
WORLDS = ("emoji", "emoji-clips")
Kind = Whole | Real | Choice | Size | Text


def setting(default: Any, kind: Kind, help: str) -> Any:
    """A field of `Settings`; a default of None means that the backbone decides, or that there is none."""
    return field(default=default, metadata={"kind": kind, "help": help})


@dataclass(frozen=True)
class Common:
    """What every run of the loop is told. Values are checked as they come in; RequestError names the setting, the
    value and what is allowed."""

    backbone: str = setting("emoji-sdxl", Text(500), "id or folder of the backbone")
    latents: str | None = setting(None, Text(500), "folder that `train latents` wrote: pictures or clips with captions")
    world: str | None = setting(
        None, Choice(WORLDS), "bundled world to learn from, for backbones that are made from it; a bundled one's own"
    )
    size: str | None = setting(None, Size(16384), "size of the result; the backbone's by default")
    low: str | None = setting(None, Size(16384), "size of the low-resolution steps; the backbone's by default")
    frames: int | None = setting(None, Whole(1, 1024), "frames of a clip; the backbone's by default")
    lora: int | None = setting(None, Whole(1, 1024), "rank of a LoRA to train in place of the whole network")

    steps: int = setting(1500, Whole(1, 10**7), "iterations in all")
    minutes: float | None = setting(None, Real(0.001, 10**6), "end after so much time where steps are left")
    batch: int = setting(8, Whole(1, 4096), "samples of one iteration")
    accumulate: int = setting(1, Whole(1, 1024), "batches whose gradients make one update")
    rate: float = setting(1e-4, Real(0, 1), "learning rate of the student, or of the teacher in `pretrain`")
    clip: float = setting(1.0, Real(0.001, 1000), "largest norm of a gradient")
    average: float = setting(0.99, Real(0, 0.99999), "decay of the running average, which is what is exported")

    shard: str = setting("no", Choice(("no", "yes")), "split the networks among the processes (FSDP2), not for a LoRA")
    checkpointing: str = setting("no", Choice(("no", "yes")), "recompute activations to save memory")
    sheet_every: int = setting(500, Whole(1, 10**6), "iterations between two sheets of samples")
    save_minutes: float = setting(2.0, Real(0.01, 10**4), "time between two saved states")
    seed: int = setting(3, Whole(0, 2**31), "seed of everything drawn")
    tracker: str | None = setting(None, Choice(TRACKERS), "program that shows the figures as they come")

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if value is not None or one.default is not None:
                object.__setattr__(self, one.name, one.metadata["kind"].check(one.name, value))
        if self.shard == "yes" and self.lora is not None:
            raise RequestError("shard must be no with lora, not yes: the one base is held whole by every process.")


@dataclass(frozen=True)
class Settings(Common):
    """A distillation."""

    prompts: str | None = setting(
        None, Text(500), "file with a prompt per line; without one the latents' captions or a bundled world"
    )
    warm_up: int = setting(
        300, Whole(0, 10**6), "iterations of plain guidance distillation on latents, or else on the student's samples"
    )
    warm_up_rate: float = setting(1e-4, Real(0, 1), "learning rate of these")
    kept: int = setting(2, Whole(1, MAX_STEPS), "steps of one rollout that are trained")
    fake_updates: int = setting(5, Whole(1, 100), "updates of fake_score for each one of the student")
    fake_rate: float = setting(2e-4, Real(0, 1), "learning rate of fake_score")
    guidance: float | None = setting(
        None, Real(1, 30), "the teacher's classifier-free guidance; its usual one by default"
    )
    negative: str | None = setting(
        None, Text(4000, empty=True), "the teacher's negative prompt; its usual one by default"
    )
    gan_weight: float = setting(
        0.0, Real(0, 100), "of a loss that takes the student's samples for real (DMD2), beside matching; needs latents"
    )
    renoising: Renoising = setting(
        "predicted", Choice(get_args(Renoising)), "how samples are noised before they are matched"
    )
    patience: int = setting(
        20, Whole(1, 10**4), "updates over which fake_score's loss is averaged while it catches up with the student"
    )

    plan_steps: int | None = setting(None, Whole(1, MAX_STEPS), "train this number of steps alone; any by default")
    plan_switch: int | None = setting(None, Whole(0, MAX_STEPS), "train this switch alone; any by default")
    eta: float | None = setting(None, Real(0, 1), "train this share of predicted noise alone; any by default")
    reinjection: Reinjection | None = setting(
        None, Choice(get_args(Reinjection)), "train this re-injection alone; mostly band by default"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gan_weight and (self.shard == "yes" or self.checkpointing == "yes"):
            raise RequestError(f"gan_weight must be 0 with shard or checkpointing, not {self.gan_weight:g}.")
        if self.plan_switch is not None and self.plan_switch > (self.plan_steps or MAX_STEPS):
            raise RequestError(
                f"plan_switch must be at most plan_steps, which is {self.plan_steps}, not {self.plan_switch}."
            )


@dataclass(frozen=True)
class Pretraining(Common):
    """The teacher's own training, from its weights on."""

    drop: float = setting(0.1, Real(0, 1), "share of captions left empty, for classifier-free guidance")
    low_share: float = setting(0.25, Real(0, 1), "share of the iterations at the low size")
    low_first: float = setting(0.0, Real(0, 1), "share of the run, its first part, that is at the low size alone")
    low_batch: int | None = setting(None, Whole(1, 4096), "samples of an iteration at the low size; `batch` by default")
    still_share: float = setting(
        0.0, Real(0, 1), "of a model of clips: share of the iterations at full size that are on single frames"
    )
    still_batch: int | None = setting(None, Whole(1, 4096), "samples of an iteration on them; `batch` by default")
    emphasis: float = setting(1.0, Real(0.01, 100), "shift of the drawn times, towards noise above 1")
    low_emphasis: float | None = setting(None, Real(0.01, 100), "the same at the low size; `emphasis` by default")
    optimizer: str = setting("adamw", Choice(("adamw", "muon")), "muon: for the matrices, in whole networks alone")
    text_share: float = setting(0.0, Real(0, 1), "share of the rate for the text encoders; at 0 they stay as they are")
    held_out: int = setting(
        0, Whole(0, 10**5), "samples that are left out, for a loss that two runs can be compared by"
    )
    compile: str = setting("no", Choice(("no", "yes")), "compile the network (torch.compile)")

    def __post_init__(self) -> None:
        super().__post_init__()
        whole = self.lora is None and self.shard == "no"
        if not whole and (self.text_share or self.optimizer == "muon"):
            raise RequestError("text_share must be 0 and optimizer adamw with lora or shard: both need whole networks.")


Kinds = TypeVar("Kinds", bound=Common)


def recipes(kind: type[Common] = Settings) -> list[str]:
    """The names of the recipes that come with the program, for settings of a kind."""
    return sorted(path.stem for path in folder_of(kind).glob("*.toml"))


def folder_of(kind: type[Common]) -> Path:
    return RECIPES / "pretrain" if kind is Pretraining else RECIPES


def read_recipe(recipe: str, plain: Kinds) -> Kinds:
    """A recipe by its name or its file, over plain settings; RequestError for what is none or says it wrongly."""
    path = Path(recipe) if recipe.endswith(".toml") else folder_of(type(plain)) / f"{recipe}.toml"
    if not path.is_file():
        there = ", ".join(recipes(type(plain)))
        raise RequestError(f"recipe must be one of {there}, or a .toml file, not {recipe!r}.")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RequestError(f"The recipe {path.name} cannot be read: {error}.") from error
    return changed(plain, values)


def changed(settings: Kinds, values: Mapping[str, Any]) -> Kinds:
    """Settings with some of them replaced; RequestError names one that does not exist."""
    names = [one.name for one in fields(settings)]
    unknown = [name for name in values if name not in names]
    if unknown:
        raise RequestError(f"There is no training setting {unknown[0]!r}; there are {', '.join(names)}.")
    return replace(settings, **values)


def assignments(texts: Sequence[str]) -> dict[str, Any]:
    """The values in arguments such as `rate=1e-5`, numbers as numbers."""
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise RequestError(f"--set takes NAME=VALUE, not {text!r}.")
        values[name.strip()] = number(value.strip())
    return values
