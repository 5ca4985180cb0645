"""Which backbones a server offers: by id, never by a path of the machine it runs on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rmd.backbones import catalog
from rmd.backbones.catalog import Entry
from rmd.backbones.outline import Outline, read_outline
from rmd.checks import RequestError


class Offer:
    """The backbones of this app by id, local folders first. Only these can be asked for."""

    def __init__(self, folders: Sequence[Path] = ()):
        self.entries: dict[str, Entry] = {}
        for folder in folders:
            entry = catalog.register(folder, self.entries)
            self.entries[entry.id] = entry
        self.entries |= {entry.id: entry for entry in catalog.ENTRIES}
        self._outlines: dict[str, Outline] = {}

    def outline(self, name: Any) -> Outline:
        """What a backbone's cards say; raises RequestError for one that is not offered or cannot be used."""
        if not isinstance(name, str) or name not in self.entries:
            raise RequestError(f"backbone must be one of {', '.join(self.entries)}.")
        if name not in self._outlines:
            self._outlines[name] = read_outline(self.entries[name])
        return self._outlines[name]

    @property
    def usable(self) -> list[str]:
        return [name for name in self.entries if self._works(name)]

    def _works(self, name: str) -> bool:
        try:
            self.outline(name)
        except RequestError:
            return False
        return catalog.status(self.entries[name]).usable

    @property
    def default(self) -> str | None:
        """The first that can be used here, local folders first; None when none can."""
        return next(iter(self.usable), None)

    def id_of(self, stored: str) -> str | None:
        """The id of a backbone as a file names it: the command line writes a local folder's path into its files."""
        return next((name for name, entry in self.entries.items() if stored in (name, str(entry.folder))), None)
