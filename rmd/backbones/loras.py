"""LoRA students: the names and scales of every program that writes them, merged into a copy of the base network."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor, nn

from rmd.backbones.base import Backbone
from rmd.backbones.cards import CONVERT

MERGE = "merge it into a full network first"
PEFT_PREFIX = "base_model.model."


def lora_network(state: dict[str, Tensor], backbone: Backbone, header: dict[str, str], scale: float = 1.0) -> nn.Module:
    """The base with a LoRA's low-rank products added `scale` times to its weights; every one must find its place.

    header: the file's, where diffusers keeps rank and alpha ("lora_adapter_metadata").
    """
    network: Any = copy.deepcopy(backbone.network)
    if any(name.startswith(PEFT_PREFIX) for name in state):
        state = {f"{backbone.component}.{name.removeprefix(PEFT_PREFIX)}": value for name, value in state.items()}
    layers = {name for name, _ in network.named_modules()}
    if all(name.split(".lora", 1)[0].removesuffix(".alpha") in layers for name in state):  # written without a component
        state = {f"{backbone.component}.{name}": value for name, value in state.items()}
    named, alphas = backbone.lora_weights(state)
    prefix = f"{backbone.component}."
    others = [name for name in named if not name.startswith(prefix)]
    named = {name: value for name, value in named.items() if name.startswith(prefix)}
    if not named:
        raise ValueError(f"it is a LoRA for something else: {others[0] if others else 'nothing'} in it")
    check_shapes(named, backbone)
    named = with_alphas(named)
    settings = None if alphas else adapter_settings(header, backbone.component)
    network.load_lora_adapter(
        named, network_alphas=alphas, prefix=backbone.component, adapter_name="student", metadata=settings
    )
    downs = [name for name in named if name.endswith(("lora_A.weight", "lora.down.weight", "lora_down.weight"))]
    placed = [m for m in network.modules() if "student" in getattr(m, "lora_A", {})]
    if len(placed) != len(downs):
        raise ValueError(f"only {len(placed)} of its {len(downs)} layers are layers of {backbone.spec.name}")
    network.fuse_lora(lora_scale=scale, adapter_names=["student"])
    network.unload_lora()
    return network


PAIRS = ((".lora_A.weight", ".lora_B.weight"), (".lora.down.weight", ".lora.up.weight"), ("_down.weight", "_up.weight"))
"""How the two factors of a layer are named."""


def with_alphas(named: dict[str, Tensor]) -> dict[str, Tensor]:
    """A LoRA's factors, alpha/rank in the second one where an alpha stands beside them.

    Raises ValueError for a factor without its other.
    """
    factors = {name: value for name, value in named.items() if not name.endswith(".alpha")}
    for name in factors:
        for ends in PAIRS:
            for mine, other in (ends, ends[::-1]):
                if name.endswith(mine) and name.removesuffix(mine) + other not in factors:
                    raise ValueError(f"{name} has no {other.removeprefix('.').removeprefix('_')} beside it")
    for name in named.keys() - factors.keys():
        layer, alpha = name.removesuffix(".alpha"), float(named[name])
        for down, up in PAIRS:
            if layer + down in factors:
                factors[layer + up] = factors[layer + up] * (alpha / factors[layer + down].shape[0])
    return factors


def refuse_unread(state: dict[str, Tensor]) -> None:
    """Raise ValueError for weights that are not read here, and that the converters would drop without a word."""
    for name, value in state.items():
        if name.startswith("model.diffusion_model."):
            raise ValueError(f"it is a checkpoint in the original layout; {CONVERT}")
        if ".hada_" in name or ".lokr_" in name:
            raise ValueError(f"it is a LoHa or LoKr of LyCORIS ({name}), which is not read here; {MERGE}")
        if name.endswith("dora_scale"):
            raise ValueError(f"it is a DoRA ({name}), which is not read here; {MERGE}")
        if name.endswith((".diff", ".diff_m")) and bool(value.any()):
            raise ValueError(f"it changes weights without a low-rank product ({name}); {MERGE}")


def check_shapes(named: dict[str, Tensor], backbone: Backbone) -> None:
    """Raise ValueError for the first of a LoRA's layers that is not as large as the network's."""
    modules = dict(backbone.network.named_modules())
    for name, value in named.items():
        layer, _, kind = name.removeprefix(f"{backbone.component}.").partition(".lora")
        weight = getattr(modules.get(layer), "weight", None)
        if not isinstance(weight, Tensor) or value.ndim < 2:
            continue
        down = kind.lower().startswith(("_a", "_down", ".down"))
        found, meant = (value.shape[1], weight.shape[1]) if down else (value.shape[0], weight.shape[0])
        if found != meant:
            side = "inputs" if down else "outputs"
            raise ValueError(f"{layer} has {found} {side} in it, where {backbone.spec.name} has {meant}")


def left_out(file: Path) -> str:
    """What of a LoRA's file is for text encoders and not used here, in words; "" for nothing."""
    with safe_open(file, framework="pt") as opened:
        names = [name for name in opened.keys() if name.startswith(("lora_te", "text_encoder"))]  # noqa: SIM118
    layers = {name.split(".lora", 1)[0].removesuffix(".alpha") for name in names}
    return f"{len(layers)} text-encoder layers left out" if layers else ""


def adapter_settings(header: dict[str, str], component: str) -> dict[str, Any] | None:
    """What diffusers wrote about a component's adapter when it saved the file: rank, alpha, layers; None: nothing."""
    try:
        known = json.loads(header.get("lora_adapter_metadata", "{}"))
    except ValueError:
        return None
    return {name: value for name, value in known.items() if name.startswith(f"{component}.")} or None
