"""Schedules: the method's check values, properties that hold for any schedule, and agreement with diffusers' tables."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from hypothesis import given
from hypothesis import strategies as st

from rmd.method.schedule import FlowSchedule, NoiseSchedule, PredictionType, VPSchedule, as_time, scaled_linear

SDXL = scaled_linear()
SCHEDULES: list[NoiseSchedule] = [SDXL, FlowSchedule(), FlowSchedule(3.0), FlowSchedule(5.0)]
IDS = ["sdxl", "flow", "flow-3", "flow-5"]

schedules = st.sampled_from(SCHEDULES)
times = st.floats(1e-4, 1.0)
ratios = st.floats(1.0, 4.0)


def index_time(index: float) -> float:
    """The time of an index of SDXL's 1000-step table."""
    return (index + 1) / 1000


@pytest.mark.parametrize(
    ("ratio", "low", "high"),
    [
        (2, 749, 896), (2, 624, 795), (2, 499, 692), (2, 374, 581), (2, 249, 453), (2, 124, 287),
        (4 / 3, 749, 814), (4 / 3, 499, 583), (4 / 3, 249, 330),
    ],
)  # fmt: skip
def test_sdxl_times_of_equal_information(ratio: float, low: int, high: int) -> None:
    mapped = SDXL.shifted(index_time(low), ratio)
    assert round(float(SDXL.timestep(mapped))) == high


@pytest.mark.parametrize("low", [880, 900, 999])
def test_noise_beyond_the_table_is_clamped_to_the_last_time(low: int) -> None:
    assert float(SDXL.shifted(index_time(low), 2)) == 1.0
    assert float(SDXL.timestep(SDXL.shifted(index_time(low), 2))) == 999


def test_the_clamp_begins_where_the_method_says() -> None:
    assert float(SDXL.shifted(index_time(874), 2)) < 1.0
    assert float(SDXL.shifted(index_time(876), 2)) == 1.0


@pytest.mark.parametrize("ratio", [1.5, 2.0, 5 / 3])
def test_flow_mapping_is_a_shift(ratio: float) -> None:
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    expected = ratio * t / (1 + (ratio - 1) * t)
    torch.testing.assert_close(FlowSchedule().shifted(t, ratio), expected, atol=1e-12, rtol=0)


def test_vp_mapping_is_the_closed_form() -> None:
    t = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    low = SDXL.alpha(t) ** 2
    expected = low / (low + 4 * (1 - low))
    torch.testing.assert_close(SDXL.alpha(SDXL.shifted(t, 2)) ** 2, expected, atol=1e-12, rtol=0)


@given(st.floats(0, 1), st.floats(1, 6), st.floats(1, 3))
def test_shifts_compose_by_product(t: float, shift: float, ratio: float) -> None:
    mapped = FlowSchedule(shift).sigma(FlowSchedule(shift).shifted(t, ratio))
    assert float(mapped) == pytest.approx(float(FlowSchedule(shift * ratio).sigma(t)), abs=1e-9)


@given(schedules, times, ratios)
def test_shifted_lowers_logsnr_by_twice_the_log_ratio(schedule: NoiseSchedule, t: float, ratio: float) -> None:
    mapped = schedule.shifted(t, ratio)
    # clamped at 1; and close to it 1 - sigma of a flow is as small as the spacing of float64 numbers
    if float(mapped) < 1 and float(schedule.logsnr(mapped)) > -30:
        expected = float(schedule.logsnr(t)) - 2 * math.log(ratio)
        assert float(schedule.logsnr(mapped)) == pytest.approx(expected, abs=1e-6)


@given(schedules, times, ratios)
def test_shifted_has_an_inverse(schedule: NoiseSchedule, t: float, ratio: float) -> None:
    back = schedule.shifted(schedule.shifted(t, 1 / ratio), ratio)
    assert float(back) == pytest.approx(t, abs=1e-9)


@given(schedules, times, times, ratios)
def test_shifted_keeps_the_order(schedule: NoiseSchedule, a: float, b: float, ratio: float) -> None:
    early, late = sorted((a, b))
    assert float(schedule.shifted(early, ratio)) <= float(schedule.shifted(late, ratio)) + 1e-12
    assert float(schedule.shifted(early, ratio)) >= early - 1e-12


@given(schedules, times)
def test_time_at_inverts_the_noise_level(schedule: NoiseSchedule, t: float) -> None:
    ratio = schedule.sigma(t).log() - schedule.alpha(t).log()
    assert float(schedule.time_at(ratio)) == pytest.approx(t, abs=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=IDS)
def test_logsnr_falls_over_all_times(schedule: NoiseSchedule) -> None:
    t = torch.linspace(0, 1, 4001, dtype=torch.float64)
    assert bool((schedule.logsnr(t).diff() < 0).all())
    assert float(schedule.logsnr(0.0)) == math.inf


@given(st.floats(0, 1))
def test_conventions(t: float) -> None:
    assert float(SDXL.alpha(t) ** 2 + SDXL.sigma(t) ** 2) == pytest.approx(1, abs=1e-12)
    flow = FlowSchedule(3.0)
    assert float(flow.alpha(t) + flow.sigma(t)) == pytest.approx(1, abs=1e-12)


