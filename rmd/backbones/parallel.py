"""One result on several GPUs: its sequence is split among processes, for clips whose activations one cannot hold.

Context parallelism of diffusers, Ulysses (arXiv 2309.14509): every process has all weights and a part of the tokens;
for attention alone they exchange, so that each has all tokens of some heads. Networks say by a plan of their own how
they are split; those without one, SDXL's UNet for instance, cannot be. `torchrun` starts the processes, which all do
the same; the first one writes.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from diffusers import ContextParallelConfig
from torch import distributed

from rmd.checks import RequestError

T = TypeVar("T")
LIMIT = 64
NOT_STARTED = (
    "--context-parallel {count} needs {count} processes: torchrun --nproc-per-node {count} -m rmd generate … "
    "--context-parallel {count}"
)
NO_PLAN = "--context-parallel: {kind} cannot be split among processes; those of Wan and FLUX.2 can."


@contextmanager
def joined(count: int) -> Generator[bool]:
    """`count` processes together until the block ends; whether this is the one that writes.

    Raises RequestError where there are not as many.
    """
    if not 1 <= count <= LIMIT:
        raise RequestError(f"--context-parallel must be 1 to {LIMIT}, not {count}.")
    if count == 1:
        yield True
        return
    if int(os.environ.get("WORLD_SIZE", "1")) != count:
        raise RequestError(NOT_STARTED.format(count=count))
    if torch.cuda.is_available():
        own, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if own >= there:
            raise RequestError(f"--context-parallel {count} needs a GPU for each process, but there are {there} here.")
        torch.cuda.set_device(own)
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield distributed.get_rank() == 0
    finally:
        distributed.destroy_process_group()


def agreed(value: T) -> T:
    """The first process's value, in all."""
    if not distributed.is_initialized():
        return value
    both: list[Any] = [value]
    distributed.broadcast_object_list(both)
    return both[0]


def split(network: Any, count: int) -> None:
    """Let a network compute its share of every call; RequestError for one that cannot.

    `count` need not divide the sequence or the heads on GPUs ("Ulysses anything"); on CPUs it has to, for gloo gathers
    no unequal parts.
    """
    if getattr(network, "_cp_plan", None) is None:
        raise RequestError(NO_PLAN.format(kind=type(network).__name__))
    if not torch.accelerator.is_available():  # diffusers numbers the accelerators; a CPU counts as one here
        torch.accelerator.device_count = lambda: 1
    network.enable_parallelism(config=ContextParallelConfig(ulysses_degree=count, ulysses_anything=True))
