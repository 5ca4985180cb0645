"""What is offered by name, and whether it can be used on this machine."""

from __future__ import annotations

import itertools
import json
from collections.abc import Container
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from rmd.backbones import hub, machine
from rmd.backbones.cards import CONVERT, StudentSpec
from rmd.backbones.entries import CHECKPOINTS, DECODER_FILES, Entry, downloaded, entry_from
from rmd.backbones.folders import BACKBONE_CARD, STUDENT_CARD, adapter_of, missing_file, read_json
from rmd.backbones.naming import named, publish
from rmd.checks import RequestError
from rmd.request import NO_STUDENT

ROWS = Path(__file__).with_name("catalog.json")
COMMAND = "python -m rmd models --download"


@dataclass(frozen=True)
class Status:
    """Whether an entry can be used here. `problem` says why not, empty when all is well; `note` what to expect."""

    entry: Entry
    usable: bool
    problem: str
    distilled: bool
    size_mb: float
    note: str = ""


def give_names(entry: Entry) -> None:
    """What lies in an entry's folders is called by its id in messages."""
    publish(entry.folder, entry.id)
    publish(entry.student, f"the student of {entry.id}")


ENTRIES = tuple(entry_from(row) for row in json.loads(ROWS.read_text(encoding="utf-8")))
for _entry in ENTRIES:
    give_names(_entry)
DEFAULT = ENTRIES[0].id


def with_folder(entry: Entry) -> Entry:
    """The entry with the folder in which its files really are, for one from the Hub that was downloaded."""
    folder = downloaded(entry.hub.repo, entry.id, entry.hub.revision) if entry.hub else None
    return replace(entry, folder=folder) if folder else entry


REGISTERED: dict[str, Entry] = {}
"""Local folders with a public id: what a server offers is asked for by id, never by a path."""


def register(folder: Path, taken: Container[str] = ()) -> Entry:
    """Give a local diffusers folder a public id: its name, numbered where the catalog or `taken` has that already.

    Raises RequestError when there is no such folder.
    """
    if not folder.is_dir():
        raise RequestError(f"--backbone {folder} is not a folder on this machine.")
    used = {entry.id for entry in ENTRIES}
    names = (folder.name if i == 1 else f"{folder.name}-{i}" for i in itertools.count(1))
    free = next(name for name in names if name not in used and name not in taken)
    REGISTERED[free] = entry = Entry(free, folder.name, folder, folder / "student")
    give_names(entry)
    return entry


REGISTERED_STUDENTS: dict[str, Path] = {}
"""Student weights on this machine with a public id, as `REGISTERED` has backbones."""


def register_student(path: Path) -> str:
    """Give student weights a public id, their name without its ending, and return it; RequestError: nothing there."""
    if not path.exists():
        raise RequestError(f"--student {path} is not on this machine.")
    taken = {NO_STUDENT, *REGISTERED_STUDENTS, *(one.id for entry in ENTRIES for one in entry.students)}
    names = (path.stem if i == 1 else f"{path.stem}-{i}" for i in itertools.count(1))
    free = next(name for name in names if name not in taken)
    REGISTERED_STUDENTS[free] = path
    publish(path, free)
    return free


def find(name: str) -> Entry:
    """The entry of an id, or one made up for a local diffusers folder; raises RequestError for neither."""
    for entry in (*ENTRIES, *REGISTERED.values()):
        if entry.id == name:
            return with_folder(entry)
    folder = Path(name).expanduser()
    if folder.is_file():
        raise RequestError(f"backbone {name!r} is a single file; {CONVERT}.")
    if not folder.is_dir():
        ids = ", ".join(entry.id for entry in ENTRIES)
        raise RequestError(f"backbone {name!r} is neither one of {ids} nor a folder on this machine.")
    return Entry(str(folder), folder.name, folder, folder / "student")


def check_there(entry: Entry) -> None:
    """Raise RequestError, with what to do, when an entry's files are not on this machine, or not all of them."""
    if entry.hub and hub.cached(entry.hub.repo, entry.hub.revision) is None:
        raise RequestError(
            f"{entry.name} is not on this machine; `{COMMAND} {entry.id}` downloads it "
            f"(about {entry.hub.download_gb:g} GB, licence {entry.licence})."
        )
    if not entry.hub and entry.folder.parent == CHECKPOINTS and not entry.folder.exists():
        place = f"{CHECKPOINTS.name}/{entry.folder.name}"
        raise RequestError(f"{entry.name} is not there: this copy comes without its weights in {place}.")
    adapter_of(entry.folder)
    missing = missing_file(entry.folder)
    if missing:
        again = f"; `{COMMAND} {entry.id}` goes on with the download" if entry.hub else ""
        raise RequestError(f"{named(entry.folder)} cannot be loaded: it is incomplete, {missing} is missing{again}.")


