"""Student weights of every published kind: our folders, full networks and LoRA, always safetensors.

A student is one of
- a folder with an `rmd.json` card and a full network in diffusers' format under `unet/` or `transformer/`, or a LoRA
  (ours);
- such a folder without a card, a pipeline's folder, or the network's own folder;
- a folder that PEFT saved (adapter_config.json, adapter_model.safetensors);
- one file: the full network's weights or a LoRA in diffusers', kohya's or PEFT's naming.
What comes without a card was not trained by this project: it runs as a training-free cascade, and its card says so.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from rmd.backbones.base import Backbone
from rmd.backbones.cards import BackboneSpec, StudentSpec
from rmd.backbones.folders import STUDENT_CARD, check_complete, first_line, read_json, read_student
from rmd.backbones.loras import left_out, lora_network, refuse_unread
from rmd.backbones.naming import named, variant_of
from rmd.backbones.placement import place_alone
from rmd.checks import RequestError

INDEX = "model_index.json"
IGNORED = {"_diffusers_version", "_name_or_path"}  # what may differ between a student's and its base's configuration
PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}
PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def student_card(path: Path, spec: BackboneSpec) -> StudentSpec:
    """The card of student weights for a backbone, made up of what is known where there is none; loads no weights.

    Raises RequestError when there is nothing at the path, or nothing that is read here.
    """
    if (path / STUDENT_CARD).is_file():
        return read_student(path)
    if not path.exists():
        raise RequestError(f"{named(path)} is not a student: there is no such file, and no folder with {STUDENT_CARD}.")
    kind_of(path)
    return StudentSpec(
        name=path.stem if path.is_file() else path.name,
        base_model=spec.name,
        licence="unknown; see where the weights came from",
        default_steps=spec.default_steps,
        default_switch=spec.default_switch,
        mapping="none",  # they know fixed timesteps
        eta=0.0,  # published few-step students are consistency samplers: fresh noise in every step
        reinjection="band",
        training="Weights from elsewhere, run through the cascade without further training.",
        quality={},
        origin="published",
    )


def kind_of(path: Path) -> str:
    """ "network", "peft" or "file"; raises RequestError for what is none of these or a pickle."""
    if path.is_file():
        if path.suffix in PICKLES:
            raise pickled(path)
        if path.suffix != ".safetensors":
            raise RequestError(f"{named(path)} is not a student: weights must be a .safetensors file or a folder.")
        beside = path.name == PEFT_WEIGHTS and path.with_name(PEFT_CONFIG).is_file()  # which has its rank and alpha
        return "peft" if beside else "file"
    if (path / PEFT_CONFIG).is_file():
        if not (path / PEFT_WEIGHTS).is_file():
            raise (
                pickled(path)
                if pickles_in(path)
                else RequestError(f"{named(path)} holds no weights: {PEFT_WEIGHTS} is missing.")
            )
        return "peft"
    if network_folder(path) is not None:
        return "network"
    files = sorted(path.glob("*.safetensors"))
    if len(files) == 1:
        return "file"
    if pickles_in(path):
        raise pickled(path)
    choose = f"give one of its files, {files[0].name} for example" if files else f"{STUDENT_CARD} is missing"
    raise RequestError(f"{named(path)} is not a student: {choose}.")


def network_folder(path: Path) -> Path | None:
    """Where a folder keeps a full network: in itself, or under the component's name."""
    for part in (path / "unet", path / "transformer", path):
        if (part / "config.json").is_file() and (part != path or "_class_name" in read_json(part / "config.json")):
            return part
    return None


def pickles_in(folder: Path) -> bool:
    return any(file.suffix in PICKLES for file in folder.rglob("*"))


def pickled(path: Path) -> RequestError:
    return RequestError(
        f"{named(path)} holds pickled weights, which can run any program when they are read; take the .safetensors "
        "version, or convert them with safetensors.torch.save_file on a machine that trusts them."
    )


