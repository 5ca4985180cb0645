"""Opening backbones and student weights from local folders in diffusers' format. Safetensors only, no pickles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from torch import Tensor, nn
from transformers.utils import logging as transformers_logging

from rmd.backbones.base import Backbone
from rmd.backbones.sdxl import SDXLBackbone
from rmd.config import BackboneSpec, RequestError, StudentSpec

BACKBONE_CARD = "backbone.json"
STUDENT_CARD = "rmd.json"
IGNORED = {"_diffusers_version", "_name_or_path"}  # what may differ between a student's and its base's configuration

# The libraries warn of what is meant here (an AutoencoderTiny in SDXL's place, no torchvision) and draw a bar per
# folder; failures arrive as exceptions all the same.
for library in (diffusers_logging, transformers_logging):
    library.set_verbosity_error()
    library.disable_progress_bar()


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; raises RequestError naming the file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(data, dict):
        raise RequestError(f"{path} must hold one JSON object.")
    return data


def default_dtype(device: torch.device) -> torch.dtype:
    """bf16 where the hardware computes in it, fp16 on Apple's GPUs, else fp32."""
    if device.type == "cuda":
        return torch.bfloat16
    if device.type == "mps":
        return torch.float16
    fast = torch.ops.mkldnn._is_mkldnn_bf16_supported()  # the public capability string does not tell
    return torch.bfloat16 if fast else torch.float32


def pipeline_class(folder: Path) -> str:
    """The `_class_name` of a diffusers folder; raises RequestError when it is none."""
    if not folder.is_dir():
        raise RequestError(f"There is no folder {folder}; give a backbone id or a folder in diffusers format.")
    if not (folder / "model_index.json").is_file():
        raise RequestError(f"{folder} is not a diffusers pipeline: model_index.json is missing.")
    return str(read_json(folder / "model_index.json").get("_class_name"))


def read_spec(folder: Path, id: str) -> tuple[BackboneSpec, Tensor | None]:
    """The backbone's card and its latent→RGB map (3, C + 1); defaults for a folder without a card."""
    if not (folder / BACKBONE_CARD).is_file():
        cells = int(read_json(folder / "unet" / "config.json").get("sample_size", 128))
        factor = 2 ** (len(read_json(folder / "vae" / "config.json").get("block_out_channels", [0] * 4)) - 1)
        side = cells * factor
        spec = BackboneSpec(
            id=id, name=folder.name, high=(side, side), low=(side // 2, side // 2), teacher_steps=50, guidance=7.0,
            default_steps=4, default_switch=2, licence="see the folder",
        )  # fmt: skip
        return spec, None
    card = read_json(folder / BACKBONE_CARD)
    try:
        factors = card.pop("rgb_factors", None)
        for name in ("high", "low", "known_words", "colours"):
            card[name] = tuple(card.get(name, ()))
        return BackboneSpec(id=id, **card), None if factors is None else torch.tensor(factors, dtype=torch.float32)
    except (TypeError, ValueError) as error:
        raise RequestError(f"{folder / BACKBONE_CARD} does not fit: {first_line(error)}") from error


def open_backbone(folder: Path, id: str, device: torch.device, dtype: torch.dtype | None = None) -> Backbone:
    """Load a pipeline folder; its class decides the adapter, the device the dtype unless one is given.

    Raises RequestError for a folder that is missing, broken or of a class that is not supported.
    """
    name = pipeline_class(folder)
    if name != "StableDiffusionXLPipeline":
        raise RequestError(f"{folder} holds a {name}; supported are folders of StableDiffusionXLPipeline.")
    spec, factors = read_spec(folder, id)
    try:
        pipe = StableDiffusionXLPipeline.from_pretrained(
            folder,
            dtype=dtype or default_dtype(device),
            use_safetensors=True,
            local_files_only=True,
            add_watermarker=False,
        )
    except Exception as error:  # diffusers raises many kinds; all mean the same to the user
        raise RequestError(f"{folder} cannot be loaded: {first_line(error)}") from error
    for network in (pipe.unet, pipe.vae):
        check_complete(network, folder)
        network.to(memory_format=torch.channels_last)
    backbone = SDXLBackbone(spec, pipe.to(device), factors)
    try:
        for size in (spec.high, spec.low):
            backbone.latent_size(size)
        if factors is not None and factors.shape != (3, backbone.channels + 1):
            raise ValueError(f"rgb_factors must be 3 rows of {backbone.channels + 1} numbers")
    except ValueError as error:
        raise RequestError(f"{folder / BACKBONE_CARD} does not fit: {first_line(error)}") from error
    return backbone


def check_complete(network: nn.Module, folder: Path) -> None:
    """Raise RequestError when weights are missing; diffusers leaves them without values and only logs it."""
    missing = [name for name, value in network.state_dict().items() if value.is_meta]
    if missing:
        raise RequestError(f"{folder} cannot be loaded: {', '.join(missing[:3])} missing in its weights.")


def first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    line = lines[0] if lines else type(error).__name__
    return (line if len(line) <= 200 else line[:199] + "…").rstrip(".") + "."


def read_student(folder: Path) -> StudentSpec:
    """The card of a student folder, without loading its weights."""
    if not (folder / STUDENT_CARD).is_file():
        raise RequestError(f"{folder} is not a student: {STUDENT_CARD} is missing.")
    card = read_json(folder / STUDENT_CARD)
    try:
        return StudentSpec(**card)
    except (TypeError, ValueError) as error:
        raise RequestError(f"{folder / STUDENT_CARD} does not fit: {first_line(error)}") from error


def open_student(folder: Path, backbone: Backbone) -> tuple[Backbone, StudentSpec]:
    """The backbone with the student's network in place of the teacher's.

    Raises RequestError when the folder is no student, its weights are damaged or do not fit the backbone.
    """
    spec = read_student(folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    if not weights.is_file():
        raise RequestError(f"{folder} holds no weights: {weights.relative_to(folder)} is missing.")
    base: Any = backbone.network
    config = read_json(folder / "unet" / "config.json")
    own = {**base.config, "_class_name": type(base).__name__}
    different = [k for k in config if k in own and k not in IGNORED and differs(own[k], config[k])]
    if different:
        raise RequestError(
            f"The student in {folder} does not fit {backbone.spec.name}: {', '.join(different[:3])} differ; "
            f"it was made for {spec.base_model}."
        )
    try:
        unet = UNet2DConditionModel.from_pretrained(
            folder / "unet", dtype=base.dtype, use_safetensors=True, local_files_only=True
        )
    except Exception as error:
        raise RequestError(f"The student in {folder} cannot be loaded: {first_line(error)}") from error
    check_complete(unet, folder)
    unet = unet.to(backbone.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    return backbone.with_network(unet), spec


def differs(a: Any, b: Any) -> bool:
    """Whether two configuration values differ, lists and tuples being alike."""
    return (list(a) if isinstance(a, tuple) else a) != (list(b) if isinstance(b, tuple) else b)
