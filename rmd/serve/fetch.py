"""Downloads that a page starts: one at a time, in a thread of its own, so that who watches may leave and come back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rmd.backbones import catalog
from rmd.backbones.hub import OnBytes
from rmd.checks import Cancelled, RequestError

INTERVAL = 0.5
"""Seconds between two looks at what has arrived."""


class Fetch:
    """The download that runs in this process, if any. load: `catalog.download`, but for tests."""

    def __init__(self, load: Callable[[str, OnBytes], Path] = catalog.download):
        self._load, self._lock = load, threading.Lock()
        self._thread: threading.Thread | None = None
        self._cancel = threading.Event()
        self._error: Exception | None = None
        self.id = ""
        """What is fetched, or was last."""
        self.arrived, self.total = 0, 0
        """Bytes."""

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def watch(self, id: str) -> Iterator[tuple[int, int]]:
        """Fetch it, or watch it where it is on its way: (bytes here, bytes in all) now and then until it is there.

        Raises RequestError in a sentence for what cannot be fetched or while another one is, Cancelled after `stop`.
        """
        with self._lock:
            if self.running and id != self.id:
                raise RequestError(f"{self.id} is being downloaded; wait for it, or stop it first.")
            if not self.running:
                self.id, self.arrived, self.total, self._error = id, 0, 0, None
                self._cancel.clear()
                self._thread = threading.Thread(target=self._run, daemon=True, name=f"download of {id}")
                self._thread.start()
        while self.running:
            yield self.arrived, self.total
            time.sleep(INTERVAL)
        if self._error:
            raise self._error

    def stop(self) -> None:
        """Give up; what has arrived is kept, and the next try goes on from there."""
        self._cancel.set()

    def _run(self) -> None:
        def note(arrived: int, total: int) -> None:
            if self._cancel.is_set():
                raise Cancelled
            self.arrived, self.total = arrived, total

        try:
            self._load(self.id, note)
        except Exception as error:  # it is raised where somebody watches
            self._error = error
