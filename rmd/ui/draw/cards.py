"""Cards of the models: what is offered, what can be used here and why not."""

from __future__ import annotations

from html import escape

from rmd.backbones import catalog
from rmd.checks import RequestError
from rmd.serve.offer import Offer
from rmd.ui.draw.units import size


def models_html(offer: Offer) -> str:
    """One card per backbone."""
    return f'<div class="models">{"".join(card(offer, name) for name in offer.entries)}</div>'


def card(offer: Offer, name: str) -> str:
    state = catalog.status(offer.entries[name])
    rows = []
    try:
        outline = offer.outline(name)
    except RequestError as error:
        outline = None
        problem = escape(state.problem or str(error))
        state_words = f'<span class="badge">not usable here</span><p class="note">{problem}</p>'
    else:
        spec, student = outline.spec, outline.card
        label = "usable" if state.usable else "not usable here"
        state_words = f'<span class="badge fine">{label}</span>'
        if state.problem:
            state_words += f'<p class="note">{escape(state.problem)}</p>'
        rows = [
            ("Picture", f"{size(spec.low)} px, then {size(spec.high)} px"),
            ("Teacher", f"{spec.teacher_steps} steps, guidance {spec.guidance:g}"),
            ("Student", escape(student.name) if student else "none: runs undistilled on the teacher's own weights"),
            ("Training", escape(student.training) if student else "–"),
            ("Licence", escape(spec.licence)),
            ("Knows", f"{len(spec.known_words)} things" if spec.known_words else "no fixed list of words"),
        ]
    source = state.entry.hub
    if source:
        rows += [("Licence", escape(state.entry.licence))] if outline is None else []
        rows += [("Download", f"about {source.download_gb:g} GB"), ("Memory", f"about {source.memory_gb:g} GB")]
    if tiny := state.entry.decoder:
        here = "here" if tiny.path else f"not downloaded ({tiny.id})"
        rows.append(("Tiny decoder", f"{tiny.name}, {tiny.licence}, {here}"))
    if state.note:
        rows.append(("Here", escape(state.note)))
    rows.append(
        (
            "On disk",
            f"{state.size_mb:.0f} MB" if state.size_mb >= 1 else "under 1 MB" if state.size_mb else "nothing yet",
        )
    )
    listing = "".join(f"<dt>{label}</dt><dd>{value}</dd>" for label, value in rows)
    title = outline.spec.name if outline else state.entry.name
    return f"<article><h3>{escape(title)} <code>{escape(name)}</code></h3>{state_words}<dl>{listing}</dl></article>"
