"""One student out of several: the mean of their weights (model soups, arXiv 2203.05482).

Students that were distilled from one teacher lie near one another, and their mean is a student too. Measured on the
bundled teacher: docs/training.md.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rmd.backbones.folders import STUDENT_CARD, read_json
from rmd.checks import RequestError
from rmd.train.export import HISTORY, SETTINGS_FILE, history_of, replace_folder


def average(students: Sequence[Path], out: Path) -> Path:
    """Write the mean of whole-network students' weights, with the first one's card, as the student `out`.

    RequestError for fewer than two, for LoRAs, and for networks that differ in more than their weights.
    """
    if len(students) < 2:
        raise RequestError(f"students must be two or more, not {len(students)}.")
    cards = [card_of(student) for student in students]
    found = [weights_of(student) for student in students]
    for student, weights in zip(students, found, strict=True):
        if shapes(weights) != shapes(found[0]):
            raise RequestError(f"students must be of one architecture; {student} is not like {students[0]}.")
    if out.exists():
        raise RequestError(f"out: {out} is there already; give another folder.")
    told = "; ".join(card["training"] for card in cards)
    rows = joined([history_of(student) for student in students])
    card = {**cards[0], "training": f"the mean of the weights of {len(students)} students: {told}", "quality": {}}

    def fill(partial: Path) -> None:
        left = shutil.ignore_patterns("*.safetensors", "README.md", "quality.json", SETTINGS_FILE)
        shutil.copytree(students[0], partial, dirs_exist_ok=True, ignore=left)
        for name, first in found[0].items():
            mean = {key: mean_of([weights[name][key] for weights in found], value) for key, value in first.items()}
            save_file(mean, partial / name, metadata={"format": "pt"})
        (partial / STUDENT_CARD).write_text(json.dumps(card, indent=1) + "\n")
        (partial / HISTORY).write_text(json.dumps(rows, indent=1) + "\n")

    replace_folder(out, fill)
    return out


def joined(histories: Sequence[list[Any]]) -> list[Any]:
    """All runs behind several students, those that all of them begin with once."""
    common = 0
    for rows in zip(*histories, strict=False):
        if any(row != rows[0] for row in rows):
            break
        common += 1
    return [*histories[0][:common], *(row for history in histories for row in history[common:])]


def mean_of(values: Sequence[Tensor], like: Tensor) -> Tensor:
    """The mean, computed in fp32 and kept as the first one is."""
    return torch.stack([value.float() for value in values]).mean(dim=0).to(like.dtype).contiguous()


def card_of(student: Path) -> dict[str, Any]:
    if not (student / STUDENT_CARD).is_file():
        raise RequestError(
            f"students must be folders with {STUDENT_CARD}, as `train distill` writes; {student} is none."
        )
    if any(student.glob("*.safetensors")):
        raise RequestError(f"students must be whole networks: the mean of LoRAs is no LoRA; {student} is one.")
    return read_json(student / STUDENT_CARD)


def weights_of(student: Path) -> dict[str, dict[str, Tensor]]:
    """All weights by file and name."""
    return {str(file.relative_to(student)): load_file(file) for file in sorted(student.rglob("*.safetensors"))}


def shapes(weights: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, torch.Size]]:
    return {file: {name: value.shape for name, value in own.items()} for file, own in weights.items()}
