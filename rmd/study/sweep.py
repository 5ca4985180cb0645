"""Sweeps: one prompt and seed over a grid of steps × switch × re-injection × η, with the time of every cell.

Knows no user interface; the page and a command line pass in how a request is run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops, ImageStat

from rmd.backbones import catalog
from rmd.checks import RequestError, size_text, stages_of
from rmd.engine.events import Event
from rmd.engine.files import first_frame, read_settings
from rmd.engine.film import Film
from rmd.engine.results import Done, Result
from rmd.engine.spread import spread
from rmd.method.plan import Reinjection
from rmd.request import GenerateRequest, student_key, teacher_key

Pair = tuple[int, int]
"""(steps, switch)."""


@dataclass(frozen=True)
class Point:
    """What one cell differs in from the others."""

    steps: int
    switch: int
    reinjection: Reinjection
    eta: float
    plan: str | None = None
    """A plan of several sizes, whose steps and switch are then above; None for the two usual sizes."""

    @property
    def row(self) -> Row:
        """Cells of one row differ in the switch alone."""
        return self.steps, self.plan, self.reinjection, self.eta

    @property
    def split(self) -> str:
        """How its steps are spent, in words."""
        return self.plan or f"{self.steps} steps, {self.switch} low"

    @property
    def name(self) -> str:
        """A file name without its ending."""
        split = f"plan-{re.sub('[:,]', '-', self.plan)}" if self.plan else f"steps-{self.steps}-low-{self.switch}"
        return f"{split}-{self.reinjection}-eta-{self.eta:g}"


Row = tuple[int, str | None, Reinjection, float]


@dataclass(frozen=True)
class Cell:
    """One finished cell: its result and picture, or the sentence that says why there is none.

    done: with all its frames, where it was made just now, and its film.
    """

    point: Point
    result: Result | None = None
    image: Image.Image | None = None
    error: str = ""
    done: Done | None = None
    film: Film = field(default_factory=Film)


@dataclass(frozen=True)
class Reference:
    """The teacher that all cells of a sweep are held against: the result it came with, and its picture."""

    result: Result
    image: Image.Image

    @property
    def seconds(self) -> float:
        """The teacher's time end to end."""
        assert self.result.teacher is not None
        return self.result.teacher.end_to_end

    def speedup(self, result: Result) -> float:
        """The teacher's time over a student's, end to end."""
        return self.seconds / result.student.end_to_end

    def difference(self, image: Image.Image) -> float | None:
        """How far a picture (a clip's first frame) is from the teacher's: the mean absolute difference, as a share of
        the range of values; None for a picture of another size."""
        if image.size != self.image.size:
            return None
        apart = ImageStat.Stat(ImageChops.difference(image.convert("RGB"), self.image.convert("RGB")))
        return sum(apart.mean) / len(apart.mean) / 255

    def fits(self, request: GenerateRequest) -> bool:
        """Whether it is the teacher of such a request."""
        return teacher_key(self.result.request) == teacher_key(request)


def reference_of(cell: Cell) -> Reference | None:
    """The teacher that a cell was made with, where it was."""
    done = cell.done
    return Reference(done.result, done.teacher.image) if done and done.teacher else None


def pairs(steps: Iterable[int]) -> list[Pair]:
    """Every switch that each number of steps allows, cheapest steps first."""
    return [(count, switch) for count in sorted(set(steps)) for switch in range(count + 1)]


def points(
    wanted: Iterable[Pair], reinjections: Sequence[Reinjection], etas: Sequence[float], plans: Sequence[str] = ()
) -> list[Point]:
    """The cells of a grid. What would only repeat another cell is left out: the re-injection where nothing is
    enlarged between two steps, and η where no noise is predicted again.

    plans: of several sizes, as the setting `plan` has them.
    """
    found: dict[tuple[Any, ...], Point] = {}
    stages: list[tuple[str | None, list[int]]] = [(None, [switch, steps - switch]) for steps, switch in wanted]
    stages += [(plan, [steps for _, steps in stages_of(plan)]) for plan in plans]
    for plan, counts in stages:
        between = sum(count > 0 for count in counts) > 1
        for kind in reinjections:
            for eta in etas:
                renoised = max(counts) > 1 or (between and kind != "fresh")
                key = plan, *counts, kind if between else None, eta if renoised else None
                found.setdefault(key, Point(sum(counts), sum(counts[:-1]), kind, eta, plan))
    return list(found.values())


