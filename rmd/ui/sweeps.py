"""The Sweep tab: the grid as it fills, its cost, its files."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any

import gradio as gr

from rmd.checks import Cancelled, RequestError
from rmd.request import GenerateRequest
from rmd.serve.guard import sentence
from rmd.serve.runner import Runner, Saved
from rmd.study.sweep import Cell, Point, Row, estimate, pairs, points, sweep, write_results
from rmd.ui import text, views
from rmd.ui.handlers import FIELDS, shown, visitor_of
from rmd.ui.plots import count, duration
from rmd.ui.stage import with_teacher_of

THUMBNAIL = 160


@dataclass
class Grid:
    """A visitor's sweep: what was asked for and the cells there are. `key`: the settings that all cells share."""

    key: tuple[Any, ...] = ()
    wanted: list[Point] = field(default_factory=list)
    cells: dict[Point, Cell] = field(default_factory=dict)
    saved: dict[Point, Saved] = field(default_factory=dict)
    thumbnails: dict[Point, str] = field(default_factory=dict)

    @property
    def varied(self) -> bool:
        """Whether more than steps and switch differ."""
        return len({point.row[1:] for point in self.wanted}) > 1


class Sweeps:
    """The tab's reactions."""

    def __init__(self, runner: Runner):
        self.runner = runner

    def wanted(self, steps: list[int], kinds: list[Any], etas: list[float], settings: dict[str, Any]) -> list[Point]:
        """The cells asked for; re-injection and η of the rail where none are chosen for the sweep."""
        return points(pairs(steps or []), kinds or [settings["reinjection"]], etas or [settings["eta"]])

    def cost(self, steps: list[int], kinds: list[Any], etas: list[float], last: Saved | None, *values: Any) -> str:
        """What the sweep will take, before it starts."""
        settings = dict(zip(FIELDS, values, strict=True))
        wanted = self.wanted(steps, kinds, etas, settings)
        if not wanted:
            return views.status(text.SWEEP_NONE)
        words = f"{len(wanted)} pictures"
        try:
            outline = self.runner.offer.outline(settings["backbone"])
        except RequestError as error:
            return views.status(str(error))
        area = area_of(outline.spec)
        # a stored example's times may be another machine's
        if last is None or last.stored or last.result.request.backbone != outline.entry.id:
            calls = sum((point.steps - point.switch) + point.switch / area for point in wanted)
            return views.status(f"{words}, as much work as {calls:.0f} full-resolution steps.")
        seconds = estimate(wanted, last.result, area)
        return views.status(f"{words}, about {duration(seconds)} going by your last picture.")

    def start(
        self,
        request: gr.Request,
        steps: list[int],
        kinds: list[Any],
        etas: list[float],
        grid: Grid | None,
        *values: Any,
    ) -> Iterator[tuple[Any, ...]]:
        """Yields (table, status, sheet, csv, zip, grid). Cells of the same settings that are there stay."""
        settings = dict(zip(FIELDS, values, strict=True))
        files = [gr.skip()] * 3
        try:
            if not steps:
                raise RequestError(text.SWEEP_NONE)
            checked = self.runner.request({**settings, "steps": 1, "switch": 0})
            for kind in kinds or [checked.reinjection]:  # each is checked like a request's own
                for eta in etas or [checked.eta]:
                    self.runner.request({**settings, "steps": 1, "switch": 0, "reinjection": kind, "eta": eta})
            grid = resumed(grid, checked, self.wanted(steps, kinds, etas, settings))
            missing = [point for point in grid.wanted if point not in grid.saved]
            visitor, until = visitor_of(request), time.monotonic() + self.runner.deadline
            yield table(grid, next(iter(missing), None)), views.status(progress(grid)), *files, grid
            for cell in sweep(lambda r: self.runner.run(r, visitor, until), checked, missing):
                self.add(grid, cell)
                following = next((point for point in missing if point not in grid.cells), None)
                yield table(grid, following), views.status(progress(grid)), *files, grid
            yield table(grid), views.status(progress(grid)), *self.files(grid), grid
        except Exception as error:
            ready = self.files(grid) if grid else files
            still = table(grid) if grid else gr.skip()
            stopped = isinstance(error, Cancelled)
            words = text.SWEEP_STOPPED if stopped else ""
            yield still, views.status(words), *ready, grid
            if not stopped:
                raise sentence(error, html=True) from None

    def add(self, grid: Grid, cell: Cell) -> None:
        grid.cells[cell.point] = cell
        if cell.done is not None:
            grid.saved[cell.point] = self.runner.save(cell.done)
            small = cell.done.student.image.copy()
            small.thumbnail((THUMBNAIL, THUMBNAIL))
            grid.thumbnails[cell.point] = views.inline(small, "webp") or ""

    def stop(self, request: gr.Request, grid: Grid | None) -> tuple[Any, ...]:
        """Returns (table, status, sheet, csv, zip); what is there can be saved."""
        self.runner.stop(visitor_of(request))
        still, files = (table(grid), self.files(grid)) if grid else (gr.skip(), [gr.skip()] * 3)
        return still, views.status(text.SWEEP_STOPPED), *files

    def picked(self, grid: Grid | None, last: Saved | None, event: gr.EventData) -> list[Any]:
        """A clicked cell on the stage: (*shown, *settings, randomise, tabs); what concerns the teacher alone stays."""
        clicked = event._data.get("cell")
        saved = next((one for point, one in grid.saved.items() if point.name == clicked), None) if grid else None
        if saved is None:
            return [gr.skip()] * (len(shown(None)) + len(FIELDS) + 2)
        values = {**asdict(saved.result.request), "teacher": gr.skip(), "teacher_steps": gr.skip()}
        values["backbone"] = self.runner.offer.name_of(values["backbone"])
        chosen = [values[name] for name in FIELDS]
        return [*shown(with_teacher_of(saved, last)), *chosen, False, gr.Tabs(selected="compare")]

    def files(self, grid: Grid) -> list[Any]:
        """Contact sheet, CSV and everything as ZIP, as updates of the download buttons."""
        cells = [grid.cells[point] for point in grid.wanted if point in grid.cells]
        if not cells:
            return [gr.skip()] * 3
        pictures = {point: grid.saved[point].files["student"] for point in grid.wanted if point in grid.saved}
        files = write_results(cells, pictures, self.runner.folder / uuid.uuid4().hex)
        return [gr.update(value=str(path), interactive=True) for path in files]


