"""Which backbones a server offers: by id, never by a path of the machine it runs on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rmd.backbones import catalog
from rmd.backbones.catalog import Entry
from rmd.backbones.outline import Outline, read_outline
from rmd.backbones.students import student_card
from rmd.checks import RequestError, abbreviated
from rmd.request import NO_STUDENT

UNDISTILLED = "none: the teacher's own weights"


class Offer:
    """The backbones of this app by id, local folders first, and the students of each. Only these can be asked for.

    folders, students: backbones' folders and students' weights on this machine to offer too.
    """

    def __init__(self, folders: Sequence[Path] = (), students: Sequence[Path] = ()):
        self.entries: dict[str, Entry] = {}
        for folder in folders:
            entry = catalog.register(folder, self.entries)
            self.entries[entry.id] = entry
        self.entries |= {entry.id: entry for entry in catalog.ENTRIES}
        self._outlines: dict[tuple[str, str | None], Outline] = {}
        self.registered = [catalog.register_student(path) for path in students]

    def outline(self, name: Any, student: str | None = None) -> Outline:
        """What a backbone's cards and a student's say; raises RequestError for what is not offered or not usable.

        student: as in `GenerateRequest`, but one of those that `students` lists.
        """
        if not isinstance(name, str) or name not in self.entries:
            raise RequestError(f"backbone must be one of {', '.join(self.entries)}.")
        if student not in (None, NO_STUDENT):
            known = [one for one, _ in self.students(name) if one not in (None, NO_STUDENT)]
            if student not in known:
                named = ", ".join([*map(str, known), NO_STUDENT])
                raise RequestError(f"student must be one of {named}, or left out, not {abbreviated(student)}.")
        if (name, student) not in self._outlines:
            self._outlines[name, student] = read_outline(self.entries[name], student)
        return self._outlines[name, student]

    def students(self, name: str) -> list[tuple[str | None, str]]:
        """(id, words) of the students that a backbone can be run with here; None is its own, if it has one."""
        entry, own = self.entries[name], self.outline(name).card
        found: list[tuple[str | None, str]] = [(None, f"{own.name} (its own)" if own else UNDISTILLED)]
        found += [(one, one) for one in self.registered if self._fits(one, entry)]
        found += [(one.id, f"{one.card.name} (published)") for one in entry.students if one.path is not None]
        return [*found, (NO_STUDENT, UNDISTILLED)] if own else found

    def _fits(self, student: str, entry: Entry) -> bool:
        """Whether registered weights were made for a backbone, as far as their card says; others fit any."""
        try:
            card = student_card(catalog.REGISTERED_STUDENTS[student], self.outline(entry.id).spec)
        except RequestError:
            return False
        return card.base_model == self.outline(entry.id).spec.name

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

    def student_of(self, name: str, stored: str | None) -> str | None:
        """A stored request's student where it is offered here, else the backbone's own."""
        return stored if stored == NO_STUDENT or stored in [one for one, _ in self.students(name)] else None

    def id_of(self, stored: str) -> str | None:
        """The id of a backbone as a file names it: the command line writes a local folder's path into its files."""
        return next((name for name, entry in self.entries.items() if stored in (name, str(entry.folder))), None)
