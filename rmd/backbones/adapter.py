"""What the adapters of all pipeline classes share: everything but how a class encodes, predicts and decodes."""

from __future__ import annotations

import copy
import functools
import gc
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor, nn

from rmd.backbones.base import Grid, OnTeacherStep
from rmd.backbones.cards import BackboneSpec
from rmd.backbones.naming import variant_of
from rmd.backbones.placement import Offload, place_alone
from rmd.method.denoiser import Conditioning
from rmd.method.schedule import FlowSchedule, NoiseSchedule, PredictionType, Time

Config = Mapping[str, Any]
"""A component's configuration as its JSON file has it."""


def dtype_of(network: nn.Module) -> torch.dtype:
    """What a network computes in: the dtype of its largest weight, since some keep small ones in fp32."""
    return max(network.parameters(), key=Tensor.numel).dtype


class PipelineBackbone:
    """See `rmd.backbones.base.Backbone`. folder: where the pipeline came from, to read text encoders again.

    Subclasses say how their class works. What does not need weights are class methods on configurations, so that
    a folder's outline tells the same as the loaded backbone.
    """

    component: ClassVar[str]
    """The denoising network's name in the pipeline and its folder: "unet" or "transformer"."""
    channels_last: ClassVar[bool]
    """Whether network and autoencoder are convolutional enough to run faster so."""
    defaults: ClassVar[dict[str, Any]]
    """Settings of a folder without a card."""
    prediction: PredictionType
    told_full = False

    def __init__(
        self,
        spec: BackboneSpec,
        pipe: DiffusionPipeline,
        rgb_factors: Tensor | None = None,
        folder: Path | None = None,
    ):
        self.spec = spec
        self.pipe: Any = pipe  # diffusers' annotations are narrower than what it takes
        self.folder = folder
        self.rgb_factors = rgb_factors
        self._network: Any = getattr(pipe, self.component)
        self.dtype: torch.dtype = self._network.dtype
        self.channels: int = self._network.config["in_channels"]
        self.grid = self.grid_of(self.pipe.vae.config, self._network.config)
        self.schedule = self.schedule_of(self.pipe.scheduler.config, spec.shift)
        self.encoder_dtypes = {name: getattr(pipe, name).dtype for name in self.text_encoders()}
        self.offload: Offload = "none"
        pipe.set_progress_bar_config(disable=True)

    @classmethod
    def grid_of(cls, vae: Config, network: Config) -> Grid:
        """How pixels become latent cells."""
        raise NotImplementedError

    @classmethod
    def widest(cls, network: Config) -> float:
        """Numbers per latent cell in the largest tensor of one network call."""
        raise NotImplementedError

    @classmethod
    def schedule_of(cls, scheduler: Config, shift: float | None) -> NoiseSchedule:
        """The noise schedule of a scheduler's configuration; `shift` replaces its own. ValueError: unsuitable."""
        raise NotImplementedError

    @classmethod
    def unguided(cls, scheduler: Config) -> bool:
        """Whether these weights were trained to run without guidance, as far as a folder tells."""
        return False

    @classmethod
    def sizes_of(cls, network: Config, grid: Grid) -> dict[str, Any]:
        """`high` and `low` for a folder without a card."""
        side = int(network.get("sample_size", 128)) * grid.cell
        return {"high": (side, side), "low": (side // 2, side // 2)}

    @property
    def device(self) -> torch.device:
        """Where it computes, wherever its weights wait."""
        return self.pipe._execution_device

    @property
    def network(self) -> nn.Module:
        return self._network

    def with_network(self, network: nn.Module, shift: float | None = None, told_full: bool = False) -> Any:
        other = copy.copy(self)
        other._network, other.told_full = network, told_full
        other.dtype = dtype_of(network)
        if shift is not None:
            other.schedule = self.schedule_of(self.pipe.scheduler.config, shift)
        return other

    def lora_weights(self, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, float] | None]:
        found = self.pipe.lora_state_dict(dict(state), **self.lora_hints())
        return found if isinstance(found, tuple) else (found, None)

    @classmethod
    def refuses(cls, index: Config) -> str:
        return ""

    def lora_hints(self) -> dict[str, Any]:
        """What the pipeline needs to know of its network to read other programs' names."""
        return {}

    def parts(self) -> list[nn.Module]:
        return [part for part in self.pipe.components.values() if isinstance(part, nn.Module)]

    def latent_size(self, pixels: tuple[int, int], frames: int | None = None) -> tuple[int, ...]:
        return self.grid.latent_size(pixels, self.spec.frames if frames is None else frames)

    def text_encoders(self) -> list[str]:
        """The names of the pipeline's text encoders that are in memory."""
        names = ("text_encoder", "text_encoder_2", "text_encoder_3")
        return [name for name in names if getattr(self.pipe, name, None) is not None]

    def release_text_encoders(self) -> None:
        """Forget the text encoders, often the largest part; the next `encode` reads them again."""
        if self.folder is None:
            return
        for name in self.text_encoders():
            self.pipe.register_modules(**{name: None})
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def encode(self, prompts: list[str]) -> Conditioning:
        device = self.device
        for name in set(self.encoder_dtypes) - set(self.text_encoders()):
            assert self.folder is not None
            index: Any = DiffusionPipeline.load_config(self.folder)
            library, kind = index[name]
            made = getattr(importlib.import_module(library), kind).from_pretrained(
                self.folder / name, dtype=self.encoder_dtypes[name], use_safetensors=True, local_files_only=True,
                variant=variant_of(self.folder / name),
            )  # fmt: skip
            place_alone(made.eval(), device, self.offload)
            self.pipe.register_modules(**{name: made})
        return self._encode(prompts, device)

    def _encode(self, prompts: list[str], device: torch.device) -> Conditioning:
        raise NotImplementedError

    def conditioned(self, conditioning: Conditioning, size: tuple[int, ...]) -> Conditioning:
        return conditioning

    def predict(self, x: Tensor, t: Time, conditioning: Conditioning) -> Tensor:
        raise NotImplementedError

    def pixels(self, latents: Tensor, decoder: nn.Module | None = None) -> Tensor:
        vae: Any = decoder or self.pipe.vae
        scaled = self.unscaled(latents, vae).to(vae.dtype)
        if self.channels_last:
            scaled = scaled.to(memory_format=torch.channels_last)
        return vae.decode(scaled, return_dict=False)[0].float().clamp(-1, 1)

    def unscaled(self, latents: Tensor, vae: Any) -> Tensor:
        """Latents as this autoencoder takes them, by its scaling and shift factors.

        An AutoencoderTiny has 1 and 0: it was trained on the latents that the network sees.
        """
        return latents / vae.config["scaling_factor"] + (vae.config.get("shift_factor") or 0)

    def latents(self, pixels: Tensor) -> Tensor:
        vae: Any = self.pipe.vae
        if getattr(vae, "encoder", None) is None:
            raise ValueError(f"{self.spec.name}'s autoencoder has no encoder")
        with torch.no_grad():
            found = vae.encode(pixels.to(self.device, vae.dtype))
            z = found.latent_dist.mode() if hasattr(found, "latent_dist") else found.latents
            return self.scaled(z.float(), vae)

    def scaled(self, latents: Tensor, vae: Any) -> Tensor:
        """The inverse of `unscaled`."""
        return (latents - (vae.config.get("shift_factor") or 0)) * vae.config["scaling_factor"]

    def decode(self, latents: Tensor, decoder: nn.Module | None = None) -> list[tuple[Image.Image, ...]]:
        pixels = self.pixels(latents, decoder)
        clips = pixels if pixels.ndim == 5 else pixels[:, :, None]
        return [tuple(picture(frame) for frame in clip.unbind(dim=1)) for clip in clips]

    def preview(self, latents: Tensor) -> Image.Image:
        first = latents[0].float().cpu()
        first = first if first.ndim == 3 else first[:, 0]
        factors = self.rgb_factors
        if factors is None:  # no fitted map: show the first three channels
            rgb = first[:3] / 6 + 0.5
        else:
            rgb = torch.einsum("rc,chw->rhw", factors[:, :-1], first) + factors[:, -1, None, None]
        return picture(rgb * 2 - 1)

    def teacher(
        self,
        positive: Conditioning,
        negative: Conditioning,
        noise: Tensor,
        steps: int,
        guidance: float,
        on_step: OnTeacherStep,
    ) -> Tensor:
        scheduler, cells = self.pipe.scheduler, tuple(noise.shape[2:])
        step, seen = scheduler.step, []

        @functools.wraps(step)  # the pipeline looks at its parameters
        def noted(output: Tensor, timestep: Any, sample: Tensor, *arguments: Any, **named: Any) -> Any:
            stepped = step(output, timestep, sample, *arguments, **named)
            seen[:] = output, sample, stepped[0]
            return stepped

        def after(pipe: Any, index: int, timestep: Tensor, values: dict[str, Any]) -> dict[str, Any]:
            output, sample = (self.unpacked(one, cells).float() for one in seen[:2])
            x, t = self.standing(sample, scheduler.sigmas[index].double().cpu())
            on_step(index, self.schedule.split(x, output, t, self.prediction)[0], t)
            return {}

        size = {"height": noise.shape[-2] * self.grid.cell, "width": noise.shape[-1] * self.grid.cell}
        if noise.ndim == 5:
            size["num_frames"] = self.grid.frames(cells)
        scheduler.step = noted
        try:
            self.pipe(
                **self.prompt_arguments(positive, negative),
                **size,
                latents=self.packed(noise),
                num_inference_steps=steps,
                guidance_scale=self.pipeline_guidance(guidance),
                output_type="latent",
                return_dict=False,
                callback_on_step_end=after,
            )
        finally:
            del scheduler.step
        return self.unpacked(seen[2], cells).float()  # what its last step made: "latent" output is not that everywhere

    def packed(self, noise: Tensor) -> Tensor:
        """White noise (B, C, *S) as the pipeline's call takes it."""
        return noise.to(self.dtype)

    def unpacked(self, latents: Tensor, size: tuple[int, ...]) -> Tensor:
        """What the pipeline's scheduler works on, as latents (B, C, *size)."""
        return latents

    def pipeline_guidance(self, guidance: float) -> float:
        """The scale w of uncond + w·(cond − uncond) as the pipeline counts it."""
        return guidance

    def prompt_arguments(self, positive: Conditioning, negative: Conditioning) -> dict[str, Any]:
        """Conditioning by the names of the pipeline's call."""
        named = {"prompt_embeds": positive["embeds"], "negative_prompt_embeds": negative["embeds"]}
        if "pooled" in positive:
            named["pooled_prompt_embeds"] = positive["pooled"]
            named["negative_pooled_prompt_embeds"] = negative["pooled"]
        return named

    def standing(self, latents: Tensor, sigma: Tensor) -> tuple[Tensor, float]:
        """The pipeline's latent in the convention of the schedule, and its time; sigma: the scheduler's noise level."""
        return latents, float(self.schedule.time_at(torch.log(sigma) - torch.log1p(-sigma)))


class FlowBackbone(PipelineBackbone):
    """Pipelines of rectified flows."""

    prediction: PredictionType = "flow_prediction"

    def __init__(
        self,
        spec: BackboneSpec,
        pipe: DiffusionPipeline,
        rgb_factors: Tensor | None = None,
        folder: Path | None = None,
    ):
        if spec.shift is not None:  # the teacher's shift follows the size as well
            old: Any = pipe.scheduler
            name = "flow_shift" if "flow_shift" in old.config else "shift"
            fixed = {name: spec.shift, "use_dynamic_shifting": False}
            pipe.scheduler = type(old).from_config(old.config, **fixed)
        super().__init__(spec, pipe, rgb_factors, folder)

    @classmethod
    def widest(cls, network: Config) -> float:
        """Numbers per latent cell in the largest tensor of one network call."""
        raise NotImplementedError

    @classmethod
    def schedule_of(cls, scheduler: Config, shift: float | None) -> FlowSchedule:
        kind = str(scheduler.get("_class_name"))
        if kind == "FlowMatchEulerDiscreteScheduler" and not scheduler.get("use_dynamic_shifting"):
            own = scheduler.get("shift", 1.0)
        elif scheduler.get("use_flow_sigmas") and scheduler.get("prediction_type") == "flow_prediction":
            own = scheduler.get("flow_shift", 1.0)
        else:
            raise ValueError(f"its scheduler, a {kind}, is not one of a flow with a fixed timestep shift")
        return FlowSchedule(float(own if shift is None else shift), int(scheduler.get("num_train_timesteps", 1000)))


def picture(rgb: Tensor) -> Image.Image:
    """(3, H, W) in [−1, 1] → a picture."""
    pixels = ((rgb / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)
    return Image.fromarray(pixels.contiguous().cpu().numpy())
