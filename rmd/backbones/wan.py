"""The adapter for `WanPipeline` with one transformer: Wan2.1 text to video and the bundled video model."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from torch import Tensor

from rmd.backbones.adapter import Config, FlowBackbone
from rmd.backbones.base import Grid
from rmd.method.denoiser import Conditioning
from rmd.method.schedule import Time

LENGTH = 512
"""Tokens per prompt, the pipeline's own default; a tokenizer for shorter ones says so in `model_max_length`."""
PIPELINE_STEP = 16
"""The pipeline takes only sides that are multiples of this, whatever its autoencoder."""


class WanBackbone(FlowBackbone):
    """See `rmd.backbones.base.Backbone`."""

    component = "transformer"
    channels_last = False
    defaults: ClassVar[dict[str, Any]] = {
        "guidance": 5.0, "default_steps": 6, "default_switch": 3, "frames": 81, "fps": 16,
    }  # fmt: skip

    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        if reason := self.refuses(self.pipe.config):
            raise ValueError(reason)
        self.length = min(LENGTH, self.pipe.tokenizer.model_max_length)

    @classmethod
    def refuses(cls, index: Config) -> str:
        two = index.get("transformer_2", [None])[0] is not None
        return "it is one of Wan2.2's kinds, of which none is supported" if two or index.get("expand_timesteps") else ""

    @classmethod
    def grid_of(cls, vae: Config, network: Config) -> Grid:
        cell, patch = int(vae.get("scale_factor_spatial", 8)), network.get("patch_size", (1, 2, 2))
        step = math.lcm(PIPELINE_STEP, cell * int(patch[1]), cell * int(patch[2]))
        return Grid(cell, step // cell, int(vae.get("scale_factor_temporal", 4)))

    @classmethod
    def widest(cls, network: Config) -> float:
        return network.get("ffn_dim", 13824) / math.prod(network.get("patch_size", (1, 2, 2)))

    @classmethod
    def sizes_of(cls, network: Config, grid: Grid) -> dict[str, Any]:
        return {"high": (480, 832), "low": (272, 480)}

    def _encode(self, prompts: list[str], device: torch.device) -> Conditioning:
        """As the pipeline's `encode_prompt`, which pads prompt by prompt: a quarter of a training step on a GPU."""
        tokens = self.pipe.tokenizer(
            [prompt_clean(prompt) for prompt in prompts],
            padding="max_length", max_length=self.length, truncation=True, return_tensors="pt",
        ).to(device)  # fmt: skip
        rows = self.pipe.text_encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
        return {"embeds": (rows * tokens.attention_mask[..., None]).to(self.dtype)}

    def predict(self, x: Tensor, t: Time, conditioning: Conditioning) -> Tensor:
        return self._network(
            hidden_states=x.to(self.dtype),
            timestep=self.schedule.timestep(t).to(x.device).expand(len(x)),
            encoder_hidden_states=conditioning["embeds"],
            return_dict=False,
        )[0]

    def packed(self, noise: Tensor) -> Tensor:
        return noise.float()

    def unscaled(self, latents: Tensor, vae: Any) -> Tensor:
        mean, std = moments(latents, vae)
        return latents * std + mean

    def scaled(self, latents: Tensor, vae: Any) -> Tensor:
        mean, std = moments(latents, vae)
        return (latents - mean) / std


def moments(latents: Tensor, vae: Any) -> list[Tensor]:
    """The latents' mean and standard deviation by channel, as the autoencoder's configuration has them."""
    names = ("latents_mean", "latents_std")
    return [torch.tensor(vae.config[name], device=latents.device).view(1, -1, 1, 1, 1) for name in names]
