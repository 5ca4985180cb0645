"""Opening backbones and student weights from local folders in diffusers' format. Safetensors only, no pickles."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor

from rmd.backbones.base import Backbone
from rmd.backbones.sdxl import SDXLBackbone
from rmd.config import BackboneSpec, RequestError, StudentSpec
from rmd.plan import Reinjection

BACKBONE_CARD = "backbone.json"
STUDENT_CARD = "rmd.json"


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
        spec = BackboneSpec(id=id, **card)
    except TypeError as error:
        raise RequestError(f"{folder / BACKBONE_CARD} does not fit: {error}.") from error
    return spec, None if factors is None else torch.tensor(factors)


def open_backbone(folder: Path, id: str, device: torch.device) -> Backbone:
    """Load a pipeline folder; its class decides the adapter.

    Raises RequestError for a folder that is missing, broken or of a class that is not supported.
    """
    name = pipeline_class(folder)
    if name != "StableDiffusionXLPipeline":
        raise RequestError(f"{folder} holds a {name}; supported are folders of StableDiffusionXLPipeline.")
    spec, factors = read_spec(folder, id)
    try:
        pipe = StableDiffusionXLPipeline.from_pretrained(
            folder,
            torch_dtype=default_dtype(device),
            use_safetensors=True,
            local_files_only=True,
            add_watermarker=False,
        )
    except Exception as error:  # diffusers raises many kinds; all mean the same to the user
        raise RequestError(f"{folder} cannot be loaded: {first_line(error)}") from error
    pipe.unet.to(memory_format=torch.channels_last)
    pipe.vae.to(memory_format=torch.channels_last)
    return SDXLBackbone(spec, pipe.to(device), factors)


def first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def read_student(folder: Path) -> StudentSpec:
    """The card of a student folder, without loading its weights."""
    if not (folder / STUDENT_CARD).is_file():
        raise RequestError(f"{folder} is not a student: {STUDENT_CARD} is missing.")
    card = read_json(folder / STUDENT_CARD)
    try:
        spec = StudentSpec(**card)
    except TypeError as error:
        raise RequestError(f"{folder / STUDENT_CARD} does not fit: {error}.") from error
    if spec.reinjection not in get_args(Reinjection):
        raise RequestError(f"{folder / STUDENT_CARD}: reinjection must be one of {', '.join(get_args(Reinjection))}.")
    return spec


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
    different = [k for k, v in config.items() if not k.startswith("_") and k in base.config and differs(base.config[k], v)]
    if different:
        raise RequestError(
            f"The student in {folder} does not fit {backbone.spec.name}: {', '.join(different[:3])} differ; "
            f"it was made for {spec.base_model}."
        )
    try:
        unet = UNet2DConditionModel.from_pretrained(
            folder / "unet", torch_dtype=base.dtype, use_safetensors=True, local_files_only=True
        )
    except Exception as error:
        raise RequestError(f"The student in {folder} cannot be loaded: {first_line(error)}") from error
    unet = unet.to(backbone.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    return backbone.with_network(unet), replace(spec)


def differs(a: Any, b: Any) -> bool:
    """Whether two configuration values differ, lists and tuples being alike."""
    return (list(a) if isinstance(a, tuple) else a) != (list(b) if isinstance(b, tuple) else b)
