"""An optimiser for networks of matrices and convolutions: torch's Muon for these, AdamW for everything else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

ENDS = ("conv_in", "conv_out", "time_embedding", "add_embedding")
"""Where names begin that stay with AdamW: of the first and last layers and the embeddings of times and sizes."""


def rows(x: Tensor) -> Tensor:
    """A weight (out, …) as a matrix; a convolution in channels_last as a view of its own memory."""
    return x.permute(0, 2, 3, 1).flatten(1) if x.ndim == 4 else x


class Matrices:
    """Muon (arXiv 2502.16982, in steps of AdamW's size) for a network's inner matrices; convolutions count as matrices
    of out × the rest.

    network: with convolutions in channels_last. more: parameters that train along, with AdamW, at `share` of the rate.
    Raises ValueError for a convolution in another format, whose matrix would be a copy.
    """

    def __init__(self, network: nn.Module, more: Iterable[nn.Parameter], share: float, decay: float = 1e-3):
        inner = [p for n, p in network.named_parameters() if p.ndim in (2, 4) and not n.startswith(ENDS)]
        known = {id(p) for p in inner}
        rest = [p for p in network.parameters() if id(p) not in known]
        self.pairs = [(p, nn.Parameter(rows(p.data))) for p in inner]
        if any(p.data_ptr() != flat.data_ptr() for p, flat in self.pairs):
            raise ValueError("convolutions must be in channels_last")
        self.muon = torch.optim.Muon(
            [flat for _, flat in self.pairs], weight_decay=decay, adjust_lr_fn="match_rms_adamw"
        )
        groups: list[dict[str, Any]] = [{"params": rest}, {"params": list(more), "share": share}]
        self.adam = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=decay, fused=True)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [*self.muon.param_groups, *self.adam.param_groups]

    def step(self) -> None:
        for parameter, flat in self.pairs:
            flat.grad = None if parameter.grad is None else rows(parameter.grad)
        self.muon.step()
        self.adam.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter, flat in self.pairs:
            parameter.grad = flat.grad = None
        self.adam.zero_grad(set_to_none=set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"muon": self.muon.state_dict(), "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])
