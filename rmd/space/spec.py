"""`space.yaml`: what a Hugging Face Space is told, read and checked field by field.

A Space itself reads the YAML block at the top of README.md; its fields and their values are those of
https://huggingface.co/docs/hub/spaces-config-reference. `secrets` and `environment` are ours: they are set through the
Hub's API when deploying.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import SpaceHardware

from rmd.checks import RequestError

COLOURS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")
HARDWARE = tuple(flavour.value for flavour in SpaceHardware)
ZERO_GPU = SpaceHardware.ZERO_A10G.value
OURS = ("secrets", "environment")
"""Fields that do not go into the README block."""
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def one_of(*options: str) -> Callable[[Any], str]:
    return lambda value: "" if value in options else f"must be one of {', '.join(options)}"


def text_up_to(longest: int) -> Callable[[Any], str]:
    good = f"must be text of 1 to {longest} characters"
    return lambda value: "" if isinstance(value, str) and 0 < len(value) <= longest else good


def matching(pattern: str, form: str) -> Callable[[Any], str]:
    return lambda value: "" if isinstance(value, str) and re.fullmatch(pattern, value) else f"must look like {form}"


def emoji(value: Any) -> str:
    good = isinstance(value, str) and 0 < len(value) <= 8 and not re.search(r"[\w\s]", value)
    return "" if good else "must be a single emoji"


def truth(value: Any) -> str:
    return "" if isinstance(value, bool) else "must be true or false"


def list_of(each: re.Pattern[str], form: str) -> Callable[[Any], str]:
    good = f"must be a list of {form}"
    return lambda v: "" if isinstance(v, list) and all(isinstance(i, str) and each.fullmatch(i) for i in v) else good


def variables(value: Any) -> str:
    good = isinstance(value, dict) and all(isinstance(k, str) and NAME.fullmatch(k) for k in value)
    return "" if good and all(isinstance(v, str) for v in value.values()) else "must map names to texts (in quotes)"


REQUIRED: dict[str, Callable[[Any], str]] = {
    "title": text_up_to(80),
    "emoji": emoji,
    "colorFrom": one_of(*COLOURS),
    "colorTo": one_of(*COLOURS),
    "sdk": one_of("gradio"),
    "sdk_version": matching(r"\d+\.\d+\.\d+", "6.31.0"),
    "python_version": matching(r"3\.\d+(\.\d+)?", "3.11, in quotes"),
    "app_file": matching(r"[\w./-]+\.py", "app.py"),
    "license": matching(r"[a-z0-9.+-]+", "apache-2.0, the Hub's short name"),
    "suggested_hardware": one_of(*HARDWARE),
}
OPTIONAL: dict[str, Callable[[Any], str]] = {
    "short_description": text_up_to(60),
    "tags": list_of(re.compile(r"[\w.:-]+"), "words"),
    "pinned": truth,
    "fullWidth": truth,
    "disable_embedding": truth,
    "header": one_of("mini", "default"),
    "startup_duration_timeout": matching(r"\d+(\.\d+)? ?(s|m|h|sec|min|hours?)", "30m"),
    "models": list_of(REPOSITORY, "names like stabilityai/stable-diffusion-xl-base-1.0"),
    "datasets": list_of(REPOSITORY, "names like owner/name"),
    "preload_from_hub": list_of(
        re.compile(r"[\w.-]+/[\w.-]+( [^ ]+)*"), 'entries like "owner/name file1,file2 revision"'
    ),
    "secrets": list_of(NAME, "names, whose values come from your environment"),
    "environment": variables,
}


def read(path: Path) -> dict[str, Any]:
    """The fields of a space.yaml; raises RequestError when it cannot be read as such."""
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" near line {mark.line + 1}" if mark else ""
        raise RequestError(f"{path} is no valid YAML{place}.") from error
    if not isinstance(fields, dict):
        raise RequestError(f"{path} must hold fields such as title: and sdk:.")
    return fields


def problems(fields: dict[str, Any]) -> list[str]:
    """A sentence per field that a Space would not accept."""
    found = [f"space.yaml lacks {name}." for name in REQUIRED if name not in fields]
    known = REQUIRED | OPTIONAL
    for name, value in fields.items():
        if name not in known:
            found.append(f"space.yaml: {name} is not a field of a Space; the fields are {', '.join(known)}.")
        elif problem := known[name](value):
            found.append(f"space.yaml: {name} {problem}, not {value!r}.")
    return found
