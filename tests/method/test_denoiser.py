"""Guidance and the adapter's network call, on a genuine pipeline with tiny weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rmd.backbones.loading import open_backbone
from rmd.backbones.sdxl import SDXLBackbone
from rmd.method.denoiser import Denoiser

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def backbone(tiny_sdxl: Path) -> SDXLBackbone:
    """In float32, so that comparisons are tight on any processor."""
    made = open_backbone(tiny_sdxl, "tiny", CPU, torch.float32)
    assert isinstance(made, SDXLBackbone)
    return made


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@contextmanager
def watched(network: Any) -> Iterator[list[dict[str, Any]]]:
    """Collects what the network is called with and what it answers."""
    calls: list[dict[str, Any]] = []

    def note(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: tuple[Tensor]) -> None:
        named = dict(zip(("sample", "timestep", "encoder_hidden_states"), args, strict=False))
        calls.append({**named, **kwargs, "out": out[0]})

    handle = network.register_forward_hook(note, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


def latents(count: int = 1, side: int = 8) -> Tensor:
    return torch.randn((count, 4, side, side), generator=torch.Generator().manual_seed(3))


def test_guidance_is_the_manual_combination(backbone: SDXLBackbone) -> None:
    cond, uncond = backbone.encode(["a fox"]), backbone.encode([""])
    x, t, scale = latents(), 0.7, 4.5
    with_prompt, without = backbone.predict(x, t, cond), backbone.predict(x, t, uncond)
    v = without + scale * (with_prompt - without)
    expected = backbone.schedule.split(x, v, t, "v_prediction")
    assert float((with_prompt - without).abs().max()) > 1e-3, "the prompt must matter for this test to mean anything"
    torch.testing.assert_close(tuple(Denoiser(backbone, cond, uncond, scale)(x, t)), expected, atol=1e-5, rtol=1e-4)


def test_no_guidance_is_one_call_on_one_row(backbone: SDXLBackbone) -> None:
    cond = backbone.encode(["a fox"])
    plain = Denoiser(backbone, cond)
    with watched(backbone.network) as calls:
        plain(latents(), 0.5)
    assert [len(call["sample"]) for call in calls] == [1]
    assert plain.calls_per_step == 1


def test_guidance_is_one_call_on_two_rows(backbone: SDXLBackbone) -> None:
    guided = Denoiser(backbone, backbone.encode(["a fox"]), backbone.encode([""]), 3.0)
    with watched(backbone.network) as calls:
        guided(latents(), 0.5)
    assert [len(call["sample"]) for call in calls] == [2]
    assert guided.calls_per_step == 2


def test_guidance_without_a_negative_prompt_is_refused(backbone: SDXLBackbone) -> None:
    with pytest.raises(ValueError, match="guidance other than 1 needs a negative conditioning"):
        Denoiser(backbone, backbone.encode(["a fox"]), None, 2.0)(latents(), 0.5)


def test_every_row_has_its_own_time(backbone: SDXLBackbone) -> None:
    """The trainer's batches mix times."""
    cond, uncond = backbone.encode(["a fox", "a star"]), backbone.encode(["", ""])
    x, t = latents(2), torch.tensor([0.9, 0.3], dtype=torch.float64)
    both = Denoiser(backbone, cond, uncond, 2.0)(x, t)
    for i in range(2):
        row = {k: v[i : i + 1] for k, v in cond.items()}, {k: v[i : i + 1] for k, v in uncond.items()}
        alone = Denoiser(backbone, *row, 2.0)(x[i : i + 1], float(t[i]))
        torch.testing.assert_close(both.x0[i : i + 1], alone.x0, atol=1e-4, rtol=1e-4)


