"""Networks of which every process holds a share: torch's FSDP2, and its tensors written and read as whole ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict as whole_states
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

WHOLE = whole_states.StateDictOptions(full_state_dict=True, cpu_offload=True)


def mesh_of(device: torch.device, count: int) -> DeviceMesh:
    """All processes in a row, each with its device."""
    return init_device_mesh(device.type, (count,))


def share_out(network: Any, mesh: DeviceMesh, dtype: torch.dtype) -> None:
    """Split a network's weights among the processes, block by block, so that one block at a time is whole somewhere.

    network: anywhere; each share moves to its process's device. dtype: computes in it; gradients are summed in fp32.
    """
    network.to(memory_format=torch.contiguous_format)  # the only one that can be split
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    for child in network.children():
        for block in child if isinstance(child, nn.ModuleList) else ():
            fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(network, mesh=mesh, mp_policy=policy)


def local(x: Tensor) -> Tensor:
    """What this process holds of a tensor, in the same memory."""
    return x.to_local() if isinstance(x, DTensor) else x


def whole_like(share: Tensor, of: Tensor) -> Tensor:
    """A whole tensor of the processes' shares, divided as those of `of` are; all processes have to ask."""
    if not isinstance(of, DTensor):
        return share
    there = DTensor.from_local(share, of.device_mesh, of.placements, shape=of.shape, stride=of.stride())
    return there.full_tensor().cpu()


def share_like(whole: Tensor, of: Tensor) -> Tensor:
    """This process's share of a whole tensor."""
    if not isinstance(of, DTensor):
        return whole
    return distribute_tensor(whole.to(of.device_mesh.device_type), of.device_mesh, of.placements).to_local()


class WholeWeights:
    """A shared network's weights as whole tensors; all processes have to ask."""

    def __init__(self, network: nn.Module):
        self.network = network

    def state_dict(self) -> dict[str, Any]:
        return whole_states.get_model_state_dict(self.network, options=WHOLE)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        whole_states.set_model_state_dict(self.network, state, options=WHOLE)


class WholeMoments:
    """The same of its optimiser, by the weights' names."""

    def __init__(self, network: nn.Module, optimizer: torch.optim.Optimizer):
        self.network, self.optimizer = network, optimizer

    def state_dict(self) -> dict[str, Any]:
        return whole_states.get_optimizer_state_dict(self.network, self.optimizer, options=WHOLE)  # type: ignore[return-value]

    def load_state_dict(self, state: dict[str, Any]) -> None:
        whole_states.set_optimizer_state_dict(self.network, self.optimizer, state, options=WHOLE)


def unshared(network: Any, kind: Any) -> Any:
    """A copy of a shared network, a `kind`, on the CPU, in the first process alone; all have to ask."""
    state = WholeWeights(network).state_dict()
    if not state:
        return None
    with torch.device("meta"):
        made = kind.from_config(network.config)
    made.load_state_dict(state, assign=True)
    return made