def at(request: GenerateRequest, point: Point) -> GenerateRequest:
    """The request of one cell."""
    values = asdict(point)
    if point.plan:
        sizes = [size_text(size) for size, _ in stages_of(point.plan)]
        values |= {"size": sizes[-1], "low": sizes[0]}
    return replace(request, **values, teacher=False, count=1)


def sweep(
    run: Callable[[GenerateRequest], Iterator[Event]],
    request: GenerateRequest,
    wanted: Sequence[Point],
    teacher: bool = False,
    places: int = 1,
) -> Iterator[Cell]:
    """Yield a Cell per point. A cell that cannot be made does not stop the others; Cancelled passes through.

    places: how many are made at once; they come as they get ready.

    teacher: whether the first cell that can be made brings the teacher with it (see `reference_of`); where it cannot be
    run, the cells are made without.
    """
    left = list(wanted)
    while teacher and left:
        point = left.pop(0)
        cell = made(run, replace(at(request, point), teacher=True), point)
        teacher = bool(cell.error)
        if cell.error:
            cell = made(run, at(request, point), point)
            teacher = bool(cell.error)  # it was the teacher's fault where the cell alone could be made
        yield cell
    for _, cell in spread(lambda point: made(run, at(request, point), point), left, places):
        yield cell


def made(run: Callable[[GenerateRequest], Iterator[Event]], request: GenerateRequest, point: Point) -> Cell:
    """One cell, or why there is none."""
    film = Film()
    try:
        for event in run(request):
            film.take(event)
            if isinstance(event, Done):
                return Cell(point, event.result, event.student.image, done=event, film=film)
    except RequestError as error:
        return Cell(point, error=str(error))
    raise AssertionError("a run ends with its result")


def weights_time(request: GenerateRequest) -> float:
    """When the weights that make a request's pictures last changed, in seconds since 1970; 0 where none are files."""
    entry = catalog.find(request.backbone)
    folders = [entry.folder, catalog.student_folder(entry, request.student)]
    found = [one for one in folders if one is not None]  # a student may be a single file
    files = [file for one in found for file in ([one] if one.is_file() else one.rglob("*.safetensors"))]
    return max((file.stat().st_mtime for file in files), default=0.0)


def stored_cell(folder: Path, request: GenerateRequest, point: Point, since: float = 0.0) -> tuple[Cell, Path] | None:
    """A cell that an earlier sweep left in `folder` with the same settings, and its file; None when there is none.

    since: what was made before this time (`weights_time`) does not count.
    """
    for path in (folder / f"{point.name}.png", folder / f"{point.name}.mp4"):
        try:
            result = Result.from_dict(read_settings(path))
            same = student_key(result.request) == student_key(at(request, point))
            if same and path.stat().st_mtime >= since:
                return Cell(point, result, first_frame(path)), path
        except RequestError:
            continue
    return None


def stored_reference(folder: Path, request: GenerateRequest, since: float = 0.0) -> Reference | None:
    """The teacher that an earlier sweep of the same settings left in `folder`; since: see `stored_cell`."""
    for path in (folder / "teacher.png", folder / "teacher.mp4"):
        try:
            found = Reference(Result.from_dict(read_settings(path)), first_frame(path))
            if found.result.teacher and found.fits(request) and path.stat().st_mtime >= since:
                return found
        except RequestError:
            continue
    return None


def estimate(wanted: Sequence[Point], result: Result, area: float, teacher: GenerateRequest | None = None) -> float:
    """Seconds the points will take, from an earlier result.

    area: high over low area; where the earlier run had no step of one of the sizes, such a step is taken to cost in
    proportion. teacher: a request whose teacher is run as well.
    """
    timings = result.student
    per_step = {stage.size == result.plan.size: stage.seconds / stage.steps for stage in timings.stages}
    high = per_step[True] if True in per_step else per_step[False] * area
    low = per_step[False] if False in per_step else high / area
    fixed = timings.encode + timings.decode + timings.switch
    whole = sum(fixed + low_steps(point, area) * low + (point.steps - point.switch) * high for point in wanted)
    return whole + (fixed + teacher_calls(teacher) * high if teacher else 0)


def teacher_calls(request: GenerateRequest) -> int:
    """Network calls of a request's teacher."""
    return request.teacher_steps * (1 if request.guidance == 1 else 2)


def low_steps(point: Point, area: float) -> float:
    """Its steps below the full size, each as many steps at the usual low size as its own size is larger.

    area: as in `estimate`.
    """
    if point.plan is None:
        return point.switch
    *below, (full, _) = stages_of(point.plan)
    return sum(steps * area * math.prod(size) / math.prod(full) for size, steps in below)
