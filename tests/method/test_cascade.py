"""The sampling loop: equal to diffusers' consistency samplers where they overlap, and right about times and clocks.

What is compared is the sampler, so the "network" is a fixed nonlinear function of latent and timestep.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import FlowMatchLCMScheduler, LCMScheduler
from torch import Tensor

from rmd.method.cascade import CascadeSampler, Step, Switch
from rmd.method.denoiser import Denoised
from rmd.method.plan import CascadePlan, Reinjection, Stage, Upsampler, staged, two_stage
from rmd.method.schedule import FlowSchedule, NoiseSchedule, PredictionType, Time, VPSchedule, scaled_linear
from rmd.method.transition import dct, into_band, low_band, upsample


def network(x: Tensor, timestep: Tensor | float) -> Tensor:
    """Depends on the value, the neighbours and the timestep, so that no difference stays hidden."""
    return torch.sin(1.3 * x + float(timestep) / 400) + 0.3 * x.roll(1, -1)


def denoiser(schedule: NoiseSchedule, kind: PredictionType) -> Callable[[Tensor, Time], Denoised]:
    return lambda x, t: Denoised(*schedule.split(x, network(x, schedule.timestep(t)), t, kind))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*size: int) -> Tensor:
    return torch.randn((2, 4, *size), generator=seeded(0))


def result(schedule: NoiseSchedule, plan: CascadePlan, kind: PredictionType, start: Tensor, seed: int = 1) -> Tensor:
    """start: noise of the result's size, or the first latent itself, which is then the low band of such noise."""
    full = torch.randn((*start.shape[:2], *plan.size), generator=seeded(99))
    start = into_band(start, full) if start.shape != full.shape else start
    events = list(CascadeSampler(schedule, plan).steps(denoiser(schedule, kind), start, seeded(seed)))
    return events[-1].estimate.x0


def diffusers_result(scheduler: Any, start: Tensor, seed: int = 1) -> Tensor:
    x, generator = start, seeded(seed)
    for timestep in scheduler.timesteps:
        x = scheduler.step(network(x, timestep), timestep, x, generator=generator).prev_sample
    return x


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_one_resolution_without_predicted_noise_is_lcm(kind: PredictionType) -> None:
    """LCM returns c_skip·x + c_out·x0 with c_skip = 0.25/((10·timestep)² + 0.25), at most 4.1e-8 at timestep 249,
    and 1 − c_out half of that: below float32's rounding (6e-8). What remains is rounding, amplified by
    1/alpha = 14.6 at the first step where the network predicts the noise."""
    theirs = LCMScheduler(prediction_type=kind)
    theirs.set_timesteps(timesteps=[999, 749, 499, 249])
    schedule = VPSchedule(theirs.alphas_cumprod)
    plan = two_stage(schedule, 4, 0, (4, 4), (8, 8), eta=0, reinjection="fresh")
    assert [round(float(schedule.timestep(t))) for t in plan.stages[0].times] == theirs.timesteps.tolist()
    ours = result(schedule, plan, kind, noise(8, 8))
    torch.testing.assert_close(ours, diffusers_result(theirs, noise(8, 8)), atol=5e-5, rtol=1e-5)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_one_resolution_without_predicted_noise_is_flow_match_lcm(shift: float) -> None:
    theirs = FlowMatchLCMScheduler(shift=shift)
    theirs.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25])
    schedule = FlowSchedule(shift)
    plan = two_stage(schedule, 4, 0, (4, 4), (8, 8), eta=0, reinjection="fresh")
    ours = result(schedule, plan, "flow_prediction", noise(8, 8))
    torch.testing.assert_close(ours, diffusers_result(theirs, noise(8, 8)), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize(("low", "high", "switch"), [((4, 6), (8, 12), 2), ((4, 6), (8, 12), 1), ((6, 6), (9, 9), 3)])
def test_two_resolutions_with_fresh_noise_are_flow_match_lcm_with_scale_factors(
    low: tuple[int, int], high: tuple[int, int], switch: int, mode: Upsampler
) -> None:
    """diffusers scales after each step, in relation to the first size."""
    factors = [high[0] / low[0] if step + 1 >= switch else 1.0 for step in range(3)]
    theirs = FlowMatchLCMScheduler(shift=3.0, scale_factors=factors, upscale_mode=mode)
    theirs.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25])
    schedule = FlowSchedule(3.0)
    plan = two_stage(schedule, 4, switch, low, high, eta=0, reinjection="fresh", mapping="none", upsampler=mode)
    expected = diffusers_result(theirs, noise(*low))
    assert tuple(expected.shape[-2:]) == high
    torch.testing.assert_close(result(schedule, plan, "flow_prediction", noise(*low)), expected, atol=2e-5, rtol=1e-5)


