"""The adapter for `StableDiffusion3Pipeline`: SD3.5 medium and large. The T5 encoder may be left out."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from rmd.backbones.adapter import Config, FlowBackbone
from rmd.backbones.base import Grid
from rmd.method.denoiser import Conditioning
from rmd.method.schedule import Time


class SD3Backbone(FlowBackbone):
    """See `rmd.backbones.base.Backbone`."""

    component = "transformer"
    channels_last = False
    defaults: ClassVar[dict[str, Any]] = {"guidance": 4.5, "default_steps": 4, "default_switch": 2}

    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        missing = {"text_encoder", "text_encoder_2"} - set(self.encoder_dtypes)
        if missing:
            raise ValueError(f"{' and '.join(sorted(missing))} missing; only text_encoder_3 may be left out")

    @classmethod
    def grid_of(cls, vae: Config, network: Config) -> Grid:
        return Grid(2 ** (len(vae.get("block_out_channels", [0] * 4)) - 1), int(network.get("patch_size", 2)))

    @classmethod
    def widest(cls, network: Config) -> float:
        width = network.get("num_attention_heads", 18) * network.get("attention_head_dim", 64)
        return 4 * width / int(network.get("patch_size", 2)) ** 2

    def _encode(self, prompts: list[str], device: torch.device) -> Conditioning:
        embeds, _, pooled, _ = self.pipe.encode_prompt(
            prompts, None, None, device=device, do_classifier_free_guidance=False
        )
        return {"embeds": embeds, "pooled": pooled}

    def predict(self, x: Tensor, t: Time, conditioning: Conditioning) -> Tensor:
        return self._network(
            hidden_states=x.to(self.dtype),
            timestep=self.schedule.timestep(t).to(x.device).expand(len(x)),
            encoder_hidden_states=conditioning["embeds"],
            pooled_projections=conditioning["pooled"],
            return_dict=False,
        )[0]
