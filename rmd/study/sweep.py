"""Sweeps: one prompt and seed over a grid of steps × switch × re-injection × η, with the time of every cell.

Knows no user interface; the page and a command line pass in how a request is run.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from rmd.checks import RequestError
from rmd.disk import write_whole
from rmd.engine.events import Event
from rmd.engine.files import first_frame, read_settings, save_png
from rmd.engine.results import Done, Result
from rmd.method.plan import Reinjection
from rmd.request import GenerateRequest

Pair = tuple[int, int]
"""(steps, switch)."""

COLUMNS: tuple[str, ...] = (
    "steps",
    "switch",
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
    "error",
)


@dataclass(frozen=True)
class Point:
    """What one cell differs in from the others."""

    steps: int
    switch: int
    reinjection: Reinjection
    eta: float

    @property
    def row(self) -> Row:
        """Cells of one row differ in the switch alone."""
        return self.steps, self.reinjection, self.eta

    @property
    def name(self) -> str:
        """A file name without its ending."""
        return f"steps-{self.steps}-low-{self.switch}-{self.reinjection}-eta-{self.eta:g}"


Row = tuple[int, Reinjection, float]


@dataclass(frozen=True)
class Cell:
    """One finished cell: its result and picture, or the sentence that says why there is none.

    done: with all its frames, where it was made just now.
    """

    point: Point
    result: Result | None = None
    image: Image.Image | None = None
    error: str = ""
    done: Done | None = None


def pairs(steps: Iterable[int]) -> list[Pair]:
    """Every switch that each number of steps allows, cheapest steps first."""
    return [(count, switch) for count in sorted(set(steps)) for switch in range(count + 1)]


def points(wanted: Iterable[Pair], reinjections: Sequence[Reinjection], etas: Sequence[float]) -> list[Point]:
    """The cells of a grid. What would only repeat another cell is left out: the re-injection where nothing is
    enlarged between two steps, and η where no noise is predicted again."""
    found: dict[tuple[Any, ...], Point] = {}
    for steps, switch in wanted:
        for kind in reinjections:
            for eta in etas:
                between = 0 < switch < steps
                counts = max(switch, steps - switch) > 1 or (between and kind != "fresh")
                key = steps, switch, kind if between else None, eta if counts else None
                found.setdefault(key, Point(steps, switch, kind, eta))
    return list(found.values())


def at(request: GenerateRequest, point: Point) -> GenerateRequest:
    """The request of one cell."""
    return replace(request, **asdict(point), teacher=False, plan=None)


def sweep(
    run: Callable[[GenerateRequest], Iterator[Event]], request: GenerateRequest, wanted: Sequence[Point]
) -> Iterator[Cell]:
    """Yield a Cell per point. A cell that cannot be made does not stop the others; Cancelled passes through."""
    for point in wanted:
        try:
            for event in run(at(request, point)):
                if isinstance(event, Done):
                    yield Cell(point, event.result, event.student.image, done=event)
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
    return sum(fixed + point.switch * low + (point.steps - point.switch) * high for point in wanted)


def row(cell: Cell) -> dict[str, Any]:
    """A cell as one line of the CSV."""
    values: dict[str, Any] = {**asdict(cell.point), "error": cell.error}
    if cell.result is None:
        return values
    timings, request = cell.result.student, cell.result.request
    values |= {"seed": request.seed, "decoder": request.decoder, "enlarge": timings.switch}
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
    varied = len({row[1:] for row in rows}) > 1
    columns = max(cell.point.switch for cell in cells) + 1
    margin, caption = 10, 44 if varied else 26
    width, height = columns * (side + margin) + margin, len(rows) * (side + margin + caption) + margin
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    for cell in cells:
        point = cell.point
        x = margin + point.switch * (side + margin)
        y = margin + rows.index(point.row) * (side + margin + caption)
        label = f"{point.steps} steps, {point.switch} low"
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
