"""The Sweep tab: the grid as it fills, its cost, its files."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any

import gradio as gr

from rmd.config import Cancelled, GenerateRequest, RequestError
from rmd.sweep import Cell, Pair, estimate, pairs, sweep, write_results
from rmd.ui import text, views
from rmd.ui.guard import sentence
from rmd.ui.handlers import FIELDS, shown, visitor_of
from rmd.ui.plots import duration
from rmd.ui.runner import Runner, Saved
from rmd.ui.stage import with_teacher_of

THUMBNAIL = 160


@dataclass
class Grid:
    """A visitor's sweep: what was asked for and the cells there are. `key`: all settings but steps and switch."""

    key: tuple[Any, ...] = ()
    wanted: list[Pair] = field(default_factory=list)
    cells: dict[Pair, Cell] = field(default_factory=dict)
    saved: dict[Pair, Saved] = field(default_factory=dict)
    thumbnails: dict[Pair, str] = field(default_factory=dict)


class Sweeps:
    """The tab's reactions."""

    def __init__(self, runner: Runner):
        self.runner = runner

    def cost(self, steps: list[int], last: Saved | None, *values: Any) -> str:
        """What the sweep will take, before it starts."""
        wanted = pairs(steps or [])
        if not wanted:
            return views.status(text.SWEEP_NONE)
        words = f"{len(wanted)} pictures"
        try:
            outline = self.runner.offer.outline(dict(zip(FIELDS, values, strict=True))["backbone"])
        except RequestError as error:
            return views.status(str(error))
        area = area_of(outline.spec)
        # a stored example's times may be another machine's
        if last is None or "stored" in last.info or last.info["request"]["backbone"] != outline.entry.id:
            calls = sum((steps - switch) + switch / area for steps, switch in wanted)
            return views.status(f"{words}, as much work as {calls:.0f} full-resolution steps.")
        seconds = estimate(wanted, last.info, area)
        return views.status(f"{words}, about {duration(seconds)} going by your last picture.")

    def start(
        self, request: gr.Request, steps: list[int], grid: Grid | None, *values: Any
    ) -> Iterator[tuple[Any, ...]]:
        """Yields (table, status, sheet, csv, zip, stop, grid). Cells of the same settings that are there stay."""
        settings = dict(zip(FIELDS, values, strict=True))
        files = [gr.skip()] * 3
        try:
            if not steps:
                raise RequestError(text.SWEEP_NONE)
            checked = self.runner.request({**settings, "steps": 1, "switch": 0})
            grid = resumed(grid, checked, pairs(steps))
            missing = [pair for pair in grid.wanted if pair not in grid.saved]
            visitor, until = visitor_of(request), time.monotonic() + self.runner.deadline
            busy = gr.update(interactive=True)
            yield table(grid, next(iter(missing), None)), views.status(progress(grid)), *files, busy, grid
            for cell in sweep(lambda r: self.runner.run(r, visitor, until), checked, missing):
                self.add(grid, cell)
                following = next((pair for pair in missing if pair not in grid.cells), None)
                yield table(grid, following), views.status(progress(grid)), *files, busy, grid
            yield table(grid), views.status(progress(grid)), *self.files(grid), gr.update(interactive=False), grid
        except Exception as error:
            ready = self.files(grid) if grid else files
            still = table(grid) if grid else gr.skip()
            stopped = isinstance(error, Cancelled)
            words = text.SWEEP_STOPPED if stopped else ""
            yield still, views.status(words), *ready, gr.update(interactive=False), grid
            if not stopped:
                raise sentence(error, html=True) from None

    def add(self, grid: Grid, cell: Cell) -> None:
        grid.cells[cell.pair] = cell
        if cell.done is not None:
            grid.saved[cell.pair] = self.runner.save(cell.done)
            small = cell.done.student.image.copy()
            small.thumbnail((THUMBNAIL, THUMBNAIL))
            grid.thumbnails[cell.pair] = views.inline(small, "webp") or ""

    def stop(self, request: gr.Request, grid: Grid | None) -> tuple[Any, ...]:
        """Returns (table, status, sheet, csv, zip, stop); what is there can be saved."""
        self.runner.stop(visitor_of(request))
        still, files = (table(grid), self.files(grid)) if grid else (gr.skip(), [gr.skip()] * 3)
        return still, views.status(text.SWEEP_STOPPED), *files, gr.update(interactive=False)

    def picked(self, grid: Grid | None, last: Saved | None, event: gr.EventData) -> list[Any]:
        """A clicked cell on the stage: (*shown, steps, switch, seed, randomise, tabs)."""
        try:
            saved = grid.saved[int(event._data["steps"]), int(event._data["switch"])] if grid else None
        except (LookupError, TypeError, ValueError):
            saved = None
        if saved is None:
            return [*shown(None), *[gr.skip()] * 5]
        request = saved.info["request"]
        chosen = [request[name] for name in ("steps", "switch", "seed")]
        return [*shown(with_teacher_of(saved, last)), *chosen, False, gr.Tabs(selected="compare")]

    def files(self, grid: Grid) -> list[Any]:
        """Contact sheet, CSV and everything as ZIP, as updates of the download buttons."""
        cells = [grid.cells[pair] for pair in grid.wanted if pair in grid.cells]
        if not cells:
            return [gr.skip()] * 3
        pictures = {pair: saved.files["student"] for pair, saved in grid.saved.items()}
        files = write_results(cells, pictures, self.runner.folder / uuid.uuid4().hex)
        return [gr.update(value=str(path), interactive=True) for path in files]


