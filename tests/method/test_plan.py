"""Cascade plans: what is refused, where the steps are, and that information only grows on the way."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmd.method.plan import (
    MAX_STEPS,
    CascadePlan,
    Mapping,
    Stage,
    activated_switch,
    plan_from_dict,
    ratio,
    recommended_switch,
    staged,
    two_stage,
)
from rmd.method.schedule import FlowSchedule, NoiseSchedule, scaled_linear

SDXL = scaled_linear()
LOW, HIGH = (16, 16), (32, 32)
settings = st.integers(1, MAX_STEPS).flatmap(lambda k: st.tuples(st.just(k), st.integers(0, k)))


def plan(steps: int, switch: int, schedule: NoiseSchedule = SDXL, mapping: Mapping = "logsnr") -> CascadePlan:
    return two_stage(schedule, steps, switch, LOW, HIGH, eta=1.0, reinjection="band", mapping=mapping)


@pytest.mark.parametrize(
    ("steps", "switch", "message"),
    [
        (0, 0, "steps must lie between 1 and 8, not 0"),
        (9, 0, "steps must lie between 1 and 8, not 9"),
        (4, 5, r"switch must lie between 0 and steps \(4\), not 5"),
        (4, -1, r"switch must lie between 0 and steps \(4\), not -1"),
    ],
)
def test_settings_out_of_range_are_refused(steps: int, switch: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(steps, switch)


@pytest.mark.parametrize(
    ("stages", "eta", "message"),
    [
        ((), 1, "at least one step"),
        ((Stage(LOW, ()),), 1, "at least one step"),
        ((Stage(LOW, (1.0,)),), 1.5, "eta must lie between 0 and 1, not 1.5"),
        ((Stage(LOW, (1.0,)),), math.nan, "eta must lie between 0 and 1, not nan"),
        ((Stage(LOW, (0.5, 0.5)),), 1, "times must fall"),
        ((Stage(LOW, (0.5, 0.7)),), 1, "times must fall"),
        ((Stage(LOW, (1.0, 0.0)),), 1, "times must fall"),
        ((Stage(LOW, (1.2,)),), 1, "times must fall"),
        ((Stage(HIGH, (1.0,)), Stage(LOW, (0.5,))), 1, "stages must grow"),
        ((Stage(LOW, (1.0,)), Stage((4, 32, 32), (0.5,))), 1, "stages must grow"),
    ],
)
def test_plans_that_make_no_sense_are_refused(stages: tuple[Stage, ...], eta: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CascadePlan(stages, eta, "band")


def test_two_plus_two() -> None:
    made = plan(4, 2)
    low, high = made.stages
    assert (low.size, high.size) == (LOW, HIGH)
    assert [round(float(SDXL.timestep(t))) for t in high.times] == [499, 249]
    assert low.times[0] == 1
    # the second low step stands where a high-resolution step at index 749 would, seen from the low resolution
    assert float(SDXL.timestep(SDXL.shifted(low.times[1], 2))) == pytest.approx(749, abs=1e-6)
    assert (made.steps, made.switch, made.size) == (4, 2, HIGH)


def test_switch_zero_is_one_resolution_on_the_uniform_grid() -> None:
    (only,) = plan(4, 0).stages
    assert only == Stage(HIGH, (1.0, 0.75, 0.5, 0.25))
    assert plan(4, 0).switch == 0


@pytest.mark.parametrize("steps", range(1, MAX_STEPS + 1))
def test_switch_at_the_end_enlarges_the_clean_estimate(steps: int) -> None:
    low, high = plan(steps, steps).stages
    assert len(low.times) == steps
    assert high == Stage(HIGH, ())
    assert plan(steps, steps).switch == steps


def test_single_steps() -> None:
    assert plan(1, 0).stages == (Stage(HIGH, (1.0,)),)
    assert plan(1, 1).stages == (Stage(LOW, (1.0,)), Stage(HIGH, ()))


@given(settings)
def test_step_counts_are_those_asked_for(chosen: tuple[int, int]) -> None:
    steps, switch = chosen
    made = plan(steps, switch)
    assert (made.steps, made.switch, made.size) == (steps, switch, HIGH)
    for stage in made.stages:
        assert all(a > b for a, b in pairwise(stage.times))


@given(
    settings,
    st.sampled_from([SDXL, FlowSchedule(), FlowSchedule(3.0)]),
    st.sampled_from([(16, 16), (24, 24), (20, 16), (28, 30)]),
)
def test_information_grows_at_every_step_and_through_the_switch(
    chosen: tuple[int, int], schedule: NoiseSchedule, low: tuple[int, int]
) -> None:
    """In terms of the high resolution: logSNR less 2·ln of the size ratio."""
    made = two_stage(schedule, *chosen, low, HIGH, eta=1.0, reinjection="band")
    levels = [
        float(schedule.logsnr(t)) - 2 * math.log(ratio(stage.size, HIGH)) for stage in made.stages for t in stage.times
    ]
    assert all(a < b for a, b in pairwise(levels))
    # and past the first step they are those of the uniform grid at the high resolution
    grid = [float(schedule.logsnr(1 - i / chosen[0])) for i in range(chosen[0])]
    assert levels[1:] == pytest.approx(grid[1:], abs=1e-6)


def test_without_mapping_low_steps_stand_on_the_same_grid() -> None:
    assert plan(4, 2, mapping="none").stages == (Stage(LOW, (1.0, 0.75)), Stage(HIGH, (0.5, 0.25)))


def test_the_backbones_own_shift_as_mapping() -> None:
    flow = FlowSchedule(3.0)
    made = two_stage(flow, 4, 2, LOW, HIGH, eta=0, reinjection="fresh", mapping="shift", shift_ratio=5 / 3)
    assert made.stages[0].times[1] == pytest.approx(float(flow.shifted(0.75, 3 / 5)))


@pytest.mark.parametrize("switch", [1, 2, 4])
def test_shift_needs_a_backbone_that_has_one(switch: int) -> None:
    with pytest.raises(ValueError, match="mapping 'shift' needs a backbone with timestep shifts"):
        plan(4, switch, mapping="shift")


def test_times_must_match_the_steps() -> None:
    with pytest.raises(ValueError, match="2 step sizes need as many times, not 1"):
        staged(SDXL, [LOW, HIGH, HIGH], eta=0, reinjection="fresh", high_times=[1.0])


@pytest.mark.parametrize(
    ("small", "large", "expected"),
    [
        ((16, 16), (32, 32), 2.0),
        ((60, 104), (90, 160), math.sqrt(90 * 160 / (60 * 104))),
        ((21, 60, 104), (21, 90, 160), math.sqrt(90 * 160 / (60 * 104))),
    ],
)
def test_ratio_is_the_root_of_the_area_ratio(small: tuple[int, ...], large: tuple[int, ...], expected: float) -> None:
    assert ratio(small, large) == pytest.approx(expected)


@given(settings, st.sampled_from(["fresh", "mix", "band", "block"]), st.floats(0, 1))
def test_plans_survive_json(chosen: tuple[int, int], kind: str, eta: float) -> None:
    made = two_stage(SDXL, *chosen, LOW, HIGH, eta=eta, reinjection=kind, upsampler="nearest")  # type: ignore[arg-type]
    assert plan_from_dict(json.loads(json.dumps(made.as_dict()))) == made


def test_a_plan_may_start_below_pure_noise() -> None:
    times = [0.8, 0.6, 0.4, 0.2]
    own = staged(SDXL, [LOW, LOW, HIGH, HIGH, HIGH], eta=1, reinjection="band", mapping="none", high_times=times)
    assert [t for stage in own.stages for t in stage.times] == times
    mapped = staged(SDXL, [LOW, LOW, HIGH, HIGH, HIGH], eta=1, reinjection="band", high_times=times)
    assert mapped.stages[0].times[0] == pytest.approx(float(SDXL.shifted(0.8, 0.5)))
    uniform = staged(SDXL, [LOW, HIGH, HIGH], eta=1, reinjection="band")
    assert uniform.stages[0].times == (1.0,), "at 1 there is nothing but noise at any size"


@given(settings, st.floats(1e-3, 100))
def test_the_recommended_switch_is_the_last_whose_noise_covers_the_detail(
    given: tuple[int, int], detail: float
) -> None:
    steps = given[0]
    best = recommended_switch(SDXL, steps, detail, (8, 8))
    assert 0 <= best < steps

    def covered(switch: int) -> bool:  # by the first step at full size of the plan itself
        t = plan(steps, switch).stages[-1].times[0]
        return float((SDXL.sigma(t) / SDXL.alpha(t)) ** 2) >= detail * (1 - 1e-9)

    assert best == 0 or covered(best)
    assert (
        best + 1 >= steps
        or not covered(best + 1)
        or recommended_switch(SDXL, steps, detail * (1 + 1e-9), (8, 8)) == best
    )


def test_the_recommended_switch_at_known_noise_levels() -> None:
    flow = FlowSchedule()  # (sigma/alpha)² at t = 3/4, 1/2, 1/4: 9, 1, 1/9
    assert [recommended_switch(flow, 4, detail, (8, 8)) for detail in (10, 8, 0.9, 0.1)] == [0, 1, 2, 3]
    assert recommended_switch(flow, 1, 0.01, (8, 8)) == 0


@given(st.integers(1, MAX_STEPS), st.floats(0.01, 30), st.sampled_from([0.01, 0.05, 0.1, 0.5]), st.floats(1, 8))
def test_speeds_rule_is_its_published_one(steps: int, power: float, delta: float, shift: float) -> None:
    """On a flow schedule: the first of the steps whose sigma is at most its activation time (arXiv 2605.18736)."""
    flow = FlowSchedule(shift)
    threshold = 1 / (1 + math.sqrt(delta / (power * (1 + power - delta))))
    sigmas = [float(flow.sigma(1 - i / steps)) for i in range(steps)]
    expected = next((i for i, sigma in enumerate(sigmas) if sigma <= threshold), steps)
    if all(abs(sigma - threshold) > 1e-6 for sigma in sigmas):
        assert activated_switch(flow, steps, power, (8, 8), delta) == max(1, expected)


def test_speeds_rule_for_the_power_of_flux_latents() -> None:
    """Its authors' own example (SGLang's pull request): of FLUX.1's 50 steps without a shift of time."""
    flow, power = FlowSchedule(), 203.615097 * 32**-1.915461
    threshold = 1 / (1 + math.sqrt(0.05 / (power * (1 + power - 0.05))))
    assert power == pytest.approx(0.2666, abs=1e-3)
    assert threshold == pytest.approx(0.718, abs=2e-3)
    assert activated_switch(flow, 8, power, (8, 8)) == 3  # of 1, 7/8, 6/8, 5/8: three are above it
    with pytest.raises(ValueError, match="delta must lie between"):
        activated_switch(flow, 8, power, (8, 8), 1.3)
