"""The schedule picture as SVG text: sharp, themable by CSS variables, made in a millisecond without a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from rmd.backbones.outline import Outline
from rmd.method.plan import CascadePlan, noise_to_signal, ratio, recommended_switch, time_of
from rmd.study.evidence.advice import measured_switch
from rmd.ui.draw.units import count, size

WIDTH, HEIGHT = 440, 220
LEFT, RIGHT, TOP, BOTTOM = 42, 10, 14, 32
LEAST = -8.0  # logSNR at the foot of the picture: a flow starts at no signal at all, which is infinitely far down
LATEST = 0.02  # the curves are drawn from t = 1 to here; at t = 0 the information is infinite


def schedule_svg(outline: Outline, plan: CascadePlan, low: tuple[int, ...]) -> str:
    """The logSNR of all resolutions over time with the plan's steps on them.

    low: the latent size to draw beside the full one where the plan has no step below that.

    All curves are drawn as information at the result's size: a step at the low size counts 2·ln(ratio) less there
    (see rmd.method.schedule), so with matched times the steps continue on one level when they jump to the upper curve.
    """
    spec, large, cell = outline.spec, plan.size, outline.grid.cell
    best = best_switch(outline, plan.steps, large)
    lows = list(dict.fromkeys(stage.size for stage in plan.stages if stage.size != large)) or [low]
    losses = {size_: 2 * math.log(ratio(size_, large)) for size_ in (*lows, large)}
    schedule, steps = outline.schedule, plan.steps
    grid = schedule.paced(torch.linspace(1, LATEST, 60, dtype=torch.float64), large, steps)
    upper = schedule.logsnr(grid).clamp(min=LEAST)
    bottom, top = math.floor(float(upper.min()) - max(losses.values())), math.ceil(float(upper.max()))

    def x(t: float) -> float:
        return LEFT + (1 - float(schedule.unpaced(t, large, steps))) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        share = (min(max(value, bottom), top) - bottom) / (top - bottom)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    def curve(shift: float, colour: str, dash: str) -> str:
        points = " ".join(f"{x(float(t)):.1f},{y(float(v) - shift):.1f}" for t, v in zip(grid, upper, strict=True))
        return f'<polyline points="{points}" fill="none" stroke="var(--{colour})" stroke-width="1.5" {dash}/>'

    def pixels(latent: tuple[int, ...]) -> str:
        return size((latent[-2] * cell, latent[-1] * cell))

    usual = spec.detail is not None and pixels(large) == size(spec.high) and [*map(pixels, lows)] == [size(spec.low)]
    parts = [axes(x, y, bottom, top), curve(0, "high", "")]
    parts += [curve(losses[one], "low", 'stroke-dasharray="5 3"') for one in lows]
    if usual and spec.detail and best is not None:
        parts.append(limit(outline, plan.steps, best, spec.detail, large, x, y))
    parts += markers(outline, plan, losses, x, y)
    words = describe(plan)
    return (
        f'<div class="plot"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{words}">{"".join(parts)}</svg>'
        '<div class="key"><span><i class="round" style="background:var(--low)"></i>low resolution, '
        f"{', '.join(map(pixels, lows))} px</span>"
        f'<span><i style="background:var(--high)"></i>full resolution, {pixels(large)} px</span></div></div>'
        f"{advice(outline, plan) if usual else ''}"
    )


def best_switch(outline: Outline, steps: int, size: Sequence[int]) -> int | None:
    """The recommended switch: the measured one where there are measurements, else by the lost detail; None: unknown."""
    if found := measured_switch(outline, steps):
        return found.switch
    detail = outline.spec.detail
    return recommended_switch(outline.schedule, steps, detail, size) if detail else None


def limit(
    outline: Outline,
    steps: int,
    best: int,
    detail: float,
    size: Sequence[int],
    x: Callable[[float], float],
    y: Callable[[float], float],
) -> str:
    """The logSNR above which a switch comes too late, and the recommended place for the first step at full size."""
    t, level = time_of(outline.schedule, best, steps, size), y(-math.log(detail))
    px, py = x(t), y(float(outline.schedule.logsnr(t)))
    ring = 'fill="none" stroke="var(--ink)" stroke-width="2" stroke-dasharray="3 2"'
    return (
        f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{level:.1f}" y2="{level:.1f}"/>'
        f'<text x="{LEFT + 4}" y="{level - 5:.1f}">a switch above this line loses detail</text>'
        f'<rect class="best" x="{px - 13:.1f}" y="{py - 13:.1f}" width="26" height="26" rx="5" {ring}>'
        f"<title>Recommended switch: after {count(best)} at low resolution</title></rect>"
    )


def advice(outline: Outline, plan: CascadePlan) -> str:
    """The recommended switch for the plan's number of steps, why, and a button to take it."""
    detail, steps, best = outline.spec.detail, plan.steps, best_switch(outline, plan.steps, plan.size)
    if not detail or best is None:
        return ""

    def noise(switch: int) -> str:
        return f"{noise_to_signal(outline.schedule, time_of(outline.schedule, switch, steps, plan.size)):.2g}"

    held = f"the detail a small picture cannot hold ({detail:.2g}, measured on this model's teacher)"
    if found := measured_switch(outline, steps):
        why = found.words
    elif best:
        later = "at the very end" if best + 1 >= steps else f"one step later ({noise(best + 1)})"
        why = f"At that point the noise ({noise(best)}) still covers {held}; {later} it would not."
    elif steps == 1:
        why = f"One step cannot be divided, and enlarging the result loses {held}."
    else:
        why = f"Already after one step the noise ({noise(1)}) no longer covers {held}."
    take = f'<button type="button" data-switch="{best}">Use {best}</button>' if best != plan.switch else ""
    return (
        f'<div class="advice"><p><i></i><b>Recommended for {count(steps)}: {best or "none"} at low resolution.</b> '
        f"<span>{why}</span></p>{take}</div>"
    )


