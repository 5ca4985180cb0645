"""What the engine needs from a backbone. One adapter per diffusers pipeline class implements it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from rmd.backbones.cards import BackboneSpec
from rmd.backbones.placement import Offload
from rmd.method.denoiser import Conditioning
from rmd.method.schedule import NoiseSchedule, PredictionType, Time

OnTeacherStep = Callable[[int, Tensor, float], None]
"""Called after every teacher step with its index, the clean estimate x̂0 (B, C, *S) and the time in (0, 1] at which
the network made it; raising from it stops the pipeline."""


@dataclass(frozen=True)
class Grid:
    """How pixels become latent cells.

    cell: pixels per cell, both ways. multiple: cells that the network's patches need. temporal: frames per latent
    frame after the first, which has its own; None for pictures.
    """

    cell: int
    multiple: int = 1
    temporal: int | None = None

    @property
    def step(self) -> int:
        """Pixels of which both sides must be a multiple."""
        return self.cell * self.multiple

    def frames(self, size: tuple[int, ...]) -> int:
        """The frames of a latent size; the inverse of `latent_size`."""
        return 1 if self.temporal is None else 1 + (size[0] - 1) * self.temporal

    def latent_size(self, pixels: tuple[int, int], frames: int) -> tuple[int, ...]:
        """(H, W) or (F, H, W) in cells; raises ValueError for sizes that do not divide."""
        step = self.step
        if any(side <= 0 or side % step for side in pixels):
            raise ValueError(f"sizes must be multiples of {step} px, not {pixels}")
        size = pixels[0] // self.cell, pixels[1] // self.cell
        if self.temporal is None:
            if frames != 1:
                raise ValueError(f"frames must be 1 for a pipeline of pictures, not {frames}")
            return size
        if (frames - 1) % self.temporal:
            raise ValueError(f"frames must be one more than a multiple of {self.temporal}, not {frames}")
        return 1 + (frames - 1) // self.temporal, *size


class Backbone(Protocol):
    """A loaded pipeline with one denoising network in use: the teacher's own or a student's."""

    spec: BackboneSpec
    schedule: NoiseSchedule
    prediction: PredictionType
    channels: int
    """Latent channels C."""
    component: ClassVar[str]
    """What the denoising network is called in the pipeline's folder: "unet" or "transformer"."""
    folder: Path | None
    """Where it was read from; None for random weights."""
    offload: Offload
    """Where the weights wait while they are not in use."""
    channels_last: ClassVar[bool]
    """Whether networks run faster in that memory format."""

    @property
    def device(self) -> torch.device: ...

    @property
    def network(self) -> nn.Module:
        """The denoising network in use (UNet or transformer)."""
        ...

    def with_network(self, network: nn.Module, shift: float | None = None, told_full: bool = False) -> Backbone:
        """The same backbone, everything else shared, with another network of the same class.

        shift: the timestep shift that the network was trained with, where it is another than the backbone's.
        told_full: whether low-resolution steps tell it the result's size, where it is told one at all.
        """
        ...

    def lora_weights(self, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, float] | None]:
        """A LoRA file's weights by diffusers' names, and its scales by layer where the file has them."""
        ...

    def refuses(self, index: dict[str, Any]) -> str:
        """Why a pipeline's index says that it is of a kind that cannot be run, in words; "" where it does not."""
        ...

    def parts(self) -> list[nn.Module]:
        """All modules of the pipeline that are in memory: networks, text encoders, autoencoder."""
        ...

    def latent_size(self, pixels: tuple[int, int], frames: int | None = None) -> tuple[int, ...]:
        """Latent cells (H, W) of a picture of (height, width) pixels, or (F, H, W) of a clip; `spec.frames` by default.

        Raises ValueError for sizes that the autoencoder or the network's patches do not divide.
        """
        ...

    def encode(self, prompts: list[str]) -> Conditioning:
        """Text → conditioning, one row per prompt; "" is the unconditional one, made as the pipeline makes its own."""
        ...

    def release_text_encoders(self) -> None:
        """Free the memory of the text encoders; the next `encode` reads them from disk again."""
        ...

    def conditioned(self, conditioning: Conditioning, size: tuple[int, ...]) -> Conditioning:
        """The conditioning for a result of `size` in latent cells, with what the network has to be told of that."""
        ...

    def predict(self, x: Tensor, t: Time, conditioning: Conditioning) -> Tensor:
        """Raw network output for x (B, C, *S) at time t (scalar or (B,)), without guidance."""
        ...

    def pixels(self, latents: Tensor, decoder: nn.Module | None = None) -> Tensor:
        """Clean latents (B, C, *S) → (B, 3, H, W) or (B, 3, F, H, W) in pixels, float32 in [−1, 1].

        decoder: an autoencoder for the same latents in the place of the pipeline's own.
        """
        ...

    def latents(self, pixels: Tensor) -> Tensor:
        """Pixels in [−1, 1], (B, 3, H, W) or (B, 3, F, H, W) → clean latents (B, C, *S) float32, the mode.

        The inverse of `pixels`, as far as the autoencoder goes; ValueError where the pipeline's has no encoder.
        """
        ...

    def decode(self, latents: Tensor, decoder: nn.Module | None = None) -> list[tuple[Image.Image, ...]]:
        """Clean latents (B, C, *S) → the frames of each of B results; a picture has one. decoder: as in `pixels`."""
        ...

    def preview(self, latents: Tensor) -> Image.Image:
        """A quick small picture of the first latent (of its first frame) by a linear map to RGB, no decoder."""
        ...

    def teacher(
        self,
        positive: Conditioning,
        negative: Conditioning,
        noise: Tensor,
        steps: int,
        guidance: float,
        on_step: OnTeacherStep,
    ) -> Tensor:
        """Run the diffusers pipeline itself with its own scheduler from `noise` (unit variance) → clean latents."""
        ...