def test_four_sizes_are_flow_match_lcm_with_four_scales() -> None:
    theirs = FlowMatchLCMScheduler(scale_factors=[1.25, 1.5, 2.0], upscale_mode="bilinear")
    theirs.set_timesteps(sigmas=[1.0, 0.8, 0.6, 0.4])
    schedule = FlowSchedule()
    sizes, times = [(8, 8), (10, 10), (12, 12), (16, 16), (16, 16)], [1.0, 0.8, 0.6, 0.4]
    plan = staged(schedule, sizes, eta=0, reinjection="fresh", mapping="none", high_times=times)
    ours = result(schedule, plan, "flow_prediction", noise(8, 8))
    torch.testing.assert_close(ours, diffusers_result(theirs, noise(8, 8)), atol=2e-5, rtol=1e-5)


def test_full_predicted_noise_within_a_resolution_needs_no_randomness() -> None:
    schedule = scaled_linear()
    plan = two_stage(schedule, 4, 0, (4, 4), (8, 8), eta=1, reinjection="band")
    first, second = (result(schedule, plan, "v_prediction", noise(8, 8), seed) for seed in (1, 2))
    assert torch.equal(first, second)


def test_full_predicted_noise_is_ddim() -> None:
    """x' = alpha(t')·x0 + sigma(t')·eps, by hand."""
    schedule = scaled_linear()
    plan = two_stage(schedule, 2, 0, (4, 4), (8, 8), eta=1, reinjection="band")
    first = denoiser(schedule, "v_prediction")(noise(8, 8), 1.0)
    x = (schedule.alpha(0.5) * first.x0 + schedule.sigma(0.5) * first.eps).float()
    expected = denoiser(schedule, "v_prediction")(x, 0.5).x0
    torch.testing.assert_close(result(schedule, plan, "v_prediction", noise(8, 8)), expected)


@pytest.mark.parametrize(("steps", "switch"), [(k, s) for k in (1, 2, 3, 8) for s in range(k + 1)])
def test_every_plan_calls_the_network_once_per_step(steps: int, switch: int) -> None:
    schedule = scaled_linear()
    plan = two_stage(schedule, steps, switch, (4, 4), (8, 8), eta=0.5, reinjection="band")
    calls: list[tuple[tuple[int, ...], float]] = []

    def watched(x: Tensor, t: Time) -> Denoised:
        calls.append((tuple(x.shape[-2:]), float(t)))
        return denoiser(schedule, "v_prediction")(x, t)

    sampler = CascadeSampler(schedule, plan)
    events = list(sampler.steps(watched, noise(8, 8), seeded(1)))
    assert calls == [(stage.size, t) for stage in plan.stages for t in stage.times]
    assert [e.index for e in events if isinstance(e, Step)] == list(range(steps))
    assert [e.stage for e in events if isinstance(e, Switch)] == ([1] if switch else [])
    assert tuple(events[-1].estimate.x0.shape) == (2, 4, 8, 8)


def test_a_video_goes_through_four_stages() -> None:
    schedule = FlowSchedule(3.0)
    sizes = [(3, 4, 4), (3, 4, 4), (3, 6, 6), (3, 8, 8), (3, 8, 8)]
    plan = staged(schedule, sizes, eta=1, reinjection="band")
    start = torch.randn((2, 4, 3, 8, 8), generator=seeded(0))
    assert tuple(result(schedule, plan, "flow_prediction", start).shape) == (2, 4, 3, 8, 8)


def test_the_first_latent_is_the_low_band_of_the_teachers_noise() -> None:
    plan = CascadePlan((Stage((4, 4), (1.0,)), Stage((8, 8), (0.5,))), 1, "band")
    seen: list[Tensor] = []

    def watched(x: Tensor, t: Time) -> Denoised:
        seen.append(x)
        return denoiser(FlowSchedule(), "flow_prediction")(x, t)

    list(CascadeSampler(FlowSchedule(), plan).steps(watched, noise(8, 8), seeded(1)))
    assert torch.equal(seen[0], low_band(noise(8, 8), (4, 4)))


