"""How a model's files are named in messages: by the public id of their folder where it has one, else by their place.

A server's visitors are told which model is meant, never where it lies on the server; who gave a folder on the command
line is told that folder.
"""

from __future__ import annotations

from pathlib import Path

_NAMES: dict[Path, str] = {}


def publish(folder: Path, name: str) -> None:
    """Call a folder, and what lies in it, by a name from now on."""
    _NAMES[folder.absolute()] = name


def named(path: Path) -> str:
    """ "id/file" for what lies in a folder with a name, else the path itself."""
    absolute = path.absolute()
    for folder in (absolute, *absolute.parents):
        if folder in _NAMES:
            return "/".join((_NAMES[folder], *absolute.relative_to(folder).parts))
    return str(path)


def by_name(sentence: str) -> str:
    """A library's sentence with the named folders' names in it instead of their paths."""
    for folder in sorted(_NAMES, key=lambda one: -len(one.parts)):
        sentence = sentence.replace(str(folder), _NAMES[folder])
    return sentence


def variant_of(part: Path) -> str | None:
    """ "fp16" where a network's folder holds its weights only under that variant's names."""
    files = [file.name for file in part.glob("*.safetensors")]
    return "fp16" if files and all(".fp16" in name for name in files) else None
