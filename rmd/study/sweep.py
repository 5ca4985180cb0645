"""Sweeps: one prompt and seed over a grid of steps × switch × re-injection × η, with the time of every cell.

Knows no user interface; the page and a command line pass in how a request is run.
"""

from __future__ import annotations

import csv
import io
import math
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from rmd.checks import RequestError, size_text, stages_of
from rmd.disk import write_whole
from rmd.engine.events import Event
from rmd.engine.files import first_frame, read_settings, save_png
from rmd.engine.film import Film
from rmd.engine.results import Done, Result
from rmd.method.plan import Reinjection
from rmd.request import GenerateRequest

Pair = tuple[int, int]
"""(steps, switch)."""

HEADER = 30
"""Pixels over a contact sheet's pictures, for what all of them share."""
COLUMNS: tuple[str, ...] = (
    "steps",
    "switch",
    "plan",
    "reinjection",
    "eta",
    "seed",
    "decoder",
    "encode",
    "low",
    "enlarge",
    "high",
    "decode",
    "denoiser",
    "end_to_end",
    "backbone",
    "student",
    "prompt",
    "hardware",
    "dtype",
    "error",
)


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
    run: Callable[[GenerateRequest], Iterator[Event]], request: GenerateRequest, wanted: Sequence[Point]
) -> Iterator[Cell]:
    """Yield a Cell per point. A cell that cannot be made does not stop the others; Cancelled passes through."""
    for point in wanted:
        film = Film()
        try:
            for event in run(at(request, point)):
                film.take(event)
                if isinstance(event, Done):
                    yield Cell(point, event.result, event.student.image, done=event, film=film)
        except RequestError as error:
            yield Cell(point, error=str(error))


def stored_cell(folder: Path, request: GenerateRequest, point: Point) -> tuple[Cell, Path] | None:
    """A cell that an earlier sweep left in `folder` with the same settings, and its file; None when there is none."""
    for path in (folder / f"{point.name}.png", folder / f"{point.name}.mp4"):
        try:
            result = Result.from_dict(read_settings(path))
            if replace(result.request, teacher_steps=2) == replace(at(request, point), teacher_steps=2):
                return Cell(point, result, first_frame(path)), path
        except RequestError:
            continue
    return None


def estimate(wanted: Sequence[Point], result: Result, area: float) -> float:
    """Seconds the points will take, from an earlier result.

    area: high over low area; where the earlier run had no step of one of the sizes, such a step is taken to cost in
    proportion.
    """
    timings = result.student
    per_step = {stage.size == result.plan.size: stage.seconds / stage.steps for stage in timings.stages}
    high = per_step[True] if True in per_step else per_step[False] * area
    low = per_step[False] if False in per_step else high / area
    fixed = timings.encode + timings.decode + timings.switch
    return sum(fixed + low_steps(point, area) * low + (point.steps - point.switch) * high for point in wanted)


def low_steps(point: Point, area: float) -> float:
    """Its steps below the full size, each as many steps at the usual low size as its own size is larger.

    area: as in `estimate`.
    """
    if point.plan is None:
        return point.switch
    *below, (full, _) = stages_of(point.plan)
    return sum(steps * area * math.prod(size) / math.prod(full) for size, steps in below)


def row(cell: Cell) -> dict[str, Any]:
    """A cell as one line of the CSV."""
    values: dict[str, Any] = {**asdict(cell.point), "error": cell.error}
    if cell.result is None:
        return values
    timings, request = cell.result.student, cell.result.request
    values |= {"backbone": request.backbone, "student": cell.result.label, "prompt": request.prompt}
    values |= {
        "hardware": cell.result.hardware,
        "dtype": cell.result.dtype,
        "seed": request.seed,
        "decoder": request.decoder,
        "enlarge": timings.switch,
    }
    values |= {name: getattr(timings, name) for name in ("encode", "decode", "denoiser", "end_to_end")}
    for name, small in (("low", True), ("high", False)):
        values[name] = sum(s.seconds for s in timings.stages if (s.size != cell.result.plan.size) == small)
    return values


def csv_text(cells: Sequence[Cell]) -> str:
    """All cells as CSV, times in seconds."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, restval="")
    writer.writeheader()
    writer.writerows(row(cell) for cell in cells)
    return out.getvalue()


def contact_sheet(cells: Sequence[Cell], side: int = 256) -> Image.Image:
    """One picture of the grid: a row per steps, re-injection and η, a column per switch, times under the pictures."""
    rows = list(dict.fromkeys(cell.point.row for cell in cells))
    varied = len({row[2:] for row in rows}) > 1
    columns = max(cell.point.switch for cell in cells) + 1
    margin, caption = 10, 44 if varied else 26
    width = columns * (side + margin) + margin
    height = HEADER + len(rows) * (side + margin + caption) + margin
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    made = next((cell.result for cell in cells if cell.result), None)
    if made:
        about = f"{made.request.prompt}, seed {made.request.seed}; {made.request.backbone}, {made.hardware}"
        draw.text((margin, margin), about, fill="black", font_size=15)
    for cell in cells:
        point = cell.point
        x = margin + point.switch * (side + margin)
        y = HEADER + margin + rows.index(point.row) * (side + margin + caption)
        label = point.split
        if cell.result is None or cell.image is None:
            draw.rectangle((x, y, x + side, y + side), outline="grey")
            label += ": failed"
        else:
            sheet.paste(cell.image.resize((side, side), Image.Resampling.LANCZOS), (x, y))
            label += f": {cell.result.student.end_to_end:.3f} s"
        if varied:
            label += f"\n{point.reinjection}, η {point.eta:g}"
        draw.text((x, y + side + 4), label, fill="black", font_size=15)
    return sheet


def write_results(cells: Sequence[Cell], pictures: Mapping[Point, Path], folder: Path) -> list[Path]:
    """Write sweep.png (contact sheet), sweep.csv and sweep.zip (both and the pictures); returns their paths.

    pictures: the PNG or MP4 file of each finished cell. Raises RequestError when the folder cannot be written.
    """
    sheet, listing, bundle = (folder / f"sweep.{kind}" for kind in ("png", "csv", "zip"))
    request = next((asdict(cell.result.request) for cell in cells if cell.result), {})
    save_png(contact_sheet(cells), sheet, {"role": "sweep", "request": request})
    write_whole(listing, lambda path: Path(path).write_text(csv_text(cells), encoding="utf-8"))

    def pack(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for file in (sheet, listing):
                archive.write(file, file.name)
            for point, file in pictures.items():
                archive.write(file, f"{point.name}{file.suffix}")

    write_whole(bundle, pack)
    return [sheet, listing, bundle]
