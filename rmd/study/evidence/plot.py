"""A study's distances as a picture: a line a row with its interval, nearest first."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

WIDTH, LEFT, RIGHT, LINE, TOP, BOTTOM = 900, 330, 30, 26, 44, 46
COLOURS = {"student": "#c95b00", "undistilled": "#1878bb"}
INK, QUIET, GRID, PAPER = "#201d26", "#615c6b", "#dedad2", "#ffffff"


def forest(report: Mapping[str, Any], kind: str, words: str) -> str:
    """An SVG picture of one figure with intervals for every row that a model made; "" where none has it."""
    rows = [
        (name, row[kind], row.get("cost", {}))
        for name, row in report["rows"].items()
        if kind in row and "made_by" in row and row["made_by"]["role"] == "student"
    ]
    if not rows:
        return ""
    rows.sort(key=lambda one: one[1]["value"])
    end = 1.05 * max(figure.get("high", figure["value"]) for _, figure, _ in rows)
    height = TOP + LINE * len(rows) + BOTTOM

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * value / end

    step = next(s for s in (1, 2, 5, 10, 20, 25, 50, 100, 200, 500, 1000, 10**9) if end / s <= 8)
    parts = [
        f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{TOP - 8}" y2="{height - BOTTOM}" stroke="{GRID}"/>'
        f'<text x="{x(at):.1f}" y="{height - BOTTOM + 18}" text-anchor="middle" fill="{QUIET}">{at}</text>'
        for at in range(0, int(end) + 1, step)
    ]
    for number, (name, figure, cost) in enumerate(rows):
        y = TOP + LINE * (number + 0.5)
        colour = COLOURS["undistilled" if name.startswith("not distilled") else "student"]
        low, high = figure.get("low", figure["value"]), figure.get("high", figure["value"])
        calls = f"{cost['nfe']:.0f} calls" if "nfe" in cost else ""
        weight = ' font-weight="700"' if name == report.get("reference") else ""
        parts.append(
            f'<text x="{LEFT - 70}" y="{y + 4:.1f}" text-anchor="end" fill="{INK}"{weight}>{escape(name)}</text>'
            f'<text x="{LEFT - 10}" y="{y + 4:.1f}" text-anchor="end" fill="{QUIET}">{calls}</text>'
            f'<line x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="{colour}" stroke-width="3"/>'
            f'<circle cx="{x(figure["value"]):.1f}" cy="{y:.1f}" r="5" fill="{colour}">'
            f"<title>{escape(name)}: {figure['value']:.1f} ({low:.1f} to {high:.1f})</title></circle>"
        )
    about = f"{report['count']} pictures a row, {report['hardware']}, {report['date']}"
    key = "".join(
        f'<circle cx="{LEFT + 8 + 130 * i}" cy="20" r="5" fill="{colour}"/>'
        f'<text x="{LEFT + 20 + 130 * i}" y="24" fill="{INK}">{name}</text>'
        for i, (name, colour) in enumerate(COLOURS.items())
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(words)}" font-family="system-ui, sans-serif" font-size="13">'
        f'<rect width="{WIDTH}" height="{height}" fill="{PAPER}"/>{key}{"".join(parts)}'
        f'<text x="10" y="{height - 8}" fill="{QUIET}">{escape(words)}; {escape(about)}</text></svg>\n'
    )
