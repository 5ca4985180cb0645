"""The quality-and-speed map of a bundled student: only plans whose quality and speed-up were both measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

from rmd.backbones.loading import read_json
from rmd.backbones.outline import Outline
from rmd.checks import RequestError
from rmd.ui import text
from rmd.ui.draw.units import count, times

BENCH = Path(__file__).resolve().parents[3] / "assets" / "bench"
"""Reports of `python -m rmd bench --out`."""
QUALITY = "quality.json"
METRICS = (
    ("fd_real", "Fréchet distance to real pictures, less is better", False),
    ("detail_error", "difference to the right object, less is better", False),
    ("object_top1", "share of pictures with the right object", True),
)
"""Figures of `python -m rmd evaluate` in order of preference: (name, words, whether more is better)."""


@dataclass(frozen=True)
class Spot:
    """A measured plan. gain: end-to-end speed-up over the teacher."""

    steps: int
    switch: int
    gain: float
    quality: float


@dataclass(frozen=True)
class Chart:
    """All measured plans of a student; teacher: the teacher's quality. hardware: where the speed was measured."""

    spots: tuple[Spot, ...]
    teacher: float
    words: str
    rising: bool
    prompts: int
    hardware: str


def read_chart(outline: Outline, bench: Path = BENCH) -> Chart | None:
    """The chart of a backbone's own student, or None when not both of its sides were measured."""
    if outline.card is None:
        return None
    reports = [report for path in sorted(bench.glob("*.json")) if (report := readable(path))]
    mine = [r for r in reports if (r.get("backbone"), r.get("student")) == (outline.entry.id, outline.card.name)]
    measured = readable(outline.entry.student / QUALITY)
    if not mine or not measured:
        return None
    report = max(mine, key=lambda r: len(r["rows"]))
    metric = next(((n, w, up) for n, w, up in METRICS if n in measured["teacher"]), None)
    if metric is None:
        return None
    name, words, rising = metric
    gains = {plan: row["speedup"]["end_to_end"] for plan, row in report["rows"].items()}
    spots = [
        Spot(row["steps"], row["switch"], gain, row[name])
        for row in measured["student"]
        if (gain := gains.get(f"{row['steps']}/{row['switch']}"))
    ]
    hardware = report.get("hardware") or f"{report['threads']} threads, {report['machine']}"
    if not spots:
        return None
    return Chart(tuple(spots), measured["teacher"][name], words, rising, measured["prompts"], hardware)


def readable(path: Path) -> dict[str, Any] | None:
    try:
        return read_json(path)
    except RequestError:
        return None


def chart_html(chart: Chart, model: str) -> str:
    """Dots to click over a logarithmic axis of speed-ups; the best corner is at the top right."""
    values = [spot.quality for spot in chart.spots] + [chart.teacher]
    room = (max(values) - min(values)) * 0.12 or 0.05
    low, high = min(values) - room, max(values) + room
    left, right = nice_bounds([spot.gain for spot in chart.spots])

    def x(gain: float) -> float:
        return 100 * math.log(gain / left) / math.log(right / left)

    def y(value: float) -> float:
        share = (value - low) / (high - low)
        return 100 * (1 - share if chart.rising else share)

    ticks = [gain for gain in (1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50, 70, 100, 150, 200) if left <= gain <= right]
    lines = "".join(f'<span class="tick x" style="left:{x(gain):.2f}%">{gain}×</span>' for gain in ticks)
    levels = [low + (high - low) * share for share in (0.1, 0.5, 0.9)]
    lines += "".join(f'<span class="tick y" style="top:{y(value):.2f}%">{value:.3g}</span>' for value in levels)
    lines += f'<span class="teacher" style="top:{y(chart.teacher):.2f}%">teacher</span>'
    dots = "".join(dot(spot, model, x(spot.gain), y(spot.quality)) for spot in chart.spots)

    def line(spots: Sequence[Spot], kind: str) -> str:
        points = " ".join(f"{x(spot.gain):.2f},{y(spot.quality):.2f}" for spot in spots)
        return f'<polyline class="{kind}" points="{points}"/>'

    ordered = sorted(chart.spots, key=lambda spot: (spot.steps, spot.switch))
    joined = "".join(line([*family], "family") for _, family in groupby(ordered, key=lambda spot: spot.steps))
    joined += line(pareto(chart), "pareto")
    plot = f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">{joined}</svg>'
    return (
        f'<div class="map" role="group" aria-label="{text.MAP}">{plot}{lines}{dots}</div>'
        f'<p class="map-x">speed-up over the teacher, end to end</p>'
        f'<p class="note">Upwards: {chart.words} ({chart.prompts} prompts). '
        f"Speed measured on {escape(chart.hardware)}. "
        f"{text.MAP_ABOUT}</p>"
    )


def pareto(chart: Chart) -> list[Spot]:
    """The plans that no other one beats in both, fastest last."""
    better = (lambda a, b: a.quality > b.quality) if chart.rising else (lambda a, b: a.quality < b.quality)
    found: list[Spot] = []
    for spot in sorted(chart.spots, key=lambda spot: -spot.gain):
        if not found or better(spot, found[-1]):
            found.append(spot)
    return found[::-1]


def dot(spot: Spot, model: str, x: float, y: float) -> str:
    words = f"{count(spot.steps)}, {spot.switch} at low resolution: {times(spot.gain)}, {spot.quality:.3g}"
    share = f"{spot.switch / spot.steps:.3f}"
    return (
        f'<button type="button" data-model="{escape(model)}" data-steps="{spot.steps}" data-switch="{spot.switch}" '
        f'style="left:{x:.2f}%;top:{y:.2f}%;--low-share:{share}" title="{words}" aria-label="{words}">'
        f"<i></i><b>{spot.steps}/{spot.switch}</b></button>"
    )


def nice_bounds(gains: Sequence[float]) -> tuple[float, float]:
    """A little more than the gains span."""
    return min(gains) / 1.25, max(gains) * 1.25
