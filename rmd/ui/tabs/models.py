"""The Models tab: what is offered here, and how good and how fast the students that were measured are."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from rmd.checks import RequestError, whole
from rmd.method.plan import MAX_STEPS
from rmd.serve.guard import in_words
from rmd.serve.offer import Offer
from rmd.ui import parts, text
from rmd.ui.draw.cards import models_html
from rmd.ui.draw.map import chart_html, read_chart
from rmd.ui.events import REFUSABLE, Updates
from rmd.ui.rail import Rail
from rmd.ui.tabs.compare import Compare


class Models:
    """The tab."""

    def __init__(self, offer: Offer, rail: Rail, compare: Compare):
        self.offer, self.rail, self.compare = offer, rail, compare
        parts.block(models_html(offer), "models")
        self.maps = parts.buttons(maps_html(offer), "maps")

    def connect(self) -> None:
        outputs = [*self.rail.settings.values(), self.compare.tabs]
        self.maps.select(in_words(self.picked), None, outputs, **REFUSABLE)

    def picked(self, event: gr.EventData) -> Updates:
        """The settings of a clicked plan, as it was measured; raises RequestError for one that there is not."""
        data = event._data
        outline = self.offer.outline(str(data.get("model")))
        try:
            steps = whole("steps", int(data["steps"]), 1, MAX_STEPS)
            switch = whole("switch", int(data["switch"]), 0, steps)
        except (LookupError, TypeError, ValueError) as error:
            raise RequestError("This plan does not exist.") from error
        if outline.card is None:
            raise RequestError("This model has no student.")
        values: dict[str, Any] = {
            "backbone": outline.entry.id, "steps": steps, "switch": switch, "reinjection": outline.card.reinjection,
            "eta": outline.card.eta, "mapping": "logsnr", "upsampler": "bilinear",
        }  # fmt: skip
        return {**{self.rail.settings[name]: v for name, v in values.items()}, **self.compare.in_front()}


def maps_html(offer: Offer) -> str:
    """One map for each usable backbone with a measured student."""
    maps: list[str] = []
    for name in offer.usable:
        outline = offer.outline(name)
        chart = read_chart(outline)
        if chart and outline.card:
            title = f"{text.MAP}: {escape(outline.card.name)} of {escape(outline.spec.name)}"
            maps.append(parts.figure(title, chart_html(chart, name)))
    return "".join(maps)