@pytest.mark.parametrize("kind", ["band", "mix"])
@pytest.mark.parametrize("eta", [1.0, 0.6])
def test_what_a_switch_adds_is_the_requests_own_high_band(kind: Reinjection, eta: float) -> None:
    """At every switch, for pictures and clips: the noise above the smaller size's band is the request's, share for
    share of what is new, whatever the generator draws."""
    schedule = FlowSchedule()
    sizes = [(3, 4, 4), (3, 6, 6), (3, 8, 8)]
    stages = tuple(Stage(size, (t,)) for size, t in zip(sizes, (1.0, 0.7, 0.4), strict=True))
    own = torch.randn((2, 4, 3, 8, 8), generator=seeded(0))
    for seed in (1, 2):
        sampler = CascadeSampler(schedule, CascadePlan(stages, eta, kind))
        events = list(sampler.steps(denoiser(schedule, "flow_prediction"), own, seeded(seed)))
        switches = [event for event in events if isinstance(event, Switch)]
        calls = [event for event in events if isinstance(event, Step)]
        for switch, before in zip(switches, calls, strict=False):
            size = sizes[switch.stage]
            added = dct(switch.estimate.eps)
            if kind == "mix":
                added = (added - eta * dct(upsample(before.estimate.eps, size))) / max(1e-9, (1 - eta * eta) ** 0.5)
            if kind == "mix" and eta == 1:
                continue  # nothing is added
            small, mine = sizes[switch.stage - 1], dct(low_band(own, size))
            for part in (added, mine):
                part[..., : small[-2], : small[-1]] = 0
            torch.testing.assert_close(added, mine, atol=1e-4, rtol=1e-4)


def test_fresh_noise_is_new_at_every_switch() -> None:
    """As published (SwD): one more seed, another picture."""
    plan = two_stage(FlowSchedule(), 2, 1, (4, 4), (8, 8), eta=0, reinjection="fresh")
    one, other = (result(FlowSchedule(), plan, "flow_prediction", noise(8, 8), seed) for seed in (1, 2))
    assert not torch.allclose(one, other, atol=0.1)


def test_a_deterministic_cascade_needs_no_draw_above_the_band() -> None:
    """At eta = 1 with band the request's noise is all the noise there is."""
    plan = two_stage(FlowSchedule(), 4, 2, (4, 4), (8, 8), eta=1, reinjection="band")
    one, other = (result(FlowSchedule(), plan, "flow_prediction", noise(8, 8), seed) for seed in (1, 2))
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", ["band", "mix", "fresh", "block"])
def test_a_sample_is_the_same_in_any_batch(kind: Reinjection) -> None:
    """One generator per sample: position i of a batch equals the same request alone."""
    schedule = FlowSchedule()
    plan = two_stage(schedule, 4, 2, (4, 4), (8, 8), eta=0.5, reinjection=kind)
    own = torch.randn((3, 4, 8, 8), generator=seeded(0))

    def run(samples: list[int]) -> Tensor:
        generators = [seeded(10 + i) for i in samples]
        steps = CascadeSampler(schedule, plan).steps(denoiser(schedule, "flow_prediction"), own[samples], generators)
        return list(steps)[-1].estimate.x0

    batch = run([0, 1, 2])
    for i in range(3):
        torch.testing.assert_close(run([i])[0], batch[i])


def test_seconds_are_the_networks_alone() -> None:
    """A clock that the network and the listener move by hand: what the listener does is in no step's time."""
    now = [0.0]
    schedule = scaled_linear()

    def slow(x: Tensor, t: Time) -> Denoised:
        now[0] += 1
        return denoiser(schedule, "v_prediction")(x, t)

    plan = two_stage(schedule, 4, 2, (4, 4), (8, 8), eta=1, reinjection="band")
    seconds: list[float] = []
    for event in CascadeSampler(schedule, plan, lambda: now[0]).steps(slow, noise(8, 8), seeded(1)):
        seconds.append(event.seconds)
        now[0] += 100
    assert seconds == [1, 1, 0, 1, 1]


def test_gradients_flow_as_the_caller_says() -> None:
    """The trainer rolls out without gradient and takes one step with it, in the same loop."""
    schedule = scaled_linear()
    weight = torch.ones((), requires_grad=True)

    def learnable(x: Tensor, t: Time) -> Denoised:
        return Denoised(*schedule.split(x, weight * network(x, schedule.timestep(t)), t, "v_prediction"))

    plan = two_stage(schedule, 3, 1, (4, 4), (8, 8), eta=1, reinjection="band")
    events = CascadeSampler(schedule, plan).steps(learnable, noise(8, 8), seeded(1))
    with torch.no_grad():
        first, switch = next(events), next(events)
    second = next(events)
    assert not first.estimate.x0.requires_grad
    assert not switch.estimate.x0.requires_grad
    second.estimate.x0.mean().backward()
    assert weight.grad is not None
    assert float(weight.grad) != 0
