"""The measures on cases whose answer is known, and against torchmetrics where it has the same."""

from __future__ import annotations

import math
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from rmd.study.evidence import measures
from rmd.study.evidence.bootstrap import Estimate, draws, of_means, of_sets
from rmd.study.evidence.plot import forest


def white(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Same(nn.Module):
    """Takes features for pictures."""

    num_features = 24

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize("count", [16, 200])  # fewer and more samples than features
def test_frechet_distance_is_torchmetrics(count: int) -> None:
    a, b = white(count, 24), 1.3 * white(count, 24, seed=1) + 0.2
    theirs = FrechetInceptionDistance(feature=Same(), normalize=False)
    theirs.update(a, real=True)
    theirs.update(b, real=False)
    assert measures.frechet(a, b) == pytest.approx(float(theirs.compute()), rel=2e-3)


def test_other_seeds_of_the_same_are_apart_and_another_distribution_is_further() -> None:
    prompts, seeds, width = 200, 4, 20
    of_prompt = white(prompts, 1, width)
    a, b, c = (of_prompt + 0.5 * white(prompts, seeds, width, seed=seed) for seed in (1, 2, 3))
    own = measures.across_seeds(a, a)
    assert own > 0.3, "half of the samples, other noise: not nothing"
    assert measures.across_seeds(b, a) == pytest.approx(own, abs=0.06), "of the same distribution: no further"
    assert measures.across_seeds(c + 0.2, a) - own == pytest.approx(0.2**2 * width, rel=0.2)
    assert measures.across_seeds(a, b) == pytest.approx(measures.across_seeds(b, a), rel=1e-3)


def test_kernel_distance_is_torchmetrics() -> None:
    a, b = white(60, 24), 1.3 * white(60, 24, seed=1) + 0.2
    theirs = KernelInceptionDistance(feature=Same(), subsets=2, subset_size=60, normalize=False)
    theirs.update(a, real=True)
    theirs.update(b, real=False)
    assert measures.kernel_distance(a, b) == pytest.approx(float(theirs.compute()[0]), rel=1e-4)


def test_two_gaussians_of_known_distance() -> None:
    a, b = white(20000, 3), white(20000, 3, seed=1) * torch.tensor([2.0, 1.0, 0.5]) + torch.tensor([1.0, 0.0, 0.0])
    assert measures.frechet(a, b) == pytest.approx(1 + 1 + 0 + 0.25, abs=0.08)
    assert measures.frechet(a, white(20000, 3, seed=2)) < 0.01
    assert abs(measures.kernel_distance(a[:2000], white(2000, 3, seed=2))) < 0.01


def test_precision_falls_for_what_is_not_real_and_recall_for_what_is_missing() -> None:
    real = torch.cat([white(300, 4), white(300, 4, seed=1) + 20])
    half, strange = white(600, 4, seed=2), white(600, 4, seed=3) - 40
    precision, recall = (inside.mean() for inside in measures.precision_recall(real, half))
    assert precision > 0.8
    assert float(recall) == pytest.approx(0.5, abs=0.1)
    for other, share in ((strange, 0), (real, 1)):
        assert all(bool((inside == share).all()) for inside in measures.precision_recall(real, other))


def test_a_collapsed_sampler_has_no_diversity() -> None:
    prompts = white(10, 8).repeat_interleave(4, dim=0)
    assert float(measures.spread(prompts, 4).max()) == 0
    varied = measures.spread(prompts + 0.5 * white(40, 8, seed=1), 4).mean()
    assert float(varied) == pytest.approx(0.5 * math.sqrt(2) * math.sqrt(8 - 0.5), rel=0.1)


def drawing() -> Tensor:
    """A disc on a plain ground, (1, 3, 1, 128, 128)."""
    axis = torch.linspace(-1, 1, 128)
    disc = (axis[:, None] ** 2 + axis**2 < 0.4).float() * 1.2 - 0.6
    return disc.expand(1, 3, 1, 128, 128).clone()


def test_blur_sharpening_and_grain_are_found() -> None:
    plain = drawing()
    flat = plain[:, :, 0]
    soft = functional.avg_pool2d(functional.pad(flat, (2, 2, 2, 2), mode="replicate"), 5, 1)
    crisp = flat + (flat - soft)
    grainy = flat + 0.02 * white(1, 3, 128, 128)
    sharpness, grain = measures.octave(torch.cat([flat, soft, crisp, grainy])[:, :, None])
    assert sharpness[1] < 0.7 * sharpness[0] < sharpness[2]
    assert float(grain[:2].max()) < 1e-3 < 5e-3 < float(grain[3])


def test_an_interval_is_as_wide_as_theory_says() -> None:
    values, rounds = white(400), draws(400, rounds=400)
    found = of_means(values, rounds)
    assert found.value == pytest.approx(float(values.mean()))
    assert found.error == pytest.approx(1 / math.sqrt(400), rel=0.15)
    assert of_sets(lambda i: float(values[i // 2].mean()), 2, rounds).error == pytest.approx(found.error, rel=1e-4)


def test_paired_differences_see_what_single_intervals_do_not() -> None:
    """A common part that varies much between prompts cancels."""
    common, rounds = 10 * white(100), draws(100)
    a, b = of_means(common, rounds), of_means(common + 0.5 + 0.1 * white(100, seed=1), rounds)
    assert a.error > 0.5
    assert b.minus(a).differs
    assert not of_means(common + 0.1 * white(100, seed=2), rounds).minus(a).differs
    assert b.over(b).value == 1
    assert b.over(b).error == 0


def test_prompts_without_a_value_are_left_out() -> None:
    values = torch.tensor([1.0, math.nan, 3.0])
    assert of_means(values, [torch.tensor([0, 1, 1])]) == Estimate(2.0, (1.0,))


def test_the_plot_has_a_line_for_every_row_that_a_model_made() -> None:
    def row(value: float, role: str = "student") -> dict[str, Any]:
        figure = {"value": value, "low": value - 5, "high": value + 5}
        return {"fd_teacher": figure, "made_by": {"role": role}, "cost": {"nfe": 4}}

    report = {
        "rows": {"real": {"fd_teacher": {"value": 9.0}}, "student, <2+2>": row(40), "not distilled, 2+2": row(30)},
        "reference": "student, <2+2>", "count": 8, "hardware": "a machine", "date": "2026-01-01",
    }  # fmt: skip
    drawn = forest(report, "fd_teacher", "a distance")
    parsed = ElementTree.fromstring(drawn)
    titles = [one.text for one in parsed.iter("{http://www.w3.org/2000/svg}title")]
    assert titles == ["not distilled, 2+2: 30.0 (25.0 to 35.0)", "student, <2+2>: 40.0 (35.0 to 45.0)"]
    assert "8 pictures a row, a machine" in drawn
    assert forest(report, "fd_real", "another") == ""
