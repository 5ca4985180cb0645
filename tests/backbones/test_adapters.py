"""Every supported pipeline class, tiny and genuine: loaded, run by its own pipeline and by the cascade, and decoded."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from rmd.backbones import catalog, loading
from rmd.backbones.adapter import PipelineBackbone
from rmd.backbones.outline import read_outline
from rmd.checks import RequestError
from rmd.engine.plans import plan_for
from rmd.method.cascade import CascadeSampler
from rmd.method.denoiser import Denoiser
from rmd.method.plan import two_stage
from rmd.request import make_request
from tests.tiny_flow import (
    SD3_CARD,
    WAN_CARD,
)

CPU = torch.device("cpu")
PROMPT = "a fox on a blue background"
KINDS = ["sdxl", "sd3", "sd3-t5", "wan", "wan-euler", "zimage", "flux2"]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


_opened: dict[Path, PipelineBackbone] = {}


@pytest.fixture
def backbone(kind: str, folders: dict[str, Path]) -> PipelineBackbone:
    if folders[kind] not in _opened:
        made = loading.open_backbone(folders[kind], kind, CPU, torch.float32)
        assert isinstance(made, PipelineBackbone)
        _opened[folders[kind]] = made
    return _opened[folders[kind]]


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def noise(backbone: PipelineBackbone, seed: int = 3) -> torch.Tensor:
    shape = (1, backbone.channels, *backbone.latent_size(backbone.spec.high))
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def bare(
    backbone: PipelineBackbone, guidance: float, output: str = "latent", negative: str | None = None, steps: int = 5
) -> Any:
    """The pipeline itself, called as its own documentation does."""
    start = noise(backbone)
    height, width = backbone.spec.high
    more: dict[str, Any] = {"num_frames": backbone.spec.frames, "max_sequence_length": 24} if start.ndim == 5 else {}
    if "Flux2" in type(backbone.pipe).__name__:  # takes patches of 2×2 cells as channels
        start = torch.nn.functional.pixel_unshuffle(start, 2)
        more = {} if negative is None else {"negative_prompt_embeds": backbone.pipe.encode_prompt(negative)[0]}
    else:
        more["negative_prompt"] = negative
    if "ZImage" in type(backbone.pipe).__name__:  # counts from no guidance at 0
        guidance -= 1
    return backbone.pipe(
        prompt=PROMPT, height=height, width=width, latents=start, num_inference_steps=steps, guidance_scale=guidance,
        output_type=output, return_dict=False, **more,
    )[0]  # fmt: skip


def as_theirs(backbone: PipelineBackbone, latents: torch.Tensor) -> torch.Tensor:
    """Latents as the pipeline gives them out: FLUX.2's are ready for its autoencoder."""
    return backbone.unscaled(latents, backbone.pipe.vae) if "Flux2" in type(backbone.pipe).__name__ else latents


@pytest.mark.parametrize("guidance", [1.0, 3.5])
def test_the_teacher_is_the_bare_pipeline_bit_for_bit(backbone: PipelineBackbone, guidance: float) -> None:
    positive, negative = backbone.encode([PROMPT]), backbone.encode([""])
    ours = backbone.teacher(positive, negative, noise(backbone), 5, guidance, lambda *_: None)
    assert torch.equal(as_theirs(backbone, ours), bare(backbone, guidance))


@pytest.mark.parametrize("negative", ["", "blurry"])
def test_a_negative_prompt_is_the_pipelines(backbone: PipelineBackbone, negative: str) -> None:
    positive, unwanted = backbone.encode([PROMPT]), backbone.encode([negative])
    ours = backbone.teacher(positive, unwanted, noise(backbone), 5, 3.5, lambda *_: None)
    assert torch.equal(as_theirs(backbone, ours), bare(backbone, 3.5, negative=negative or None))


@pytest.mark.parametrize("zeros", [True, False])
def test_without_a_negative_prompt_sdxl_follows_its_own_flag(folders: dict[str, Path], zeros: bool) -> None:
    """Zeros where the pipeline says so, as SDXL's published one does, else what its encoders make of ""."""
    made: Any = loading.open_backbone(folders["sdxl"], "sdxl", CPU, torch.float32)
    made.pipe.register_to_config(force_zeros_for_empty_prompt=zeros)
    empty, other = made.encode(["", "a fox"])["embeds"]
    assert bool((empty == 0).all()) is zeros
    assert bool((other != 0).any())
    ours = made.teacher(made.encode([PROMPT]), made.encode([""]), noise(made), 5, 3.5, lambda *_: None)
    assert torch.equal(ours, bare(made, 3.5))


