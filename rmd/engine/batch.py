"""Many results of one plan in one go, for studies: the pictures of single requests, several times faster, not timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from rmd.backbones.lifting import enlarge
from rmd.engine.base import Frames
from rmd.engine.plans import draw, plan_for
from rmd.engine.pool import Loaded
from rmd.method.cascade import CascadeSampler
from rmd.method.denoiser import Denoiser
from rmd.request import GenerateRequest


@torch.inference_mode()
def sample(loaded: Loaded, requests: Sequence[GenerateRequest], role: str) -> tuple[list[Frames], Tensor]:
    """The frames of every request's "student" or "teacher" result and their clean latents (B, C, *S).

    Each is what a session makes of its request alone, but for rounding: the seed of each is its own, whatever else is
    in the batch. ValueError for requests that differ in more than prompt and seed.
    """
    first = requests[0]
    if any(replace(one, prompt=first.prompt, seed=first.seed) != first for one in requests):
        raise ValueError("the requests of a batch may differ in prompt and seed alone")
    backbone = loaded.teacher
    fast = loaded.student or backbone
    plan = plan_for(first, fast, loaded.card)
    drawn = [draw(one, backbone, plan) for one in requests]
    noise = torch.cat([white for white, _ in drawn]).to(backbone.device)
    positive = backbone.encode([one.prompt for one in requests])
    negative = backbone.encode([first.negative] * len(noise))
    if role == "teacher":
        x0 = backbone.teacher(positive, negative, noise, first.teacher_steps, first.guidance, unheard)
    else:
        guidance = loaded.card.guidance if loaded.card else first.guidance
        positive, negative = (fast.conditioned(one, plan.size) for one in (positive, negative))
        denoiser, x0 = Denoiser(fast, positive, negative, guidance), noise
        sampler = CascadeSampler(fast.schedule, plan, enlarge=partial(enlarge, fast))
        for event in sampler.steps(denoiser, noise, [each for _, each in drawn]):
            x0 = event.estimate.x0
    return [backbone.decode(one[None], loaded.decoder)[0] for one in x0], x0


def unheard(index: int, x0: Tensor, t: float) -> None:
    """A teacher's steps that nobody listens to."""
