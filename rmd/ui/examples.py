"""Stored results: shown at once, and always labelled with the hardware that made them."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, replace
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from rmd.checks import RequestError
from rmd.engine.files import first_frame
from rmd.serve.runner import Offer, Saved, stored
from rmd.ui import text, views
from rmd.ui.handlers import FIELDS, shown
from rmd.ui.sharing import Sharing

FOLDER = Path(__file__).resolve().parents[2] / "assets" / "examples"
"""Folders that `make examples` wrote; the first is on the stage when the page opens."""
THUMBNAIL = 96


def load(offer: Offer, folder: Path = FOLDER) -> list[Saved]:
    """The stored results of backbones that are offered here, by folder name."""
    found = [saved for place in sorted(folder.glob("*")) if (saved := stored(place))]
    known = [saved for saved in found if offer.name_of(saved.result.request.backbone)]
    return [replace(saved, stored=True) for saved in known]


class Examples:
    """The strip's reactions."""

    def __init__(self, sharing: Sharing, offer: Offer, stored_results: list[Saved]):
        self.sharing, self.offer, self.all = sharing, offer, stored_results

    def label(self, saved: Saved) -> str:
        """That it is stored, of which model, and what made it."""
        name = self.offer.name_of(saved.result.request.backbone)
        with contextlib.suppress(RequestError):  # the model may be unusable here, its stored pictures are not
            name = self.offer.outline(name).spec.name
        return text.STORED.format(name=name, hardware=saved.result.hardware)

    def picked(self, event: gr.EventData) -> list[Any]:
        """A clicked example: (*shown, status, *controls, randomise); the settings follow where they can be used."""
        try:
            saved = self.all[int(event._data["index"])]
        except (LookupError, TypeError, ValueError) as error:
            raise RequestError("This example does not exist.") from error
        request = saved.result.request
        try:
            name = self.offer.name_of(request.backbone)
            controls = self.sharing.controls(self.sharing.runner.request({**asdict(request), "backbone": name}))
        except RequestError:
            controls = [gr.skip()] * (len(FIELDS) + 1)
        return [*shown(saved), views.status(self.label(saved)), *controls]

    def strip(self) -> str:
        """All of them as a row of buttons."""
        if not self.all:
            return ""
        buttons = "".join(self._button(i, saved) for i, saved in enumerate(self.all))
        return f'<section class="examples" aria-label="{text.EXAMPLES}"><h3>{text.EXAMPLES}</h3>{buttons}</section>'

    def _button(self, index: int, saved: Saved) -> str:
        small = first_frame(saved.files["student"])
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        request = saved.result.request
        prompt = escape(request.prompt)
        plan = f"{request.steps} steps, {request.switch} low"
        source = views.inline(small, "webp")
        return (
            f'<button type="button" data-index="{index}" title="{prompt}"><img src="{source}" alt="">'
            f"<span><b>{prompt}</b><span>{plan}</span></span></button>"
        )
