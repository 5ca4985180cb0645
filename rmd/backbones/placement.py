"""Where a loaded pipeline's parts lie and how they compute: offload, attention backend, compilation, tiling.

Offload is for CUDA alone: elsewhere the accelerator's memory is the machine's own, and moving saves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers.utils.constants import DIFFUSERS_ATTN_BACKEND
from torch import nn

from rmd.backbones.machine import GB, free_gb
from rmd.backbones.parallel import split
from rmd.checks import RequestError

Offload = Literal["none", "model", "group"]
WORKING_GB = 2.0
"""Left free beside the weights for activations."""
TILED_PIXELS = 2_000_000
"""Pixels of a result (all frames) from which the autoencoder works tile by tile."""


@dataclass(frozen=True)
class Tuning:
    """How networks compute. attention: a backend of diffusers' ("native", "flash", "sage" …), None for its default.
    compile: torch.compile the repeated blocks; the first call of every size then takes long, as warm-up.
    processes: among which a call is split (see `rmd.backbones.parallel`)."""

    attention: str | None = None
    compile: bool = False
    processes: int = 1

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, the default attention backend by its name."""
        return {"attention": self.attention or DIFFUSERS_ATTN_BACKEND, "compile": self.compile}


def bytes_of(module: Any) -> int:
    """What a module's parameters and buffers take; 0 for what is no module."""
    if not isinstance(module, nn.Module):
        return 0
    return sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))


def choose_offload(device: torch.device, whole: float, largest: float, free: float) -> Offload:
    """The least offload that fits. whole, largest, free: GB of all parts, of the largest part, of the device.

    none   everything stays on the device
    model  one part at a time comes to it
    group  a part comes block by block
    """
    if device.type != "cuda" or whole + WORKING_GB <= free:
        return "none"
    return "model" if largest + WORKING_GB <= free else "group"


def place(pipe: Any, network: str, device: torch.device) -> Offload:
    """Put a pipeline that was loaded on the CPU where it fits; room is kept for a student beside its `network`."""
    sizes = {name: bytes_of(part) / GB for name, part in pipe.components.items()}
    level = choose_offload(device, sum(sizes.values()) + sizes[network], max(sizes.values()), free_gb(device))
    if level == "none":
        pipe.to(device)
    elif level == "model":
        pipe.enable_model_cpu_offload(device=device)
    else:
        pipe.enable_group_offload(device, offload_type="leaf_level", use_stream=True)
    return level


def place_alone(network: Any, device: torch.device, level: Offload) -> None:
    """The same for a module that came later: a student's network, a text encoder that was read again."""
    if level == "none":
        network.to(device)
    elif level == "model":
        from accelerate import cpu_offload_with_hook

        cpu_offload_with_hook(network, device)
    else:
        network.enable_group_offload(device, offload_type="leaf_level", use_stream=True)


def save_memory(vae: Any, pixels: int) -> None:
    """Let an autoencoder work sample by sample, and tile by tile where results are large."""
    if hasattr(vae, "enable_slicing"):
        vae.enable_slicing()
    if pixels >= TILED_PIXELS and hasattr(vae, "enable_tiling"):
        vae.enable_tiling()


def tune(network: Any, tuning: Tuning) -> None:
    """Raises RequestError for an attention backend that does not exist or does not work here, and for a network that
    cannot be split."""
    if tuning.attention:
        if tuning.attention.endswith("_hub"):
            raise RequestError(
                f"attention {tuning.attention!r} would download a program; install its kernels yourself."
            )
        try:
            network.set_attention_backend(tuning.attention)
        except Exception as error:  # it raises what the missing library raises
            words = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise RequestError(f"attention {tuning.attention!r} cannot be used here: {words.rstrip('.')}.") from error
    if tuning.processes > 1:
        split(network, tuning.processes)
    if tuning.compile:
        if getattr(network, "_repeated_blocks", None):
            network.compile_repeated_blocks()
        else:
            network.compile()
