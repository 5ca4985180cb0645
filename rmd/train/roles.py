"""The networks of a distillation as they are optimised and as they compute: full copies, or LoRAs on one base.

Full: student and fake_score are copies of the teacher. LoRA: all three are one frozen network, student and
fake_score each with a low-rank adapter of its own, so that a large backbone needs memory for one network only.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from rmd.backbones.machine import default_dtype
from rmd.train.shares import WholeMoments, WholeWeights, share_out, unshared

LAYERS = (
    ".to_q", ".to_k", ".to_v", ".to_out.0", ".to_out", ".add_q_proj", ".add_k_proj", ".add_v_proj", ".to_add_out",
    ".to_qkv_mlp_proj", "proj_in", "proj_out", ".net.0.proj", ".net.2", ".linear_in", ".linear_out",
    ".feed_forward.w1", ".feed_forward.w2", ".feed_forward.w3",
)  # fmt: skip
"""Ends of the names of the layers that a LoRA changes: attention and feed-forward, as diffusers names them."""


def compute_dtype(device: torch.device) -> torch.dtype:
    """What training computes in: fp16 gradients vanish without a scale."""
    dtype = default_dtype(device)
    return torch.bfloat16 if dtype == torch.float16 else dtype


class Trained:
    """A network that is trained whole.

    `master` keeps fp32 weights, which small updates can still change; `network` is a copy in the dtype that this
    hardware is fast in, or the master itself where that is fp32.
    """

    averaged = False
    """Whether gradients come as the processes' mean."""

    def __init__(self, master: nn.Module, device: torch.device):
        dtype = compute_dtype(device)
        self.master: Any = master
        self.copied = dtype != torch.float32
        self.network: Any = copy.deepcopy(master).to(dtype) if self.copied else master

    def step(
        self,
        optimizer: torch.optim.Optimizer,
        more: Iterable[nn.Parameter] = (),
        norm: float = 1.0,
        average: Callable[[Iterable[nn.Parameter]], None] | None = None,
    ) -> None:
        """After backward: clip the gradients, with those of `more` parameters that train along, update, forget them.

        average: makes the gradients of several processes one.
        """
        mine = list(self.master.parameters())
        if self.copied:
            for here, there in zip(mine, self.network.parameters(), strict=True):
                here.grad = None if there.grad is None else there.grad.float()
                there.grad = None
        if average is not None and not self.averaged:
            average([*mine, *more])
        nn.utils.clip_grad_norm_([*mine, *more], norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self.spread()

    def begin_at(self, state: Mapping[str, Tensor]) -> None:
        """Take weights over; `spread` comes after."""
        self.master.load_state_dict(state)

    def kept(self, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
        """What is saved of weights and optimiser."""
        return self.master, optimizer

    def whole(self) -> Any:
        """The network to write, where this process is the first."""
        return self.master

    @torch.no_grad()
    def spread(self) -> None:
        """The masters' weights into the computing copy."""
        if self.copied:
            torch._foreach_copy_(list(self.network.parameters()), list(self.master.parameters()))


class Shared(Trained):
    """A network of which every process holds a share: fp32 weights, which compute in the dtype that this hardware is
    fast in.

    master: on the CPU, so that no device ever holds the whole of it.
    """

    def __init__(self, master: nn.Module, device: torch.device, mesh: DeviceMesh):
        self.averaged = True
        self.kind = type(master)  # sharing it out gives it a class of its own
        share_out(master, mesh, compute_dtype(device))
        self.master = self.network = master
        self.copied = False

    def begin_at(self, state: Mapping[str, Tensor]) -> None:
        WholeWeights(self.master).load_state_dict(dict(state))

    def kept(self, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
        return WholeWeights(self.master), WholeMoments(self.master, optimizer)

    def whole(self) -> Any:
        return unshared(self.master, self.kind)


IN_USE, NONE = "rmd_adapter_in_use", "none"
"""What a base remembers of the adapter it computes with."""


class Role(nn.Module):
    """One base network with one of its adapters in use, or with none."""

    def __init__(self, base: Any, adapter: str | None):
        super().__init__()
        self.base, self.adapter = base, adapter
        self.config = base.config

    def use(self) -> None:
        """Let the base compute with this adapter: before a call, and before the backward of a checkpointed one, which
        calls again. Where it does already nothing happens: going through all layers takes 0.1 s for SDXL."""
        if getattr(self.base, IN_USE, None) == (self.adapter or NONE):
            return
        setattr(self.base, IN_USE, self.adapter or NONE)
        if self.adapter is None:
            self.base.disable_adapters()
        else:
            self.base.enable_adapters()
            self.base.set_adapter(self.adapter)
        for layer in lora_weights(self.base).values():  # choosing an adapter freezes the others, for good
            layer.requires_grad_(True)

    def forward(self, *arguments: Any, **named: Any) -> Any:
        self.use()
        return self.base(*arguments, **named)


def lora_weights(base: nn.Module, adapter: str = "") -> dict[str, nn.Parameter]:
    """The base's LoRA weights by name, of one adapter or of all."""
    return {n: p for n, p in base.named_parameters() if ".lora_" in n and (not adapter or f".{adapter}." in n)}


class Adapter(Trained):
    """A LoRA on a shared frozen base; its weights are fp32, the base stays in the dtype it has."""

    def __init__(self, base: Any, name: str, rank: int):
        from peft import LoraConfig

        layers = [
            n  # linear, or made so by the other adapter before
            for n, m in base.named_modules()
            if n.endswith(LAYERS) and isinstance(getattr(m, "base_layer", m), nn.Linear)
        ]
        base.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=layers), adapter_name=name)
        setattr(base, IN_USE, None)  # adding one chooses it, in a way of its own
        weights = lora_weights(base, name)
        for weight in weights.values():
            weight.data = weight.data.float()
        self.name, self.copied = name, False
        self.master = nn.ParameterDict({n.replace(f".{name}.", ".").replace(".", "/"): w for n, w in weights.items()})
        self.network = Role(base, name)

    def exported(self) -> dict[str, torch.Tensor]:
        """The weights in fp16 by PEFT's names, as pipelines save and load them."""
        weights = lora_weights(self.network.base, self.name).items()
        return {n.replace(f".{self.name}.", "."): w.detach().to("cpu", torch.float16).contiguous() for n, w in weights}
