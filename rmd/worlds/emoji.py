"""Training pictures and captions: 3D Fluent emoji composed on coloured backgrounds.

Sources: npm `@lobehub/fluent-emoji-3d` (Microsoft Fluent Emoji, MIT; 256×256 RGBA WebP named by code
points) and npm `emojibase-data` (MIT; labels and tags, used for the tokenizer). Needed for training only.
"""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from rmd.backbones.cards import with_article

PACKAGES = ("@lobehub/fluent-emoji-3d@1.1.0", "emojibase-data@17.0.0")
SIZE = 256  # pixels of the stored pictures
SCALE, REACH = (0.9, 0.98), 4
"""Size (of the canvas) and offset (px) of an object in the diffusion models' pictures. What varies between pictures of
one caption is what the first steps have to leave blurred: with (0.84, 0.98) and 12 px details came out as patches."""

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


CAPTION_WORDS = ("a", "an", "the", "on", "of", "background", "3d", "emoji")
"""What captions say beside objects and colours."""


@dataclass(frozen=True)
class Concept:
    """One known object: the name used in captions, its group and its picture's file name."""

    name: str
    label: str
    group: str
    file: str


def concepts() -> list[Concept]:
    """The concepts the bundled image model is trained on."""
    return [Concept(**row) for row in json.loads((Path(__file__).parent / "concepts.json").read_text())]


def fetch(data: Path) -> None:
    """Download and unpack PACKAGES into `data` (about 25 MB); see `unpack`."""
    for package in PACKAGES:
        unpack(data, package)


def unpack(data: Path, package: str, wanted: Callable[[str], bool] = lambda path: True) -> None:
    """Download an npm package into `data` and unpack its wanted files; one already there is kept.

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
        tar.extractall(partial, [member for member in tar if wanted(member.name)], filter="data")
    partial.mkdir(exist_ok=True)  # where nothing was wanted
    partial.rename(target)
    archive.unlink()


def package_folder(data: Path, package: str) -> Path:
    return data / package.rsplit("@", 1)[0].strip("@").replace("/", "-")


def picture_folder(data: Path) -> Path:
    return package_folder(data, PACKAGES[0]) / "package" / "assets"


def label_texts(data: Path) -> list[str]:
    """All emojibase labels and tags: the corpus of the tokenizer."""
    rows = json.loads((package_folder(data, PACKAGES[1]) / "package" / "en" / "data.json").read_text())
    return [text for row in rows for text in [row["label"], *row.get("tags", [])]]


def load_picture(path: Path) -> torch.Tensor:
    """A still, (4, 256, 256) uint8; see `premultiplied`."""
    with Image.open(path) as picture:
        return premultiplied(picture)


def premultiplied(picture: Image.Image) -> torch.Tensor:
    """(4, 256, 256) uint8: colour premultiplied by alpha (so that resizing leaves no dark rim), then alpha."""
    rgba = np.asarray(picture.convert("RGBA").resize((SIZE, SIZE)), dtype=np.float32)
    rgba = np.concatenate([rgba[..., :3] * (rgba[..., 3:] / 255), rgba[..., 3:]], axis=-1)
    return torch.from_numpy(rgba.round().astype(np.uint8)).permute(2, 0, 1).contiguous()


def background(colour: tuple[int, int, int], generator: torch.Generator, size: int = SIZE) -> torch.Tensor:
    """(3, size, size) in [0, 1]: the colour with a mild random shade and a soft random gradient."""
    shade = (torch.rand(3, generator=generator) - 0.5) * 0.06
    direction = torch.randn(2, generator=generator)
    direction = direction / direction.norm() * 0.08 * torch.rand((), generator=generator)
    axis = torch.linspace(-1, 1, size)
    gradient = direction[0] * axis[:, None] + direction[1] * axis[None, :]
    base = torch.tensor(colour, dtype=torch.float32)[:, None, None] / 255 + shade[:, None, None]
    return (base + gradient).clamp(0, 1)


def compose(
    picture: torch.Tensor,
    colour: tuple[int, int, int],
    generator: torch.Generator,
    scale: tuple[float, float] = SCALE,
    reach: float = REACH,
) -> torch.Tensor:
    """Put a premultiplied (4, 256, 256) uint8 picture on a background → (3, 256, 256) float in [0, 1].

    scale: range of the picture's size relative to the canvas; its position varies by up to half of
    the room that is left, at most `reach` px from the centre.
    """
    u = torch.rand(3, generator=generator).tolist()
    side = round(SIZE * (scale[0] + (scale[1] - scale[0]) * u[0]))
    image = picture.float()[None] / 255
    if side != SIZE:
        image = F.interpolate(image, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
    room = SIZE - side
    reach = min(room / 2, reach)
    top, left = (round(room / 2 + (2 * v - 1) * reach) for v in u[1:])
    canvas = background(colour, generator)
    region = canvas[:, top : top + side, left : left + side]
    region.mul_(1 - image[0, 3:]).add_(image[0, :3])
    return canvas.clamp_(0, 1)


def caption(name: str, colour: str, generator: torch.Generator) -> str:
    """A caption in one of the phrasings the model should understand."""
    templates = (
        (0.65, f"{with_article(name)} on {with_article(colour)} background"),
        (0.15, f"{name}, {colour} background"),
        (0.12, f"a 3d emoji of {with_article(name)} on {with_article(colour)} background"),
        (0.08, name),
    )
    u = torch.rand((), generator=generator).item()
    for weight, text in templates:
        u -= weight
        if u < 0:
            return text
    return templates[0][1]


def captions_of(latents: dict[str, torch.Tensor], pick: torch.Tensor, generator: torch.Generator) -> list[str]:
    """Captions of stored latents, by their rows in the store, in one of the phrasings."""
    names, colours = [c.name for c in concepts()], list(COLOURS)
    pairs = zip(latents["concept"][pick].tolist(), latents["colour"][pick].tolist(), strict=True)
    return [caption(names[c], colours[k], generator) for c, k in pairs]


def draw_captions(count: int, generator: torch.Generator) -> list[str]:
    """Captions of any object and colour."""
    names, colours = [c.name for c in concepts()], list(COLOURS)
    pick = torch.randint(len(names) * len(colours), (count,), generator=generator).tolist()
    return [caption(names[i // len(colours)], colours[i % len(colours)], generator) for i in pick]