def test_decoding_is_the_pipelines(backbone: PipelineBackbone) -> None:
    theirs = bare(backbone, 1.0, "pil")[0]
    theirs = theirs if isinstance(theirs, list) else [theirs]
    prompt = backbone.encode([PROMPT])
    (ours,) = backbone.decode(backbone.teacher(prompt, prompt, noise(backbone), 5, 1.0, lambda *_: None))
    assert len(ours) == len(theirs) == backbone.spec.frames
    for a, b in zip(ours, theirs, strict=True):
        assert a.size == b.size == backbone.spec.high[::-1]
        difference = torch.tensor(bytearray(a.tobytes())).int() - torch.tensor(bytearray(b.tobytes())).int()
        assert int(difference.abs().max()) <= 1  # a value exactly between two levels may go either way
    assert len(set(ours[0].tobytes())) > 10, "a flat picture would prove nothing"


def test_the_network_is_called_as_the_pipeline_calls_it(backbone: PipelineBackbone) -> None:
    positive, calls = backbone.encode([PROMPT]), []

    def note(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: tuple[Any]) -> None:
        calls.append(({**dict(zip(("hidden_states", "timestep"), args, strict=False)), **kwargs}, out[0]))

    hook = backbone.network.register_forward_hook(note, with_kwargs=True)
    try:
        backbone.teacher(positive, positive, noise(backbone), 4, 1.0, lambda *_: None)
    finally:
        hook.remove()
    assert len(calls) == 4
    for given, out in calls:
        x, timestep = given["hidden_states"], given["timestep"].double().flatten()[0]
        if isinstance(x, list):  # Z-Image: a list of pictures of one frame, time and velocity the other way round
            x, out, timestep = torch.stack(x).squeeze(2), -torch.stack(out).squeeze(2), 1000 * (1 - timestep)
        elif x.ndim == 3:  # FLUX.2: tokens, and time from 0 to 1
            cells = backbone.latent_size(backbone.spec.high)
            x, out, timestep = backbone.unpacked(x, cells), backbone.unpacked(out, cells), 1000 * timestep
        t = (timestep + 1) / 1000 if backbone.component == "unet" else None
        if t is None:  # a flow's timestep is its noise level in thousandths
            sigma = timestep / 1000
            t = backbone.schedule.time_at(torch.log(sigma) - torch.log1p(-sigma))
        torch.testing.assert_close(backbone.predict(x, t, positive), out, atol=2e-4, rtol=1e-3)


def test_prompt_time_and_latent_matter(backbone: PipelineBackbone) -> None:
    x, fox, star = noise(backbone), backbone.encode([PROMPT]), backbone.encode(["a star"])
    base = backbone.predict(x, 0.7, fox)
    assert base.shape == x.shape
    for other in (
        backbone.predict(x, 0.7, star),
        backbone.predict(x, 0.3, fox),
        backbone.predict(x.flip(-1), 0.7, fox),
    ):
        assert float((other - base).abs().max()) > 1e-4


def test_the_teachers_steps_end_in_its_result(backbone: PipelineBackbone) -> None:
    seen: list[tuple[int, torch.Tensor, float]] = []
    positive = backbone.encode([PROMPT])
    result = backbone.teacher(
        positive, positive, noise(backbone), 5, 1.0, lambda i, x, t: seen.append((i, x.clone(), t))
    )
    assert [i for i, _, _ in seen] == list(range(5))
    times = [t for _, _, t in seen]
    assert all(1 >= a > b > 0 for a, b in pairwise(times))
    assert seen[-1][1].shape == result.shape
    torch.testing.assert_close(seen[-1][1], result, atol=1e-3, rtol=1e-3)  # the last clean estimate is the result
    assert backbone.preview(seen[0][1]).size == backbone.latent_size(backbone.spec.high)[:-3:-1]


@pytest.mark.parametrize(
    ("steps", "switch", "reinjection"),
    [(1, 0, "band"), (1, 1, "band"), (2, 1, "mix"), (4, 2, "band"), (3, 3, "fresh"), (8, 3, "fresh")],
)
def test_the_cascade_runs_at_any_plan(backbone: PipelineBackbone, steps: int, switch: int, reinjection: Any) -> None:
    low, high = backbone.latent_size(backbone.spec.low), backbone.latent_size(backbone.spec.high)
    plan = two_stage(backbone.schedule, steps, switch, low, high, eta=0.7, reinjection=reinjection)
    sampler = CascadeSampler(backbone.schedule, plan)
    denoiser = Denoiser(backbone, backbone.encode([PROMPT]), backbone.encode([""]), 2.0)
    events = list(sampler.steps(denoiser, noise(backbone), torch.Generator().manual_seed(1)))
    x0 = events[-1].estimate.x0
    assert x0.shape == (1, backbone.channels, *high)
    assert bool(torch.isfinite(x0).all())


