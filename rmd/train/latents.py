"""Pictures or clips as a backbone's network sees them, encoded once: what `pretrain` learns from and warm-ups need."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from rmd.backbones.base import Backbone
from rmd.checks import RequestError
from rmd.disk import write_text, write_whole
from rmd.train.examples import Example, read_pixels
from rmd.train.source import Source

ABOUT = "about.json"
SHARD = 64
"""Examples in a file."""
SIZES = ("high", "low")


def encode(backbone: Backbone, examples: Sequence[Example], folder: Path) -> None:
    """Write the latents of all examples at both sizes of the backbone, with their captions; goes on where it stopped.

    Raises RequestError for a folder of others, and for what cannot be read or written.
    """
    spec, sizes = backbone.spec, {name: getattr(backbone.spec, name) for name in SIZES}
    names = "\n".join(f"{one.file.name}\t{one.file.stat().st_size}\t{one.caption}" for one in examples)
    about = {
        "backbone": spec.name,
        "high": list(spec.high),
        "low": list(spec.low),
        "frames": spec.frames,
        "examples": hashlib.sha256(names.encode()).hexdigest()[:12],
        "captions": [one.caption for one in examples],
    }
    text = json.dumps(about, indent=1, ensure_ascii=False) + "\n"
    known = folder / ABOUT
    if known.is_file() and known.read_text(encoding="utf-8") != text:
        raise RequestError(f"out: {folder} holds the latents of other pictures or sizes; give another folder.")
    starts = [start for start in range(0, len(examples), SHARD) if not shard(folder, start).is_file()]
    with tqdm(total=len(examples), desc="latents", file=sys.stderr) as bar:
        bar.update(len(examples) - sum(len(examples[start : start + SHARD]) for start in starts))
        for start in starts:
            rows: dict[str, list[Tensor]] = {name: [] for name in SIZES}
            for one in examples[start : start + SHARD]:
                for name, size in sizes.items():
                    pixels = read_pixels(one.file, size, spec.frames, spec.fps)
                    rows[name].append(backbone.latents(pixels[None]).half().cpu())
                bar.update()
            both = {name: torch.cat(own).contiguous() for name, own in rows.items()}
            write_whole(shard(folder, start), lambda path, both=both: save_file(both, path))
    # last: it says that all is there
    write_text(known, text)


def shard(folder: Path, start: int) -> Path:
    """The file of the examples from a number on."""
    return folder / f"{start:07d}.safetensors"


class Latents(Source):
    """The source that `encode` wrote. lines: prompts in the place of the captions.

    Raises RequestError for a folder that it did not finish, and for one of another backbone or of other sizes.
    """

    def __init__(self, folder: Path, backbone: Backbone, lines: Sequence[str] | None = None):
        self.folder, spec = folder, backbone.spec
        try:
            about: dict[str, Any] = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
            self.captions = [str(caption) for caption in about["captions"]]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise RequestError(f"latents: {folder} is no finished folder of `train latents`.") from error
        mine = {"backbone": spec.name, "high": list(spec.high), "low": list(spec.low), "frames": spec.frames}
        for name, value in mine.items():
            if about.get(name) != value:
                raise RequestError(f"latents: {folder} was made with {name} {about.get(name)}, not {value}.")
        self.kept = len(self.captions)
        self.lines = self.captions if lines is None else [*lines]
        self.texts = list(dict.fromkeys([*self.lines, *self.captions]))

    def prompts(self, count: int, generator: torch.Generator) -> list[str]:
        return [self.lines[i] for i in torch.randint(len(self.lines), (count,), generator=generator).tolist()]

    def latents(self, count: int, full: bool, generator: torch.Generator) -> tuple[Tensor, list[str]]:
        picked: list[int] = torch.randint(self.kept, (count,), generator=generator).tolist()
        rows = [self.row(index, "high" if full else "low") for index in picked]
        return torch.stack(rows).float(), [self.captions[index] for index in picked]

    def held_out(self, count: int) -> tuple[Tensor, list[str]]:
        self.kept = len(self.captions) - count
        if self.kept < 1:
            raise RequestError(f"held_out must be below {len(self.captions)}, the number of latents, not {count}.")
        rows = [self.row(index, "high") for index in range(self.kept, len(self.captions))]
        return torch.stack(rows).float(), self.captions[self.kept :]

    def row(self, index: int, size: str) -> Tensor:
        """One example's latent (C, *S), read alone."""
        file = shard(self.folder, index - index % SHARD)
        try:
            with safe_open(file, "pt") as opened:  # maps the file: nothing but the row is read
                return opened.get_slice(size)[index % SHARD]
        except (OSError, SafetensorError) as error:
            raise RequestError(
                f"latents: {file.name} of {self.folder} cannot be read; remove it and run `train latents` again."
            ) from error
