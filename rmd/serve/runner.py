"""What the page and the API share: checked requests, cancelling, deadlines and files."""

from __future__ import annotations

import re
import shutil
import threading
import time
import uuid
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from rmd.checks import Cancelled, RequestError
from rmd.engine.base import Engine
from rmd.engine.events import Decoded, Event
from rmd.engine.files import read_settings, save_output
from rmd.engine.film import Film
from rmd.engine.plans import plan_for
from rmd.engine.results import Done, Result
from rmd.engine.session import RUNS
from rmd.engine.teacher_cache import TeacherCache
from rmd.method.plan import CascadePlan
from rmd.request import GenerateRequest, completed, singles, student_key, teacher_key
from rmd.serve import sentences
from rmd.serve.offer import Offer

DEADLINE = 600.0
"""Seconds a request may take once it has begun."""
KEEP = 6 * 3600.0
"""Seconds for which pictures stay on the server."""
KEEP_BYTES = 2_000_000_000
"""Space for pictures; beyond it the oldest go earlier."""
PLANS = "plans"
"""In a result's folder: the same with other steps and switches."""


@dataclass(frozen=True, eq=False)  # compared by identity: Gradio hashes what it keeps
class Saved:
    """A finished request: everything measured and the PNG or MP4 files by role.

    A student alone may stand beside the teacher of another request (see `with_teacher_of`): `teacher_earlier` says that
    the teacher's time is from there. Where only its picture is, the result has no teacher.
    """

    result: Result
    files: dict[str, Path]
    stored: bool = False
    """Whether it is one of the stored examples, measured on some other machine."""
    teacher_earlier: bool = False
    beside: bool = False
    """Whether it lies in another result's folder, whose steps and switch alone are other ones."""

    @property
    def id(self) -> str:
        """The name of its folder, by which `Runner.find` gives it back."""
        return self.files["student"].parent.name