def test_an_outline_says_what_the_loaded_backbone_says(kind: str, folders: dict[str, Path], backbone: Any) -> None:
    outline = read_outline(catalog.find(str(folders[kind])))
    assert outline.grid == backbone.grid
    assert outline.spec.high == backbone.spec.high
    t = torch.linspace(0, 1, 30, dtype=torch.float64)
    torch.testing.assert_close(outline.schedule.sigma(t), backbone.schedule.sigma(t), atol=1e-7, rtol=1e-6)
    request = make_request(outline.fill({"backbone": "x", "prompt": "x"}))
    ours, theirs = (plan_for(request, x, None) for x in (outline, backbone))
    assert [s.size for s in ours.stages] == [s.size for s in theirs.stages]


@pytest.mark.parametrize("pixels", [(0, 64), (60, 64), (64, -16), (72, 64)])
def test_sizes_off_the_grid_are_refused(kind: str, backbone: PipelineBackbone, pixels: tuple[int, int]) -> None:
    if kind == "sdxl" and pixels == (72, 64):
        assert backbone.latent_size(pixels) == (9, 8)
        return
    with pytest.raises(ValueError, match=f"multiples of {8 if kind == 'sdxl' else 16} px"):
        backbone.latent_size(pixels)


def test_text_encoders_leave_and_come_back(kind: str, folders: dict[str, Path]) -> None:
    made: Any = loading.open_backbone(folders[kind], kind, CPU, torch.float32)
    before = made.encode([PROMPT])
    watched = [weakref.ref(getattr(made.pipe, name)) for name in made.text_encoders()]
    assert watched
    made.release_text_encoders()
    gc.collect()
    assert [ref() for ref in watched] == [None] * len(watched)
    made.teacher(before, before, noise(made), 2, 2.0, lambda *_: None)  # needs none
    after = made.encode([PROMPT])
    assert len(made.text_encoders()) == len(watched)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_unloading_leaves_no_weights(kind: str, folders: dict[str, Path]) -> None:
    made: Any = loading.open_backbone(folders[kind], kind, CPU, torch.float32)
    watched = [weakref.ref(made.network), weakref.ref(made.pipe.vae), weakref.ref(made.pipe)]
    del made
    gc.collect()
    assert [ref() for ref in watched] == [None] * 3


@pytest.mark.parametrize("frames", [8, 10, 0])
def test_frames_the_autoencoder_cannot_make(folders: dict[str, Path], tmp_path: Path, frames: int) -> None:
    folder = Path(shutil.copytree(folders["wan"], tmp_path / "wan"))
    (folder / "backbone.json").write_text(json.dumps({**WAN_CARD, "frames": frames}))
    with pytest.raises(RequestError, match="frames must be"):
        loading.open_backbone(folder, "x", CPU)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("wan", {"prediction_type": "epsilon", "use_flow_sigmas": False}, "UniPCMultistepScheduler"),
        ("sd3", {"use_dynamic_shifting": True}, "fixed timestep shift"),
    ],
)
def test_a_scheduler_of_another_kind_is_refused(
    folders: dict[str, Path], tmp_path: Path, name: str, changes: dict[str, Any], words: str
) -> None:
    folder = Path(shutil.copytree(folders[name], tmp_path / name))
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    for attempt in (lambda: loading.open_backbone(folder, "x", CPU), lambda: read_outline(catalog.find(str(folder)))):
        with pytest.raises(RequestError, match=words):
            attempt()


def test_a_cards_shift_moves_schedule_and_teacher(folders: dict[str, Path], tmp_path: Path) -> None:
    for name, key in (("wan", "flow_shift"), ("sd3", "shift")):
        folder = Path(shutil.copytree(folders[name], tmp_path / name))
        card = WAN_CARD if name == "wan" else SD3_CARD
        (folder / "backbone.json").write_text(json.dumps({**card, "shift": 5.0}))
        made: Any = loading.open_backbone(folder, "x", CPU, torch.float32)
        assert made.pipe.scheduler.config[key] == 5.0
        assert made.schedule == read_outline(catalog.find(str(folder))).schedule
        assert float(made.schedule.sigma(0.5)) == pytest.approx(5 / 6)


def test_folders_without_a_card_get_their_classes_defaults(folders: dict[str, Path], tmp_path: Path) -> None:
    for name, guidance, high in (("sd3", 4.5, (64, 64)), ("wan", 5.0, (480, 832))):
        folder = Path(shutil.copytree(folders[name], tmp_path / name))
        (folder / "backbone.json").unlink()
        spec = read_outline(catalog.find(str(folder))).spec
        assert (spec.guidance, spec.high) == (guidance, high)
