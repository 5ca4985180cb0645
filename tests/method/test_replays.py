"""Published samplers replayed from their formulas, on genuine pipelines with tiny random weights.

Every loop here is written out by hand in the convention of its source and calls the network itself; the plan that this
project makes of the same settings has to give the same latent to 1e-4.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rmd.backbones.folders import BACKBONE_CARD
from rmd.backbones.loading import open_backbone
from rmd.method.cascade import CascadeSampler
from rmd.method.denoiser import Denoised, Denoiser
from rmd.method.plan import CascadePlan, Reinjection, staged
from rmd.method.schedule import FlowSchedule
from rmd.method.transition import dct, idct, low_band
from tests.tiny_flow import SD3_CARD, tiny_sd3

CPU = torch.device("cpu")
PROMPT = "a fox on a blue background"
SIZES = [(4, 4), (5, 5), (6, 6), (8, 8), (8, 8)]


@pytest.fixture(scope="module")
def sdxl(tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = shutil.copytree(tiny_sdxl, tmp_path_factory.mktemp("replays") / "sdxl")
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "prediction_type": "epsilon"}))  # as SDXL's own
    return open_backbone(folder, "tiny", CPU)


@pytest.fixture(scope="module")
def sd3(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("replays") / "sd3"
    tiny_sd3(t5=False).save_pretrained(folder)
    (folder / BACKBONE_CARD).write_text(json.dumps(SD3_CARD))
    return open_backbone(folder, "tiny", CPU)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator)


@torch.no_grad()
def ours(backbone: Any, plan: CascadePlan, start: Tensor, told: tuple[int, ...] | None = None) -> Tensor:
    """The last clean estimate; start: white noise of the result's size."""
    conditioning = backbone.encode([PROMPT])
    if told:
        backbone = backbone.with_network(backbone.network, told_full=True)
        conditioning = backbone.conditioned(conditioning, told)
    events = CascadeSampler(backbone.schedule, plan).steps(Denoiser(backbone, conditioning), start, seeded(1))
    return list(events)[-1].estimate.x0


def noise(side: int = 8) -> Tensor:
    return torch.randn((1, 4, side, side), generator=seeded(0))


def unet(backbone: Any, told: int | None = None) -> Callable[[Tensor, int], Tensor]:
    """SDXL's network by table index; told: the size in pixels that it hears instead of its own."""
    conditioning = backbone.encode([PROMPT])

    def call(x: Tensor, index: int) -> Tensor:
        side = float(told or 8 * x.shape[-1])
        added = {
            "text_embeds": conditioning["pooled"],
            "time_ids": torch.tensor([[side, side, 0, 0, side, side]]),
        }
        return backbone.network(x, index, conditioning["embeds"], added_cond_kwargs=added, return_dict=False)[0]

    return call


def alpha_bar(backbone: Any) -> Tensor:
    return backbone.pipe.scheduler.alphas_cumprod.double()


