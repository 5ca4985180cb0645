"""The page's parts that show a result or a state, as HTML or as values of the compare view.

What comes from people or files is escaped here.
"""

from __future__ import annotations

import base64
import io
from html import escape
from typing import Any

import gradio as gr
from PIL import Image

from rmd.backbones.cards import BackboneSpec, unknown_words, with_article
from rmd.engine.results import Result, Timings
from rmd.method.plan import CascadePlan
from rmd.serve.runner import Saved, file_of
from rmd.ui import text
from rmd.ui.plots import bars_svg, duration, parts_of
from rmd.ui.style import static

Side = dict[str, Any]


def compare(value: dict[str, Any] | None, name: str = "compare") -> gr.HTML:
    """The compare view; its value is {student, teacher, ratio, busy}, see static/compare.js."""
    return gr.HTML(
        value=value or {"student": {"wait": text.STUDENT_HERE}, "teacher": {"wait": text.TEACHER_HERE}},
        html_template=static("compare.html"),
        js_on_load=static("compare.js"),
        apply_default_css=False,
        elem_id=name,
    )


def block(value: str, name: str) -> gr.HTML:
    """A plain HTML part of the page."""
    return gr.HTML(value, apply_default_css=False, elem_id=name)


def head() -> str:
    marks = '<span class="dot"></span><span class="dot"></span>'
    return f'<header id="head"><h1>{marks}{text.TITLE}</h1><p>{text.TAGLINE}</p></header>'


def buttons(value: str, name: str, script: str = "pick.js") -> gr.HTML:
    """HTML with buttons; a click on one triggers `select` with its data attributes, unless `script` says otherwise."""
    return gr.HTML(value, js_on_load=static(script), apply_default_css=False, elem_id=name)


def chips_html(spec: BackboneSpec | None) -> str:
    """Whole prompts to click, and under a fold everything the model knows."""
    if spec is None or not spec.known_words:
        return ""
    words, colours = spec.known_words, spec.colours or ("white",)
    every = spec.prompts or tuple(
        f"{with_article(w)} on {with_article(colours[i % len(colours)])} background" for i, w in enumerate(words)
    )
    count = min(6, len(every))
    first = [every[i * len(every) // count] for i in range(count)]
    known = f"{', '.join(words)}; " if spec.prompts else ""
    return (
        f'<div class="chips">{"".join(map(chip, first))}</div>'
        f'<details class="chips-more"><summary>All {len(words)} things this model knows</summary>'
        f'<div class="chips">{"".join(map(chip, every))}</div>'
        f'<p class="note">{escape(known)}on a background in {escape(", ".join(colours))}</p></details>'
    )


def chip(prompt: str) -> str:
    label = prompt.split(" on ")[0]
    return f'<button type="button" data-text="{escape(prompt)}" title="{escape(prompt)}">{escape(label)}</button>'


def words_note(spec: BackboneSpec | None, prompt: str) -> str:
    """A gentle warning about words the small model never saw."""
    strange = unknown_words(spec, prompt) if spec else []
    if not strange:
        return ""
    names = ", ".join(f"“{escape(word)}”" for word in strange[:4]) + (" …" if len(strange) > 4 else "")
    return f'<div class="note warn">This small model never saw {names}; it will draw something it knows instead.</div>'


def status(sentence: str) -> str:
    return f'<div class="status" role="status">{escape(sentence)}</div>'


def inline(image: Image.Image | None, kind: str = "png") -> str | None:
    """A picture as a data address, for what is shown for a moment only."""
    if image is None:
        return None
    buffer = io.BytesIO()
    image.save(buffer, format=kind, quality=90)
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode()


def kinds_of(plan: CascadePlan) -> list[str]:
    """ "low" or "high" for every step of a plan."""
    return ["low" if stage.size != plan.size else "high" for stage in plan.stages for _ in stage.times]


def finished(saved: Saved, role: str) -> Side:
    """One side of the compare view when its picture is complete."""
    result, side = saved.result, {"file": file_of(saved.files[role]), **clip(saved.result)}
    if role not in result.timings:  # only the picture was taken over, see `with_teacher_of`
        return {**side, "sub": text.STORED_PICTURE}
    timings = result.timings[role]
    words = f"{steps_of(timings)}, {duration(timings.end_to_end)}"
    return {**side, "sub": words + (", not distilled" if role == "student" and not result.distilled else "")}


def clip(result: Result) -> Side:
    """What the compare view needs to play a side's file; nothing for a picture."""
    return {"clip": {"frames": result.frames, "fps": result.fps}} if result.frames > 1 else {}


def steps_of(timings: Timings) -> str:
    steps = [stage.steps for stage in timings.stages]
    return " + ".join(map(str, steps)) + (" step" if sum(steps) == 1 else " steps")


def figure(title: str, body: str) -> str:
    return f'<section class="figure"><h3>{title}</h3>{body}</section>'


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
    when = "Stored, not measured now: made on" if saved.stored else "Measured once on"
    where = f"{when} {escape(result.hardware)}, {escape(result.dtype)}"
    decoder = ", with the tiny decoder" if result.request.decoder == "tiny" else ""
    fast, slow, gain = result.student, result.teacher, result.speedup
    if slow is None or gain is None:
        return (
            f'<section class="speed"><h3>Student</h3><div class="big">{duration(fast.end_to_end)}</div>'
            f'<p class="what">end to end, without a teacher to compare with{decoder}</p>{badge}'
            f'<p class="fine">{where}. {text.NOT_COUNTED}</p></section>'
        )
    earlier = " The teacher's time is from your last full run." if saved.teacher_earlier else ""
    if result.teacher_cached:
        earlier += text.CACHED.format(where=escape(result.teacher_cached))
        badge += ' <span class="badge fine">cached teacher</span>'
    return (
        f'<section class="speed"><h3>Speed-up</h3><div class="big">{times(gain["end_to_end"])}</div>'
        f'<p class="what">end to end: {duration(fast.end_to_end)} instead of {duration(slow.end_to_end)}{decoder}</p>'
        f'<p class="second"><b>{times(gain["denoiser"])}</b> denoiser only</p>{badge}'
        f'<p class="fine">{where}.{earlier} {text.NOT_COUNTED}</p></section>'
    )


def durations(values: list[float | None]) -> str:
    """Table cells; a dash for a part that a run does not have."""
    return "".join(f"<td>{'–' if value is None else duration(value)}</td>" for value in values)


def times(value: float) -> str:
    return f"{value:.0f}×" if value >= 20 else f"{value:.1f}×"


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
