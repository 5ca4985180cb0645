"""The adapter for `StableDiffusionXLPipeline` of any size: the bundled image model and SDXL itself."""

from __future__ import annotations

import copy
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image
from torch import Tensor, nn

from rmd.backbones.base import Conditioning, OnTeacherStep
from rmd.config import BackboneSpec
from rmd.schedule import NoiseSchedule, PredictionType, Time, VPSchedule


class SDXLBackbone:
    """See `rmd.backbones.base.Backbone`."""

    def __init__(self, spec: BackboneSpec, pipe: StableDiffusionXLPipeline, rgb_factors: Tensor | None = None):
        self.spec = spec
        self.pipe: Any = pipe  # diffusers' annotations are narrower than what it takes
        self.unet: Any = pipe.unet
        self.schedule: NoiseSchedule = VPSchedule(pipe.scheduler.alphas_cumprod)
        self.prediction: PredictionType = pipe.scheduler.config["prediction_type"]
        self.channels: int = pipe.unet.config["in_channels"]
        self.rgb_factors = rgb_factors
        pipe.set_progress_bar_config(disable=True)

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @property
    def network(self) -> nn.Module:
        return self.unet

    def with_network(self, network: nn.Module) -> SDXLBackbone:
        other = copy.copy(self)
        other.unet = network
        return other

    def latent_size(self, pixels: tuple[int, int]) -> tuple[int, ...]:
        cells = self.pipe.vae_scale_factor
        if any(side <= 0 or side % cells for side in pixels):
            raise ValueError(f"sizes must be multiples of {cells} px, not {pixels}")
        return pixels[0] // cells, pixels[1] // cells

    def encode(self, prompts: list[str]) -> Conditioning:
        embeds, _, pooled, _ = self.pipe.encode_prompt(prompts, device=self.device, do_classifier_free_guidance=False)
        return {"embeds": embeds, "pooled": pooled}

    def predict(self, x: Tensor, t: Time, conditioning: Conditioning) -> Tensor:
        # SDXL is told the picture's size; a low-resolution stage is told the low one, as in its training.
        height, width = (side * self.pipe.vae_scale_factor for side in x.shape[-2:])
        embeds, pooled = conditioning["embeds"], conditioning["pooled"]
        ids = torch.tensor([[height, width, 0, 0, height, width]], dtype=embeds.dtype, device=x.device)
        added = {"text_embeds": pooled, "time_ids": ids.expand(len(x), 6)}
        step = self.schedule.timestep(t).to(x.device).expand(len(x))
        sample = x.to(self.unet.dtype, memory_format=torch.channels_last)
        return self.unet(sample, step, embeds, added_cond_kwargs=added, return_dict=False)[0]

    def pixels(self, latents: Tensor) -> Tensor:
        vae = self.pipe.vae
        scaled = (latents / vae.config["scaling_factor"]).to(vae.dtype, memory_format=torch.channels_last)
        return vae.decode(scaled, return_dict=False)[0].float().clamp(-1, 1)

    def decode(self, latents: Tensor) -> list[tuple[Image.Image, ...]]:
        return [(i,) for i in self.pipe.image_processor.postprocess(self.pixels(latents), output_type="pil")]

    def preview(self, latents: Tensor) -> Image.Image:
        first = latents[0].float().cpu()
        factors = self.rgb_factors
        if factors is None:  # no fitted map: show the first three channels
            rgb = first[:3] / 6 + 0.5
        else:
            rgb = torch.einsum("rc,chw->rhw", factors[:, :-1], first) + factors[:, -1, None, None]
        pixels = (rgb.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
        return Image.fromarray(pixels.numpy())

    def teacher(
        self,
        positive: Conditioning,
        negative: Conditioning,
        noise: Tensor,
        steps: int,
        guidance: float,
        on_step: OnTeacherStep,
    ) -> Tensor:
        def after(pipe: Any, index: int, timestep: Tensor, values: dict[str, Any]) -> dict[str, Any]:
            # Euler works on x / alpha; back to the convention used here for previews
            sigma = pipe.scheduler.sigmas[index + 1].to(values["latents"].device)
            on_step(index, values["latents"] / (sigma**2 + 1).sqrt(), 1 - (index + 1) / steps)
            return {}

        factor = self.pipe.vae_scale_factor
        out = self.pipe(
            prompt_embeds=positive["embeds"],
            pooled_prompt_embeds=positive["pooled"],
            negative_prompt_embeds=negative["embeds"],
            negative_pooled_prompt_embeds=negative["pooled"],
            height=noise.shape[-2] * factor,
            width=noise.shape[-1] * factor,
            latents=noise.to(self.unet.dtype),
            num_inference_steps=steps,
            guidance_scale=guidance,
            output_type="latent",
            callback_on_step_end=after,
        )
        return out.images.float()  # type: ignore[union-attr]
