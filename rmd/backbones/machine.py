"""What this machine has: the device to compute on, its name and its memory."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import torch

GB = 1e9


def best_device() -> torch.device:
    """CUDA, Apple's GPU or the CPU, in this order."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def default_dtype(device: torch.device) -> torch.dtype:
    """bf16 where the hardware computes in it, fp16 on Apple's GPUs, else fp32.

    A CPU without instructions of its own for bf16 imitates it: 10 to 70 times slower than fp32 (measured, AVX2).
    """
    if device.type == "cuda":
        return torch.bfloat16
    if device.type == "mps":
        return torch.float16
    own = any(there is True for name, there in torch.cpu.get_capabilities().items() if name.endswith("bf16"))
    return torch.bfloat16 if own else torch.float32


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