@torch.no_grad()
@pytest.mark.parametrize("switch", [0, 2])
def test_dmd2_on_sdxl(sdxl: Any, switch: int) -> None:
    """DMD2 (arXiv 2405.14867): x0 = (x − √(1−ᾱ)·ε)/√ᾱ, then x = √ᾱ'·x0 + √(1−ᾱ')·n at 999, 749, 499, 249; told the
    full size all along. switch 2: the same student in a cascade, on its own times."""
    table, call, indices = alpha_bar(sdxl), unet(sdxl, told=64), [999, 749, 499, 249]
    sizes = [(4, 4)] * switch + [(8, 8)] * (5 - switch)
    times = [(index + 1) / 1000 for index in indices]
    plan = staged(sdxl.schedule, sizes, eta=0, reinjection="fresh", mapping="none", high_times=times)
    x, generator = low_band(noise(), sizes[0]), seeded(1)
    x0 = x
    for step, index in enumerate(indices):
        if step:
            if x0.shape[-1] != sizes[step][0]:
                x0 = F.interpolate(x0, size=sizes[step], mode="bilinear", align_corners=False)
            x = float(table[index].sqrt()) * x0 + float((1 - table[index]).sqrt()) * drawn(x0, generator)
        x0 = (x - float((1 - table[index]).sqrt()) * call(x, index)) / float(table[index].sqrt())
    torch.testing.assert_close(ours(sdxl, plan, noise(), told=(8, 8)), x0, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_swd_on_sdxl(sdxl: Any) -> None:
    """SwD (arXiv 2503.16397): four sizes, clean estimate enlarged, fresh noise, timesteps 999, 800, 600, 400."""
    table, call, indices = alpha_bar(sdxl), unet(sdxl), [999, 800, 600, 400]
    times = [(index + 1) / 1000 for index in indices]
    plan = staged(sdxl.schedule, SIZES, eta=0, reinjection="fresh", mapping="none", high_times=times)
    x, generator = low_band(noise(), SIZES[0]), seeded(1)
    x0 = x
    for step, index in enumerate(indices):
        if step:
            up = F.interpolate(x0, size=SIZES[step], mode="bilinear", align_corners=False)
            x = float(table[index].sqrt()) * up + float((1 - table[index]).sqrt()) * drawn(up, generator)
        x0 = (x - float((1 - table[index]).sqrt()) * call(x, index)) / float(table[index].sqrt())
    torch.testing.assert_close(ours(sdxl, plan, noise()), x0, atol=1e-4, rtol=1e-4)


def velocity(backbone: Any) -> Callable[[Tensor, float], Tensor]:
    """SD3's network by noise level."""
    conditioning = backbone.encode([PROMPT])

    def call(x: Tensor, sigma: float) -> Tensor:
        return backbone.network(
            hidden_states=x,
            timestep=torch.tensor([1000 * sigma]),
            encoder_hidden_states=conditioning["embeds"],
            pooled_projections=conditioning["pooled"],
            return_dict=False,
        )[0]

    return call


def flow_times(backbone: Any, sigmas: list[float]) -> list[float]:
    """Our times of a flow's noise levels: the shift undone."""
    shift = backbone.schedule.shift
    return [sigma / (shift - (shift - 1) * sigma) for sigma in sigmas]


@torch.no_grad()
def test_swd_on_sd3(sd3: Any) -> None:
    """SwD on SD3.5: its published noise levels, bicubic enlargement; x = (1−σ)·Up(x0) + σ·n, x0 = x − σ·v."""
    call, sigmas = velocity(sd3), [1.0, 0.8959, 0.7371, 0.6022]
    sizes = [(4, 4), (6, 6), (6, 6), (8, 8), (8, 8)]  # patches of two cells
    plan = staged(
        sd3.schedule, sizes, eta=0, reinjection="fresh", mapping="none", upsampler="bicubic",
        high_times=flow_times(sd3, sigmas),
    )  # fmt: skip
    start = torch.randn((1, sd3.channels, 8, 8), generator=seeded(0))
    x, generator = low_band(start, sizes[0]), seeded(1)
    x0 = x
    for step, sigma in enumerate(sigmas):
        if step:
            up = x0
            if x0.shape[-1] != sizes[step][0]:
                up = F.interpolate(x0, size=sizes[step], mode="bicubic", align_corners=False)
            x = (1 - sigma) * up + sigma * drawn(up, generator)
        x0 = x - sigma * call(x, sigma)
    torch.testing.assert_close(ours(sd3, plan, start), x0, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_tdm_on_sd3(sd3: Any) -> None:
    """TDM (arXiv 2503.06674): deterministic steps along the student's own trajectory, beginning below t = 1 with pure
    noise all the same: x' = x + (σ' − σ)·v."""
    call, times = velocity(sd3), [0.8, 0.6, 0.4, 0.2]
    sigmas = [float(sd3.schedule.sigma(t)) for t in times]
    plan = staged(sd3.schedule, [(8, 8)] * 5, eta=1, reinjection="band", mapping="none", high_times=times)
    x = torch.randn((1, sd3.channels, 8, 8), generator=seeded(0))
    expected = ours(sd3, plan, x)
    for sigma, following in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
        x = x + (following - sigma) * call(x, sigma)
    torch.testing.assert_close(expected, x, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("grid", ["uniform", "official"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("steps", "switch"), [(6, 3), (6, 4), (4, 2), (2, 1)])
@pytest.mark.parametrize("kind", ["fresh", "mix"])
def test_rmd_on_sd3(sd3: Any, kind: Reinjection, steps: int, switch: int, eta: float, grid: str) -> None:
    """RMD (arXiv 2603.06136), section 3: low steps at t_low = t/(s − (s−1)·t), the switch with fresh noise or with
    η·Up(ε) + √(1−η²)·n. The official grid has the table's indices 0, 1000//K, …: 1, 0.834, 0.668 … for K = 6."""
    times = [1 - i / steps for i in range(steps)]
    if grid == "official":
        times = [1 - i * (1000 // steps) / 1000 for i in range(steps)]
    plan = staged(sd3.schedule, [(4, 4)] * switch + [(8, 8)] * (steps - switch + 1), eta=eta, reinjection=kind,
                  high_times=times)  # fmt: skip
    call, shift, ratio = velocity(sd3), sd3.schedule.shift, 2.0
    start = torch.randn((1, sd3.channels, 8, 8), generator=seeded(0))
    expected = ours(sd3, plan, start)

    def level(step: int) -> float:
        sigma = shift * times[step] / (1 + (shift - 1) * times[step])
        return sigma / (ratio - (ratio - 1) * sigma) if step < switch else sigma

    generator = seeded(1)
    x, keep, new = low_band(start, (4, 4)), eta, math.sqrt(1 - eta * eta)
    x0 = eps = x
    for step in range(steps):
        sigma = level(step)
        if step == switch:
            x0 = F.interpolate(x0, size=(8, 8), mode="bilinear", align_corners=False)
            if kind == "fresh":
                added = drawn(x0, generator)
            else:
                # the part of the new noise below the low size's limit is drawn, what lies above is the request's own
                band = dct(start)
                band[..., :4, :4] = dct(drawn(eps, generator))
                added = keep * F.interpolate(eps, size=(8, 8), mode="bilinear", align_corners=False) + new * idct(band)
            x = (1 - sigma) * x0 + sigma * added
        elif step:
            added = eps if eta == 1 else keep * eps + new * drawn(eps, generator)
            x = (1 - sigma) * x0 + sigma * added
        v = call(x, sigma)
        x0, eps = x - sigma * v, x + (1 - sigma) * v
    torch.testing.assert_close(expected, x0, atol=1e-4, rtol=1e-4)


def test_speeds_dct_rewind() -> None:
    """SPEED (arXiv 2605.18736): the low-resolution state's cosine coefficients, scaled to the larger size's noise
    level, with new noise above them. Ours with η = 1, the upsampler `dct` and the logSNR map."""
    schedule = FlowSchedule(3.0)
    times = [1.0, 0.6]
    plan = staged(schedule, [(4, 4), (8, 8), (8, 8)], eta=1, reinjection="band", upsampler="dct", high_times=times)
    start = noise().double()
    x0 = 0.3 * torch.randn((1, 4, 4, 4), generator=seeded(5), dtype=torch.float64)
    eps = torch.randn((1, 4, 4, 4), generator=seeded(6), dtype=torch.float64)
    eps = eps / eps.square().mean().sqrt()
    seen: list[Tensor] = []

    def denoiser(x: Tensor, t: Any) -> Denoised:
        seen.append(x)
        return Denoised(x0, eps) if len(seen) == 1 else Denoised(x, x)

    list(CascadeSampler(schedule, plan).steps(denoiser, start, seeded(1)))
    high = times[1]
    low = float(schedule.shifted(high, 0.5))
    state = schedule.add_noise(x0, eps, low)
    wanted = dct(start) * float(schedule.sigma(high))
    wanted[..., :4, :4] = dct(state) * float(schedule.sigma(high) / schedule.sigma(low))
    torch.testing.assert_close(dct(seen[1]), wanted, atol=1e-6, rtol=1e-6)
