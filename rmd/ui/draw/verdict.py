"""A result in figures: the speed-up, and every part of both runs. What comes from people or files is escaped."""

from __future__ import annotations

from html import escape

from rmd.engine.results import Timings
from rmd.serve.runner import Saved
from rmd.ui import text
from rmd.ui.draw.bars import bars_svg, parts_of
from rmd.ui.draw.units import duration, times
from rmd.ui.parts import figure


def bars(saved: Saved | None) -> str:
    """The stage timings of both runs."""
    return figure(text.TIMINGS, bars_svg(saved.result) if saved else f'<p class="note">{text.NO_TIMINGS}</p>')


def speed(saved: Saved | None) -> str:
    """The speed-up, end to end as the large number because that is what one waits for."""
    if not saved:
        return '<section class="speed"><h3>Speed-up</h3><div class="big">–</div></section>'
    result = saved.result
    badge = (
        f'<span class="badge fine">student: {escape(result.label)}</span>'
        if result.distilled
        else '<span class="badge" title="No trained student was found: the few steps use the teacher\'s own weights">'
        "not distilled</span>"
    )
    when = "Stored, not measured now: made on" if saved.stored else "Measured here on"
    where = f"{when} {escape(result.hardware)}, {escape(result.dtype)}"
    busy = f'<p class="warn" role="note">{text.BUSY}</p>' if result.busy else ""
    decoder = ", with the tiny decoder" if result.request.decoder == "tiny" else ""
    fast, slow, gain = result.student, result.teacher, result.speedup
    if slow is None or gain is None:
        return (
            f'<section class="speed"><h3>Student</h3><div class="big">{duration(fast.end_to_end)}</div>'
            f'<p class="what">end to end, without a teacher to compare with{decoder}</p>{busy}{badge}'
            f'<p class="fine">{where}{how_often(fast, None)}. {text.NOT_COUNTED}</p></section>'
        )
    run = "the example's own run" if saved.stored else "your last full run"
    earlier = f" The teacher's time is from {run}." if saved.teacher_earlier else ""
    if result.teacher_cached:
        earlier += text.CACHED.format(where=escape(result.teacher_cached))
        badge += ' <span class="badge fine">cached teacher</span>'
    large = "big doubtful" if busy else "big"
    return (
        f'<section class="speed"><h3>Speed-up</h3><div class="{large}">{times(gain["end_to_end"])}</div>'
        f'<p class="what">end to end: {duration(fast.end_to_end)} instead of {duration(slow.end_to_end)}{decoder}</p>'
        f'<p class="second"><b>{times(gain["denoiser"])}</b> denoiser only</p>{busy}{badge}'
        f'<p class="fine">{where}{how_often(fast, slow)}.{earlier} {text.NOT_COUNTED}</p></section>'
    )


def how_often(fast: Timings, slow: Timings | None) -> str:
    """How often each side was timed, and how far the student's runs lie apart."""
    if fast.runs == 1 or fast.fastest is None or fast.slowest is None:
        return ", once"
    apart = f"{duration(fast.fastest)} to {duration(fast.slowest)} without the prompt"
    return f": the student {fast.runs} times, the median counts ({apart}){', the teacher once' if slow else ''}"


def durations(values: list[float | None]) -> str:
    """Table cells; a dash for a part that a run does not have."""
    return "".join(f"<td>{'–' if value is None else duration(value)}</td>" for value in values)


def table(saved: Saved | None) -> str:
    """Every part of both runs in figures."""
    if not saved:
        return '<p class="note">The figures appear after the first picture.</p>'
    result = saved.result
    cells: dict[str, dict[str, float]] = {}
    for role in result.timings:
        for label, seconds, _, _ in parts_of(role, result):
            cells.setdefault(label, {})[role] = seconds
    order = sorted(cells, key=lambda label: (label.endswith("decoder"), label != "prompt encoding"))
    both = list(result.timings.values())
    rows = [(label, [cells[label].get(role) for role in result.timings], "") for label in order]
    rows.append(("denoiser (all steps and the switch)", [one.denoiser for one in both], ' class="sum"'))
    rows.append(("end to end", [one.end_to_end for one in both], ' class="sum"'))
    head = "".join(f"<th>{role.capitalize()}</th>" for role in result.timings)
    body = "".join(f"<tr{kind}><td>{label}</td>{durations(values)}</tr>" for label, values, kind in rows)
    calls = "".join(f"<td>{one.nfe}</td>" for one in both)
    return (
        f'<div class="scroll"><table class="timings"><thead><tr><th></th>{head}</tr></thead><tbody>{body}'
        f"<tr><td>network evaluations (guidance counts twice)</td>{calls}</tr></tbody></table></div>"
        f'<p class="note">{escape(result.label)} · {escape(result.hardware)}, {escape(result.dtype)} · '
        f"{text.NOT_COUNTED}</p>"
    )