class Turn:
    """Held by the run of a visitor, whose answers the page would mix up if two came at once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


class Runner:
    """Runs checked requests on the engine, those of one visitor one after another.

    folder: where pictures are written, one folder per request.
    """

    def __init__(
        self,
        session: Engine,
        offer: Offer,
        folder: Path,
        deadline: float = DEADLINE,
        cache: TeacherCache | None = None,
    ):
        self.session, self.offer, self.folder, self.deadline, self.cache = session, offer, folder, deadline, cache
        self._cancels: dict[str, threading.Event] = {}
        self._lock = threading.Lock()
        self._turns = WeakValueDictionary[str, Turn]()
        self._made: dict[GenerateRequest, Saved] = {}

    def request(self, values: dict[str, Any]) -> GenerateRequest:
        """A checked request from plain values; what is None takes the backbone's defaults."""
        name = values.get("backbone") or self.offer.default
        if name is None:
            raise RequestError(sentences.NO_MODEL)
        return self.offer.outline(name, values.get("student")).request({**values, "backbone": name})

    def plan(self, request: GenerateRequest) -> CascadePlan:
        """The plan of a checked request, made without loading the model."""
        outline = self.offer.outline(request.backbone, request.student)
        return plan_for(request, outline, outline.card)

    def run(
        self, request: GenerateRequest, visitor: str, until: float | None = None, cached: bool = True
    ) -> Generator[Event]:
        """The session's events of one result after another, until `stop(visitor)` or the deadline for all of them;
        raises Cancelled or RequestError.

        until: the deadline (time.monotonic) where this is a part of a longer request.
        cached: whether a teacher that was run before will do.
        """
        with self._lock:
            turn = self._turns.setdefault(visitor, Turn())
        with turn.lock:
            yield from self._in_turn(request, visitor, until, cached)

    def _in_turn(self, request: GenerateRequest, visitor: str, until: float | None, cached: bool) -> Generator[Event]:
        """`run`, while the visitor has nothing else running."""
        cancel = self._cancels[visitor] = threading.Event()
        late = threading.Event()

        def expire() -> None:
            late.set()
            cancel.set()

        left = self.deadline if until is None else max(0.0, until - time.monotonic())
        timer = threading.Timer(left, expire)
        timer.daemon = True
        timer.start()
        try:
            for single in singles(request):
                yield from self._events(single, cancel, cached)
        except Cancelled as error:
            if late.is_set():
                raise RequestError(sentences.TOO_LONG.format(seconds=round(self.deadline))) from error
            raise
        finally:
            timer.cancel()
            if self._cancels.get(visitor) is cancel:
                del self._cancels[visitor]

    def _events(self, request: GenerateRequest, cancel: threading.Event, cached: bool) -> Iterator[Event]:
        """The session's events, with the teacher's from the cache where there is one that was run before."""
        known = self.cache.get(request) if self.cache and request.teacher and cached else None
        runs = RUNS if request.teacher else 1
        for event in self.session.generate(replace(request, teacher=False) if known else request, cancel, runs):
            if isinstance(event, Done) and known:
                yield Decoded("teacher", known[0])
                event = replace(event, request=request, teacher=known[0], teacher_cached=known[1])
            elif isinstance(event, Done) and self.cache and event.teacher:
                self.cache.put(event)
            yield event

    def stop(self, visitor: str) -> bool:
        """Stop what a visitor has running; False when there is nothing."""
        cancel = self._cancels.get(visitor)
        if cancel is not None:
            cancel.set()
        return cancel is not None

    def save(self, done: Done, film: Film | None = None, beside: Path | None = None) -> Saved:
        """Write pictures as PNG, clips as MP4, with the settings inside, and the film; removes what has become old.

        beside: the folder of a result that this one is to stand beside.
        """
        self.prune()
        result, request = done.result, done.request
        folder = beside / PLANS if beside else self.folder / uuid.uuid4().hex
        words = re.sub(r"[^a-z0-9]+", "-", request.prompt.lower()).strip("-")[:40] or "picture"
        words = f"steps-{request.steps}-low-{request.switch}" if beside else words
        files = {}
        for role, output in done.outputs.items():
            stem = words if beside else f"{words}-{request.seed}-{role}"
            files[role] = save_output(output, folder, stem, {"role": role, **result.as_dict()})[0]
        if film:
            film.save(files["student"], teacher="teacher" in files)
        saved = self._made[student_key(request)] = Saved(result, files, beside=beside is not None)
        return saved

    def find(self, id: str) -> Saved | None:
        """What was saved under an id, if it is still there."""
        return stored(self.folder / id) if re.fullmatch(r"[0-9a-f]{32}", id) else None

    def made(self, request: GenerateRequest) -> Saved | None:
        """The last result saved here with such a student, if it is still there; alone where its teacher is another."""
        saved = self._made.get(student_key(request))
        if saved is None or not saved.files["student"].exists():
            return None
        if teacher_key(saved.result.request) == teacher_key(request):
            return saved
        result = replace(saved.result, request=replace(request, teacher=False), teacher=None)
        return replace(saved, result=result, files={"student": saved.files["student"]})

    def prune(self) -> None:
        """Remove what is older than KEEP, and the oldest while all together are larger than KEEP_BYTES."""
        made = tuple(self._made.items())  # at once: another thread may be saving
        self._made = {key: saved for key, saved in made if saved.files["student"].exists()}
        room, old = KEEP_BYTES, time.time() - KEEP
        for folder in sorted(self.folder.glob("*"), key=modified, reverse=True):
            room -= sum(size(file) for file in folder.rglob("*"))
            if modified(folder) < old or room < 0:
                shutil.rmtree(folder, ignore_errors=True)


def modified(path: Path) -> float:
    """When a file was last changed; 0 when another request removed it meanwhile."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def size(path: Path) -> int:
    """Bytes of a file; 0 when another request removed it meanwhile."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def stored(folder: Path) -> Saved | None:
    """A finished request from a folder that the app or `python -m rmd generate --out` wrote, or None."""
    found = {
        role: next((p for kind in ("png", "mp4") for p in sorted(folder.glob(f"*{role}.{kind}"))), None)
        for role in ("student", "teacher")
    }
    files = {role: path for role, path in found.items() if path is not None}
    try:
        return Saved(Result.from_dict(settings_in(files["student"])), files)
    except (LookupError, RequestError):
        return None


def settings_in(path: Path) -> dict[str, Any]:
    """What `save_output` put into a file; raises RequestError when there is nothing of the kind."""
    try:
        info = read_settings(path)
    except RequestError as error:
        raise RequestError(sentences.NO_SETTINGS) from error
    if not isinstance(info.get("request"), dict):
        raise RequestError(sentences.NO_SETTINGS)
    return {**info, "request": completed(info["request"])}


def file_of(path: Path) -> dict[str, Any]:
    """A file as Gradio serves it, settings inside the PNG untouched."""
    return {"path": str(path), "orig_name": path.name, "meta": {"_type": "gradio.FileData"}}
