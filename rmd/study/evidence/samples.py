"""Samples on disk: made once, many per call, gone on with where a study was interrupted, there for later measures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from rmd.checks import RequestError
from rmd.disk import write_text, write_whole
from rmd.engine.base import Frames
from rmd.engine.spread import spread
from rmd.request import GenerateRequest, student_key, teacher_key

Make = Callable[[Sequence[GenerateRequest]], tuple[Sequence[Frames], Tensor]]
"""Frames and clean latents (B, C, *S) of requests."""
Item = tuple[str, int]
"""Prompt and seed of a sample."""


class Store:
    """One row's pictures in a folder, by number; a clip is one picture with its frames below one another.

    about: everything else that decides them; items: prompt and seed of each. Both are compared with what a folder that
    is there says of itself. One whose items are the first of these grows; of one that has more the first are taken.
    Raises RequestError for a folder of other samples.
    """

    def __init__(self, folder: Path, about: dict[str, Any], items: Sequence[Item]):
        self.folder = folder
        file, marks = folder / "about.json", [mark(*item) for item in items]
        known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {**about, "items": []}
        kept = known.pop("items", [])
        both = min(len(kept), len(marks))
        if known != about or kept[:both] != marks[:both]:
            raise RequestError(f"{folder} holds samples of other settings or weights; give another --out or remove it.")
        text = json.dumps({**about, "items": max(kept, marks, key=len)}, indent=1, sort_keys=True, ensure_ascii=False)
        write_text(file, text + "\n")

    def path(self, index: int) -> Path:
        return self.folder / f"{index:05d}.png"

    def fill(
        self, requests: Sequence[GenerateRequest], make: Make, batch: int, latents: bool, places: int = 1
    ) -> Iterator[int]:
        """Make what is missing, `batch` in a call and `places` calls at once; yields how many were made.

        latents: whether to keep them too.
        """
        missing = [i for i in range(len(requests)) if not self.path(i).is_file()]
        parts = [missing[start : start + batch] for start in range(0, len(missing), batch)]
        with ThreadPoolExecutor() as pool:
            for numbers, (made, x0) in spread(lambda part: make([requests[i] for i in part]), parts, places):
                if latents:
                    for index, one in zip(numbers, x0.half().cpu(), strict=True):
                        save = {"x0": one.contiguous()}
                        file = self.path(index).with_suffix(".safetensors")
                        write_whole(file, lambda path, save=save: save_file(save, path))
                list(pool.map(self.put, numbers, made))
                yield len(numbers)

    def put(self, index: int, frames: Frames) -> None:
        width, height = frames[0].size
        strip = Image.new("RGB", (width, height * len(frames)))
        for number, frame in enumerate(frames):
            strip.paste(frame, (0, number * height))
        write_whole(self.path(index), lambda path: strip.save(path, "PNG"))

    def read(self, start: int, stop: int, frames: int = 1) -> Tensor:
        """(B, 3, F, H, W) in [−1, 1]."""
        clips = []
        for index in range(start, stop):
            with Image.open(self.path(index), formats=["PNG"]) as opened:
                pixels = torch.from_numpy(np.array(opened.convert("RGB")))
            clips.append(pixels.unflatten(0, (frames, -1)).permute(3, 0, 1, 2))
        return torch.stack(clips).float() / 127.5 - 1

    def latents(self, count: int) -> Tensor:
        """The first clean latents (B, C, *S), where they were kept."""
        files = [self.path(index).with_suffix(".safetensors") for index in range(count)]
        return torch.stack([load_file(file)["x0"].float() for file in files])


def about(request: GenerateRequest, role: str, weights: str) -> dict[str, Any]:
    """What decides a row's samples beside their prompts and seeds."""
    decides = teacher_key(request) if role == "teacher" else asdict(student_key(request))
    settings = {name: value for name, value in decides.items() if name not in ("prompt", "seed", "teacher")}
    return {"role": role, "weights": weights, "request": settings}


def mark(prompt: str, seed: int) -> str:
    """Eight hexadecimal digits of what a sample is of."""
    return hashlib.sha256(f"{prompt}\n{seed}".encode()).hexdigest()[:8]


def made_with(base: Path, student: Path | None) -> str:
    """The digest of the weights that make a picture: a student's and its base's autoencoder, or all of the base's."""
    return weights_digest(student, base / "vae") if student else weights_digest(base)


@lru_cache(maxsize=64)
def weights_digest(*folders: Path) -> str:
    """Twelve hexadecimal digits of all safetensors files of folders, or of single files, by their contents."""
    found = hashlib.sha256()
    for folder in folders:
        for file in sorted(folder.rglob("*.safetensors")) if folder.is_dir() else [folder]:
            with file.open("rb") as opened:
                while chunk := opened.read(1 << 22):
                    found.update(chunk)
    return found.hexdigest()[:12]
