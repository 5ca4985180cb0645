"""The adapter for `Flux2KleinPipeline`: FLUX.2 [klein] and its base models.

The pipeline works on packed latents: patches of 2×2 cells are channels, and normalised as such. Here a latent is the
cells themselves, (B, C/4, H, W), still normalised, so that white noise, its low band and enlarging mean the same as
for the other families; packing is a permutation.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from rmd.backbones.adapter import Config, FlowBackbone
from rmd.backbones.base import Grid
from rmd.method.denoiser import Conditioning
from rmd.method.schedule import FlowSchedule, PacedFlowSchedule, Time, flux2_mu

PATCH = 2


class Flux2Backbone(FlowBackbone):
    """See `rmd.backbones.base.Backbone`."""

    component = "transformer"
    channels_last = False
    defaults: ClassVar[dict[str, Any]] = {"guidance": 4.0, "default_steps": 4, "default_switch": 2}

    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        if self.pipe.config.is_distilled:  # the pipeline would leave out its guidance, and the cascade would not
            raise ValueError(
                "it is distilled and cannot be a teacher; take its base model, and this one as the student"
            )
        self.channels //= PATCH**2

    @classmethod
    def grid_of(cls, vae: Config, network: Config) -> Grid:
        return Grid(2 ** (len(vae.get("block_out_channels", [0] * 4)) - 1), PATCH)

    @classmethod
    def widest(cls, network: Config) -> float:
        width = network.get("num_attention_heads", 24) * network.get("attention_head_dim", 128)
        return (3 + 2 * network.get("mlp_ratio", 3.0)) * width / PATCH**2

    @classmethod
    def schedule_of(cls, scheduler: Config, shift: float | None) -> FlowSchedule:
        if scheduler.get("use_dynamic_shifting") and shift is None:
            return PacedFlowSchedule(timesteps=int(scheduler.get("num_train_timesteps", 1000)), mu=flux2_mu)
        return super().schedule_of({**scheduler, "use_dynamic_shifting": False}, shift)

    def _encode(self, prompts: list[str], device: torch.device) -> Conditioning:
        return {"embeds": self.pipe.encode_prompt(prompts, device=device)[0].to(self.dtype)}

    def predict(self, x: Tensor, t: Time, conditioning: Conditioning) -> Tensor:
        cells, embeds = F.pixel_unshuffle(x.to(self.dtype), PATCH), conditioning["embeds"]
        velocity = self._network(
            hidden_states=cells.flatten(2).transpose(1, 2),
            timestep=self.schedule.timestep(t).to(x.device).expand(len(x)) / 1000,
            guidance=None,
            encoder_hidden_states=embeds,
            txt_ids=self.pipe._prepare_text_ids(embeds).to(x.device),
            img_ids=self.pipe._prepare_latent_ids(cells).to(x.device),
            return_dict=False,
        )[0]
        return self.unpacked(velocity, tuple(x.shape[2:]))

    def packed(self, noise: Tensor) -> Tensor:
        return F.pixel_unshuffle(noise, PATCH)

    def unpacked(self, latents: Tensor, size: tuple[int, ...]) -> Tensor:
        height, width = (side // PATCH for side in size)
        return F.pixel_shuffle(latents.transpose(1, 2).unflatten(2, (height, width)), PATCH)

    def unscaled(self, latents: Tensor, vae: Any) -> Tensor:
        mean, std = self._moments(latents)
        return F.pixel_shuffle(F.pixel_unshuffle(latents, PATCH) * std + mean, PATCH)

    def scaled(self, latents: Tensor, vae: Any) -> Tensor:
        mean, std = self._moments(latents)
        return F.pixel_shuffle((F.pixel_unshuffle(latents, PATCH) - mean) / std, PATCH)

    def _moments(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of packed latents by channel, always those of the pipeline's own autoencoder."""
        norm = self.pipe.vae.bn
        mean, var = (one.view(1, -1, 1, 1).to(latents) for one in (norm.running_mean, norm.running_var))
        return mean, torch.sqrt(var + self.pipe.vae.config["batch_norm_eps"])
