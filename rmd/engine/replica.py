"""What runs in each process of a fleet: one session and one accelerator; see `rmd.engine.fleet`."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from ray import serve
from torch import Tensor

from rmd.backbones import catalog
from rmd.backbones.entries import Entry
from rmd.backbones.naming import publish
from rmd.backbones.placement import Tuning
from rmd.checks import Cancelled, RequestError
from rmd.engine.base import Frames
from rmd.engine.events import Event
from rmd.engine.pool import ModelPool
from rmd.engine.session import Session
from rmd.request import GenerateRequest

LOST = (torch.AcceleratorError, MemoryError)
"""After these a process is not trusted with another request. A full accelerator is answered by the session itself."""


@dataclass(frozen=True)
class Setup:
    """What every replica has to know of the process that asks. entries, students: what has an id there by its folder,
    which must be at the same place on the replica's machine."""

    previews: bool = True
    tuning: Tuning = field(default_factory=Tuning)
    entries: dict[str, Entry] = field(default_factory=dict[str, Entry])
    students: dict[str, Path] = field(default_factory=dict[str, Path])


class Replica:
    """Streams a session's events. What a request may be refused with is part of the stream, for an exception that is
    raised here would reach the asker as text."""

    def __init__(self, setup: Setup):
        catalog.REGISTERED.update(setup.entries)
        catalog.REGISTERED_STUDENTS.update(setup.students)
        for entry in setup.entries.values():
            catalog.give_names(entry)
        for name, path in setup.students.items():
            publish(path, name)
        self.session = Session(ModelPool(tuning=setup.tuning), setup.previews)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="events")
        self._lost: Exception | None = None

    def check_health(self) -> None:
        """Called by Serve every few seconds; a replica whose accelerator failed is replaced."""
        if self._lost is not None:
            raise self._lost

    @serve.multiplexed(max_num_models_per_replica=1)
    async def resident(self, model: str) -> str:
        """Tells Serve which model this replica has had last, so that the next request for it comes here. The model
        itself is loaded by the session, which says how far it is."""
        return model

    async def _chosen(self) -> None:
        resident: Any = self.resident  # typed by Serve as what it decorates
        await resident(serve.get_multiplexed_model_id())

    async def generate(self, request: GenerateRequest, runs: int) -> AsyncIterator[Event | Exception]:
        """The events; ends within one network call after the asker has cancelled."""
        await self._chosen()
        cancel, loop = threading.Event(), asyncio.get_running_loop()
        events: Any = self.session.generate(request, cancel, runs)
        try:
            while (event := await loop.run_in_executor(self._thread, next, events, None)) is not None:
                yield event
        except (Cancelled, RequestError) as error:
            yield error
        except LOST as error:
            self._lost = error
            raise
        finally:
            cancel.set()  # seen by the call that may still run in the thread; closed there after it
            self._thread.submit(events.close)

    async def sample(self, requests: Sequence[GenerateRequest], role: str) -> tuple[list[Frames], Tensor]:
        """Many results in one call."""
        await self._chosen()
        loop = asyncio.get_running_loop()
        frames, x0 = await loop.run_in_executor(self._thread, self.session.sample, requests, role)
        return frames, x0.cpu()
