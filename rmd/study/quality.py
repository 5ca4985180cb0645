"""Quality of teacher, training-free cascade and student over plans, on fixed prompts and seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from rmd.backbones.base import Backbone
from rmd.backbones.cards import StudentSpec
from rmd.engine.pool import Loaded
from rmd.method.cascade import CascadeSampler
from rmd.method.denoiser import Denoiser
from rmd.method.plan import CascadePlan, two_stage
from rmd.method.transition import lost_detail
from rmd.train.sheets import save_sheet
from rmd.worlds.emoji_judge import Templates, parse_prompt

SEED = 1234
BATCH = 10
COLUMNS = 8


class Judge(Protocol):
    """What knows how a prompt of the bundled models should look: figures for (B, 3, *S) in [−1, 1], one per prompt."""

    def score(self, pixels: Tensor, prompts: Sequence[str]) -> dict[str, float]: ...


@dataclass(frozen=True)
class Score:
    """Shares of pictures in [0, 1]: right object first, among the first five, right background; mean detail error."""

    object_top1: float
    object_top5: float
    background: float
    detail_error: float

    def as_dict(self) -> dict[str, float]:
        return {k: round(v, 4) for k, v in vars(self).items()}


def score(pictures: Tensor, prompts: Sequence[str], templates: Templates) -> Score:
    """pictures: (B, 3, H, W) in [−1, 1], one per prompt."""
    totals = torch.zeros(4)
    for picture, prompt in zip((pictures + 1) / 2, prompts, strict=True):
        name, colour = parse_prompt(prompt)
        ranks = templates.object_ranks(picture, colour)
        hits = [ranks[0] == name, name in ranks[:5], templates.colour(picture) == colour]
        totals += torch.tensor([*map(float, hits), templates.detail_error(picture, name, colour)])
    return Score(*(totals / len(prompts)).tolist())


@dataclass(frozen=True)
class PictureJudge:
    """Scores pictures by the templates."""

    templates: Templates

    def score(self, pixels: Tensor, prompts: Sequence[str]) -> dict[str, float]:
        return score(pixels, prompts, self.templates).as_dict()


def batches(prompts: Sequence[str]) -> Iterator[tuple[int, Sequence[str]]]:
    for start in range(0, len(prompts), BATCH):
        yield start, prompts[start : start + BATCH]


@torch.inference_mode()
def teacher_latents(backbone: Backbone, prompts: Sequence[str], steps: int, guidance: float) -> Tensor:
    """The pipeline's own clean latents, (B, C, *S)."""
    rows = []
    for start, part in tqdm(list(batches(prompts)), desc="teacher"):
        positive, negative = backbone.encode(list(part)), backbone.encode([""] * len(part))
        noise = noise_for(backbone, start, len(part))
        rows.append(backbone.teacher(positive, negative, noise, steps, guidance, lambda *_: None))
    return torch.cat(rows)


@torch.inference_mode()
def decoded(backbone: Backbone, latents: Tensor) -> Tensor:
    """Clean latents as pictures or clips (B, 3, *S) in [−1, 1], a batch at a time."""
    return torch.cat([backbone.pixels(part) for part in latents.split(BATCH)])


@torch.inference_mode()
def cascade_pictures(backbone: Backbone, prompts: Sequence[str], plan: CascadePlan, guidance: float) -> Tensor:
    """Results of a plan from the same noise as `teacher_latents`, (B, 3, *S) in [−1, 1]."""
    rows, sampler = [], CascadeSampler(backbone.schedule, plan)
    for start, part in batches(prompts):
        negative = backbone.encode([""] * len(part)) if guidance != 1 else None
        denoiser = Denoiser(backbone, backbone.encode(list(part)), negative, guidance)
        noise = noise_for(backbone, start, len(part))
        x0 = noise
        for event in sampler.steps(denoiser, sampler.initial(noise), torch.Generator().manual_seed(SEED + start)):
            x0 = event.estimate.x0
        rows.append(backbone.pixels(x0))
    return torch.cat(rows)


def noise_for(backbone: Backbone, start: int, count: int) -> Tensor:
    shape = (count, backbone.channels, *backbone.latent_size(backbone.spec.high))
    return torch.randn(shape, generator=torch.Generator().manual_seed(SEED + 7919 * (start + 1))).to(backbone.device)


def plan_of(backbone: Backbone, steps: int, switch: int, card: StudentSpec | None) -> CascadePlan:
    low, high = backbone.latent_size(backbone.spec.low), backbone.latent_size(backbone.spec.high)
    eta, kind = (card.eta, card.reinjection) if card else (0.7, "band")
    return two_stage(backbone.schedule, steps, switch, low, high, eta=eta, reinjection=kind)


def evaluate(
    loaded: Loaded, prompts: Sequence[str], plans: Sequence[tuple[int, int]], judge: Judge, sheets: Path
) -> dict[str, Any]:
    """Scores of the teacher, its weights in the cascade (guided, not distilled) and the student's plans.

    Writes contact sheets teacher.png and student-K-S.png / cascade-K-S.png of the default plan into `sheets`.
    """
    spec, card = loaded.teacher.spec, loaded.card
    sheets.mkdir(parents=True, exist_ok=True)
    latents = teacher_latents(loaded.teacher, prompts, spec.teacher_steps, spec.guidance)
    pictures = decoded(loaded.teacher, latents)
    save(pictures, sheets / "teacher.png")
    result: dict[str, Any] = {
        "prompts": len(prompts),
        "detail": round(lost_detail(latents, loaded.teacher.latent_size(spec.low)), 4),
        "teacher": {
            "steps": spec.teacher_steps,
            "guidance": spec.guidance,
            **judge.score(pictures, prompts),
        },
    }
    steps, switch = (card or spec).default_steps, (card or spec).default_switch
    free = cascade_pictures(loaded.teacher, prompts, plan_of(loaded.teacher, steps, switch, card), spec.guidance)
    save(free, sheets / "cascade-not-distilled.png")
    result["cascade_not_distilled"] = {"steps": steps, "switch": switch, **judge.score(free, prompts)}
    if loaded.student is not None:
        rows = []
        for k, s in tqdm(list(plans), desc="student plans"):
            pictures = cascade_pictures(loaded.student, prompts, plan_of(loaded.student, k, s, card), 1.0)
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
