"""Muon for the matrices of every family's blocks, AdamW for the rest, as one optimiser."""

from __future__ import annotations

from pathlib import Path

import torch

from rmd.backbones.loading import open_backbone
from rmd.train.loop import set_rate
from rmd.train.optimizers import optimizer_of


def test_muon_takes_the_blocks_matrices_and_one_rate_is_for_all(tiny: Path) -> None:
    network = open_backbone(tiny, "tiny", torch.device("cpu"), torch.float32).network
    other = torch.nn.Parameter(torch.ones(3))
    both = optimizer_of("muon", network, [other], 0.5, 1e-3)
    muon, adam = both.parts
    names = {id(p): name for name, p in network.named_parameters()}
    matrices = [p for group in muon.param_groups for p in group["params"]]
    assert matrices
    assert all(p.ndim == 2 and "embed" not in names[id(p)] for p in matrices)
    rest = {id(p) for group in adam.param_groups for p in group["params"]}
    assert rest | {id(p) for p in matrices} == {*names, id(other)}
    assert not rest & {id(p) for p in matrices}
    set_rate(both, 2e-3)
    rates = {id(p): group["lr"] for group in both.param_groups for p in group["params"]}
    assert rates.pop(id(other)) == 1e-3
    assert set(rates.values()) == {2e-3}
