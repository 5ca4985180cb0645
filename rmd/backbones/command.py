"""`python -m rmd models`: what can be used here, and downloads."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from tqdm import tqdm

from rmd.backbones import catalog


def add_models(commands: Any) -> None:
    p = commands.add_parser("models", help="list the backbones and whether they can be used here, or download one")
    p.add_argument("--download", metavar="ID", help="fetch a backbone, student or tiny decoder from the Hub")
    p.add_argument("--json", action="store_true")
    p.set_defaults(run=models)


def models(args: argparse.Namespace) -> None:
    if args.download:
        bars: list[Any] = []  # made by the first byte, so that a refusal stays one sentence

        def show(done: int, total: int) -> None:
            bars[:] = bars or [tqdm(desc=args.download, unit="B", unit_scale=True, total=total)]
            bars[0].update(done - bars[0].n)

        folder = catalog.download(args.download, show)
        for bar in bars:
            bar.close()
        print(json.dumps({"id": args.download, "folder": str(folder)}) if args.json else folder)
        return
    rows = [catalog.status(entry) for entry in catalog.ENTRIES]
    print(json.dumps([model_row(found) for found in rows]) if args.json else "\n".join(map(model_text, rows)))


def model_row(found: catalog.Status) -> dict[str, Any]:
    """A backbone for programs; sizes of the Hub's are approximate, in GB (10⁹ bytes)."""
    entry, source = found.entry, found.entry.hub
    row: dict[str, Any] = {"id": entry.id, "name": entry.name, "usable": found.usable, "problem": found.problem}
    row |= {"note": found.note, "distilled": found.distilled, "size_mb": round(found.size_mb, 1)}
    row |= {"licence": entry.licence, "repo": source.repo if source else None}
    if source:
        row |= {"gated": source.gated, "download_gb": source.download_gb, "memory_gb": source.memory_gb}
    students = [{"id": s.id, "name": s.card.name, "licence": s.card.licence, "repo": s.repo} for s in entry.students]
    tiny = entry.decoder
    if tiny:
        row |= {"decoder": {**asdict(tiny), "here": tiny.path is not None}}
    return {
        **row,
        "students": [{**s, "here": o.path is not None} for s, o in zip(students, entry.students, strict=True)],
    }


def model_text(found: catalog.Status) -> str:
    """A backbone for a person, a few lines."""
    entry = found.entry
    student = "with its distilled student" if found.distilled else "no student of ours: runs undistilled"
    state = f"usable, {student}" if found.usable else f"not usable: {found.problem}"
    lines = [f"{entry.id}  {entry.name}  {found.size_mb:.0f} MB here  licence {entry.licence}", f"    {state}"]
    if found.note:
        lines.append(f"    {found.note}")
    for option in entry.students:
        here = "here" if option.path else "not downloaded"
        lines.append(f"    --student {option.id}: {option.card.name}, training-free, {option.card.licence}, {here}")
    if tiny := entry.decoder:
        here = "here" if tiny.path else f"not downloaded ({tiny.id})"
        lines.append(f"    --decoder tiny: {tiny.name}, {tiny.licence}, {here}")
    return "\n".join(lines)
