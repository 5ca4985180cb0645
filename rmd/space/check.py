"""Whether this checkout would run as the Space that space.yaml describes; and the files it consists of."""

from __future__ import annotations

import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from rmd.backbones import catalog
from rmd.checks import RequestError
from rmd.space import card, spec

LEFT_OUT = ("tests/*", ".ci/*", "Makefile", "requirements-dev.txt", "assets/bench/*")
"""Tracked files that a Space does not need."""
LARGEST = 1_000_000_000
"""Bytes that a Space's repository may have without a paid plan."""
ZERO_GPU_TORCH = ((2, 8), (2, 11))
"""First and last torch that ZeroGPU lists as supported."""


def files(root: Path) -> list[str]:
    """The tracked files that make up the Space, as paths relative to the root; raises RequestError outside git."""
    try:
        listing = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise RequestError(f"{root} is no git checkout, so what belongs to the Space is not known.") from error
    tracked = [name for name in listing.split("\0") if name and (root / name).is_file()]
    return [name for name in tracked if not any(fnmatch(name, pattern) for pattern in LEFT_OUT)]


def pins(root: Path) -> dict[str, str]:
    """Exact versions by package from requirements.txt."""
    lines = (root / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return {
        found[1].lower(): found[2] for line in lines if (found := re.match(r"([\w.-]+)(?:\[.*?\])?==([\w.+]+)", line))
    }


def problems(root: Path) -> list[str]:
    """A sentence for everything that is wrong, none when it can be deployed; raises RequestError without space.yaml."""
    fields = spec.read(root / "space.yaml")
    found = spec.problems(fields)
    if not (root / "requirements.txt").is_file():
        return [*found, "requirements.txt is missing; a Space installs what it lists."]
    return [*found, *versions(root, fields), *readme(root, fields), *contents(root, fields)]


def versions(root: Path, fields: dict[str, Any]) -> list[str]:
    found, pinned = [], pins(root)
    if pinned.get("gradio") != str(fields.get("sdk_version")):
        have = pinned.get("gradio", "no exact version")
        found.append(f"space.yaml: sdk_version is {fields.get('sdk_version')}, but requirements.txt has gradio {have}.")
    needed = re.search(r'requires-python\s*=\s*">=([\d.]+)"', text(root / "pyproject.toml"))
    if needed and version(str(fields.get("python_version"))) < version(needed[1]):
        found.append(
            f"space.yaml: python_version is {fields.get('python_version')}, but the project needs {needed[1]} or newer."
        )
    torch, (first, last) = pinned.get("torch", "0"), ZERO_GPU_TORCH
    if fields.get("suggested_hardware") == spec.ZERO_GPU and not first <= version(torch)[:2] <= last:
        found.append(
            f"requirements.txt has torch {torch}, but ZeroGPU supports {first[0]}.{first[1]} to {last[0]}.{last[1]}; "
            "pin one of these for such a Space."
        )
    return found


def readme(root: Path, fields: dict[str, Any]) -> list[str]:
    there = card.fields_of(text(root / "README.md"))
    if there is None or there == card.fields_of(card.block(fields)):
        return []
    renew = "`python -m rmd space render --out README.md` renews it"
    return [f"The YAML block of README.md does not agree with space.yaml; {renew}."]


def contents(root: Path, fields: dict[str, Any]) -> list[str]:
    shipped, found = files(root), []
    wanted = [str(fields.get("app_file")), "requirements.txt", "README.md", "LICENSE"]
    for entry in catalog.ENTRIES:
        for folder in (entry.folder, entry.student) if entry.hub is None else ():
            place = folder.relative_to(catalog.CHECKPOINTS.parent)
            if entry.id == catalog.DEFAULT or (root / place).is_dir():  # others are left out where they were not made
                wanted.append(f"{place}/*")
    for name in wanted:
        if not any(fnmatch(file, name) for file in shipped):
            found.append(f"{name} is needed by the Space, but git does not track it.")
    total = sum((root / name).stat().st_size for name in shipped)
    if total > LARGEST:
        found.append(f"The Space would have {total / 1e9:.1f} GB; {LARGEST / 1e9:g} GB are allowed.")
    return found


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def version(written: str) -> tuple[int, ...]:
    """The numbers of a version, without what follows them."""
    return tuple(int(part) for part in re.findall(r"\d+", written.partition("+")[0]))
