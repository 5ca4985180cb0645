"""What is offered by name, and whether it can be used on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rmd.backbones.folders import BACKBONE_CARD, STUDENT_CARD, adapter_of, read_json
from rmd.config import NO_STUDENT, RequestError

CHECKPOINTS = Path(__file__).resolve().parents[2] / "checkpoints"


@dataclass(frozen=True)
class Entry:
    """A backbone offered by id, with its teacher's and its student's folder."""

    id: str
    name: str
    folder: Path
    student: Path


@dataclass(frozen=True)
class Status:
    """Whether an entry can be used here. `problem` is a sentence, empty when all is well."""

    entry: Entry
    usable: bool
    problem: str
    distilled: bool
    size_mb: float


ENTRIES = (
    Entry(
        "emoji-sdxl", "Emoji SDXL (bundled)", CHECKPOINTS / "emoji-sdxl", CHECKPOINTS / "emoji-sdxl-student"
    ),
)  # fmt: skip
DEFAULT = ENTRIES[0].id


def find(name: str) -> Entry:
    """The entry of an id, or one made up for a local diffusers folder; raises RequestError for neither."""
    for entry in ENTRIES:
        if entry.id == name:
            return entry
    folder = Path(name).expanduser()
    if not folder.is_dir():
        ids = ", ".join(entry.id for entry in ENTRIES)
        raise RequestError(f"backbone {name!r} is neither one of {ids} nor a folder on this machine.")
    return Entry(str(folder), folder.name, folder, folder / "student")


def status(entry: Entry) -> Status:
    """Look at the folders without loading anything."""
    size = sum(f.stat().st_size for d in (entry.folder, entry.student) for f in d.rglob("*") if f.is_file()) / 1e6
    distilled = (entry.student / STUDENT_CARD).is_file()
    try:
        adapter_of(entry.folder)
        if (entry.folder / BACKBONE_CARD).is_file():
            read_json(entry.folder / BACKBONE_CARD)
    except RequestError as error:
        return Status(entry, False, str(error), distilled, size)
    return Status(entry, True, "", distilled, size)


def student_folder(entry: Entry, student: str | None) -> Path | None:
    """Where the student's weights are: None asks for the entry's own (which may not exist), "none" for no student."""
    if student == NO_STUDENT:
        return None
    if student is not None:
        return Path(student).expanduser()
    return entry.student if (entry.student / STUDENT_CARD).is_file() else None
