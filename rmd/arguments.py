"""The command line's arguments for requests, made from the settings table, and for how networks compute."""

from __future__ import annotations

import argparse
import re
from collections.abc import Collection
from typing import Any, NoReturn

from rmd.backbones import catalog
from rmd.backbones.placement import Tuning
from rmd.checks import Choice, Real, RequestError, Truth, Whole
from rmd.method.plan import MAX_STEPS
from rmd.request import SETTINGS, Setting


class Parser(argparse.ArgumentParser):
    """argparse whose complaints are one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}. See {self.prog} --help.\n")


def number(text: str) -> int | float | str:
    """The number a text stands for, or the text itself, which validation then refuses by the field's name."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def add_settings(p: argparse.ArgumentParser, leave_out: Collection[str] = (), several: Collection[str] = ()) -> None:
    """An argument for every setting but some; a parser's own default for one has to be set before.

    several: those that may be lists with commas.
    """
    for name, setting in SETTINGS.items():
        if name not in leave_out:
            add_setting(p, setting, name in several)


def add_setting(p: argparse.ArgumentParser, setting: Setting, several: bool) -> None:
    kind, option, default = setting.kind, setting.option, p.get_default(setting.name)
    more: dict[str, Any] = {"dest": setting.name, "help": setting.text}
    if isinstance(kind, Truth):
        off = setting.default is True
        action = "store_false" if off else "store_true"
        more["help"] = f"do not {setting.help}" if off else setting.help
        p.add_argument(f"--no-{option[2:]}" if off else option, action=action, default=None, **more)
        return
    if isinstance(kind, Choice):
        more["help"] += f": {' | '.join(kind.options)}"
    if several:
        more["help"] += "; several with commas between them"
    elif isinstance(kind, Whole | Real):
        more["type"] = number
    if setting.name == "backbone":
        more["default"] = catalog.DEFAULT
    elif default is not None:
        more["default"] = default
    elif setting.default is ...:
        more["required"] = True
    p.add_argument(option, **more)


def given(args: argparse.Namespace) -> dict[str, Any]:
    """The settings among a command's arguments; None for what was left out."""
    return {name: getattr(args, name) for name in SETTINGS if hasattr(args, name)}


def values_in(name: str, text: str | None, default: Any) -> list[Any]:
    """The values of a comma-separated argument, or the default alone; raises RequestError for an empty one."""
    if text is None:
        return [default]
    values = [number(part.strip()) for part in text.split(",")]
    if "" in values:
        raise RequestError(f"{name} must be values with commas between them, not {text!r}.")
    return list(dict.fromkeys(values))


def every_plan() -> list[tuple[int, int]]:
    """(steps, switch) of every plan that a request can ask for."""
    return [(steps, switch) for steps in range(1, MAX_STEPS + 1) for switch in range(steps + 1)]


def parse_plans(text: str) -> list[tuple[int, int]]:
    """(steps, switch) pairs from "all" or a list such as 4/2,4/1; raises RequestError naming what does not fit."""
    if text == "all":
        return every_plan()
    plans: list[tuple[int, int]] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,3})/(\d{1,3})", part.strip())
        if not match or not 1 <= int(match[1]) <= MAX_STEPS or int(match[2]) > int(match[1]):
            raise RequestError(
                f"plans must be steps/switch with steps 1 to {MAX_STEPS} and switch 0 to steps, not {part!r}."
            )
        plans.append((int(match[1]), int(match[2])))
    return plans


def add_tuning(p: argparse.ArgumentParser) -> None:
    """How the networks compute, for every command that runs them."""
    p.add_argument("--attention", metavar="NAME", help="attention backend of diffusers, such as native, flash or sage")
    p.add_argument("--compile", action="store_true", help="torch.compile the networks' blocks (slow first calls)")


def add_fleet(p: argparse.ArgumentParser) -> None:
    """Several accelerators, for commands with many runs."""
    words = "spread the runs over a fleet: local, local:2 or the address of a Ray cluster"
    p.add_argument("--fleet", metavar="PLACE", help=words)
    p.add_argument("--replicas", metavar="N", help="how many it has, such as 4 or 1-8; one for each GPU if left out")


def tuning_of(args: argparse.Namespace) -> Tuning:
    return Tuning(args.attention, args.compile, getattr(args, "context_parallel", 1))
