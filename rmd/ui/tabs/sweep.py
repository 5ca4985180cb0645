"""The Sweep tab: the grid as it fills, its cost, its files."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import gradio as gr
from PIL import Image

from rmd.checks import Cancelled, Choice, RequestError, size_of
from rmd.engine.files import first_frame
from rmd.method.plan import MAX_STEPS
from rmd.request import SETTINGS, GenerateRequest
from rmd.serve.guard import sentence
from rmd.serve.runner import Runner, Saved
from rmd.study.sweep import Cell, Point, at, estimate, low_steps, pairs, points, reference_of, sweep, teacher_calls
from rmd.study.sweep_files import write_results
from rmd.ui import parts, text
from rmd.ui.draw.grid import RUNNING_CELL, TEACHER, Grid, grid_html, progress
from rmd.ui.draw.schedule import best_switch
from rmd.ui.draw.units import duration
from rmd.ui.events import AT_ONCE, NO_CHANGE, Given, Updates, run_and_stop, visitor_of
from rmd.ui.panes import candidate, panes, panes_value
from rmd.ui.rail import Rail
from rmd.ui.tabs.compare import Compare
from rmd.ui.view import with_teacher_of

THUMBNAIL = 160
STEPS_AT_FIRST = [1, 2, 4]
ETAS = [0, 0.25, 0.5, 0.75, 1]
MOST_PLANS = 32
ANY_CELL: dict[str, Any] = {"steps": 1, "switch": 0, "plan": None, "count": 1}
"""Stands for a cell's own split while only the settings that all cells share are checked."""
KEEP = """(...axes) => {
  try { sessionStorage.setItem("rmd-sweep", JSON.stringify(axes)); } catch { /* full, or forbidden */ }
}"""
READ = """(...axes) => {
  try {
    const kept = JSON.parse(sessionStorage.getItem("rmd-sweep"));
    return kept?.length === axes.length ? kept : axes;
  } catch { return axes; }
}"""
"""The choice survives that the page is loaded anew; the cells that are ready are found again by `Runner.made`."""


