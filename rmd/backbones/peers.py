"""Few steps as diffusers itself takes them: its consistency samplers in its own pipelines, for benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffusers import FlowMatchLCMScheduler, LCMScheduler
from torch import Tensor, nn

from rmd.backbones.adapter import FlowBackbone, PipelineBackbone
from rmd.method.denoiser import Conditioning


def peer_names(backbone: Any) -> dict[str, bool]:
    """What can be run on a backbone, by name, with whether it goes from a low to a high resolution."""
    if not isinstance(backbone, FlowBackbone):
        return {"LCMScheduler": False}
    if backbone.spec.frames > 1:
        return {"FlowMatchLCM": False}  # it enlarges pictures alone
    return {"FlowMatchLCM": False, "FlowMatchLCM, scale-wise": True}


def few_steps(
    backbone: PipelineBackbone, network: nn.Module, prompt: Conditioning, noise: Tensor, steps: int,
    scales: Sequence[float] = (),
) -> Tensor:  # fmt: skip
    """Latents of `steps` calls of a network by the pipeline's own loop, without guidance.

    noise: white, (B, C, *S), of the first step's size. scales: the sizes of the steps after the first over the first
    one's, one for each (`FlowMatchLCMScheduler`'s scale factors); none for one size.
    """
    pipe, flow = backbone.pipe, isinstance(backbone, FlowBackbone)
    more = {"scale_factors": [*scales], "upscale_mode": "bicubic"} if scales else {}
    kind: Any = FlowMatchLCMScheduler if flow else LCMScheduler
    before = {"scheduler": pipe.scheduler, backbone.component: getattr(pipe, backbone.component)}
    size = {"height": noise.shape[-2] * backbone.grid.cell, "width": noise.shape[-1] * backbone.grid.cell}
    if noise.ndim == 5:
        size["num_frames"] = backbone.grid.frames(tuple(noise.shape[2:]))
    pipe.register_modules(**{"scheduler": kind.from_config(pipe.scheduler.config, **more), backbone.component: network})
    try:
        out = pipe(
            **backbone.prompt_arguments(prompt, prompt), **size, latents=backbone.packed(noise),
            num_inference_steps=steps, guidance_scale=backbone.pipeline_guidance(1.0), output_type="latent",
            return_dict=False,
        )  # fmt: skip
    finally:
        pipe.register_modules(**before)
    return out[0].float()
