"""What a distillation holds in memory from its start to its end, counted before anything is loaded.

Counted are the three networks, gradients, optimisers and the average; what a batch's activations take on top depends on
its size and is not (`checkpointing`, `batch` and `size` change that).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from safetensors import safe_open

from rmd.backbones.catalog import Entry
from rmd.backbones.folders import adapter_of
from rmd.backbones.machine import GB, default_dtype
from rmd.backbones.random_weights import COMPONENTS, PIPELINES
from rmd.checks import RequestError
from rmd.train.settings import Settings

LORA_SHARE = 0.00104
"""A LoRA's weights per rank, as a share of its base's: SDXL's, the largest (Wan2.1 1.3B 0.00096, SD3.5 Medium 0.00066,
Wan2.1 14B 0.00034)."""


@dataclass(frozen=True)
class Memory:
    """Bytes by what holds them, in GB (10⁹ bytes)."""

    parts: dict[str, float]

    @property
    def total(self) -> float:
        return sum(self.parts.values())


def parameters(entry: Entry) -> int:
    """The weights of a backbone's denoising network: read off its files, or as published where it is not here yet."""
    if entry.folder.is_dir():
        component = adapter_of(entry.folder).component
        total = 0
        for file in sorted((entry.folder / component).glob("*.safetensors")):
            with safe_open(file, framework="pt") as weights:
                for name in weights.keys():  # noqa: SIM118  # it is no dictionary
                    total += torch.Size(weights.get_slice(name).get_shape()).numel()
        return total
    for name in ("unet", "transformer"):
        if name in PIPELINES.get(entry.id, {}):
            return round(COMPONENTS[PIPELINES[entry.id][name][1]]["billions"] * 1e9)
    raise RequestError(f"{entry.name} is not on this machine, and its size is not known.")


def needed(count: int, settings: Settings, device: torch.device, processes: int = 1) -> Memory:
    """What `count` weights take on each of the processes' devices, by how they are held; see `rmd.train.roles`."""
    dtype = default_dtype(device)
    working = 2 if dtype in (torch.bfloat16, torch.float16) else 4
    if settings.lora is not None:
        lora = count * LORA_SHARE * settings.lora
        return Memory(
            {
                "base": count * working / GB,
                "two LoRAs with gradients and optimisers": 2 * lora * 16 / GB,
                "average": lora * 4 / GB,
            }
        )
    copies = 0 if working == 4 or settings.shard == "yes" else working
    own = count / (processes if settings.shard == "yes" else 1)
    return Memory(
        {
            "teacher": own * working / GB,
            "student and fake_score": 2 * own * (4 + copies) / GB,
            "their optimisers": 2 * own * 8 / GB,
            "gradients": own * (4 + copies) / GB,
            "average": own * 4 / GB,
        }
    )


def check_room(memory: Memory, free: float, settings: Settings, name: str) -> None:
    """Raise RequestError where there is no room even without activations, with what to change."""
    if memory.total > free:
        advice = "a smaller --lora rank" if settings.lora else "--lora 64, which holds one network instead of three"
        if not settings.lora:
            advice += ", or --set shard=yes on more GPUs"
        raise RequestError(
            f"Distilling {name} this way needs {memory.total:.0f} GB before any activations; the device has "
            f"{free:.0f} GB free. Try {advice}."
        )