def test_estimates_explain_the_latent(backbone: SDXLBackbone) -> None:
    x, t = latents(), 0.6
    x0, eps = Denoiser(backbone, backbone.encode(["a fox"]))(x, t)
    assert (x0.dtype, eps.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(backbone.schedule.add_noise(x0, eps, t), x, atol=1e-5, rtol=0)


def test_the_network_is_called_as_the_pipeline_calls_it(backbone: SDXLBackbone) -> None:
    cond = backbone.encode(["a fox on a blue background"])
    with watched(backbone.network) as calls:
        backbone.teacher(cond, cond, latents(), 4, 1.0, lambda *_: None)
        theirs = list(calls)
        calls.clear()
        for i, call in enumerate(theirs):
            backbone.predict(call["sample"], 1 - i / 4, cond)
    assert len(theirs) == len(calls) == 4
    for their, our in zip(theirs, calls, strict=True):
        assert float(our["timestep"]) == pytest.approx(float(their["timestep"]), abs=1e-3)
        assert torch.equal(our["encoder_hidden_states"], their["encoder_hidden_states"])
        for name in ("text_embeds", "time_ids"):
            assert torch.equal(our["added_cond_kwargs"][name], their["added_cond_kwargs"][name])
        torch.testing.assert_close(our["out"], their["out"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("side", [4, 8])
def test_a_stage_is_told_its_own_size(backbone: SDXLBackbone, side: int) -> None:
    with watched(backbone.network) as calls:
        backbone.predict(latents(1, side), 0.5, backbone.encode(["a fox"]))
    assert calls[0]["added_cond_kwargs"]["time_ids"].tolist() == [[8 * side, 8 * side, 0, 0, 8 * side, 8 * side]]


@pytest.mark.parametrize("guidance", [1.0, 3.5])
def test_the_teacher_is_the_bare_pipeline_bit_for_bit(backbone: SDXLBackbone, guidance: float) -> None:
    theirs = backbone.pipe(
        "a fox on a blue background",
        height=64, width=64, latents=latents(), num_inference_steps=6, guidance_scale=guidance, output_type="latent",
    ).images  # fmt: skip
    cond, uncond = backbone.encode(["a fox on a blue background"]), backbone.encode([""])
    ours = backbone.teacher(cond, uncond, latents(), 6, guidance, lambda *_: None)
    assert torch.equal(ours, theirs)


def test_teacher_previews_approach_the_result(backbone: SDXLBackbone) -> None:
    cond, seen = backbone.encode(["a star"]), []
    result = backbone.teacher(cond, cond, latents(), 6, 1.0, lambda i, x, t: seen.append((i, x.clone(), t)))
    assert [i for i, _, _ in seen] == list(range(6))
    sigmas = backbone.pipe.scheduler.sigmas
    assert [float(backbone.schedule.logsnr(t)) for _, _, t in seen] == pytest.approx(
        [-2 * math.log(float(sigma)) for sigma in sigmas[:-1]], abs=1e-3
    )
    torch.testing.assert_close(seen[-1][1], result, atol=1e-3, rtol=1e-3)  # Euler ends on its last clean estimate


def test_teacher_previews_are_its_clean_estimates(backbone: SDXLBackbone) -> None:
    """As Euler's own `pred_original_sample`."""
    cond, seen = backbone.encode(["a star"]), []
    backbone.teacher(cond, cond, latents(), 4, 1.0, lambda i, x, t: seen.append(x.clone()))
    scheduler = backbone.pipe.scheduler
    scheduler.set_timesteps(4)
    x = latents() * scheduler.init_noise_sigma
    for estimate, t in zip(seen, scheduler.timesteps, strict=True):
        position = float((t + 1) / 1000)
        scaled = scheduler.scale_model_input(x, t)
        step = scheduler.step(backbone.predict(scaled, position, cond).float(), t, x)
        torch.testing.assert_close(estimate, step.pred_original_sample, atol=2e-3, rtol=2e-3)
        x = step.prev_sample


def test_another_network_shares_everything_else(backbone: SDXLBackbone) -> None:
    network = torch.nn.Linear(2, 2, dtype=torch.float64)
    other = backbone.with_network(network)
    assert other.network is network
    assert backbone.network is not network
    assert other.schedule is backbone.schedule
    assert other.spec is backbone.spec
    assert (other.dtype, backbone.dtype) == (torch.float64, torch.float32)


@pytest.mark.parametrize("pixels", [(0, 64), (60, 64), (-8, 64)])
def test_sizes_off_the_grid_are_refused(backbone: SDXLBackbone, pixels: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="sizes must be multiples of 8 px"):
        backbone.latent_size(pixels)


def test_pictures_have_the_size_of_their_latents(backbone: SDXLBackbone) -> None:
    assert backbone.latent_size((64, 32)) == (8, 4)
    ((image,),) = backbone.decode(torch.zeros(1, 4, 8, 4))
    assert image.size == (32, 64)
    assert backbone.preview(torch.zeros(1, 4, 8, 4)).size == (4, 8)
