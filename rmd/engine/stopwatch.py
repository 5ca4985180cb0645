"""Wall time, and beside it how long the process had to wait for a processor: what tells a busy machine.

On Linux the kernel counts the time that each thread was ready to run and did not (`/proc/self/task/*/schedstat`, the
second figure). Measured with one full-size call of the bundled network on two threads: 0 to 2% of the wall time on an
idle machine, 32 to 53% beside one or two busy processes. Elsewhere the computing thread's own CPU time stands in: 87
to 95% of the wall time when idle, 50 to 77% beside others.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch

TASKS = Path("/proc/self/task")
READY_SHARE = 0.1
"""Of the wall time spent waiting for a processor, from which on a time is not to be trusted."""
OFF_SHARE = 0.2
"""The same where only the computing thread's CPU time is known, which waits for other threads' shares as well."""


class Stopwatch:
    """Adds up what lies between `start` and `stop`, which one and the same thread calls.

    device: it is waited for at both, so that what it was given is in the time. On a GPU other processes on the
    machine's processors hardly count, and are not looked for.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds = 0.0
        self._waited = 0.0
        self._counted = device.type == "cpu" and ready_seconds() is not None
        self._begun = (0.0, 0.0)

    def start(self) -> None:
        self._begun = self._idle(), self.now()

    def stop(self) -> None:
        idle, begun = self._begun
        self.seconds += self.now() - begun
        self._waited += max(0.0, self._idle() - idle)

    def now(self) -> float:
        """Seconds, after the device has finished what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _idle(self) -> float:
        if self.device.type != "cpu":
            return 0.0
        return (ready_seconds() or 0.0) if self._counted else time.perf_counter() - time.thread_time()

    @property
    def waited(self) -> float:
        """The share of the time, 0 to 1, that other work on the machine took; on a scale on which READY_SHARE is
        the least that makes a time doubtful."""
        share = min(1.0, self._waited / self.seconds) if self.seconds else 0.0
        return share if self._counted else share * READY_SHARE / OFF_SHARE


def ready_seconds() -> float | None:
    """Seconds that this process's threads were ready to run and had no processor; None where that is not counted."""
    total = 0
    try:
        for task in TASKS.iterdir():
            try:
                total += int((task / "schedstat").read_text().split()[1])
            except (FileNotFoundError, ProcessLookupError):
                if not task.is_dir():  # the thread has just ended
                    continue
                raise
    except (OSError, ValueError, IndexError):
        return None
    return total / 1e9
