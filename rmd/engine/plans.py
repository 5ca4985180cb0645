"""The one place that makes a cascade plan of a request."""

from __future__ import annotations

from typing import Protocol

from rmd.backbones.cards import BackboneSpec, StudentSpec
from rmd.checks import RequestError
from rmd.method.plan import CascadePlan, two_stage
from rmd.method.schedule import NoiseSchedule
from rmd.request import GenerateRequest


class Described(Protocol):
    """What a plan needs of a backbone: an outline has it, and a loaded backbone."""

    @property
    def spec(self) -> BackboneSpec: ...
    @property
    def schedule(self) -> NoiseSchedule: ...

    def latent_size(self, pixels: tuple[int, int]) -> tuple[int, ...]: ...


def plan_for(request: GenerateRequest, backbone: Described, card: StudentSpec | None) -> CascadePlan:
    """The request's plan on a backbone with a student; raises RequestError when the backbone cannot do it."""
    spec = backbone.spec
    try:
        return two_stage(
            backbone.schedule,
            request.steps,
            request.switch,
            backbone.latent_size(spec.low),
            backbone.latent_size(spec.high),
            eta=request.eta,
            reinjection=request.reinjection,
            mapping=request.mapping,
            upsampler=request.upsampler,
            shift_ratio=spec.shift_ratio,
            high_times=card.times if card and len(card.times) == request.steps else None,
        )
    except ValueError as error:
        raise RequestError(f"{error}.") from error
