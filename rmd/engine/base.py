"""What everything above computes with: one session on one accelerator, or a fleet of them."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from typing import Any, Protocol

from PIL import Image
from torch import Tensor

from rmd.engine.events import Event
from rmd.request import GenerateRequest

Frames = tuple[Image.Image, ...]


class Engine(Protocol):
    """Takes requests and gives their events; see `rmd.engine.session` and `rmd.engine.fleet`."""

    draws_ahead: bool
    """Whether idle moments cost nobody anything."""
    places: int
    """Requests that are computed at once."""

    @property
    def busy(self) -> bool:
        """Whether one more request would have to wait, or take from another's speed."""
        ...

    def generate(
        self, request: GenerateRequest, cancel: threading.Event | None = None, runs: int = 1
    ) -> Generator[Event]:
        """Yield a result's events until Done; setting `cancel` or closing the generator stops within a network call.

        Raises Cancelled, or RequestError for what only shows when it is run.
        """
        ...

    def sample(self, requests: Sequence[GenerateRequest], role: str) -> tuple[list[Frames], Tensor]:
        """Frames and clean latents (B, C, *S) of many requests in one call, not timed; see `rmd.engine.batch`."""
        ...

    def state(self) -> dict[str, Any]:
        """What /health tells of it; takes no lock and loads nothing."""
        ...
