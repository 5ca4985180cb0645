"""Published students run on their own times and at their own sizes, as their makers give them."""

from __future__ import annotations

import pytest
import torch

from rmd.backbones import catalog
from rmd.backbones.base import Grid
from rmd.backbones.outline import Outline
from rmd.engine.plans import plan_for
from rmd.method.schedule import FlowSchedule, NoiseSchedule, PacedFlowSchedule, flux2_mu, scaled_linear

GRIDS = {"sdxl": Grid(8), "sd3.5": Grid(8, 2), "wan2.1": Grid(8, 2, 4), "z-image": Grid(8, 2), "flux2": Grid(8, 2)}
PUBLISHED = {one.id: (entry, one) for entry in catalog.ENTRIES for one in entry.students}


def outline_of(student: str) -> Outline:
    """What the cards say, without the files."""
    entry, option = PUBLISHED[student]
    assert entry.spec is not None
    shift = option.card.shift or entry.spec.shift
    schedule: NoiseSchedule = scaled_linear() if shift is None else FlowSchedule(shift)
    if entry.id.startswith("flux2"):
        schedule = PacedFlowSchedule(mu=flux2_mu)
    grid = next(grid for family, grid in GRIDS.items() if entry.id.startswith(family))
    return Outline(entry, entry.spec, option.card, schedule, grid, widest=1)


@pytest.mark.parametrize(
    ("student", "timesteps"),
    [
        ("dmd2-sdxl", [999, 749, 499, 249]),
        ("lightning-sdxl", [999, 749, 499, 249]),
        ("hyper-sdxl", [999, 749, 499, 249]),
        ("lcm-sdxl", [999, 759, 499, 259]),
        ("swd-sdxl", [999, 800, 600, 400]),
        ("swd-sd3.5-medium", [1000, 895.9, 737.1, 602.2]),
        ("swd-sd3.5-medium-6", [1000, 945.4, 895.9, 790.4, 737.1, 602.2]),
        ("swd-sd3.5-large", [1000, 895.9, 737.1, 602.2]),
        ("fastwan-1.3b", [1000, 757, 522]),
        ("fastwan-14b", [1000, 757, 522]),
        ("lightx2v-14b", [1000, 937.5, 833.333, 625]),
        ("z-image-turbo", [1000, 954.545, 900, 833.333, 750, 642.857, 500, 300]),
        ("klein-4b", [1000, 967.38, 908.14, 767.19]),  # mu = 2.2911 for 4,096 tokens in four steps
    ],
)
def test_the_network_is_told_the_times_its_makers_give(student: str, timesteps: list[float]) -> None:
    """In the cascade of its defaults and at one resolution alike."""
    outline = outline_of(student)
    for more in ({}, {"steps": len(timesteps), "switch": 0}):
        plan = plan_for(outline.request({"prompt": "a fox", **more}), outline, outline.card)
        told = [float(outline.schedule.timestep(t)) for stage in plan.stages for t in stage.times]
        assert told == pytest.approx(timesteps, abs=0.01)


def test_every_published_student_is_looked_at() -> None:
    here = test_the_network_is_told_the_times_its_makers_give.pytestmark[0].args[1]  # type: ignore[attr-defined]
    assert {row[0] for row in here} == set(PUBLISHED)


@pytest.mark.parametrize(
    ("student", "cells"),
    [
        ("swd-sdxl", [64, 80, 96, 128]),
        ("swd-sd3.5-medium", [64, 80, 96, 128]),
        ("swd-sd3.5-medium-6", [32, 48, 64, 80, 96, 128]),
    ],
)
def test_scale_wise_students_have_their_own_sizes(student: str, cells: list[int]) -> None:
    outline = outline_of(student)
    request = outline.request({"prompt": "a fox"})
    plan = plan_for(request, outline, outline.card)
    assert [stage.size for stage in plan.stages] == [(side, side) for side in cells]
    assert all(len(stage.times) == 1 for stage in plan.stages)
    assert (plan.eta, plan.reinjection, plan.mapping) == (0, "fresh", "none")
    wide = outline.request({"prompt": "a fox", "size": "1152x896"})
    assert plan_for(wide, outline, outline.card).size == (112, 144)
    assert len(plan_for(wide, outline, outline.card).stages) == len(cells)
    short = outline.request({"prompt": "a fox", "steps": 4, "switch": 2})
    assert short.plan is None
    assert [stage.size for stage in plan_for(short, outline, outline.card).stages] == [(64, 64), (128, 128)]


@pytest.mark.parametrize(
    ("student", "eta"), [("hyper-sdxl", 1), ("lightning-sdxl", 1), ("dmd2-sdxl", 0), ("lcm-sdxl", 0), ("swd-sdxl", 0)]
)
def test_each_has_its_own_share_of_predicted_noise(student: str, eta: float) -> None:
    outline = outline_of(student)
    request = outline.request({"prompt": "a fox"})
    assert (request.eta, request.mapping) == (eta, "none")
    assert outline.request({"prompt": "a fox", "mapping": "logsnr"}).mapping == "logsnr", "unless asked otherwise"


def test_wan_has_its_makers_negative_prompt_and_others_none() -> None:
    assert outline_of("fastwan-1.3b").request({"prompt": "a"}).negative.startswith("色调艳丽")
    assert outline_of("fastwan-1.3b").request({"prompt": "a", "negative": ""}).negative == ""
    assert outline_of("dmd2-sdxl").request({"prompt": "a"}).negative == ""


def test_a_flows_times_are_those_of_its_noise_levels() -> None:
    outline = outline_of("swd-sd3.5-medium")
    assert outline.card is not None
    sigma = outline.schedule.sigma(torch.tensor(outline.card.times, dtype=torch.float64))
    assert sigma.tolist() == pytest.approx([1.0, 0.8959, 0.7371, 0.6022])
