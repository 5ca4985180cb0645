"""Opening backbones from local folders in diffusers' format. Safetensors only, no pickles."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any, Protocol, TypeVar

import diffusers
import torch
from diffusers import AutoencoderTiny
from diffusers.utils import logging as diffusers_logging
from torch import nn
from transformers.utils import logging as transformers_logging

from rmd.backbones import catalog
from rmd.backbones.adapter import PipelineBackbone
from rmd.backbones.base import Backbone
from rmd.backbones.cards import BackboneSpec, StudentSpec
from rmd.backbones.folders import (
    BACKBONE_CARD,
    adapter_of,
    check_complete,
    first_line,
    missing_file,
    pipeline_class,
    read_json,
    read_spec,
)
from rmd.backbones.machine import default_dtype
from rmd.backbones.naming import named
from rmd.backbones.parts import Part, check_memory, reading
from rmd.backbones.placement import place, save_memory
from rmd.backbones.students import open_student
from rmd.checks import RequestError

__all__ = [
    "StoredWeights",
    "Weights",
    "dtypes_for",
    "open_backbone",
    "open_decoder",
    "open_student",
    "settle",
    "whole",
]

T = TypeVar("T")

# The libraries warn of what is meant here (an AutoencoderTiny in SDXL's place, no torchvision) and draw a bar per
# folder; failures arrive as exceptions all the same.
for library in (diffusers_logging, transformers_logging):
    library.set_verbosity_error()
    library.disable_progress_bar()


def dtypes_for(pipeline: str, device: torch.device, dtype: torch.dtype | None = None) -> dict[str, torch.dtype]:
    """A pipeline's dtypes by component as `from_pretrained` takes them; `dtype` in place of the device's own."""
    dtype = dtype or default_dtype(device)
    # Autoencoders lose more to rounding than networks do: fp16 overflows SDXL's, and Wan's is meant for fp32.
    exact = dtype == torch.float16 or (pipeline == "WanPipeline" and device.type == "cuda")
    return {"default": dtype, "vae": torch.float32 if exact else dtype}


def settle(backbone: PipelineBackbone, device: torch.device, resident: bool = False) -> None:
    """Bring a new backbone to its device and into shape; `resident` when all of it is there already."""
    pipe, spec = backbone.pipe, backbone.spec
    for part in (backbone.component, "vae") if backbone.channels_last else ():
        getattr(pipe, part).to(memory_format=torch.channels_last)
    backbone.offload = "none" if resident else place(pipe, backbone.component, device)
    save_memory(pipe.vae, spec.frames * spec.high[0] * spec.high[1])


def opening(
    folder: Path, id: str, device: torch.device, dtype: torch.dtype | None = None, spec: BackboneSpec | None = None
) -> Generator[Part, None, Backbone]:
    """Load a pipeline folder, with a Part before each network; its class decides the adapter, the device the dtype
    unless one is given.

    spec: what is known of the backbone, in place of the folder's own card.
    Raises RequestError for a folder that is missing, broken, of a class that is not supported or too large.
    """
    adapter, name = adapter_of(folder), pipeline_class(folder)
    own, factors = (spec, None) if spec else read_spec(folder, id)
    missing = missing_file(folder)
    if missing:
        raise RequestError(f"{named(folder)} cannot be loaded: it is incomplete, {missing} is missing.")
    # what a folder leaves out has to be left out by name where its class does not call it optional (SD3's T5)
    index = read_json(folder / "model_index.json")
    absent = {part: None for part, source in index.items() if source == [None, None]}
    extra = {"add_watermarker": False} if name == "StableDiffusionXLPipeline" else {}
    dtypes = dtypes_for(name, device, dtype)
    check_memory(folder, dtypes)
    try:
        networks = yield from reading(folder, dtypes)
        pipe = getattr(diffusers, name).from_pretrained(
            folder, use_safetensors=True, local_files_only=True, **networks, **absent, **extra
        )
    except Exception as error:  # diffusers raises many kinds; all mean the same to the user
        raise RequestError(f"{named(folder)} cannot be loaded: {first_line(error)}") from error
    for part in (adapter.component, "vae"):
        network = getattr(pipe, part, None)
        if network is None:
            raise RequestError(f"{named(folder)} cannot be loaded: it has no {part}.")
        check_complete(network, folder)
    try:
        backbone = adapter(own, pipe, factors, folder)
        settle(backbone, device)
        for size in (own.high, own.low):
            backbone.latent_size(size)
        if factors is not None and factors.shape != (3, backbone.channels + 1):
            raise ValueError(f"rgb_factors must be 3 rows of {backbone.channels + 1} numbers")
    except ValueError as error:
        card = folder / BACKBONE_CARD
        raise RequestError(f"{named(card if card.is_file() else folder)} does not fit: {first_line(error)}") from error
    return backbone


def open_backbone(
    folder: Path, id: str, device: torch.device, dtype: torch.dtype | None = None, spec: BackboneSpec | None = None
) -> Backbone:
    """`opening`, in one go."""
    return whole(opening(folder, id, device, dtype, spec))


def whole(steps: Generator[Any, None, T]) -> T:
    """What a generator returns, without what it yields."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def open_decoder(folder: Path, device: torch.device) -> nn.Module:
    """A tiny decoder from its folder; raises RequestError when it cannot be read."""
    try:
        decoder: Any = AutoencoderTiny.from_pretrained(
            folder, dtype=default_dtype(device), use_safetensors=True, local_files_only=True
        )
    except Exception as error:
        raise RequestError(f"{named(folder)} cannot be loaded: {first_line(error)}") from error
    check_complete(decoder, folder)
    return decoder.to(device, memory_format=torch.channels_last).eval()


class Weights(Protocol):
    """Where backbones, students and tiny decoders come from. All methods raise RequestError for what cannot be had."""

    def backbone(self, entry: catalog.Entry, device: torch.device) -> Generator[Part, None, Backbone]:
        """Load it, with a Part before each of its networks."""
        ...

    def student(
        self, entry: catalog.Entry, student: str | None, teacher: Backbone
    ) -> tuple[Backbone, StudentSpec] | None:
        """The student asked for (as in `GenerateRequest`) and its card; None where there is none."""
        ...

    def decoder(self, entry: catalog.Entry, device: torch.device) -> nn.Module: ...


class StoredWeights:
    """Folders on this machine."""

    def backbone(self, entry: catalog.Entry, device: torch.device) -> Generator[Part, None, Backbone]:
        catalog.check_there(entry)
        return (yield from opening(entry.folder, entry.id, device, spec=entry.spec))

    def student(
        self, entry: catalog.Entry, student: str | None, teacher: Backbone
    ) -> tuple[Backbone, StudentSpec] | None:
        folder = catalog.student_folder(entry, student)
        return open_student(folder, teacher, catalog.known_card(entry, student)) if folder else None

    def decoder(self, entry: catalog.Entry, device: torch.device) -> nn.Module:
        return open_decoder(catalog.decoder_folder(entry), device)
