"""The one place that makes a cascade plan of a request, and draws its noise."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from rmd.backbones.base import Backbone
from rmd.backbones.cards import BackboneSpec, StudentSpec
from rmd.checks import RequestError, size_of, stages_of
from rmd.method.plan import CascadePlan, staged
from rmd.method.schedule import NoiseSchedule
from rmd.request import GenerateRequest


class Described(Protocol):
    """What a plan needs of a backbone: an outline has it, and a loaded backbone."""

    @property
    def spec(self) -> BackboneSpec: ...
    @property
    def schedule(self) -> NoiseSchedule: ...

    def latent_size(self, pixels: tuple[int, int], frames: int | None = None) -> tuple[int, ...]: ...


def plan_for(request: GenerateRequest, backbone: Described, card: StudentSpec | None) -> CascadePlan:
    """The request's plan on a backbone with a student; raises RequestError when the backbone cannot do it."""
    spec, times = backbone.spec, card.times if card and len(card.times) == request.steps else None

    def cells(pixels: tuple[int, int]) -> tuple[int, ...]:
        return backbone.latent_size(pixels, request.frames)

    if request.plan:
        stages = [(cells(size), steps) for size, steps in stages_of(request.plan)]
        sizes = [size for size, steps in stages for _ in range(steps)] + [stages[-1][0]]
    else:
        low, high = (
            cells(size_of(said) if said else usual)
            for said, usual in ((request.low, spec.low), (request.size, spec.high))
        )
        sizes = [low] * request.switch + [high] * (request.steps - request.switch + 1)
    try:
        return staged(
            backbone.schedule,
            sizes,
            eta=request.eta,
            reinjection=request.reinjection,
            mapping=request.mapping,
            upsampler=request.upsampler,
            shift_ratio=spec.shift_ratio,
            high_times=times,
        )
    except ValueError as error:
        raise RequestError(f"{error}.") from error


def draw(request: GenerateRequest, backbone: Backbone, plan: CascadePlan) -> tuple[Tensor, torch.Generator]:
    """The request's white noise at full size, (1, C, *S) on the CPU, and the generator of what is drawn later."""
    generator = torch.Generator().manual_seed(request.seed)
    return torch.randn((1, backbone.channels, *plan.size), generator=generator), generator
