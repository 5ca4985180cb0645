"""The adapter for `ZImagePipeline`: Z-Image and Z-Image-Turbo."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from rmd.backbones.adapter import Config, FlowBackbone
from rmd.backbones.base import Grid
from rmd.method.denoiser import Conditioning
from rmd.method.schedule import Time

TURBO_SHIFT = 3.0
"""Z-Image-Turbo's timestep shift; Z-Image has 6. Nothing else in a folder tells the two apart."""
LENGTH = 512
"""Tokens per prompt, the pipeline's own default; its network is given those that the prompt really has."""


class ZImageBackbone(FlowBackbone):
    """See `rmd.backbones.base.Backbone`. Guidance is counted as everywhere here, one more than the pipeline's own."""

    component = "transformer"
    channels_last = False
    defaults: ClassVar[dict[str, Any]] = {"guidance": 5.0, "default_steps": 8, "default_switch": 4}

    @classmethod
    def grid_of(cls, vae: Config, network: Config) -> Grid:
        return Grid(2 ** (len(vae.get("block_out_channels", [0] * 4)) - 1), int(network.get("all_patch_size", [2])[0]))

    @classmethod
    def widest(cls, network: Config) -> float:
        return 8 / 3 * network.get("dim", 3840) / int(network.get("all_patch_size", [2])[0]) ** 2

    @classmethod
    def unguided(cls, scheduler: Config) -> bool:
        return scheduler.get("shift") == TURBO_SHIFT

    def _encode(self, prompts: list[str], device: torch.device) -> Conditioning:
        rows, _ = self.pipe.encode_prompt(
            [*prompts], device, do_classifier_free_guidance=False, max_sequence_length=LENGTH
        )  # it writes into the list
        embeds = torch.stack([torch.nn.functional.pad(row, (0, 0, 0, LENGTH - len(row))) for row in rows])
        return {"embeds": embeds.to(self.dtype), "lengths": torch.tensor([len(row) for row in rows], device=device)}

    def predict(self, x: Tensor, t: Time, conditioning: Conditioning) -> Tensor:
        done = 1 - self.schedule.timestep(t).to(x.device).expand(len(x)) / 1000  # its time runs the other way
        pictures = [*x.to(self.dtype).unsqueeze(2).unbind()]
        velocity = self._network(pictures, done, unpadded(conditioning), return_dict=False)[0]
        return -torch.stack([*velocity]).squeeze(2)

    def prompt_arguments(self, positive: Conditioning, negative: Conditioning) -> dict[str, Any]:
        return {"prompt_embeds": unpadded(positive), "negative_prompt_embeds": unpadded(negative)}

    def packed(self, noise: Tensor) -> Tensor:
        return noise.float()

    def pipeline_guidance(self, guidance: float) -> float:
        return guidance - 1  # cond + g·(cond − uncond)


def unpadded(conditioning: Conditioning) -> list[Tensor]:
    """Each prompt's embeddings (L, D) without what fills up the rows."""
    rows = zip(conditioning["embeds"], conditioning["lengths"].tolist(), strict=True)
    return [row[: int(length)] for row, length in rows]