def axes(x: Callable[[float], float], y: Callable[[float], float], low: int, high: int) -> str:
    ticks = [v for v in range(low, high + 1) if v % 4 == 0]
    lines = "".join(
        f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(v):.1f}" y2="{y(v):.1f}"/>'
        f'<text x="{LEFT - 8}" y="{y(v) + 4:.1f}" text-anchor="end">{v}</text>'
        for v in ticks
    )
    return (
        f'{lines}<text x="{LEFT}" y="{HEIGHT - 8}">pure noise (t = 1)</text>'
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end">finished picture (t = 0)</text>'
        f'<text x="12" y="{(HEIGHT - BOTTOM + TOP) / 2:.0f}" text-anchor="middle" '
        f'transform="rotate(-90 12 {(HEIGHT - BOTTOM + TOP) / 2:.0f})">picture in the noise (logSNR)</text>'
    )


def markers(
    outline: Outline,
    plan: CascadePlan,
    losses: dict[tuple[int, ...], float],
    x: Callable[[float], float],
    y: Callable[[float], float],
) -> list[str]:
    """A path through the steps, the jump at the switch, and a numbered marker per step."""
    large = plan.size
    places: list[tuple[float, float, tuple[int, ...]]] = []
    for stage in plan.stages:
        for t in stage.times:
            value = float(outline.schedule.logsnr(t)) - losses[stage.size]
            places.append((x(t), y(value), stage.size))
    end = (x(0), y(math.inf), large)
    parts = []
    for (ax, ay, before), (bx, by, after) in zip(places, [*places[1:], end], strict=True):
        jump = before != after
        style = 'stroke="var(--ink)" stroke-width="2"' if jump else 'stroke="var(--quiet)" stroke-width="1"'
        parts.append(f'<line x1="{ax:.1f}" y1="{ay:.1f}" x2="{bx:.1f}" y2="{by:.1f}" {style} opacity=".75"/>')
        if jump:
            mx, my = (ax + bx) / 2, (ay + by) / 2
            parts.append(f'<text class="strong" x="{mx + 10:.1f}" y="{my + 16:.1f}">switch</text>')
    for i, (px, py, at) in enumerate(places):
        if at != large:
            parts.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="9" fill="var(--low)"/>')
        else:
            parts.append(f'<rect x="{px - 9:.1f}" y="{py - 9:.1f}" width="18" height="18" rx="2" fill="var(--high)"/>')
        parts.append(
            f'<text x="{px:.1f}" y="{py + 4:.1f}" text-anchor="middle" style="fill:var(--surface);font-weight:700">'
            f"{i + 1}</text>"
        )
    ring = 'r="5" fill="var(--surface)" stroke="var(--ink)" stroke-width="2"'
    parts.append(f'<circle cx="{end[0]:.1f}" cy="{end[1]:.1f}" {ring}/>')
    return parts


def describe(plan: CascadePlan) -> str:
    """The plan in one sentence."""
    few, rest = plan.switch, plan.steps - plan.switch
    if not few:
        return f"{count(plan.steps)}, all at full resolution"
    several = len({stage.size for stage in plan.stages if stage.times and stage.size != plan.size})
    low = "low resolution" if several == 1 else f"{several} lower resolutions"
    if not rest:
        return f"{count(plan.steps)} at {low}, then the result is enlarged"
    return f"{few} at {low}, then {rest} at full resolution"
