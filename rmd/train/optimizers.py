"""AdamW for all weights, or Muon for the matrices inside the blocks and AdamW for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


def adamw(groups: list[dict[str, Any]], rate: float) -> torch.optim.AdamW:
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.99), weight_decay=1e-3, fused=True)


def optimizer_of(kind: str, network: nn.Module, others: Sequence[nn.Parameter], share: float, rate: float) -> Any:
    """Of a network and of other weights, whose rate is a share of it.

    kind: "adamw" or "muon" (arXiv 2502.16982, in steps of AdamW's size, so that one rate does for both).
    """
    more: list[dict[str, Any]] = [{"params": list(others), "share": share}] if others else []
    if kind == "adamw":
        return adamw([{"params": list(network.parameters())}, *more], rate)
    matrices = {name: p for name, p in network.named_parameters() if p.ndim == 2 and in_block(name)}
    rest = [p for name, p in network.named_parameters() if name not in matrices]
    muon = torch.optim.Muon(list(matrices.values()), lr=rate, weight_decay=1e-2, adjust_lr_fn="match_rms_adamw")
    return Both(muon, adamw([{"params": rest}, *more], rate))


def in_block(name: str) -> bool:
    """Whether a weight is of one of the numbered blocks that a network is made of."""
    return any(part.isdigit() for part in name.split(".")) and "embed" not in name


class Both:
    """Two optimisers as one."""

    def __init__(self, *parts: torch.optim.Optimizer):
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.param_groups]

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {str(number): part.state_dict() for number, part in enumerate(self.parts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for number, part in enumerate(self.parts):
            part.load_state_dict(state[str(number)])
