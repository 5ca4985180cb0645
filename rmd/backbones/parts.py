"""The networks of a pipeline's folder one by one: how large each is, whether all fit here, and reading them in turn.

A pipeline reads its folder in one go, in silence; read part by part, it can say how far it is and be stopped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from rmd.backbones.folders import read_json
from rmd.backbones.machine import GB, free_gb
from rmd.backbones.naming import named, variant_of
from rmd.checks import RequestError

HEADER_LIMIT = 100_000_000
"""Bytes of a safetensors file's list of tensors that are read at most, as in its own library."""


@dataclass(frozen=True)
class Part:
    """A network about to be read. size, read, total: bytes on disk of it, of those before it and of all; 0 where
    nothing is read."""

    name: str
    size: int = 0
    read: int = 0
    total: int = 0

    @property
    def words(self) -> str:
        """As the end of a sentence that begins with "Loading"."""
        if not self.total:
            return self.name
        unit, name = (1e9, "GB") if self.total >= 1e9 else (1e6, "MB")
        return f"{self.name}, {self.size / unit:.1f} {name} ({self.read / unit:.1f} of {self.total / unit:.1f} read)"


def networks(folder: Path) -> dict[str, list[Path]]:
    """The weight files of every network of a pipeline's folder, those that are read of several variants."""
    found: dict[str, list[Path]] = {}
    for name, source in read_json(folder / "model_index.json").items():
        if isinstance(source, list) and source != [None, None] and (folder / name / "config.json").is_file():
            files = sorted((folder / name).glob("*.safetensors"))
            if files:  # the plain ones where there are both
                found[name] = [file for file in files if ".fp16" not in file.name] or files
    return found


def reading(folder: Path, dtypes: dict[str, torch.dtype]) -> Generator[Part, None, dict[str, Any]]:
    """Read the networks one by one, with a Part before each; returns them by name.

    dtypes: by component, with "default" for the others.
    """
    index, files, read = read_json(folder / "model_index.json"), networks(folder), 0
    sizes = {name: sum(file.stat().st_size for file in parts) for name, parts in files.items()}
    found: dict[str, Any] = {}
    for name, size in sizes.items():
        library, kind = index[name]
        if library in ("diffusers", "transformers"):
            yield Part(name, size, read, sum(sizes.values()))
            found[name] = getattr(diffusers if library == "diffusers" else transformers, kind).from_pretrained(
                folder / name,
                dtype=dtypes.get(name, dtypes["default"]),
                use_safetensors=True,
                local_files_only=True,
                variant=variant_of(folder / name),
            )
            read += size
    return found


def check_memory(folder: Path, dtypes: dict[str, torch.dtype]) -> None:
    """Raise RequestError for weights that have no room in the machine's memory, before any is read.

    An accelerator's weights come through it too; what they then need there is placed as it fits (`placement`).
    """
    needed = 0.0
    for name, files in networks(folder).items():
        needed += dtypes.get(name, dtypes["default"]).itemsize * sum(map(elements, files)) / GB
    free = free_gb(torch.device("cpu"))
    if needed > free:
        precision = str(dtypes["default"]).removeprefix("torch.")
        raise RequestError(
            f"backbone {named(folder)} needs {needed:.1f} GB of memory for its weights in {precision}; this machine "
            f"has {free:.1f} GB free."
        )


def elements(file: Path) -> int:
    """Numbers in a safetensors file, by its header alone; 0 for a file that has none."""
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(length)) if length <= HEADER_LIMIT else {}
        return sum(math.prod(row["shape"]) for name, row in header.items() if name != "__metadata__")
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return 0  # reading it will say what is wrong
