"""Contact sheets of pictures, written while training so that a person can look."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from PIL import Image


def to_image(x: torch.Tensor) -> Image.Image:
    """(3, H, W) in [-1, 1] → an RGB picture."""
    pixels = ((x.float().clamp(-1, 1) + 1) * 127.5).round().to("cpu", torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def save_sheet(x: torch.Tensor, path: Path, columns: int) -> None:
    """Write (B, 3, H, W) pictures in [-1, 1] as one grid, row by row."""
    height, width = x.shape[-2:]
    rows = -(-len(x) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    for i, picture in enumerate(x):
        sheet.paste(to_image(picture), (i % columns * width, i // columns * height))
    partial = path.with_suffix(".partial.png")
    sheet.save(partial)
    os.replace(partial, path)
