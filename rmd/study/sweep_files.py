"""What a sweep leaves behind: the contact sheet, the figures as CSV, and everything in one archive."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from rmd.disk import write_text, write_whole
from rmd.engine.files import save_png
from rmd.study.sweep import Cell, Point, Reference

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
    "teacher_end_to_end",
    "speedup",
    "difference",
    "backbone",
    "student",
    "prompt",
    "hardware",
    "dtype",
    "error",
)


def row(cell: Cell, reference: Reference | None = None) -> dict[str, Any]:
    """A cell as one line of the CSV. difference: see `Reference.difference`."""
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
    if reference:
        values |= {"teacher_end_to_end": reference.seconds, "speedup": reference.speedup(cell.result)}
        values["difference"] = reference.difference(cell.image) if cell.image else None
    for name, small in (("low", True), ("high", False)):
        values[name] = sum(s.seconds for s in timings.stages if (s.size != cell.result.plan.size) == small)
    return values


def csv_text(cells: Sequence[Cell], reference: Reference | None = None) -> str:
    """All cells as CSV, times in seconds."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, restval="")
    writer.writeheader()
    writer.writerows(row(cell, reference) for cell in cells)
    return out.getvalue()


def contact_sheet(cells: Sequence[Cell], reference: Reference | None = None, side: int = 256) -> Image.Image:
    """One picture of the grid: a row per steps, re-injection and η, a column per switch, times under the pictures; the
    teacher in a row of its own before them."""
    rows = list(dict.fromkeys(cell.point.row for cell in cells))
    varied = len({row[2:] for row in rows}) > 1
    columns = max(cell.point.switch for cell in cells) + 1
    margin, caption = 10, 44 if varied else 26
    width = columns * (side + margin) + margin
    line, top = side + margin + caption, HEADER + margin
    height = top + (len(rows) + bool(reference)) * line
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    made = next((cell.result for cell in cells if cell.result), None)
    if made:
        about = f"{made.request.prompt}, seed {made.request.seed}; {made.request.backbone}, {made.hardware}"
        draw.text((margin, margin), about, fill="black", font_size=15)
    if reference:
        sheet.paste(reference.image.resize((side, side), Image.Resampling.LANCZOS), (margin, top))
        label = f"teacher, {reference.result.request.teacher_steps} steps: {reference.seconds:.3f} s"
        draw.text((margin, top + side + 4), label, fill="black", font_size=15)
        top += line
    for cell in cells:
        point = cell.point
        x = margin + point.switch * (side + margin)
        y = top + rows.index(point.row) * line
        label = point.split
        if cell.result is None or cell.image is None:
            draw.rectangle((x, y, x + side, y + side), outline="grey")
            label += ": failed"
        else:
            sheet.paste(cell.image.resize((side, side), Image.Resampling.LANCZOS), (x, y))
            label += f": {cell.result.student.end_to_end:.3f} s"
            label += f", {reference.speedup(cell.result):.1f}×" if reference else ""
        if varied:
            label += f"\n{point.reinjection}, η {point.eta:g}"
        draw.text((x, y + side + 4), label, fill="black", font_size=15)
    return sheet


def write_results(
    cells: Sequence[Cell],
    pictures: Mapping[Point, Path],
    folder: Path,
    reference: Reference | None = None,
    teacher: Path | None = None,
) -> list[Path]:
    """Write sweep.png (contact sheet), sweep.csv and sweep.zip (both and the pictures); returns their paths.

    pictures: the PNG or MP4 file of each finished cell; teacher: the reference's. Raises RequestError when the folder
    cannot be written.
    """
    sheet, listing, bundle = (folder / f"sweep.{kind}" for kind in ("png", "csv", "zip"))
    request = next((asdict(cell.result.request) for cell in cells if cell.result), {})
    save_png(contact_sheet(cells, reference), sheet, {"role": "sweep", "request": request})
    write_text(listing, csv_text(cells, reference))

    def pack(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for file in (sheet, listing):
                archive.write(file, file.name)
            for point, file in pictures.items():
                archive.write(file, f"{point.name}{file.suffix}")
            if teacher:
                archive.write(teacher, f"teacher{teacher.suffix}")

    write_whole(bundle, pack)
    return [sheet, listing, bundle]
