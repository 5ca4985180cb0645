"""The film of a run: the clean estimate after every step, small, with the noise it was made at.

One file beside a result's picture or clip, so that a page can show how it came about long after it was made.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from rmd.disk import write_text
from rmd.engine.events import Event, Progress

ENDING = ".film.json"
KEPT = 16
"""Estimates of a teacher that are kept, evenly by logSNR."""
LIMIT = 4_000_000
"""Bytes of a film that are read at most; ours hold some tens of kilobytes."""
PICTURE = "data:image/webp;base64,"


class Film:
    """Collects a run's estimates from its events."""

    def __init__(self) -> None:
        self.frames: dict[str, list[dict[str, Any]]] = {"student": [], "teacher": []}

    def take(self, event: Event) -> None:
        if isinstance(event, Progress) and event.preview is not None:
            about = {"size": list(event.size), "logsnr": round(event.logsnr, 3)}
            self.frames[event.role].append({**about, "src": small(event.preview)})

    def save(self, picture: Path, teacher: bool = True) -> None:
        """Write it beside a result's file, if there is anything in it. RequestError when that cannot be written.

        teacher: whether the result has one; of a run that was stopped the first estimates would stand for all.
        """
        if any(self.frames.values()):
            frames = {**self.frames, "teacher": thinned(self.frames["teacher"]) if teacher else []}
            text = json.dumps(frames, separators=(",", ":")) + "\n"
            write_text(film_path(picture), text)


def film_path(picture: Path) -> Path:
    return picture.with_suffix(ENDING)


def read_film(picture: Path) -> dict[str, list[dict[str, Any]]]:
    """The film of a result's file, what is no film of ours left out; without frames where there is none."""
    film: dict[str, list[dict[str, Any]]] = {"student": [], "teacher": []}
    path = film_path(picture)
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8")) if path.stat().st_size <= LIMIT else {}
        for role in film:
            film[role] = [checked(one) for one in data[role]]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return {"student": [], "teacher": []}
    return film


def checked(frame: dict[str, Any]) -> dict[str, Any]:
    """A frame with nothing in it but numbers and a picture; raises ValueError or TypeError."""
    if not str(frame["src"]).startswith(PICTURE):
        raise ValueError("a frame is a small picture")
    return {"size": [int(n) for n in frame["size"]], "logsnr": float(frame["logsnr"]), "src": str(frame["src"])}


def thinned(frames: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most KEPT frames, the first and the last among them, as evenly spread over logSNR as there are."""
    if len(frames) <= KEPT:
        return list(frames)
    first, last = frames[0]["logsnr"], frames[-1]["logsnr"]
    wanted = [first + (last - first) * i / (KEPT - 1) for i in range(KEPT)]
    numbers = sorted({nearest(frames, level) for level in wanted} | {0, len(frames) - 1})
    return [frames[i] for i in numbers]


def nearest(frames: Sequence[dict[str, Any]], logsnr: float) -> int:
    """The number of the frame made at the nearest noise."""
    return min(range(len(frames)), key=lambda i: abs(frames[i]["logsnr"] - logsnr))


def small(picture: Image.Image) -> str:
    """A picture as an address that holds it."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, format="webp", quality=90)
    return PICTURE + base64.b64encode(buffer.getvalue()).decode()
