"""Several processes that train one student: each a share of every batch, gradients averaged, through accelerate.

`accelerate launch --num_processes N -m rmd train distill …` starts them on N GPUs, `torchrun` on CPUs
too (gloo); one process alone does without. All draws are made for the whole batch from the step's seed and each
process takes its rows, so that one process with a batch of N·B and N processes with B each train on the same samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from torch import Tensor, nn

from rmd.checks import RequestError
from rmd.method.transition import Share

Row = TypeVar("Row")


TRACKERS = ("tensorboard", "wandb", "trackio", "mlflow", "swanlab")
"""Programs that show a run's figures, by the names of their packages; accelerate speaks to them."""


class Together:
    """This process among the others.

    tracker: where figures go as well, one of TRACKERS. folder: where trackers that write files put them. RequestError
    for one that is not installed.
    """

    def __init__(self, device: torch.device, tracker: str | None = None, folder: Path | None = None):
        if tracker is not None and tracker not in map(str, get_available_trackers()):
            raise RequestError(f"tracker: {tracker} is not installed here; `pip install {tracker}`, or leave it out.")
        self.accelerator = Accelerator(cpu=device.type == "cpu", log_with=tracker, project_dir=folder)
        self.tracked = tracker is not None
        self.index, self.count = self.accelerator.process_index, self.accelerator.num_processes

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.accelerator.is_main_process

    def share(self, g: torch.Generator) -> torch.Generator | Share:
        """This process's part of what `g` draws."""
        return g if self.count == 1 else Share(g, self.index, self.count)

    def rows(self, whole: Sequence[Row]) -> Sequence[Row]:
        """This process's part of a batch that was drawn for all, a list or a tensor along its first dimension."""
        part = len(whole) // self.count
        return whole[self.index * part : (self.index + 1) * part]

    def average_gradients(self, weights: Iterable[nn.Parameter]) -> None:
        """The mean of all processes' gradients, in every one of them."""
        if self.count == 1:
            return
        grads = [w.grad for w in weights if w.grad is not None]
        flat = torch.cat([g.flatten() for g in grads])
        mean: Any = self.accelerator.reduce(flat, reduction="mean")
        for grad, part in zip(grads, mean.split([g.numel() for g in grads]), strict=True):
            grad.copy_(part.view_as(grad))

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a number over all processes."""
        if self.count == 1:
            return value
        return self.accelerator.reduce(value.float(), reduction="mean")  # type: ignore[return-value]

    def first_ones(self, values: Sequence[float]) -> list[float]:
        """The first process's numbers, in every one."""
        if self.count == 1:
            return list(values)
        from accelerate.utils import broadcast

        told: Any = broadcast(torch.tensor(values, dtype=torch.float64, device=self.device), from_process=0)
        return told.tolist()

    def any(self, value: bool) -> bool:
        """Whether any process says yes."""
        return bool(self.mean(torch.tensor(float(value), device=self.device)) > 0)

    def begin_tracking(self, settings: Mapping[str, Any]) -> None:
        """Tell the tracker, where there is one, what the run is."""
        if self.tracked:
            self.accelerator.init_trackers("rmd", {k: "" if v is None else v for k, v in settings.items()})

    def track(self, figures: Mapping[str, float], step: int) -> None:
        if self.tracked:
            self.accelerator.log(dict(figures), step)

    def end_tracking(self) -> None:
        if self.tracked:
            self.accelerator.end_training()

    def wait(self) -> None:
        """Until all processes are here."""
        self.accelerator.wait_for_everyone()