def status(entry: Entry, device: torch.device | None = None) -> Status:
    """Look at the folders and the machine without loading anything."""
    entry, device = with_folder(entry), device or machine.best_device()
    folders = (entry.folder, entry.student)
    size = sum(f.stat().st_size for d in folders for f in d.rglob("*") if f.is_file()) / 1e6
    distilled = (entry.student / STUDENT_CARD).is_file()
    problems, note = [], ""
    try:
        check_there(entry)
        if (entry.folder / BACKBONE_CARD).is_file():
            read_json(entry.folder / BACKBONE_CARD)
    except RequestError as error:
        problems.append(str(error))
    if entry.hub:
        has = machine.memory_gb(device)
        where = "this machine" if device.type == "cpu" else "its accelerator"
        if entry.hub.offloaded_gb > has:
            problems.append(f"It needs about {entry.hub.offloaded_gb:g} GB of memory; {where} has {has:.0f} GB.")
        elif device.type == "cpu":
            note = "There is no GPU here: a picture takes minutes to hours."
        elif entry.hub.memory_gb > has:
            note = "It runs with parts of it kept in the machine's own memory, more slowly."
    return Status(entry, not problems, " ".join(problems), distilled, size, note)


def student_folder(entry: Entry, student: str | None) -> Path | None:
    """Where the student's weights are: None asks for the entry's own (which may not exist), "none" for no student.

    Raises RequestError for a published student by its id that was not downloaded.
    """
    if student == NO_STUDENT:
        return None
    if student is not None:
        option = next((one for one in entry.students if one.id == student), None)
        if option is None:
            return REGISTERED_STUDENTS.get(student) or Path(student).expanduser()
        if option.path is None:
            raise RequestError(f"{option.card.name} is not on this machine; `{COMMAND} {option.id}` downloads it.")
        return option.path
    return entry.student if (entry.student / STUDENT_CARD).is_file() else None


def known_card(entry: Entry, student: str | None) -> StudentSpec | None:
    """The card of a published student by its id, else None."""
    return next((one.card for one in entry.students if one.id == student), None)


def decoder_folder(entry: Entry) -> Path:
    """Where a backbone's tiny decoder is; raises RequestError when it has none or it was not downloaded."""
    tiny = entry.decoder
    if tiny is None:
        raise RequestError(f"decoder must be full for {entry.name}: there is no tiny one.")
    if tiny.path is None:
        raise RequestError(f"{tiny.name} is not on this machine; `{COMMAND} {tiny.id}` downloads it.")
    return tiny.path


def not_here() -> dict[str, str]:
    """What `download` can fetch and is not, or not wholly, on this machine: what it is in words, by id."""
    found: dict[str, str] = {}
    for entry in map(with_folder, ENTRIES):
        if entry.hub is None:
            continue
        if hub.cached(entry.hub.repo, entry.hub.revision) is None or missing_file(entry.folder):
            found[entry.id] = f"{entry.name}, about {entry.hub.download_gb:g} GB, {entry.licence}"
        for option in entry.students:
            if option.path is None:
                found[option.id] = f"Student of {entry.name}: {option.card.name}, {option.card.licence}"
        if entry.decoder and entry.decoder.path is None:
            found.setdefault(entry.decoder.id, f"Tiny decoder {entry.decoder.name}, {entry.decoder.licence}")
    return found


def download(id: str, on_bytes: hub.OnBytes = lambda done, total: None) -> Path:
    """Fetch a backbone, a published student or a tiny decoder by its id; returns the folder. Raises RequestError."""
    for entry in ENTRIES:
        if entry.id == id:
            if entry.hub is None:
                raise RequestError(f"{entry.name} is not downloaded: it comes with this program.")
            return hub.download(entry.hub.repo, entry.hub.revision, [*entry.hub.allow], [*entry.hub.ignore], on_bytes)
        for option in entry.students:
            if option.id == id:
                return hub.download(option.repo, "main", [*option.patterns], [], on_bytes)
        if entry.decoder and entry.decoder.id == id:
            return hub.download(entry.decoder.repo, "main", [*DECODER_FILES], [], on_bytes)
    ids = [one.id for e in ENTRIES if e.hub for one in (e, *e.students, *([e.decoder] if e.decoder else ()))]
    raise RequestError(f"{id!r} cannot be downloaded; there are {', '.join(dict.fromkeys(ids))}.")
