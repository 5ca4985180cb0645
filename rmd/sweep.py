"""Sweeps: one prompt and seed over a grid of steps × switch, with the time of every cell.

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

from rmd.config import GenerateRequest, RequestError
from rmd.results import Done, save_png, write_whole
from rmd.session import Event

Pair = tuple[int, int]
"""(steps, switch)."""

COLUMNS: tuple[str, ...] = (
    "steps",
    "switch",
    "seed",
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
class Cell:
    """One finished cell: its result, or the sentence that says why there is none."""

    pair: Pair
    done: Done | None
    error: str = ""


def pairs(steps: Iterable[int]) -> list[Pair]:
    """Every switch that each number of steps allows, cheapest steps first."""
    return [(count, switch) for count in sorted(set(steps)) for switch in range(count + 1)]


def sweep(
    run: Callable[[GenerateRequest], Iterator[Event]], request: GenerateRequest, wanted: Sequence[Pair]
) -> Iterator[Cell]:
    """Yield a Cell per pair. A cell that cannot be made does not stop the others; Cancelled passes through."""
    for steps, switch in wanted:
        try:
            for event in run(replace(request, steps=steps, switch=switch, teacher=False)):
                if isinstance(event, Done):
                    yield Cell((steps, switch), event)
        except RequestError as error:
            yield Cell((steps, switch), None, str(error))


def estimate(wanted: Sequence[Pair], info: dict[str, Any], area: float) -> float:
    """Seconds the pairs will take, from an earlier result.

    info: `Done.as_dict()`. area: high over low area; where the earlier run had no step of one of the sizes, such a
    step is taken to cost in proportion.
    """
    timings, final = info["timings"]["student"], tuple(info["plan"]["stages"][-1]["size"])
    per_step = {tuple(stage["size"]) == final: stage["seconds"] / stage["steps"] for stage in timings["stages"]}
    high = per_step[True] if True in per_step else per_step[False] * area
    low = per_step[False] if False in per_step else high / area
    fixed = timings["encode"] + timings["decode"] + timings["switch"]
    return sum(fixed + switch * low + (steps - switch) * high for steps, switch in wanted)


def row(cell: Cell) -> dict[str, Any]:
    """A cell as one line of the CSV."""
    steps, switch = cell.pair
    values: dict[str, Any] = {"steps": steps, "switch": switch, "error": cell.error}
    if cell.done is None:
        return values
    timings, final = cell.done.student.timings, cell.done.plan.size
    values |= {"seed": cell.done.request.seed, "encode": timings.encode, "enlarge": timings.switch}
    values |= {"decode": timings.decode, "denoiser": timings.denoiser, "end_to_end": timings.end_to_end}
    for name, small in (("low", True), ("high", False)):
        values[name] = sum(stage.seconds for stage in timings.stages if (stage.size != final) == small)
    return values


def csv_text(cells: Sequence[Cell]) -> str:
    """All cells as CSV, times in seconds."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, restval="")
    writer.writeheader()
    writer.writerows(row(cell) for cell in cells)
    return out.getvalue()


def contact_sheet(cells: Sequence[Cell], side: int = 256) -> Image.Image:
    """One picture of the grid: a row per number of steps, a column per switch, times under the pictures."""
    steps = sorted({cell.pair[0] for cell in cells})
    columns = max(cell.pair[1] for cell in cells) + 1
    margin, caption = 10, 26
    width, height = columns * (side + margin) + margin, len(steps) * (side + margin + caption) + margin
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    for cell in cells:
        x = margin + cell.pair[1] * (side + margin)
        y = margin + steps.index(cell.pair[0]) * (side + margin + caption)
        label = f"{cell.pair[0]} steps, {cell.pair[1]} low"
        if cell.done is None:
            draw.rectangle((x, y, x + side, y + side), outline="grey")
            label += ": failed"
        else:
            sheet.paste(cell.done.student.image.resize((side, side), Image.Resampling.LANCZOS), (x, y))
            label += f": {cell.done.student.timings.end_to_end:.3f} s"
        draw.text((x, y + side + 4), label, fill="black", font_size=15)
    return sheet


def write_results(cells: Sequence[Cell], pictures: Mapping[Pair, Path], folder: Path) -> list[Path]:
    """Write sweep.png (contact sheet), sweep.csv and sweep.zip (both and the pictures); returns their paths.

    pictures: the PNG or MP4 file of each finished cell. Raises RequestError when the folder cannot be written.
    """
    sheet, listing, bundle = (folder / f"sweep.{kind}" for kind in ("png", "csv", "zip"))
    request = next((asdict(cell.done.request) for cell in cells if cell.done), {})
    save_png(contact_sheet(cells), sheet, {"role": "sweep", "request": request})
    write_whole(listing, lambda path: Path(path).write_text(csv_text(cells), encoding="utf-8"))

    def pack(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for file in (sheet, listing):
                archive.write(file, file.name)
            for (steps, switch), file in sorted(pictures.items()):
                archive.write(file, f"steps-{steps}-low-{switch}{file.suffix}")

    write_whole(bundle, pack)
    return [sheet, listing, bundle]