class Sweep:
    """The tab. `grid` (Grid or None) is the visitor's sweep, which a second start goes on with."""

    def __init__(self, runner: Runner, rail: Rail, compare: Compare):
        self.runner, self.rail, self.compare = runner, rail, compare
        self.grid = gr.State(None)
        parts.block(f'<p class="note">{text.SWEEP_ABOUT}</p>', "sweep-about")
        with gr.Row(elem_id="sweep-bar"):
            all_steps = list(range(1, MAX_STEPS + 1))
            self.steps = gr.CheckboxGroup(all_steps, value=STEPS_AT_FIRST, label=text.SWEEP_STEPS)
            self.start_button = gr.Button("Start", variant="primary", elem_id="sweep-start", scale=0, min_width=110)
            self.stop_button = gr.Button("Stop", interactive=False, elem_id="sweep-stop", scale=0, min_width=80)
        with gr.Accordion(text.SWEEP_MORE, open=False):
            noise = SETTINGS["reinjection"].kind
            assert isinstance(noise, Choice)
            kinds = [(label.partition(":")[0], value) for label, value in noise.pairs]
            self.kinds = gr.CheckboxGroup(kinds, label=text.SWEEP_KINDS, info=text.SWEEP_MORE_INFO)
            self.etas = gr.CheckboxGroup(ETAS, label=text.SWEEP_ETAS, info=text.SWEEP_MORE_INFO)
            self.plans = gr.Textbox(
                "", label=text.SWEEP_PLANS, placeholder=text.PLAN_HINT, lines=2, max_lines=8, elem_id="sweep-plans"
            )
        at_first = rail.shown_at_first()
        cost = self.cost_of(wanted(STEPS_AT_FIRST, [], [], at_first), at_first, None) if at_first["backbone"] else ""
        self.status = parts.block(parts.status(cost) if cost else "", "sweep-status")
        self.table = parts.buttons("", "sweep-table")
        self.panes = panes("sweep-panes")
        with gr.Row():
            labels = ("Contact sheet (PNG)", "Timings (CSV)", "Everything (ZIP)")
            self.files = [gr.DownloadButton(one, interactive=False, size="sm", min_width=120) for one in labels]

    def connect(self, tab: gr.Tab) -> None:
        """tab: where this is."""
        axes, last = [self.steps, self.kinds, self.etas, self.plans], self.compare.last
        gr.on(
            [*(axis.change for axis in axes), last.change, self.rail.settings["backbone"].change],
            self.cost,
            {*axes, last, *self.rail.inputs},
            self.status,
            trigger_mode="always_last",
            **AT_ONCE,
        )
        gr.on([axis.input for axis in axes], None, axes, None, js=KEEP, **AT_ONCE)
        tab.select(None, axes, axes, js=READ, **AT_ONCE)
        running = run_and_stop(
            [self.start_button.click],
            self.start,
            {*axes, self.grid, *self.rail.inputs},
            [self.table, self.status, *self.files, self.panes, self.grid],
            (self.start_button, self.stop_button),
            self.status,
            self.table,
            f"table => table?.includes({RUNNING_CELL!r}) ? table.replace({RUNNING_CELL!r}, '') : undefined",
            parts.status(text.SWEEP_STOPPED),
        )
        stopped = [self.table, self.status, *self.files, self.panes]
        self.stop_button.click(self.stop, {self.grid}, stopped, cancels=[running], **AT_ONCE)
        on_stage = [*self.compare.outputs, *self.rail.outputs, self.compare.tabs, self.table]
        self.table.select(self.picked, {self.grid, last}, on_stage, **AT_ONCE)

    def asked(self, given: Given) -> list[Point]:
        """The cells asked for."""
        settings, plans = self.rail.values(given), self.plans_of(given)
        return wanted(given[self.steps], given[self.kinds], given[self.etas], settings, plans)

    def plans_of(self, given: Given) -> list[str]:
        """The plans of several sizes, each checked as a request's own; raises RequestError."""
        settings = {**self.rail.values(given), "prompt": "any", "count": 1}
        lines = [line for line in (given[self.plans] or "").splitlines() if line.strip()]
        if len(lines) > MOST_PLANS:
            raise RequestError(f"There may be up to {MOST_PLANS} plans, not {len(lines)}.")
        return [str(self.runner.request({**settings, "plan": line}).plan) for line in lines]

    def cost(self, given: Given) -> Updates:
        """What the sweep will take, before it starts."""
        try:
            return self.say(self.cost_of(self.asked(given), self.rail.values(given), given[self.compare.last]))
        except RequestError as error:
            return self.say(str(error))

    def cost_of(self, points: list[Point], settings: dict[str, Any], last: Saved | None) -> str:
        if not points:
            return text.SWEEP_NONE
        try:
            outline = self.runner.offer.outline(settings["backbone"])
            checked = self.runner.request({**settings, **ANY_CELL, "prompt": "any"})
        except RequestError as error:
            return str(error)
        pictures = f"{len(points)} pictures" + " and the teacher" * checked.teacher
        low, high = (math.prod(size_of(str(outline.fill(settings)[name]))) for name in ("low", "size"))
        area = high / low
        # a stored example's times may be another machine's
        if last is None or last.stored or last.result.request.backbone != outline.entry.id:
            calls = sum((point.steps - point.switch) + low_steps(point, area) / area for point in points)
            calls += teacher_calls(checked) if checked.teacher else 0
            return f"{pictures}, as much work as {calls:.0f} full-resolution steps."
        seconds = estimate(points, last.result, area, checked if checked.teacher else None)
        return f"{pictures}, about {duration(seconds)} going by your last picture."

    def start(self, request: gr.Request, given: Given) -> Iterator[Updates]:
        """The grid as it fills. Cells of the same settings that are there stay."""
        settings, grid = self.rail.values(given), given[self.grid]
        try:
            asked = self.asked(given)
            if not asked:
                raise RequestError(text.SWEEP_NONE)
            checked = self.runner.request({**settings, **ANY_CELL})
            for kind in given[self.kinds] or [checked.reinjection]:  # each is checked like a request's own
                for eta in given[self.etas] or [checked.eta]:
                    self.runner.request({**settings, **ANY_CELL, "reinjection": kind, "eta": eta})
            grid = resumed(grid, checked, asked)
            self.found(grid, checked)
            grid.best = self.recommended(checked, asked)
            missing = [point for point in grid.wanted if point not in grid.saved]
            visitor, until = visitor_of(request), time.monotonic() + self.runner.deadline
            yield self.filled(grid, next(iter(missing), None))
            reference = checked.teacher and grid.reference is None
            missing = missing or grid.wanted[:reference]  # all are there, but for the teacher: one brings it
            for cell in sweep(lambda r: self.runner.run(r, visitor, until), checked, missing, reference):
                self.add(grid, cell)
                yield self.filled(grid, next((point for point in missing if point not in grid.cells), None))
            yield {**self.filled(grid), **self.ready(grid)}
        except Exception as error:
            stopped = isinstance(error, Cancelled)
            still = {**self.filled(grid), **self.ready(grid)} if grid else {}
            yield {**still, **self.say(text.SWEEP_STOPPED if stopped else "")}
            if not stopped:
                raise sentence(error, html=True) from None

    def found(self, grid: Grid, request: GenerateRequest) -> None:
        """Take the cells that were made here before, as by a sweep that ended when its page was loaded anew."""
        for point in grid.wanted:
            if point not in grid.saved and (saved := self.runner.made(at(request, point))):
                image = first_frame(saved.files["student"])
                grid.saved[point], grid.cells[point] = saved, Cell(point, saved.result, image)
                grid.thumbnails[point] = thumbnail(image)

    def add(self, grid: Grid, cell: Cell) -> None:
        grid.cells[cell.point] = cell
        if cell.done is not None:
            grid.saved[cell.point] = self.runner.save(cell.done, cell.film)
            grid.thumbnails[cell.point] = thumbnail(cell.done.student.image)
        if reference := reference_of(cell):
            grid.reference, grid.beside = reference, grid.saved[cell.point]
            grid.small = thumbnail(reference.image)

    def recommended(self, request: GenerateRequest, asked: list[Point]) -> dict[int, int]:
        """The recommended switch of every number of steps, at the usual sizes, where there is one."""
        outline = self.runner.offer.outline(request.backbone, request.student)
        if outline.spec.detail is None or (request.size, request.low) != (
            outline.spec.default_size,
            outline.spec.default_low,
        ):
            return {}
        size = outline.latent_size(outline.spec.high)
        found = {steps: best_switch(outline, steps, size) for steps in {point.steps for point in asked}}
        return {steps: switch for steps, switch in found.items() if switch is not None}

    def stop(self, request: gr.Request, given: Given) -> Updates:
        """Gradio cancels the event itself; what is there can be saved."""
        self.runner.stop(visitor_of(request))
        grid = given[self.grid]
        still = {self.table: grid_html(grid), **self.ready(grid)} if grid else {}
        return {**still, **self.say(text.SWEEP_STOPPED)}

    def picked(self, given: Given, event: gr.EventData) -> Updates:
        """A clicked cell on the stage, beside the last teacher; what concerns the teacher alone stays in the rail."""
        grid, clicked = given[self.grid], event._data.get("cell")
        if not isinstance(grid, Grid):
            return NO_CHANGE
        saved = next((one for point, one in grid.saved.items() if point.name == clicked), None)
        saved = grid.beside if clicked == TEACHER else saved
        if saved is None:
            return NO_CHANGE
        grid.picked = str(clicked)
        settings = self.rail.fill(saved.result.request, leave=("teacher", "teacher_steps"))
        shown = with_teacher_of(saved, grid.beside or given[self.compare.last])
        return {**self.compare.show(shown), **settings, **self.compare.in_front(), self.table: grid_html(grid)}

    def filled(self, grid: Grid, running: Point | None = None) -> Updates:
        """The grid as it is now; running: the cell that is being made."""
        return {self.table: grid_html(grid, running), self.grid: grid, **self.say(progress(grid))}

    def say(self, words: str) -> Updates:
        return {self.status: parts.status(words)}

    def ready(self, grid: Grid) -> Updates:
        """Contact sheet, CSV and everything as ZIP behind their buttons."""
        cells = [grid.cells[point] for point in grid.wanted if point in grid.cells]
        if not cells:
            return {}
        pictures = {point: grid.saved[point].files["student"] for point in grid.wanted if point in grid.saved}
        teacher = grid.beside.files.get("teacher") if grid.beside else None
        written = write_results(cells, pictures, self.runner.folder / uuid.uuid4().hex, grid.reference, teacher)
        files: Updates = {
            button: gr.update(value=str(path), interactive=True)
            for button, path in zip(self.files, written, strict=True)
        }
        return {**files, self.panes: voted(grid)}