def resumed(grid: Grid | None, request: GenerateRequest, wanted: list[Point]) -> Grid:
    """The earlier grid with its cells when only what cells differ in is another, else a new one."""
    free = ("steps", "switch", "reinjection", "eta", "teacher", "teacher_steps")
    key = tuple((k, v) for k, v in asdict(request).items() if k not in free)
    if grid is None or grid.key != key:
        return Grid(key, wanted)
    kept = {point: cell for point, cell in grid.cells.items() if cell.done is not None}
    return Grid(key, wanted, kept, grid.saved, grid.thumbnails)


def progress(grid: Grid) -> str:
    ready = sum(point in grid.cells for point in grid.wanted)
    failed = sum(bool(grid.cells[point].error) for point in grid.wanted if point in grid.cells)
    words = f"{ready} of {len(grid.wanted)} pictures"
    return f"{words}, {failed} failed." if failed else f"{words}."


def area_of(spec: Any) -> float:
    return (spec.high[0] * spec.high[1]) / (spec.low[0] * spec.low[1])


def table(grid: Grid, running: Point | None = None) -> str:
    """The grid as a table of buttons: a row per steps, re-injection and η, a column per low-resolution steps."""
    rows = list(dict.fromkeys(point.row for point in sorted(grid.wanted, key=lambda point: point.steps)))
    columns = range(max((point.steps for point in grid.wanted), default=0) + 1)
    places = {(point.row, point.switch): point for point in grid.wanted}
    head = "".join(f'<th scope="col">{switch} low</th>' for switch in columns)
    body = "".join(
        f'<tr><th scope="row">{row_words(grid, row)}</th>'
        + "".join(f"<td>{cell_html(grid, places.get((row, switch)), running)}</td>" for switch in columns)
        + "</tr>"
        for row in rows
    )
    head = f"<thead><tr><td></td>{head}</tr></thead>"
    return f'<div class="scroll" tabindex="0"><table class="sweep">{head}<tbody>{body}</tbody></table></div>'


def row_words(grid: Grid, row: Row) -> str:
    steps, kind, eta = row
    return f"{count(steps)}<br>{escape(kind)}, η {eta:g}" if grid.varied else count(steps)


def cell_html(grid: Grid, point: Point | None, running: Point | None) -> str:
    if point is None:
        return ""
    cell = grid.cells.get(point)
    if cell is None:
        return f'<span class="empty">{"…" if point == running else ""}</span>'
    if cell.done is None:
        return f'<span class="empty" title="{escape(cell.error)}">failed</span>'
    taken = duration(cell.done.student.timings.end_to_end)
    words = f"{count(point.steps)}, {point.switch} at low resolution, {taken}"
    if grid.varied:
        words += f", {point.reinjection}, η {point.eta:g}"
    return (
        f'<button type="button" data-cell="{point.name}" title="{words}">'
        f'<img src="{grid.thumbnails[point]}" alt="{words}"><span>{taken}</span>'
        f'<i style="--low-share:{point.switch / point.steps:.3f}"></i></button>'
    )
