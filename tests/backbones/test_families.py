"""What Z-Image and FLUX.2 have of their own: a shift that follows the size, packed latents, prompts of any length."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from rmd.backbones import catalog, loading
from rmd.backbones.adapter import PipelineBackbone
from rmd.backbones.outline import read_outline
from rmd.checks import RequestError
from rmd.engine.plans import plan_for
from rmd.engine.pool import ModelPool
from rmd.engine.results import Done
from rmd.engine.session import Session
from rmd.method.cascade import CascadeSampler
from rmd.method.denoiser import Denoiser
from rmd.method.plan import two_stage
from rmd.method.schedule import FlowSchedule, PacedFlowSchedule, flux2_mu
from rmd.request import make_request
from rmd.ui.draw.schedule import schedule_svg
from tests.tiny_qwen import tiny_flux2, tiny_flux2_transformer, tiny_zimage

CPU = torch.device("cpu")
PROMPTS = ["a fox on a blue background", "a star"]


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def opened(folders: dict[str, Path]) -> dict[str, Any]:
    return {name: loading.open_backbone(folders[name], name, CPU, torch.float32) for name in ("zimage", "flux2")}


def noise(made: PipelineBackbone, pixels: tuple[int, int], count: int = 1) -> torch.Tensor:
    shape = (count, made.channels, *made.latent_size(pixels))
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def bare(name: str, pipe: Any, start: torch.Tensor, pixels: tuple[int, int], steps: int, guidance: float) -> Any:
    """Pixels of the pipeline's own call, in [0, 1]."""
    latents = F.pixel_unshuffle(start, 2) if name == "flux2" else start.clone()
    scale = guidance - 1 if name == "zimage" else guidance
    return pipe(
        prompt=PROMPTS[0], height=pixels[0], width=pixels[1], latents=latents, num_inference_steps=steps,
        guidance_scale=scale, output_type="pt", return_dict=False,
    )[0]  # fmt: skip


@pytest.mark.parametrize("name", ["zimage", "flux2"])
@pytest.mark.parametrize(("pixels", "steps"), [((64, 64), 3), ((32, 48), 7)])
def test_the_teacher_is_the_bare_pipeline_at_any_size(
    name: str, pixels: tuple[int, int], steps: int, opened: dict[str, Any]
) -> None:
    made, start = opened[name], noise(opened[name], pixels)
    positive, negative = made.encode(PROMPTS[:1]), made.encode([""])
    ours = made.pixels(made.teacher(positive, negative, start, steps, 3.0, lambda *_: None))
    assert torch.equal((ours / 2 + 0.5).clamp(0, 1), bare(name, made.pipe, start, pixels, steps, 3.0))


