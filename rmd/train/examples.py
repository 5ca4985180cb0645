"""A folder of pictures or clips with captions, as people have them: a text file beside each, or a `metadata.jsonl`."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from rmd.checks import RequestError, Text
from rmd.request import SETTINGS

PICTURES, CLIPS = (".png", ".jpg", ".jpeg", ".webp", ".bmp"), (".mp4", ".webm", ".mov", ".gif")
LISTING = "metadata.jsonl"
"""A line for each file, {"file_name": …, "text": …}: the layout that Hugging Face's data sets read as well."""


@dataclass(frozen=True)
class Example:
    """A file and what it shows in words."""

    file: Path
    caption: str


def read_examples(folder: Path, clips: bool) -> list[Example]:
    """All pictures (or clips) of a folder and its subfolders, by name.

    Raises RequestError for no such folder, nothing in it, a caption that is missing or none that a prompt may be.
    """
    if not folder.is_dir():
        raise RequestError(f"pictures: {folder} is not a folder on this machine.")
    captions = listed(folder / LISTING)
    endings = CLIPS if clips else PICTURES
    files = [file for file in sorted(folder.rglob("*")) if file.suffix.lower() in endings and file.is_file()]
    if not files:
        raise RequestError(f"pictures: {folder} holds no {'clips' if clips else 'pictures'} ({', '.join(endings)}).")
    kind = SETTINGS["prompt"].kind
    assert isinstance(kind, Text)
    found: list[Example] = []
    for file in files:
        name = file.relative_to(folder).as_posix()
        beside = file.with_suffix(".txt")
        try:
            said = captions[name] if name in captions else beside.read_text(encoding="utf-8-sig").strip()
        except FileNotFoundError:
            raise RequestError(f"pictures: {name} has no caption, in {beside.name} or in {LISTING}.") from None
        except (OSError, UnicodeDecodeError) as error:
            raise RequestError(f"pictures: {beside.name} cannot be read as UTF-8 text.") from error
        found.append(Example(file, kind.check(f"pictures: the caption of {name}", said)))
    return found


def listed(file: Path) -> dict[str, str]:
    """Captions by file name; empty without such a file."""
    if not file.is_file():
        return {}
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"pictures: {LISTING} cannot be read as UTF-8 text.") from error
    captions: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        try:
            row: Any = json.loads(line) if line.strip() else None
            captions |= {str(row["file_name"]): str(row["text"])} if row is not None else {}
        except (ValueError, LookupError, TypeError) as error:
            words = f"pictures: {LISTING} needs an object with file_name and text on every line, unlike line {number}."
            raise RequestError(words) from error
    return captions


def read_pixels(file: Path, size: tuple[int, int], frames: int, fps: int) -> Tensor:
    """A picture (3, H, W), or with `frames` above 1 a clip (3, F, H, W) from the beginning at `fps`, in [−1, 1].

    size: (height, width); the middle is cut out where the shape is another. RequestError for what cannot be read and
    for clips that are too short.
    """
    try:
        shown = clip_of(file, frames, fps) if frames > 1 else [picture_of(file)]
    except (OSError, ValueError, KeyError, Image.DecompressionBombError) as error:
        raise RequestError(f"pictures: {file.name} cannot be read.") from error
    if len(shown) < frames:
        raise RequestError(f"pictures: {file.name} has {len(shown)} frames at {fps} a second; {frames} are needed.")
    fitted = [ImageOps.fit(one, (size[1], size[0]), Image.Resampling.LANCZOS) for one in shown]
    pixels = torch.stack([torch.from_numpy(np.array(one)) for one in fitted]).float() / 127.5 - 1
    return pixels.permute(3, 0, 1, 2) if frames > 1 else pixels[0].permute(2, 0, 1)


def picture_of(file: Path) -> Image.Image:
    """As a viewer shows it: turned as its camera was, what is transparent on white."""
    with Image.open(file) as opened:
        turned = ImageOps.exif_transpose(opened).convert("RGBA")
    ground = Image.new("RGBA", turned.size, "white")
    return Image.alpha_composite(ground, turned).convert("RGB")


def clip_of(file: Path, frames: int, fps: int) -> list[Image.Image]:
    from moviepy import VideoFileClip  # pyright: ignore[reportMissingTypeStubs]  # only clips need it

    clip: Any = VideoFileClip(str(file), audio=False)
    with clip:
        count = min(frames, math.ceil(clip.duration * fps - 1e-6))
        return [Image.fromarray(clip.get_frame(index / fps)) for index in range(count)]
