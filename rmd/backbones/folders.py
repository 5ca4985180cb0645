"""What folders of backbones and students say of themselves: their cards and configurations, without any weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rmd.backbones.adapter import PipelineBackbone
from rmd.backbones.cards import BackboneSpec, StudentSpec
from rmd.backbones.flux2 import Flux2Backbone
from rmd.backbones.naming import by_name, named
from rmd.backbones.sd3 import SD3Backbone
from rmd.backbones.sdxl import SDXLBackbone
from rmd.backbones.wan import WanBackbone
from rmd.backbones.zimage import ZImageBackbone
from rmd.checks import RequestError

BACKBONE_CARD = "backbone.json"
STUDENT_CARD = "rmd.json"
ADAPTERS: dict[str, type[PipelineBackbone]] = {
    "StableDiffusionXLPipeline": SDXLBackbone,
    "StableDiffusion3Pipeline": SD3Backbone,
    "WanPipeline": WanBackbone,
    "ZImagePipeline": ZImageBackbone,
    "Flux2KleinPipeline": Flux2Backbone,
}
"""The adapter of every pipeline class that is supported, by the `_class_name` in model_index.json."""


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; raises RequestError naming the file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(f"{named(path)} cannot be read as JSON: {first_line(error)}") from error
    if not isinstance(data, dict):
        raise RequestError(f"{named(path)} must hold one JSON object.")
    return data


def read_config(folder: Path, component: str) -> dict[str, Any]:
    """The configuration of a pipeline's component; raises RequestError naming the file."""
    name = "scheduler_config.json" if component == "scheduler" else "config.json"
    return read_json(folder / component / name)


def pipeline_class(folder: Path) -> str:
    """The `_class_name` of a diffusers folder; raises RequestError when it is none."""
    if not folder.is_dir():
        raise RequestError(f"There is no folder {named(folder)}; give a backbone id or a folder in diffusers format.")
    if not (folder / "model_index.json").is_file():
        raise RequestError(f"{named(folder)} is not a diffusers pipeline: model_index.json is missing.")
    return str(read_json(folder / "model_index.json").get("_class_name"))


def adapter_of(folder: Path) -> type[PipelineBackbone]:
    """The adapter for a folder's class; raises RequestError for a folder that is none or of another class."""
    name = pipeline_class(folder)
    if name not in ADAPTERS:
        raise RequestError(f"{named(folder)} holds a {name}; supported are folders of {', '.join(ADAPTERS)}.")
    return ADAPTERS[name]


def missing_file(folder: Path) -> str | None:
    """The first file that a pipeline's folder should hold and does not, as after a cut-off download; None: complete.

    Looks at names only: configurations, and for networks their weights with all the parts their index lists.
    """
    for name, source in read_json(folder / "model_index.json").items():
        if name.startswith("_") or not isinstance(source, list) or source == [None, None]:
            continue
        part = folder / name
        if not part.is_dir():
            return f"{name}/"
        if not (part / "config.json").is_file():
            if name == "vae" or name in ("unet", "transformer") or name.startswith("text_encoder"):
                return f"{name}/config.json"
            continue
        for index in part.glob("*.safetensors.index*.json"):
            for file in sorted(set(read_json(index).get("weight_map", {}).values())):
                if not (part / file).is_file():
                    return f"{name}/{file}"
        if not any(part.glob("*.safetensors")):
            stem = "model" if name.startswith("text_encoder") else "diffusion_pytorch_model"
            return f"{name}/{stem}.safetensors"
    return None


def read_spec(folder: Path, id: str) -> tuple[BackboneSpec, Tensor | None]:
    """The backbone's card and its latent→RGB map (3, C + 1); defaults for a folder without a card."""
    if not (folder / BACKBONE_CARD).is_file():
        adapter = adapter_of(folder)
        network = read_config(folder, adapter.component)
        sizes = adapter.sizes_of(network, adapter.grid_of(read_config(folder, "vae"), network))
        values: dict[str, Any] = {"teacher_steps": 50, "licence": "see the folder", **sizes, **adapter.defaults}
        if adapter.unguided(read_config(folder, "scheduler")):
            values |= {"guidance": 1.0, "teacher_steps": values["default_steps"]}
        return BackboneSpec(id=id, name=folder.name, **values), None
    card = read_json(folder / BACKBONE_CARD)
    try:
        factors = card.pop("rgb_factors", None)
        return spec_from(card, id), None if factors is None else torch.tensor(factors, dtype=torch.float32)
    except (TypeError, ValueError) as error:
        raise RequestError(f"{named(folder / BACKBONE_CARD)} does not fit: {first_line(error)}") from error


def spec_from(card: dict[str, Any], id: str) -> BackboneSpec:
    """A spec from plain values; raises TypeError or ValueError for what does not fit."""
    lists = ("high", "low", "known_words", "colours", "prompts", "attributes", "caption_words")
    values: dict[str, Any] = {**card, **{name: tuple(card[name]) for name in lists if name in card}}
    return BackboneSpec(id=id, **values)


def read_student(folder: Path) -> StudentSpec:
    """The card of a student folder, without loading its weights."""
    if not (folder / STUDENT_CARD).is_file():
        raise RequestError(f"{named(folder)} is not a student: {STUDENT_CARD} is missing.")
    card = read_json(folder / STUDENT_CARD)
    try:
        card |= {name: tuple(card.get(name) or ()) for name in ("times", "scales")}
        card["trained_steps"] = tuple(card.get("trained_steps") or ()) or None
        return StudentSpec(**card)
    except (TypeError, ValueError) as error:
        raise RequestError(f"{named(folder / STUDENT_CARD)} does not fit: {first_line(error)}") from error


def check_complete(network: nn.Module, folder: Path) -> None:
    """Raise RequestError when weights are missing; diffusers leaves them without values and only logs it."""
    missing = [name for name, value in network.state_dict().items() if value.is_meta]
    if missing:
        raise RequestError(f"{named(folder)} cannot be loaded: {', '.join(missing[:3])} missing in its weights.")


def first_line(error: Exception) -> str:
    """An exception's words as the end of a sentence, without the places of folders that have a name."""
    lines = by_name(str(error)).strip().splitlines()
    line = lines[0] if lines else type(error).__name__
    return (line if len(line) <= 200 else line[:199] + "…").rstrip(".") + "."