def wanted(
    steps: list[int], kinds: list[Any], etas: list[float], settings: dict[str, Any], plans: Sequence[str] = ()
) -> list[Point]:
    """The cells of a choice; re-injection and η of the rail where none are chosen for the sweep."""
    return points(pairs(steps or []), kinds or [settings["reinjection"]], etas or [settings["eta"]], plans)


def resumed(grid: Grid | None, request: GenerateRequest, points: list[Point]) -> Grid:
    """The earlier grid with its cells when only what cells differ in is another, else a new one."""
    free = ("steps", "switch", "plan", "count", "reinjection", "eta", "teacher", "teacher_steps")
    key = tuple((k, v) for k, v in asdict(request).items() if k not in free)
    if grid is None or grid.key != key:
        return Grid(key, points)
    done = {point: cell for point, cell in grid.cells.items() if cell.result is not None}
    again = Grid(key, points, done, grid.saved, grid.thumbnails)
    if grid.reference and grid.reference.fits(request):
        again.reference, again.beside, again.small = grid.reference, grid.beside, grid.small
    return again


def voted(grid: Grid) -> dict[str, Any]:
    """The grid's results, the teacher first, for the panes and their blind vote."""
    found = [candidate(grid.beside, "teacher", "teacher")] if grid.beside else []
    mine = {point: grid.saved[point] for point in grid.wanted if point in grid.saved}
    noise = {point: f", {point.reinjection}, η {point.eta:g}" if grid.varied else "" for point in mine}
    found += [candidate(saved, point.split + noise[point]) for point, saved in mine.items()]
    return panes_value(found, next(iter(mine.values())).result) if mine else {}


def thumbnail(image: Image.Image) -> str:
    """A small copy as an address."""
    small = image.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    return parts.inline(small, "webp") or ""
