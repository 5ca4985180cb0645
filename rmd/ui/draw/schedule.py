"""The schedule picture as SVG text: sharp, themable by CSS variables, made in a millisecond without a model."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from rmd.backbones.outline import Outline
from rmd.method.plan import CascadePlan, noise_to_signal, ratio, recommended_switch
from rmd.ui.draw.units import count, size

WIDTH, HEIGHT = 440, 220
LEFT, RIGHT, TOP, BOTTOM = 42, 10, 14, 32
LEAST = -8.0  # logSNR at the foot of the picture: a flow starts at no signal at all, which is infinitely far down
LATEST = 0.02  # the curves are drawn from t = 1 to here; at t = 0 the information is infinite


def schedule_svg(outline: Outline, plan: CascadePlan) -> str:
    """The logSNR of both resolutions over time with the plan's steps on them.

    Both curves are drawn as information at the result's size: a step at the low size counts 2·ln(ratio) less there
    (see rmd.method.schedule), so with matched times the steps continue on one level when they jump to the upper curve.
    """
    spec = outline.spec
    small, large = outline.latent_size(spec.low), outline.latent_size(spec.high)
    loss = 2 * math.log(ratio(small, large))
    grid = torch.linspace(1, LATEST, 60, dtype=torch.float64)
    upper = outline.schedule.logsnr(grid).clamp(min=LEAST)
    low, high = math.floor(float(upper.min() - loss)), math.ceil(float(upper.max()))

    def x(t: float) -> float:
        return LEFT + (1 - t) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        share = (min(max(value, low), high) - low) / (high - low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    def curve(shift: float, colour: str, dash: str) -> str:
        points = " ".join(f"{x(float(t)):.1f},{y(float(v) - shift):.1f}" for t, v in zip(grid, upper, strict=True))
        return f'<polyline points="{points}" fill="none" stroke="var(--{colour})" stroke-width="1.5" {dash}/>'

    parts = [axes(x, y, low, high), curve(loss, "low", 'stroke-dasharray="5 3"'), curve(0, "high", "")]
    if spec.detail:
        parts.append(limit(outline, plan.steps, spec.detail, x, y))
    parts += markers(outline, plan, loss, x, y)
    words = describe(plan)
    return (
        f'<div class="plot"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{words}">{"".join(parts)}</svg>'
        f'<div class="key"><span><i class="round" style="background:var(--low)"></i>low resolution, {size(spec.low)} px'
        f'</span><span><i style="background:var(--high)"></i>full resolution, {size(spec.high)} px</span></div></div>'
        f"{advice(outline, plan)}"
    )


def limit(outline: Outline, steps: int, detail: float, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    """The logSNR above which a switch comes too late, and the recommended place for the first step at full size."""
    best = recommended_switch(outline.schedule, steps, detail)
    t, level = 1 - best / steps, y(-math.log(detail))
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
    detail, steps = outline.spec.detail, plan.steps
    if not detail:
        return ""

    def noise(switch: int) -> str:
        return f"{noise_to_signal(outline.schedule, 1 - switch / steps):.2g}"

    best = recommended_switch(outline.schedule, steps, detail)
    held = f"the detail a small picture cannot hold ({detail:.2g}, measured on this model's teacher)"
    if best:
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
    outline: Outline, plan: CascadePlan, loss: float, x: Callable[[float], float], y: Callable[[float], float]
) -> list[str]:
    """A path through the steps, the jump at the switch, and a numbered marker per step."""
    large = plan.size
    places: list[tuple[float, float, bool]] = []
    for stage in plan.stages:
        is_low = stage.size != large
        for t in stage.times:
            value = float(outline.schedule.logsnr(t)) - (loss if is_low else 0)
            places.append((x(t), y(value), is_low))
    end = (x(0), y(math.inf), not plan.stages[-1].times)
    parts = []
    for (ax, ay, a_low), (bx, by, b_low) in zip(places, [*places[1:], end], strict=True):
        jump = a_low and (not b_low or (bx, by) == end[:2])
        style = 'stroke="var(--ink)" stroke-width="2"' if jump else 'stroke="var(--quiet)" stroke-width="1"'
        parts.append(f'<line x1="{ax:.1f}" y1="{ay:.1f}" x2="{bx:.1f}" y2="{by:.1f}" {style} opacity=".75"/>')
        if jump:
            mx, my = (ax + bx) / 2, (ay + by) / 2
            parts.append(f'<text class="strong" x="{mx + 10:.1f}" y="{my + 16:.1f}">switch</text>')
    for i, (px, py, is_low) in enumerate(places):
        if is_low:
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
    if not rest:
        return f"{count(plan.steps)} at low resolution, then the result is enlarged"
    return f"{few} at low resolution, then {rest} at full resolution"