@pytest.mark.parametrize("name", ["zimage", "flux2"])
@pytest.mark.parametrize(("pixels", "steps"), [((64, 64), 4), ((32, 64), 4), ((64, 64), 8)])
def test_a_plan_at_one_size_is_the_pipelines_own_few_steps(
    name: str, pixels: tuple[int, int], steps: int, opened: dict[str, Any]
) -> None:
    made, start = opened[name], noise(opened[name], pixels)
    plan = two_stage(
        made.schedule, steps, 0, start.shape[2:], start.shape[2:], eta=1.0, reinjection="band"
    )  # at one size  # fmt: skip
    denoiser = Denoiser(made, made.encode(PROMPTS[:1]))
    *_, last = CascadeSampler(made.schedule, plan).steps(denoiser, start, torch.Generator())
    ours = (made.pixels(last.estimate.x0) / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(ours, bare(name, made.pipe, start, pixels, steps, 1.0), atol=1e-4, rtol=0)


def test_flux2_steps_where_its_own_sampler_does(opened: dict[str, Any]) -> None:
    from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

    for tokens in (16, 1024, 4096, 4300, 4301, 16384):
        for steps in (1, 4, 50, 200):
            assert flux2_mu(tokens, steps) == pytest.approx(compute_empirical_mu(tokens, steps), rel=1e-6)
    schedule = opened["flux2"].schedule
    assert isinstance(schedule, PacedFlowSchedule)
    scheduler = opened["flux2"].pipe.scheduler
    scheduler.set_timesteps(sigmas=[1 - i / 6 for i in range(6)], mu=compute_empirical_mu(12 * 8, 6))
    plan = two_stage(schedule, 6, 0, (8, 8), (24, 16), eta=1.0, reinjection="band")
    torch.testing.assert_close(torch.tensor(plan.stages[0].times), scheduler.sigmas[:-1], atol=1e-6, rtol=0)


def test_the_map_between_two_sizes_starts_from_the_models_own_shift(opened: dict[str, Any]) -> None:
    schedule, low, high = opened["flux2"].schedule, (64, 64), (128, 128)

    def plan(mapping: Any) -> Any:
        return two_stage(schedule, 4, 3, low, high, eta=1.0, reinjection="band", mapping=mapping)

    matched = plan("logsnr")
    full = [float(schedule.at(high, 4).sigma(1 - i / 4)) for i in range(4)]
    assert matched.stages[1].times[0] == pytest.approx(full[3])
    for t, whole in zip(matched.stages[0].times[1:], full[1:3], strict=True):  # twice the noise's std per cell
        assert float(schedule.logsnr(t)) == pytest.approx(float(schedule.logsnr(whole)) + 2 * torch.tensor(2.0).log())
    own = [float(schedule.at(low, 4).sigma(1 - i / 4)) for i in range(3)]
    assert plan("shift").stages[0].times == pytest.approx(own), "the low size's own steps"
    assert FlowSchedule(3.0).own_ratio(low, high, 4) is None


def test_the_schedule_is_drawn_in_the_models_own_pace(folders: dict[str, Path]) -> None:
    outline = read_outline(catalog.find(str(folders["flux2"])))
    request = outline.request({"prompt": "x", "steps": 4, "switch": 2})
    plan = plan_for(request, outline, None)
    drawn = schedule_svg(outline, plan, (4, 4))
    places = [float(piece.split('"')[0]) for piece in drawn.split("<rect x=")[1:] for piece in [piece[1:]]]
    grid = [outline.schedule.unpaced(t, plan.size, 4) for t in plan.stages[1].times]
    assert [float(t) for t in grid] == pytest.approx([0.5, 0.25])
    assert len(places) >= 2
    assert places[1] - places[0] > 50, "not in a heap at the left"
    assert outline.shifts


@pytest.mark.parametrize("name", ["zimage", "flux2"])
def test_prompts_of_different_lengths_share_a_batch(name: str, opened: dict[str, Any]) -> None:
    made, x = opened[name], noise(opened[name], (64, 64), 2)
    both = made.predict(x, 0.6, made.encode(PROMPTS))
    for i, prompt in enumerate(PROMPTS):
        alone = made.predict(x[i : i + 1], 0.6, made.encode([prompt]))
        torch.testing.assert_close(both[i : i + 1], alone, atol=1e-5, rtol=1e-4)


def test_a_distilled_flux2_is_a_student_not_a_teacher(folders: dict[str, Path], tmp_path: Path) -> None:
    tiny_flux2(distilled=True).save_pretrained(tmp_path / "klein")
    with pytest.raises(RequestError, match="take its base model, and this one as the student"):
        loading.open_backbone(tmp_path / "klein", "klein", CPU)
    tiny_flux2_transformer(7).save_pretrained(tmp_path / "klein" / "transformer")  # other weights than the teacher's
    values = {"backbone": str(folders["flux2"]), "student": str(tmp_path / "klein"), "prompt": "a fox", "seed": 1}
    done = next(e for e in Session(ModelPool(CPU)).generate(make_request(values)) if isinstance(e, Done))
    assert done.student.timings.nfe == 4


def test_turbo_as_a_teacher_is_run_without_guidance(tmp_path: Path) -> None:
    tiny_zimage(shift=3.0).save_pretrained(tmp_path / "turbo")
    outline = read_outline(catalog.find(str(tmp_path / "turbo")))
    assert (outline.spec.guidance, outline.spec.teacher_steps) == (1.0, 8)
    assert outline.notes(outline.request({"prompt": "a fox"})) == []
    (note,) = outline.notes(outline.request({"prompt": "a fox", "guidance": 5.0}))
    assert note == "turbo was trained to run without guidance, which is a guidance of 1."
    tiny_zimage(shift=6.0).save_pretrained(tmp_path / "base")
    outline = read_outline(catalog.find(str(tmp_path / "base")))
    assert outline.notes(outline.request({"prompt": "a fox"})) == []
    assert outline.spec.guidance == 5.0


def test_another_pipeline_of_the_family_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["flux2"], tmp_path / "dev"))
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("Flux2KleinPipeline", "Flux2Pipeline"))
    with pytest.raises(RequestError, match="holds a Flux2Pipeline; supported are"):
        loading.open_backbone(folder, "dev", CPU)
