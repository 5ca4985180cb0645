"""The times of both runs as bars, drawn as SVG text."""

from __future__ import annotations

from rmd.engine.results import Result
from rmd.ui.draw.units import duration

WIDTH = 440
ENLARGED = "enlarged"


def bars_svg(result: Result) -> str:
    """One stacked bar per run on a common scale, the student's once more, enlarged, where that is too short to read."""
    runs = [(role.capitalize(), parts_of(role, result)) for role in result.timings]
    longest = max(total(parts) for _, parts in runs)
    fast = runs[0][1]
    if total(fast) < 0.5 * longest:
        runs.append((ENLARGED, fast))
    rows, left, width = [], 66, WIDTH - 66
    for i, (name, parts) in enumerate(runs):
        scale = width * 0.84 / (total(parts) if name == ENLARGED else longest)
        top, at = 8 + 46 * i, float(left)
        rows.append(f'<text class="strong" x="0" y="{top + 18}">{name}</text>')
        for label, seconds, colour, opacity in parts:
            wide = seconds * scale
            rows.append(
                f'<rect x="{at:.1f}" y="{top}" width="{max(wide - 1, 0.5):.1f}" height="26" fill="var(--{colour})" '
                f'opacity="{opacity}"><title>{label}: {duration(seconds)}</title></rect>'
            )
            at += wide
        rows.append(f'<text x="{at + 6:.1f}" y="{top + 18}">{duration(total(parts))}</text>')
    tall = 8 + 46 * len(runs)
    return (
        f'<div class="plot"><svg viewBox="0 0 {WIDTH} {tall}" role="img" aria-label="Time per part of each run">'
        f'{"".join(rows)}</svg><div class="key">'
        '<span><i style="background:var(--low)"></i>low-resolution steps</span>'
        '<span><i style="background:var(--high)"></i>full-resolution steps</span>'
        '<span><i style="background:var(--teacher)"></i>teacher steps</span>'
        '<span><i style="background:var(--quiet);opacity:.55"></i>prompt encoding, switch, decoder</span></div></div>'
    )


def parts_of(role: str, result: Result) -> list[tuple[str, float, str, float]]:
    """(label, seconds, colour, opacity) of a run's parts in the order they happen."""
    timings = result.timings[role]
    rows: list[tuple[str, float, str, float]] = [("prompt encoding", timings.encode, "quiet", 0.55)]
    for i, stage in enumerate(timings.stages):
        low = stage.size != result.plan.size
        if i and timings.switch:
            rows.append(("switch", timings.switch, "quiet", 0.8))
        colour = "teacher" if role == "teacher" else "low" if low else "high"
        name = "steps" if role == "teacher" else "low-resolution steps" if low else "full-resolution steps"
        rows.append((f"{stage.steps} {name}", stage.seconds, colour, 1))
    if timings.switch and len(timings.stages) == 1:
        rows.append(("enlarging", timings.switch, "quiet", 0.8))
    decoder = "tiny decoder" if result.request.decoder == "tiny" else "decoder"
    return [*rows, (decoder, timings.decode, "quiet", 0.55)]


def total(parts: list[tuple[str, float, str, float]]) -> float:
    return sum(seconds for _, seconds, _, _ in parts)
