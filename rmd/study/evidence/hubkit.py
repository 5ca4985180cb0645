"""Measures whose weights are on the Hub: used where they are on this machine, named where they are not.

CLIPScore (arXiv 2104.08718) and PickScore (arXiv 2305.01569) say how well a picture fits its prompt; DINOv2's features
(arXiv 2304.07193) are another network's to take Fréchet distances in (arXiv 2306.04675).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from rmd.backbones import hub
from rmd.train.sheets import to_image


@dataclass(frozen=True)
class Weights:
    """A measure, and the repositories of its network and of what prepares pictures and words for it.

    scale: what cosines are multiplied with; None takes the network's own.
    """

    kind: str
    network: str
    processor: str
    scale: float | None = None

    def folders(self) -> tuple[Path, Path] | None:
        """Where both are on this machine; None where one is not."""
        network, processor = (hub.cached(repo) for repo in (self.network, self.processor))
        return (network, processor) if network and processor else None


CLIP, LAION = "openai/clip-vit-large-patch14", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
FITS = (Weights("clip_score", CLIP, CLIP, 100.0), Weights("pick_score", "yuvalkirstain/PickScore_v1", LAION))
DINO = Weights("dino", "facebook/dinov2-large", "facebook/dinov2-large")


def missing() -> str:
    """What is not on this machine, in a sentence; empty where everything is."""
    left = [
        f"{one.kind} ({' and '.join(dict.fromkeys((one.network, one.processor)))})"
        for one in (*FITS, DINO)
        if one.folders() is None
    ]
    return f"left out for want of weights, which `hf download` fetches: {', '.join(left)}." if left else ""


class Fit:
    """How well pictures fit their prompts, by a CLIP: scale·cosine, not below 0."""

    def __init__(self, weights: Weights, device: torch.device):
        from transformers import CLIPModel, CLIPProcessor

        folders = weights.folders()
        assert folders is not None
        self.device = device
        network: Any = CLIPModel.from_pretrained(folders[0], use_safetensors=True, local_files_only=True)
        self.network = network.eval().requires_grad_(False).to(device)
        self.processor: Any = CLIPProcessor.from_pretrained(folders[1], local_files_only=True)
        self.scale = weights.scale if weights.scale is not None else float(network.logit_scale.exp())

    @torch.inference_mode()
    def __call__(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """(B,) for (B, 3, F, H, W) in [−1, 1]: the mean over a clip's frames."""
        count, frames = len(pixels), pixels.shape[2]
        longest = self.network.config.text_config.max_position_embeddings
        given = self.processor(
            text=list(prompts), images=images_of(pixels), return_tensors="pt", padding=True, truncation=True,
            max_length=longest,
        ).to(self.device)  # fmt: skip
        found = self.network(**given)  # both come at unit length
        pictures, words = found.image_embeds.unflatten(0, (count, frames)), found.text_embeds[:, None]
        return (self.scale * (pictures * words).sum(dim=-1)).clamp(min=0).mean(dim=1).float().cpu()


class Dino:
    """DINOv2's feature of a picture, its class token, (B, C); of a clip the mean over its frames."""

    def __init__(self, device: torch.device):
        from transformers import AutoImageProcessor, Dinov2Model

        folders = DINO.folders()
        assert folders is not None
        self.device = device
        network: Any = Dinov2Model.from_pretrained(folders[0], use_safetensors=True, local_files_only=True)
        self.network = network.eval().requires_grad_(False).to(device)
        self.processor: Any = AutoImageProcessor.from_pretrained(folders[1], local_files_only=True, use_fast=False)

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> Tensor:
        count, frames = len(pixels), pixels.shape[2]
        given = self.processor(images=images_of(pixels), return_tensors="pt").to(self.device)
        found = self.network(**given).pooler_output
        return found.unflatten(0, (count, frames)).mean(dim=1).float().cpu()


def images_of(pixels: Tensor) -> list[Image.Image]:
    """All frames of (B, 3, F, H, W) in [−1, 1], clip by clip."""
    return [to_image(frame) for frame in pixels.transpose(1, 2).flatten(0, 1)]


@dataclass(frozen=True)
class HubKit:
    """What of it is on this machine."""

    fits: dict[str, Callable[[Tensor, Sequence[str]], Tensor]]
    dino: Callable[[Tensor], Tensor] | None


def hub_kit(device: torch.device) -> HubKit:
    """Open what is on this machine."""
    return HubKit(
        {one.kind: Fit(one, device) for one in FITS if one.folders()}, Dino(device) if DINO.folders() else None
    )
