"""The sweep's grid: a row per number of steps (and noise, where it varies), a column per low-resolution steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import Any

from rmd.serve.runner import Saved
from rmd.study.sweep import Cell, Point, Reference, Row
from rmd.ui.draw.units import count, duration, times

RUNNING_CELL = "…"
"""In the cell that is being made."""
TEACHER = "teacher"
"""What the reference is called beside the cells' names."""


@dataclass
class Grid:
    """A visitor's sweep: what was asked for and the cells there are. `key`: the settings that all cells share."""

    key: tuple[Any, ...] = ()
    wanted: list[Point] = field(default_factory=list)
    cells: dict[Point, Cell] = field(default_factory=dict)
    saved: dict[Point, Saved] = field(default_factory=dict)
    thumbnails: dict[Point, str] = field(default_factory=dict)
    reference: Reference | None = None
    beside: Saved | None = None
    """The result that the reference came with, whose teacher goes beside every cell."""
    small: str = ""
    """The reference's picture in small."""
    best: dict[int, int] = field(default_factory=dict)
    """The recommended switch by number of steps."""
    picked: str = ""
    """The cell that was opened last."""

    @property
    def varied(self) -> bool:
        """Whether more than steps and switch differ."""
        return len({point.row[2:] for point in self.wanted}) > 1


def progress(grid: Grid) -> str:
    ready = sum(point in grid.cells for point in grid.wanted)
    failed = sum(bool(grid.cells[point].error) for point in grid.wanted if point in grid.cells)
    pictures = f"{ready} of {len(grid.wanted)} pictures"
    return f"{pictures}, {failed} failed." if failed else f"{pictures}."


def grid_html(grid: Grid, running: Point | None = None) -> str:
    """The grid as a table of buttons."""
    rows = list(dict.fromkeys(point.row for point in sorted(grid.wanted, key=lambda point: point.steps)))
    columns = range(max((point.steps for point in grid.wanted), default=0) + 1)
    places = {(point.row, point.switch): point for point in grid.wanted}
    head = "".join(f'<th scope="col">{switch} low</th>' for switch in columns)
    body = "".join(
        f'<tr><th scope="row">{row_head(grid, row)}</th>'
        + "".join(f"<td>{cell_html(grid, places.get((row, switch)), running)}</td>" for switch in columns)
        + "</tr>"
        for row in rows
    )
    head = f"<thead><tr><td></td>{head}</tr></thead>"
    table = f'<div class="scroll" tabindex="0"><table class="sweep">{head}<tbody>{body}</tbody></table></div>'
    return reference_html(grid) + table


def reference_html(grid: Grid) -> str:
    """The teacher over the grid, as a button that opens it; nothing while there is none."""
    if grid.reference is None:
        return ""
    steps, taken = count(grid.reference.result.request.teacher_steps), duration(grid.reference.seconds)
    return (
        f'<button type="button" class="sweep-teacher" data-cell="{TEACHER}" title="Open it beside its student">'
        f'<img src="{grid.small}" alt=""><span><b>Teacher</b>{steps}, {taken}</span></button>'
    )


def row_head(grid: Grid, row: Row) -> str:
    steps, plan, kind, eta = row
    head = escape(plan).replace(",", ",<wbr>") if plan else count(steps)
    return f"{head}<br>{escape(kind)}, η {eta:g}" if grid.varied else head


def cell_html(grid: Grid, point: Point | None, running: Point | None) -> str:
    if point is None:
        return ""
    cell = grid.cells.get(point)
    if cell is None:
        return f'<span class="empty">{RUNNING_CELL if point == running else ""}</span>'
    if cell.result is None or cell.image is None:
        return f'<span class="empty" title="{escape(cell.error)}">failed</span>'
    taken = duration(cell.result.student.end_to_end)
    split = escape(point.plan) if point.plan else f"{count(point.steps)}, {point.switch} at low resolution"
    about = f"{split}, {taken}"
    if grid.varied:
        about += f", {point.reinjection}, η {point.eta:g}"
    beside, marks = "", []
    if grid.reference:
        gain, apart = (
            times(grid.reference.speedup(cell.result)),
            grid.reference.difference(cell.image),
        )
        beside = f"<small>{gain}" + (f", differs {apart:.1%}</small>" if apart is not None else "</small>")
        about += f", {gain} over the teacher"
    if point.plan is None and grid.best.get(point.steps) == point.switch:
        marks.append("<em>recommended</em>")
        about += ", recommended"
    opened = ' aria-current="true"' if point.name == grid.picked else ""
    return (
        f'<button type="button" data-cell="{point.name}" title="{about}"{opened}>'
        f'<img src="{grid.thumbnails[point]}" alt="{about}">{"".join(marks)}<span>{taken}</span>{beside}'
        f'<i style="--low-share:{point.switch / point.steps:.3f}"></i></button>'
    )
