"""Quality of teacher, training-free cascade and student over plans, on fixed prompts and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from rmd.backbones.outline import Outline
from rmd.engine.results import Done, Output
from rmd.engine.session import Session
from rmd.method.transition import lost_detail
from rmd.request import NO_STUDENT, GenerateRequest
from rmd.train.sheets import save_sheet

SEED = 1234
COLUMNS = 8


class Judge(Protocol):
    """What knows how a prompt of the bundled models should look: figures for (B, 3, *S) in [−1, 1], one per prompt."""

    def score(self, pixels: Tensor, prompts: Sequence[str]) -> dict[str, float]: ...


def run(session: Session, request: GenerateRequest) -> Done:
    """One request, computed exactly as a click on Generate computes it."""
    return next(event for event in session.generate(request) if isinstance(event, Done))


def pixels_of(outputs: Sequence[Output]) -> Tensor:
    """Pictures (B, 3, H, W) or clips (B, 3, F, H, W) in [−1, 1]."""
    rows = [torch.stack([as_tensor(frame) for frame in output.frames], dim=1) for output in outputs]
    clips = torch.stack(rows)
    return clips[:, :, 0] if clips.shape[2] == 1 else clips


def as_tensor(picture: Image.Image) -> Tensor:
    """(3, H, W) in [−1, 1]."""
    return torch.tensor(np.asarray(picture.convert("RGB"))).permute(2, 0, 1).float() / 127.5 - 1


def evaluate(
    session: Session,
    outline: Outline,
    student: str | None,
    prompts: Sequence[str],
    plans: Sequence[tuple[int, int]],
    judge: Judge,
    sheets: Path,
) -> dict[str, Any]:
    """Scores of the teacher, its weights in the cascade (guided, not distilled) and the student's plans.

    Every picture is a request of the session, so plans, times, guidance, shift, dtype and device are those of the app.
    student: as in `GenerateRequest`. Writes contact sheets teacher.png, cascade-not-distilled.png and student.png (of
    the default plan) into `sheets`.
    """
    asked = {"backbone": outline.entry.id, "student": student}
    first = [outline.request({**asked, "prompt": p, "seed": SEED + i}) for i, p in enumerate(prompts)]
    sheets.mkdir(parents=True, exist_ok=True)
    slow, free = [], []
    for request in tqdm(first, desc="teacher"):  # beside its own weights in the cascade, which share its model
        done = run(session, replace(request, student=NO_STUDENT))
        assert done.teacher is not None
        slow.append(done.teacher)
        free.append(done.student)
    latents = torch.cat([output.latents for output in slow if output.latents is not None])
    pictures, undistilled = pixels_of(slow), pixels_of(free)
    save(pictures, sheets / "teacher.png")
    save(undistilled, sheets / "cascade-not-distilled.png")
    usual = first[0]
    steps, switch = usual.steps, usual.switch
    result: dict[str, Any] = {
        "prompts": len(prompts),
        "detail": round(lost_detail(latents, outline.latent_size(outline.spec.low)), 4),
        "teacher": {
            "steps": usual.teacher_steps,
            "guidance": usual.guidance,
            **judge.score(pictures, prompts),
        },
        "cascade_not_distilled": {"steps": steps, "switch": switch, **judge.score(undistilled, prompts)},
    }
    if outline.card is not None:
        rows = []
        for k, s in tqdm(list(plans), desc="student plans"):
            requests = [replace(request, steps=k, switch=s, teacher=False) for request in first]
            pictures = pixels_of([run(session, request).student for request in requests])
            rows.append({"steps": k, "switch": s, **judge.score(pictures, prompts)})
            if (k, s) == (steps, switch):
                save(pictures, sheets / "student.png")
        result["student"] = rows
    return result


def save(pixels: Tensor, path: Path) -> None:
    """A sheet of pictures at half their size, or of clips (B, 3, F, H, W) as strips of every third frame, one a row."""
    if pixels.ndim == 4:
        save_sheet(torch.nn.functional.avg_pool2d(pixels, 2), path, COLUMNS)
    else:
        strips = pixels[:, :, ::3].transpose(1, 2)
        save_sheet(strips.flatten(0, 1), path, strips.shape[1])
