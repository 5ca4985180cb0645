"""The adapter for `StableDiffusionXLPipeline` of any size: the bundled image model and SDXL itself."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from diffusers import EulerDiscreteScheduler
from torch import Tensor

from rmd.backbones.adapter import Config, PipelineBackbone
from rmd.backbones.base import Grid
from rmd.method.denoiser import Conditioning
from rmd.method.schedule import Time, VPSchedule


class SDXLBackbone(PipelineBackbone):
    """See `rmd.backbones.base.Backbone`."""

    component = "unet"
    channels_last = True
    defaults: ClassVar[dict[str, Any]] = {"guidance": 7.0, "default_steps": 4, "default_switch": 2}

    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        self.prediction = self.pipe.scheduler.config["prediction_type"]

    @classmethod
    def grid_of(cls, vae: Config, network: Config) -> Grid:
        return Grid(2 ** (len(vae.get("block_out_channels", [0] * 4)) - 1))

    @classmethod
    def widest(cls, network: Config) -> float:
        channels = network.get("block_out_channels", (320, 640, 1280))
        return 2 * channels[1]  # the gated feed-forward: eight times the width, on a quarter of the cells

    @classmethod
    def schedule_of(cls, scheduler: Config, shift: float | None) -> VPSchedule:
        if shift is not None:
            raise ValueError("shift is for flows; this pipeline has a table of noise levels")
        made: Any = EulerDiscreteScheduler.from_config(dict(scheduler))
        return VPSchedule(made.alphas_cumprod)

    def _encode(self, prompts: list[str], device: torch.device) -> Conditioning:
        embeds, _, pooled, _ = self.pipe.encode_prompt(prompts, device=device, do_classifier_free_guidance=False)
        if self.pipe.config.force_zeros_for_empty_prompt:  # what the pipeline does where no negative prompt is given
            said = torch.tensor([bool(prompt) for prompt in prompts], device=embeds.device)
            embeds, pooled = embeds * said[:, None, None], pooled * said[:, None]
        return {"embeds": embeds, "pooled": pooled}

    def conditioned(self, conditioning: Conditioning, size: tuple[int, ...]) -> Conditioning:
        if not self.told_full:
            return conditioning
        rows = len(conditioning["pooled"])
        return {**conditioning, "told": torch.tensor([size]).expand(rows, 2).to(conditioning["pooled"].device)}

    def predict(self, x: Tensor, t: Time, conditioning: Conditioning) -> Tensor:
        # SDXL is told the picture's size; a low-resolution stage is told the low one, as in SDXL's own training, but
        # the full one where the student was trained so (DMD2).
        embeds, pooled = conditioning["embeds"], conditioning["pooled"]
        told = conditioning.get("told", torch.tensor([x.shape[-2:]])).to(x.device) * self.grid.cell
        ids = torch.cat([told, torch.zeros_like(told), told], dim=1).to(embeds.dtype)
        added = {"text_embeds": pooled, "time_ids": ids.expand(len(x), 6)}
        step = self.schedule.timestep(t).to(x.device).expand(len(x))
        sample = x.to(self.dtype, memory_format=torch.channels_last)
        return self._network(sample, step, embeds, added_cond_kwargs=added, return_dict=False)[0]

    def lora_hints(self) -> dict[str, Any]:
        return {"unet_config": self.pipe.unet.config}  # kohya counts blocks as the original program does

    def standing(self, latents: Tensor, sigma: Tensor) -> tuple[Tensor, float]:
        # Euler works on x / alpha = x0 + sigma·eps
        return latents / float((sigma**2 + 1).sqrt()), float(self.schedule.time_at(torch.log(sigma)))
