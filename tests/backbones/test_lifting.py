"""Enlarging that needs the autoencoder: SelfLift's transition, for every family and through the session."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from rmd.backbones import loading
from rmd.backbones.lifting import enlarge
from rmd.checks import RequestError
from rmd.engine.results import Done
from rmd.engine.session import Session
from rmd.method.cascade import CascadeSampler, Switch
from rmd.method.denoiser import Denoised
from rmd.method.plan import two_stage
from rmd.method.transition import consistency_lift, upsample
from rmd.request import make_request

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["sdxl", "sd3", "wan", "zimage", "flux2"])
@torch.inference_mode()
def test_every_family_lifts(folders: dict[str, Path], name: str) -> None:
    made = loading.open_backbone(folders[name], name, CPU, torch.float32)
    low, high = made.latent_size(made.spec.low), made.latent_size(made.spec.high)
    x0 = torch.randn((2, made.channels, *low), generator=torch.Generator().manual_seed(3))
    found = enlarge(made, x0, high, "selflift")
    plain = enlarge(made, x0, high, "nearest")
    assert found.shape == plain.shape == (2, made.channels, *high)
    changed = (found != plain).any(dim=1).float().mean()
    assert float(changed) == pytest.approx(0.4, abs=0.1), "the share of cells that the paper corrects"


@torch.inference_mode()
def test_the_transition_is_selflifts(folders: dict[str, Path]) -> None:
    """Algorithm 1 of arXiv 2609.02036 by hand: fresh noise at the unchanged schedule's next time."""
    made = loading.open_backbone(folders["sd3"], "sd3", CPU, torch.float32)
    low, high = made.latent_size(made.spec.low), made.latent_size(made.spec.high)
    plan = two_stage(made.schedule, 4, 3, low, high, eta=1.0, reinjection="fresh", mapping="none", upsampler="selflift")
    seen: list[tuple[torch.Tensor, Any]] = []

    def denoiser(x: torch.Tensor, t: Any) -> Denoised:
        seen.append((x, t))
        return Denoised(0.5 * x, x)

    noise = torch.randn((1, made.channels, *high), generator=torch.Generator().manual_seed(3))
    sampler = CascadeSampler(made.schedule, plan, enlarge=partial(enlarge, made))
    events = list(sampler.steps(denoiser, noise, torch.Generator().manual_seed(5)))
    assert sum(isinstance(event, Switch) for event in events) == 1
    x0, t = 0.5 * seen[2][0], seen[3][1]
    assert plan.stages[1].times == (t,)
    sigma = float(made.schedule.sigma(t))
    large = upsample(made.pixels(x0), made.spec.high, "bicubic").clamp(-1, 1)
    lifted = consistency_lift(x0.repeat_interleave(2, -1).repeat_interleave(2, -2), made.latents(large))
    fresh = torch.randn(noise.shape, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(seen[3][0], (1 - sigma) * lifted + sigma * fresh, atol=1e-5, rtol=0)


def test_a_request_can_have_it(tiny_sdxl: Path, tiny_student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(*arguments: Any) -> torch.Tensor:
        time.sleep(0.05)
        return enlarge(*arguments)

    monkeypatch.setattr("rmd.engine.session.enlarge", slowly)

    def picture(upsampler: str) -> Any:
        session = Session(previews=False)
        request = make_request(
            {"prompt": "a fox", "backbone": str(tiny_sdxl), "student": str(tiny_student), "teacher": False,
             "steps": 2, "switch": 1, "upsampler": upsampler, "seed": 1},
        )  # fmt: skip
        done = next(event for event in session.generate(request) if isinstance(event, Done))
        assert done.plan.upsampler == upsampler
        return done.student

    lifted, nearest = picture("selflift"), picture("nearest")
    assert lifted.image.tobytes() != nearest.image.tobytes()
    assert lifted.timings.switch >= 0.05, "decoding and encoding are a part of the switch's time"


def test_an_autoencoder_that_cannot_encode_is_a_sentence(tiny_sdxl: Path) -> None:
    made: Any = loading.open_backbone(tiny_sdxl, "tiny", CPU, torch.float32)
    made.pipe.vae.encoder = None
    with pytest.raises(RequestError, match=r"upsampler must not be selflift here: .*has no encoder"):
        enlarge(made, torch.zeros(1, made.channels, 4, 4), (8, 8), "selflift")
