"""One seed is one picture, whatever computes it."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image, ImageChops

from rmd.engine.pool import ModelPool
from rmd.engine.results import Done
from rmd.engine.session import Session
from rmd.request import make_request


def pictures(folder: Path, student: Path, threads: int) -> list[Image.Image]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        session = Session(ModelPool(torch.device("cpu")), previews=False)
        values = {"backbone": str(folder), "student": str(student), "prompt": "a fox", "seed": 5, "teacher_steps": 10}
        done = next(event for event in session.generate(make_request(values)) if isinstance(event, Done))
    finally:
        torch.set_num_threads(before)
    return [output.image for output in done.outputs.values()]


def test_the_number_of_threads_does_not_change_the_picture(tiny_sdxl: Path, tiny_student: Path) -> None:
    """To within one level of 255: sums are split among threads, and rounded elsewhere."""
    for one, other in zip(*(pictures(tiny_sdxl, tiny_student, threads) for threads in (1, 2)), strict=True):
        extremes = ImageChops.difference(one, other).getextrema()
        assert max(high for _, high in extremes) <= 1  # type: ignore[misc]