def network_output(schedule: NoiseSchedule, x0: torch.Tensor, eps: torch.Tensor, t: float, kind: str) -> torch.Tensor:
    """What a perfect network of this kind answers."""
    if kind == "epsilon":
        return eps
    if kind == "v_prediction":
        return schedule.alpha(t) * eps - schedule.sigma(t) * x0
    return eps - x0 if kind == "flow_prediction" else x0


@pytest.mark.parametrize("shape", [(2, 4, 6, 5), (2, 4, 3, 6, 5)], ids=["picture", "video"])
@pytest.mark.parametrize(
    ("schedule", "kind"),
    [
        (SDXL, "epsilon"), (SDXL, "v_prediction"), (SDXL, "sample"),
        (FlowSchedule(3.0), "flow_prediction"), (FlowSchedule(3.0), "sample"), (FlowSchedule(3.0), "epsilon"),
    ],
)  # fmt: skip
def test_split_recovers_both_estimates(schedule: NoiseSchedule, kind: PredictionType, shape: tuple[int, ...]) -> None:
    g = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(shape, generator=g, dtype=torch.float64) for _ in range(2))
    t = (0.9, 0.3)  # another time for each sample
    output = torch.stack([network_output(schedule, x0[i], eps[i], t[i], kind) for i in range(2)])
    steps = torch.tensor(t, dtype=torch.float64)
    found = schedule.split(schedule.add_noise(x0, eps, steps), output, steps, kind)
    torch.testing.assert_close(found, (x0, eps), atol=1e-9, rtol=0)
    torch.testing.assert_close(schedule.target(x0, eps, steps, kind), output, atol=1e-9, rtol=0)


def test_split_refuses_an_unknown_kind() -> None:
    x = torch.zeros(1, 4, 2, 2)
    with pytest.raises(ValueError, match=r"prediction type must be one of .*'noise'"):
        SDXL.split(x, x, 0.5, "noise")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"prediction type must be one of .*'noise'"):
        SDXL.target(x, x, 0.5, "noise")  # type: ignore[arg-type]


def test_add_noise_keeps_the_callers_dtype() -> None:
    x = torch.zeros(1, 4, 2, 2)
    assert SDXL.add_noise(x, x, 0.5).dtype == torch.float32


@pytest.mark.parametrize("t", [-0.1, 1.1, math.nan, torch.tensor([0.5, 2.0])])
def test_times_outside_the_interval_are_refused(t: float) -> None:
    with pytest.raises(ValueError, match=r"time must lie in \[0, 1\]"):
        as_time(t)


@pytest.mark.parametrize("ratio", [0, -1, math.inf, math.nan])
def test_impossible_ratios_are_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="ratio must be positive and finite"):
        SDXL.shifted(0.5, ratio)


@pytest.mark.parametrize("table", [[0.5, 0.6], [1.0, 0.5], [0.5, 0.0], [[0.5, 0.4]]])
def test_tables_that_are_none_are_refused(table: list[float]) -> None:
    with pytest.raises(ValueError, match="one falling row"):
        VPSchedule(torch.tensor(table))


def test_scaled_linear_is_diffusers_table() -> None:
    theirs = EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    t = (torch.arange(1000) + 1).double() / 1000
    torch.testing.assert_close((SDXL.alpha(t) ** 2).float(), theirs.alphas_cumprod, atol=0, rtol=2e-5)


@pytest.mark.parametrize("steps", [1, 2, 4, 8, 50])
def test_the_uniform_grid_is_eulers_trailing_one(steps: int) -> None:
    theirs = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="trailing"
    )
    theirs.set_timesteps(steps)
    ours = VPSchedule(theirs.alphas_cumprod)
    t = 1 - torch.arange(steps).double() / steps
    torch.testing.assert_close(ours.timestep(t), theirs.timesteps.float(), atol=1e-3, rtol=0)
    torch.testing.assert_close(ours.log_ratio(t).exp().float(), theirs.sigmas[:-1], atol=0, rtol=1e-5)


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0])
def test_flow_is_diffusers_flow_match_euler(shift: float) -> None:
    theirs = FlowMatchEulerDiscreteScheduler(shift=shift)
    grid = [1.0, 0.75, 0.5, 0.25]
    theirs.set_timesteps(sigmas=grid)
    assert theirs.sigmas is not None
    ours = FlowSchedule(shift)
    t = torch.tensor(grid, dtype=torch.float64)
    torch.testing.assert_close(ours.sigma(t).float(), theirs.sigmas[:-1], atol=1e-6, rtol=0)
    torch.testing.assert_close(ours.timestep(t), theirs.timesteps, atol=1e-3, rtol=0)


@pytest.mark.parametrize("shift", [3.0, 5.0])
def test_flow_is_diffusers_unipc(shift: float) -> None:
    """Wan's own scheduler: its grid runs from 1 to 1/1000, and it takes 1e-6 from the first sigma."""
    theirs = UniPCMultistepScheduler(use_flow_sigmas=True, flow_shift=shift, prediction_type="flow_prediction")
    theirs.set_timesteps(6)
    assert theirs.sigmas is not None
    t = torch.linspace(1, 1 / 1000, 7, dtype=torch.float64)[:-1]
    torch.testing.assert_close(FlowSchedule(shift).sigma(t).float(), theirs.sigmas[:-1], atol=2e-6, rtol=0)