def resumed(grid: Grid | None, request: GenerateRequest, wanted: list[Pair]) -> Grid:
    """The earlier grid with its cells when only steps and switch differ, else a new one."""
    key = tuple((k, v) for k, v in asdict(request).items() if k not in ("steps", "switch", "teacher", "teacher_steps"))
    if grid is None or grid.key != key:
        return Grid(key, wanted)
    kept = {pair: cell for pair, cell in grid.cells.items() if cell.done is not None}
    return Grid(key, wanted, kept, grid.saved, grid.thumbnails)


def progress(grid: Grid) -> str:
    ready = sum(pair in grid.cells for pair in grid.wanted)
    failed = sum(bool(grid.cells[pair].error) for pair in grid.wanted if pair in grid.cells)
    words = f"{ready} of {len(grid.wanted)} pictures"
    return f"{words}, {failed} failed." if failed else f"{words}."


def area_of(spec: Any) -> float:
    return (spec.high[0] * spec.high[1]) / (spec.low[0] * spec.low[1])


def table(grid: Grid, running: Pair | None = None) -> str:
    """The grid as a table of buttons: a row per number of steps, a column per number of low-resolution steps."""
    rows = sorted({steps for steps, _ in grid.wanted})
    columns = range(max(rows, default=0) + 1)
    head = "".join(f'<th scope="col">{switch} low</th>' for switch in columns)
    body = "".join(
        f'<tr><th scope="row">{steps} step{"s" if steps > 1 else ""}</th>'
        + "".join(f"<td>{cell_html(grid, (steps, switch), running)}</td>" for switch in columns)
        + "</tr>"
        for steps in rows
    )
    head = f"<thead><tr><td></td>{head}</tr></thead>"
    return f'<div class="scroll"><table class="sweep">{head}<tbody>{body}</tbody></table></div>'


def cell_html(grid: Grid, pair: Pair, running: Pair | None) -> str:
    steps, switch = pair
    if pair not in grid.wanted:
        return ""
    cell = grid.cells.get(pair)
    if cell is None:
        return f'<span class="empty">{"…" if pair == running else ""}</span>'
    if cell.done is None:
        return f'<span class="empty" title="{escape(cell.error)}">failed</span>'
    taken = duration(cell.done.student.timings.end_to_end)
    words = f"{steps} steps, {switch} at low resolution, {taken}"
    return (
        f'<button type="button" data-steps="{steps}" data-switch="{switch}" title="{words}">'
        f'<img src="{grid.thumbnails[pair]}" alt="{words}"><span>{taken}</span>'
        f'<i style="--low-share:{switch / steps:.3f}"></i></button>'
    )
