"""The Models tab: what is offered here, and how good and how fast the students that were measured are."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

import gradio as gr

from rmd.backbones import catalog, hub
from rmd.backbones.machine import GB, best_device, memory_gb
from rmd.checks import Cancelled, RequestError, whole
from rmd.method.plan import MAX_STEPS
from rmd.serve.fetch import Fetch
from rmd.serve.guard import in_words
from rmd.serve.offer import Offer
from rmd.ui import parts, text
from rmd.ui.draw.cards import models_html
from rmd.ui.draw.map import chart_html, read_chart
from rmd.ui.events import AT_ONCE, REFUSABLE, Given, Updates, run_and_stop
from rmd.ui.rail import Rail
from rmd.ui.tabs.compare import Compare

DOWNLOADS: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "downloads"}
"""They have a queue of their own: nobody's picture waits for one."""


class Models:
    """The tab. fetch: what downloads, or None where visitors must not."""

    def __init__(self, offer: Offer, rail: Rail, compare: Compare, fetch: Fetch | None = None):
        self.offer, self.rail, self.compare, self.fetch = offer, rail, compare, fetch
        missing = catalog.not_here()
        with gr.Column(elem_id="fetch"):
            with gr.Row(elem_id="fetch-bar", visible=fetch is not None):
                self.name = gr.Dropdown(
                    [(words, name) for name, words in missing.items()], value=next(iter(missing), None),
                    label=text.FETCH, filterable=False, elem_id="fetch-id",
                )  # fmt: skip
                self.start = gr.Button("Download", elem_id="fetch-start", scale=0, min_width=110)
                self.stop = gr.Button("Stop", interactive=False, elem_id="fetch-stop", scale=0, min_width=80)
            words = text.FETCH_ELSEWHERE if fetch is None else room_for(next(iter(missing), None))
            self.status = parts.block(parts.status(words), "fetch-status")
        self.cards = parts.block(models_html(offer), "models")
        self.maps = parts.buttons(maps_html(offer), "maps")

    def connect(self) -> None:
        outputs = [*self.rail.settings.values(), self.compare.tabs]
        self.maps.select(in_words(self.picked), None, outputs, **REFUSABLE)
        if self.fetch is None:
            return
        self.name.change(lambda name: parts.status(room_for(name)), self.name, self.status, **AT_ONCE)
        running = run_and_stop(
            [self.start.click], self.download, {self.name}, [self.status, self.cards, self.name],
            (self.start, self.stop), self.status, self.status, "() => undefined", parts.status(text.FETCH_STOPPED),
            DOWNLOADS,
        )  # fmt: skip
        self.stop.click(self.stopped, None, self.status, cancels=[running], **AT_ONCE)

    def download(self, given: Given) -> Iterator[Updates]:
        """Bytes as they arrive, then the cards as they are now."""
        assert self.fetch is not None
        name = given[self.name]
        if not name:
            return
        try:
            for arrived, total in self.fetch.watch(str(name)):
                yield {self.status: parts.status(progress(name, arrived, total))}
        except (Cancelled, RequestError) as error:
            yield {self.status: parts.status(str(error) or text.FETCH_STOPPED)}
            return
        left = catalog.not_here()
        yield {
            self.status: parts.status(text.FETCHED.format(name=name)),
            self.cards: models_html(self.offer),
            self.name: gr.update(choices=[(words, one) for one, words in left.items()], value=next(iter(left), None)),
        }

    def stopped(self) -> Updates:
        assert self.fetch is not None
        self.fetch.stop()
        return {self.status: parts.status(text.FETCH_STOPPED)}

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


def room_for(name: str | None) -> str:
    """What a download asks of this machine, and what it has."""
    entry = next((one for one in catalog.ENTRIES if one.id == name), None)
    here = f"{hub.free_bytes() / GB:.0f} GB are free on the disk"
    if name is None:
        return text.FETCH_ALL
    if entry is None or entry.hub is None:
        return f"{here}."
    memory = f"{memory_gb(best_device()):.0f} GB"
    return (
        f"About {entry.hub.download_gb:g} GB to download; {here}. About {entry.hub.memory_gb:g} GB of memory to run it "
        f"({entry.hub.offloaded_gb:g} on the accelerator where parts may wait); this machine has {memory}."
    )


def progress(name: str, arrived: int, total: int) -> str:
    if not total:
        return f"Asking the Hugging Face Hub for {name} …"
    return f"{name}: {arrived / GB:.2f} of {total / GB:.2f} GB, {arrived / total:.0%}."


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
