"""Prompts as the networks take them, encoded once and kept on disk: text encoders need not stay in memory."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from rmd.disk import write_whole
from rmd.method.denoiser import Conditioning

BATCH = 16
"""Prompts that are encoded at once."""


class Embeddings:
    """A file for each prompt, by a digest of its text and of what encoded it.

    folder: of one run. base: the backbone's folder, whose text encoders are told apart by their files' sizes and times.
    """

    def __init__(self, folder: Path, device: torch.device, base: Path | None):
        self.folder, self.device, self.encoders = folder, device, encoders_of(base)
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, prompt: str) -> Path:
        digest = hashlib.sha256(f"{self.encoders}\0{prompt}".encode()).hexdigest()
        return self.folder / f"{digest[:32]}.safetensors"

    def fill(self, prompts: Sequence[str], encode: Callable[[list[str]], Conditioning]) -> None:
        """Encode what is not there yet. RequestError where the disk is full; what is there stays."""
        missing = [prompt for prompt in dict.fromkeys(prompts) if not self.path(prompt).is_file()]
        with tqdm(total=len(missing), desc="prompts", disable=not missing, file=sys.stderr) as bar:
            for start in range(0, len(missing), BATCH):
                some = missing[start : start + BATCH]
                rows = {name: value.cpu() for name, value in encode(some).items()}
                for index, prompt in enumerate(some):
                    own = {name: value[index : index + 1].contiguous() for name, value in rows.items()}
                    write_whole(self.path(prompt), lambda path, own=own: save_file(own, path))
                bar.update(len(some))

    def __call__(self, prompts: Sequence[str]) -> Conditioning:
        """The rows of prompts that were filled in."""
        rows = [load_file(self.path(prompt)) for prompt in prompts]
        return {name: torch.cat([row[name] for row in rows]).to(self.device) for name in rows[0]}


def encoders_of(base: Path | None) -> str:
    """What changes when a folder's text encoders or tokenizers do; "" without a folder."""
    files = sorted(file for part in ("text_encoder*", "tokenizer*") for file in base.glob(f"{part}/*")) if base else []
    rows = [f"{file.parent.name}/{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files]
    return hashlib.sha256("\n".join(rows).encode()).hexdigest() if rows else ""