def open_student(path: Path, backbone: Backbone, card: StudentSpec | None = None) -> tuple[Backbone, StudentSpec]:
    """The backbone with the student's network in place of the teacher's. card: what is known in place of `path`'s own.

    Raises RequestError when there is no student at the path, its weights are damaged or do not fit the backbone.
    """
    if (path / INDEX).is_file() and (reason := backbone.refuses(read_json(path / INDEX))):
        raise RequestError(f"The student in {named(path)} cannot be used: {reason}.")
    spec = card or student_card(path, backbone.spec)
    base: Any = backbone.network
    ours = (path / STUDENT_CARD).is_file()
    kind = "network" if ours and not any(path.glob("*.safetensors")) else kind_of(path)
    try:
        if kind == "network":
            network = full_network(path, backbone, spec)
        elif kind == "peft":
            network = peft_network(path.parent if path.is_file() else path, base, spec.lora_scale)
        else:
            file = path if path.is_file() else next(path.glob("*.safetensors"))
            spec = replace(spec, left_out=left_out(file))
            network = network_from_file(load_file(file), backbone, header_of(file), spec.lora_scale)
    except RequestError:
        raise
    except Exception as error:  # diffusers and peft raise many kinds; all mean the same to the user
        raise RequestError(f"The student in {named(path)} cannot be loaded: {first_line(error)}") from error
    check_complete(network, path)
    if kind != "network" and same_weights(network, base):
        raise RequestError(
            f"The student in {named(path)} cannot be used: it changes no weight of {backbone.spec.name}; it was "
            "made for another network, or never trained."
        )
    network = network.to(base.dtype).eval().requires_grad_(False)
    if backbone.channels_last:
        network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    place_alone(network, backbone.device, backbone.offload)
    return backbone.with_network(network, spec.shift, spec.told_full), spec


def full_network(path: Path, backbone: Backbone, spec: StudentSpec) -> nn.Module:
    """A network in diffusers' format, compared with the backbone's before its weights are read."""
    base: Any = backbone.network
    part = network_folder(path) or path / backbone.component
    if not any(part.glob("*.safetensors")):
        if pickles_in(path):
            raise pickled(path)
        missing = (part / "diffusion_pytorch_model.safetensors").relative_to(path)
        raise RequestError(f"{named(path)} holds no weights: {missing} is missing.")
    config = read_json(part / "config.json")
    own = {**base.config, "_class_name": type(base).__name__}
    different = [k for k in config if k in own and k not in IGNORED and differs(own[k], config[k])]
    if different:
        raise RequestError(
            f"The student in {named(path)} does not fit {backbone.spec.name}: {', '.join(different[:3])} differ; "
            f"it was made for {spec.base_model}."
        )
    return type(base).from_pretrained(
        part, dtype=base.dtype, use_safetensors=True, local_files_only=True, variant=variant_of(part)
    )


def peft_network(folder: Path, base: nn.Module, scale: float) -> nn.Module:
    """The base with PEFT's adapter merged in, `scale` times."""
    from peft import PeftModel

    merged: Any = PeftModel.from_pretrained(copy.deepcopy(base), str(folder), local_files_only=True)  # pyright: ignore[reportArgumentType]
    for layer in merged.modules():
        if scale != 1 and hasattr(layer, "scale_layer"):
            layer.scale_layer(scale)
    return merged.merge_and_unload()


def header_of(file: Path) -> dict[str, str]:
    """The texts in the header of a safetensors file."""
    with safe_open(file, framework="pt") as opened:
        return opened.metadata() or {}


def same_weights(network: nn.Module, base: nn.Module) -> bool:
    """Whether every weight is the base's own, up to its precision."""
    theirs = base.state_dict()
    return all(torch.equal(value.to(theirs[name].dtype), theirs[name]) for name, value in network.state_dict().items())


def network_from_file(
    state: dict[str, Tensor], backbone: Backbone, header: dict[str, str], scale: float = 1.0
) -> nn.Module:
    """A full network or the base with a LoRA merged in `scale` times, by the names in one file."""
    base: Any = backbone.network
    refuse_unread(state)
    if any("lora" in name for name in state):
        return lora_network(state, backbone, header, scale)
    wanted = base.state_dict()
    for prefix in ("", f"{backbone.component}.", "model."):
        named = {name.removeprefix(prefix): value for name, value in state.items()}
        if set(named) == set(wanted):
            break
    else:
        bare = {name.removeprefix(f"{backbone.component}.").removeprefix("model.") for name in state}
        missing, extra = sorted(set(wanted) - bare), sorted(bare - set(wanted))
        lacks = f"it lacks {missing[0]}" if missing else f"{backbone.spec.name} has no {extra[0]}"
        raise ValueError(f"its weights are named otherwise than {backbone.spec.name}'s; {lacks}")
    wrong = [name for name, value in named.items() if value.shape != wanted[name].shape]
    if wrong:
        found, meant = list(named[wrong[0]].shape), list(wanted[wrong[0]].shape)
        raise ValueError(f"{wrong[0]} is of size {found}, where {backbone.spec.name} has {meant}")
    network = copy.deepcopy(base)
    network.load_state_dict(named)
    return network


def differs(a: Any, b: Any) -> bool:
    """Whether two configuration values differ, lists and tuples being alike."""
    return (list(a) if isinstance(a, tuple) else a) != (list(b) if isinstance(b, tuple) else b)
