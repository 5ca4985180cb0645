"""What computes here, in words: stands beside every stored time."""

from __future__ import annotations

import platform
from pathlib import Path

import torch


def describe(device: str) -> str:
    """A device such as "cuda:0" or "cpu" by its product's name, a CPU with the number of threads in use."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(torch.device(device))
    if device != "cpu":
        return f"{device}, {platform.machine()}"
    threads = torch.get_num_threads()
    return f"{threads} CPU thread{'' if threads == 1 else 's'}, {processor()}"


def processor(listing: Path = Path("/proc/cpuinfo")) -> str:
    """The CPU's product name where the system tells it, else its architecture."""
    try:
        lines = listing.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    known = next((name for name in names if name and name != "unknown"), "")
    return known or platform.machine()
