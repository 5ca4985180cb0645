"""CUDA graphs of network calls: on a GPU, launching a small network's kernels takes longer than running them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

SMALL = 10**8
"""Weights up to which a network's calls are recorded: a larger one computes longer than it launches, and a recorded
call keeps the memory of all that it computes on the way."""


class Replayed(nn.Module):
    """A network whose calls without gradient are recorded once for each shape and replayed; all others are plain.

    The weights may change between calls, in place. Elsewhere than on a CUDA device every call is plain, and so are a
    large network's.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.small = sum(p.numel() for p in network.parameters()) <= SMALL
        self.recorded: dict[Any, tuple[torch.cuda.CUDAGraph, list[Tensor], Any]] = {}

    def forward(self, *arguments: Any, **named: Any) -> Any:
        flat, shape = tree_flatten((arguments, named))
        given = [value for value in flat if isinstance(value, Tensor)]
        if torch.is_grad_enabled() or not self.small or not all(tensor.is_cuda for tensor in given):
            return self.network(*arguments, **named)
        kinds = [(v.shape, v.dtype) if isinstance(v, Tensor) else v for v in flat]
        key = str((shape, kinds))
        if key not in self.recorded:
            self.recorded[key] = self.record(flat, shape)
        graph, inputs, output = self.recorded[key]
        for mine, theirs in zip(inputs, given, strict=True):
            mine.copy_(theirs)
        graph.replay()
        return tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, output)

    def record(self, flat: list[Any], shape: Any) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Any]:
        """The graph of a call, the tensors it reads and what it writes."""
        own = [value.clone() if isinstance(value, Tensor) else value for value in flat]
        arguments, named = tree_unflatten(own, shape)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries choose their kernels before anything is recorded
            for _ in range(3):
                self.network(*arguments, **named)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = self.network(*arguments, **named)
        return graph, [value for value in own if isinstance(value, Tensor)], output
