"""What this machine has: the device to compute on and its memory."""

from __future__ import annotations

import os
import sys

import torch

GB = 1e9


def best_device() -> torch.device:
    """CUDA, Apple's GPU or the CPU, in this order."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def memory_gb(device: torch.device) -> float:
    """All of a device's memory in GB (10⁹ bytes); a Mac's GPU shares the machine's."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / GB
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB


def free_gb(device: torch.device) -> float:
    """What is free of it now; memory that torch holds for reuse counts as free."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return (torch.cuda.mem_get_info(device)[0] + kept) / GB
    try:
        with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123  # a kernel's list, not a file
            values = dict(line.split(":", 1) for line in file)
        return int(values["MemAvailable"].split()[0]) * 1024 / GB
    except (OSError, KeyError):  # not Linux
        return memory_gb(device)


def peak_gb(device: torch.device) -> float:
    """The most memory in use so far: of tensors on a CUDA device, elsewhere of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GB
    import resource  # there is none on Windows

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == "darwin" else 1024) / GB
