"""The switch: exactly white noise for band, the documented flaw of mix, and the trajectory that goes on."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rmd.method.plan import Reinjection, Upsampler, two_stage
from rmd.method.schedule import FlowSchedule, NoiseSchedule, scaled_linear
from rmd.method.transition import (
    blend,
    blocks,
    consistency_lift,
    dct,
    edge_power,
    idct,
    into_band,
    lost_detail,
    low_band,
    reinject,
    standardise,
    upsample,
)

SIZES = [((32, 32), (64, 64)), ((48, 48), (64, 64)), ((20, 36), (30, 54)), ((30, 52), (45, 80)), ((16, 16), (21, 40))]


def white(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def lag(x: Tensor, dim: int) -> float:
    """Correlation of neighbours along a dimension."""
    n = x.shape[dim]
    a, b = x.narrow(dim, 0, n - 1), x.narrow(dim, 1, n - 1)
    return float((a * b).mean() / x.square().mean())


def matrix(small: tuple[int, int], large: tuple[int, int]) -> Tensor:
    """into_band as a matrix from all its inputs, (low cells + high cells) to high cells."""
    low_cells, cells = math.prod(small), math.prod(large)
    inputs = torch.eye(low_cells + cells, dtype=torch.float64)
    low, fresh = inputs[:, :low_cells].reshape(-1, 1, *small), inputs[:, low_cells:].reshape(-1, 1, *large)
    return into_band(low, fresh).reshape(-1, cells).T


@pytest.mark.parametrize(("small", "large"), [((4, 4), (8, 8)), ((4, 6), (6, 9)), ((3, 5), (4, 7)), ((5, 5), (5, 5))])
def test_band_is_exactly_white_for_any_ratio(small: tuple[int, int], large: tuple[int, int]) -> None:
    """White in, M·Mᵀ = 1 out: no cell's variance differs and no two cells correlate."""
    m = matrix(small, large)
    torch.testing.assert_close(m @ m.T, torch.eye(math.prod(large), dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize(("small", "large"), SIZES)
def test_band_measured(small: tuple[int, int], large: tuple[int, int], eta: float) -> None:
    out = reinject(white(4, 64, *small), white(4, 64, *large, seed=1), "band", eta)
    assert float(out.square().mean()) == pytest.approx(1, abs=0.01)
    assert abs(lag(out, -1)) < 0.01
    assert abs(lag(out, -2)) < 0.01


@pytest.mark.parametrize(("small", "large"), SIZES)
def test_band_gives_the_predicted_noise_back(small: tuple[int, int], large: tuple[int, int]) -> None:
    eps = 0.7 * white(2, 4, *small)
    out = reinject(eps, white(2, 4, *large, seed=1), "band", 1.0)
    torch.testing.assert_close(low_band(out, small), standardise(eps), atol=1e-5, rtol=0)


def test_band_keeps_the_fresh_noise_above_the_band() -> None:
    fresh = white(1, 4, 32, 32, seed=1)
    out, before = dct(reinject(white(1, 4, 16, 16), fresh, "band", 1.0)), dct(fresh)
    torch.testing.assert_close(out[..., 16:, :], before[..., 16:, :], atol=1e-5, rtol=0)
    torch.testing.assert_close(out[..., :, 16:], before[..., :, 16:], atol=1e-5, rtol=0)
    assert float((out - before)[..., :16, :16].abs().mean()) > 0.5


def test_band_without_predicted_noise_is_the_fresh_noise() -> None:
    fresh = white(1, 4, 32, 32, seed=1)
    torch.testing.assert_close(reinject(white(1, 4, 16, 16), fresh, "band", 0.0), fresh, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("small", "large"), [((4, 4), (8, 8)), ((3, 5), (9, 15)), ((4, 3), (8, 9))])
def test_block_is_exactly_white_for_whole_ratios(small: tuple[int, int], large: tuple[int, int]) -> None:
    """Its two parts, each a matrix of white inputs, add up to M·Mᵀ = 1."""
    low, high = math.prod(small), math.prod(large)
    share = math.sqrt(low / high)
    repeat = upsample(torch.eye(low, dtype=torch.float64).reshape(-1, 1, *small), large, "nearest").reshape(low, high).T
    means = blocks(torch.eye(high, dtype=torch.float64).reshape(-1, 1, *large), small).reshape(high, low).T
    m = torch.cat([share * repeat, torch.eye(high, dtype=torch.float64) - share * repeat @ means], dim=1)
    torch.testing.assert_close(m @ m.T, torch.eye(high, dtype=torch.float64), atol=1e-12, rtol=0)
    eps, fresh = standardise(white(2, 4, *small)), white(2, 4, *large, seed=1)
    torch.testing.assert_close(blocks(reinject(eps, fresh, "block", 1.0), small), eps, atol=1e-5, rtol=0)
    torch.testing.assert_close(reinject(eps, fresh, "block", 0.0), fresh, atol=1e-5, rtol=0)


def test_block_is_the_noise_of_pyramidal_flows() -> None:
    """Written from their formulas (arXiv 2410.05954, eq. 12 to 15; Helios has the same): the noisy latent x of level
    sigma is enlarged by nearest neighbours, scaled by alpha, and beta times block noise of correlation −gamma added."""
    gamma, sigma = 1 / 3, 0.5
    alpha = 1 / (math.sqrt(1 + 1 / gamma) * (1 - sigma) + sigma)
    beta = alpha * (1 - sigma) / math.sqrt(gamma)
    x0, eps, n = white(2, 4, 6, 6), standardise(white(2, 4, 6, 6, seed=1)), white(2, 4, 12, 12, seed=2)
    means = torch.nn.functional.avg_pool2d(n, 2).repeat_interleave(2, -1).repeat_interleave(2, -2)
    correlated = math.sqrt(4 / 3) * (n - means)
    cells = white(1, 1, 512, 512, seed=3)
    cells = math.sqrt(4 / 3) * (
        cells - torch.nn.functional.avg_pool2d(cells, 2).repeat_interleave(2, -1).repeat_interleave(2, -2)
    )
    rows = cells.reshape(256, 2, 256, 2).permute(0, 2, 1, 3).reshape(-1, 4)
    torch.testing.assert_close(rows.T @ rows / len(rows), (1 + gamma) * torch.eye(4) - gamma, atol=0.02, rtol=0)
    low = (1 - sigma) * x0 + sigma * eps
    theirs = alpha * low.repeat_interleave(2, -1).repeat_interleave(2, -2) + beta * correlated
    ours = FlowSchedule(1.0).add_noise(
        upsample(x0, (12, 12), "nearest"), reinject(eps, n, "block", 1.0), 1 / (2 - sigma)
    )
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_block_needs_sizes_that_divide() -> None:
    with pytest.raises(ValueError, match=r"reinjection 'block' needs sizes that divide, not \(4, 4\) and \(6, 6\)"):
        two_stage(FlowSchedule(1.0), 2, 1, (4, 4), (6, 6), eta=1.0, reinjection="block")


def test_fresh_ignores_the_prediction() -> None:
    fresh = white(1, 4, 8, 8)
    assert reinject(white(1, 4, 4, 4), fresh, "fresh", 0.7) is fresh


@pytest.mark.parametrize(
    ("small", "large", "variance"), [((64, 64), (128, 128), 0.396), ((60, 104), (90, 160), 0.438)], ids=["x2", "wan"]
)
@pytest.mark.parametrize("eta", [1.0, 0.5])
def test_mix_is_not_unit_variance(small: tuple[int, int], large: tuple[int, int], variance: float, eta: float) -> None:
    """The published re-injection's flaw, kept as published: enlarged white noise is weak and correlated."""
    out = reinject(white(2, 32, *small), white(2, 32, *large, seed=1), "mix", eta)
    assert float(out.square().mean()) == pytest.approx(eta**2 * variance + 1 - eta**2, abs=0.01)
    if eta == 1:
        assert lag(out, -1) > 0.5


def test_unknown_reinjection_is_refused() -> None:
    with pytest.raises(ValueError, match="reinjection must be one of fresh, mix, band, block, not 'old'"):
        reinject(white(1, 1, 2, 2), white(1, 1, 4, 4), "old", 1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(("small", "large"), SIZES)
def test_low_band_of_white_noise_is_white(small: tuple[int, int], large: tuple[int, int]) -> None:
    out = low_band(white(8, 64, *large), small)
    assert tuple(out.shape[-2:]) == small
    assert float(out.square().mean()) == pytest.approx(1, abs=0.01)
    assert abs(lag(out, -1)) < 0.01


def test_low_band_at_the_same_size_is_the_noise_itself() -> None:
    noise = white(1, 4, 8, 8)
    assert low_band(noise, (8, 8)) is noise


def test_dct_is_orthonormal_and_inverts() -> None:
    x = white(2, 3, 7, 12).double()
    torch.testing.assert_close(idct(dct(x)), x, atol=1e-12, rtol=0)
    assert float(dct(x).square().sum()) == pytest.approx(float(x.square().sum()))


@pytest.mark.parametrize("s", [2, 3])
def test_a_pictures_low_coefficients_grow_by_the_ratio(s: int) -> None:
    """Those of white noise do not, which is the logSNR map of the method."""
    k = (torch.arange(32, dtype=torch.float64) + 0.5) * math.pi / 32
    picture = (1 + torch.cos(k)[:, None] + torch.cos(2 * k)[None]).expand(1, 1, 32, 32)
    large = upsample(picture, (32 * s, 32 * s))
    torch.testing.assert_close(dct(large)[..., :3, :3], s * dct(picture)[..., :3, :3], rtol=0.01, atol=0.01)


@pytest.mark.parametrize(("small", "large"), SIZES[:4])
@pytest.mark.parametrize("schedule", [scaled_linear(), FlowSchedule(3.0)], ids=["sdxl", "flow"])
def test_band_with_the_logsnr_map_goes_on_with_the_same_trajectory(
    schedule: NoiseSchedule, small: tuple[int, int], large: tuple[int, int]
) -> None:
    """The large latent's low band is the small latent up to a factor, for a picture that enlarges exactly."""
    s = math.sqrt(math.prod(large) / math.prod(small))
    x0 = torch.full((1, 1, *small), 0.8)
    eps = standardise(white(1, 1, *small))
    t = 0.6
    before = schedule.add_noise(x0, eps, t)
    after = schedule.shifted(t, s)
    noise = reinject(eps, white(1, 1, *large, seed=1), "band", 1.0)
    low = low_band(schedule.add_noise(upsample(x0, large), noise, after), small)
    factor = float(schedule.sigma(after) / schedule.sigma(t))
    torch.testing.assert_close(low, factor * before, atol=2e-5, rtol=0)


@pytest.mark.parametrize("kind", get_args(Reinjection))
def test_frames_of_a_video_are_enlarged_one_by_one(kind: Reinjection) -> None:
    eps, fresh = standardise(white(2, 4, 3, 6, 10)), white(2, 4, 3, 12, 20, seed=1)
    out = reinject(eps, fresh, kind, 1.0)
    assert out.shape == fresh.shape
    one = {
        "fresh": fresh[:, :, 1],
        "mix": upsample(eps[:, :, 1], (12, 20)),
        "band": into_band(eps[:, :, 1], fresh[:, :, 1]),
        "block": fresh[:, :, 1] + upsample((eps - blocks(fresh, eps.shape))[:, :, 1], (12, 20), "nearest") / 2,
    }
    torch.testing.assert_close(out[:, :, 1], one[kind], atol=1e-5, rtol=0)


@settings(max_examples=25)
@given(small=st.tuples(st.integers(8, 20), st.integers(8, 20)), grow=st.tuples(*[st.integers(0, 12)] * 2),
       frames=st.integers(1, 5), eta=st.floats(0, 1), seed=st.integers(0, 2**31))  # fmt: skip
def test_band_on_clips_is_white_in_space_and_time_and_keeps_each_frames_low_band(
    small: tuple[int, int], grow: tuple[int, int], frames: int, eta: float, seed: int
) -> None:
    large = (small[0] + grow[0], small[1] + grow[1])
    eps, fresh = white(6, 16, frames, *small, seed=seed), white(6, 16, frames, *large, seed=seed + 1)
    out = reinject(eps, fresh, "band", eta)
    sure = 5 / math.sqrt(out.numel() / frames)  # five standard errors per frame
    for f in range(frames):
        assert float(out[:, :, f].square().mean()) == pytest.approx(1, abs=sure * math.sqrt(2))
    assert max(abs(lag(out, -1)), abs(lag(out, -2))) < sure
    if frames > 1:
        assert abs(lag(out, 2)) < sure
    kept = low_band(out, small)
    expected = eta * standardise(eps) + math.sqrt(1 - eta**2) * low_band(fresh, small)
    for f in range(frames):
        torch.testing.assert_close(kept[:, :, f], expected[:, :, f], atol=2e-5, rtol=0)


@pytest.mark.parametrize("mode", [mode for mode in get_args(Upsampler) if mode != "selflift"])
def test_upsampling_keeps_a_constant_picture(mode: Upsampler) -> None:
    x = torch.full((2, 4, 3, 6, 10), 0.3)
    torch.testing.assert_close(upsample(x, (9, 16), mode), torch.full((2, 4, 3, 9, 16), 0.3))


def test_nearest_repeats_cells() -> None:
    x = white(1, 2, 3, 4)
    assert torch.equal(upsample(x, (6, 8), "nearest"), x.repeat_interleave(2, -1).repeat_interleave(2, -2))


def test_standardise_works_per_sample() -> None:
    x = white(3, 4, 8, 8) * torch.tensor([0.5, 1.0, 3.0])[:, None, None, None]
    torch.testing.assert_close(standardise(x).square().mean(dim=(1, 2, 3)), torch.ones(3))
    assert bool(torch.isfinite(standardise(torch.zeros(1, 4, 2, 2))).all())


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_blend_keeps_unit_variance(eta: float) -> None:
    out = blend(white(1, 64, 64, 64), white(1, 64, 64, 64, seed=1), eta)
    assert float(out.square().mean()) == pytest.approx(1, abs=0.01)
    assert float((out * white(1, 64, 64, 64)).mean()) == pytest.approx(eta, abs=0.01)


def test_lost_detail_is_what_enlarging_does_not_bring_back() -> None:
    ramp = torch.linspace(-1, 1, 16).expand(2, 3, 16, 16)
    checks = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(8, 8).expand(2, 3, 16, 16)
    assert lost_detail(checks, (8, 8)) == pytest.approx(1)  # every block averages to nothing
    assert lost_detail(torch.full((1, 1, 16, 16), 3.0), (8, 8)) == pytest.approx(0, abs=1e-9)
    assert lost_detail(ramp, (8, 8)) < 1e-3  # smooth but for the border
    assert lost_detail(ramp + checks, (8, 8)) == pytest.approx(1, abs=0.01)
    clip = checks[:, :, None].expand(2, 3, 5, 16, 16)
    assert lost_detail(clip, (5, 8, 8)) == pytest.approx(1)


@pytest.mark.parametrize(("rho", "weights"), [(0.4, (0.5, 1.0)), (0.3, (0.5, 1.0)), (0.75, (0.0, 0.6))])
@pytest.mark.parametrize("shape", [(2, 4, 5, 6), (2, 3, 2, 4, 5)])
def test_the_lift_is_selflifts(shape: tuple[int, ...], rho: float, weights: tuple[float, float]) -> None:
    """Cell by cell as in equations 6 to 9 of arXiv 2609.02036."""
    latent, pixel = white(*shape), white(*shape, seed=1)
    found = consistency_lift(latent, pixel, rho, weights)
    for mine, low, high in zip(found.flatten(2), latent.flatten(2), pixel.flatten(2), strict=True):
        risks = [float((high[:, i] - low[:, i]).abs().sum()) / shape[1] for i in range(low.shape[1])]
        limit = float(torch.quantile(torch.tensor(risks), 1 - rho))
        chosen = [risk for risk in risks if risk >= limit]
        assert len(chosen) == pytest.approx(rho * len(risks), abs=1)
        for i, risk in enumerate(risks):
            reach = (risk - min(chosen)) / (max(chosen) - min(chosen))
            w = weights[0] + (weights[1] - weights[0]) * reach if risk >= limit else 0.0
            torch.testing.assert_close(mine[:, i], (1 - w) * low[:, i] + w * high[:, i], atol=1e-5, rtol=0)


def test_the_lift_at_its_ends() -> None:
    latent, pixel = white(2, 4, 5, 6), white(2, 4, 5, 6, seed=1)
    torch.testing.assert_close(consistency_lift(latent, pixel, 1.0, (1.0, 1.0)), pixel, atol=1e-6, rtol=0)
    assert torch.equal(consistency_lift(latent, latent), latent), "where nothing differs, nothing is divided by nought"
    assert torch.equal(consistency_lift(latent, pixel)[:1], consistency_lift(latent[:1], pixel[:1])), "sample by sample"


def test_an_upsampler_that_needs_an_autoencoder_says_so() -> None:
    with pytest.raises(ValueError, match="selflift needs an autoencoder"):
        upsample(white(1, 4, 4, 4), (8, 8), "selflift")


def test_the_power_at_the_edge_of_the_low_size() -> None:
    assert edge_power(white(64, 4, 32, 32), (16, 16)) == pytest.approx(1, abs=0.04)
    for place, expected in (((16, 0), True), ((0, 16), True), ((3, 2), False), ((31, 31), False)):
        alone = torch.zeros(1, 1, 32, 32)
        alone[0, 0, place[0], place[1]] = 10.0
        assert (edge_power(idct(alone), (16, 16)) > 1e-6) is expected
    assert edge_power(white(1, 1, 4, 4), (4, 4)) > 0, "also where no size is lower"
