"""Stored results: shown at once, and always labelled with the hardware that made them."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from rmd.checks import RequestError
from rmd.engine.files import first_frame
from rmd.serve.offer import Offer
from rmd.serve.runner import Saved, stored
from rmd.ui import parts, text
from rmd.ui.beside import Others, plans_of

FOLDER = Path(__file__).resolve().parents[3] / "assets" / "examples"
"""Folders that `make examples` wrote; the first is on the stage when the page opens."""
THUMBNAIL = 96


def load(offer: Offer, folder: Path = FOLDER) -> list[Saved]:
    """The stored results of backbones that are offered here, by folder name."""
    found: list[Saved] = []
    for place in sorted(folder.glob("*")):
        if (saved := stored(place)) and (name := offer.id_of(saved.result.request.backbone)):
            request = replace(saved.result.request, backbone=name)
            found.append(replace(saved, result=replace(saved.result, request=request), stored=True))
    return found


class Examples:
    """The row of them on the Compare tab."""

    def __init__(self, offer: Offer, stored_results: list[Saved]):
        self.offer, self.all = offer, stored_results
        self._others = {one.files["teacher"]: plans_of(one) for one in stored_results if "teacher" in one.files}

    @property
    def first_files(self) -> dict[str, Path] | None:
        """The files of what the page opens with."""
        return self.all[0].files if self.all else None

    def others(self, saved: Saved | None) -> Others:
        """What lies beside a result, by steps and switch: read once where it is stored."""
        if saved is None:
            return {}
        if not saved.stored:
            return plans_of(saved)
        return self._others.get(saved.files["teacher"], {}) if "teacher" in saved.files else {}

    def name_of(self, saved: Saved) -> str:
        """By which `named` gives an example back; "" for what is none, and for its other plans."""
        return next((f"example-{i}" for i, one in enumerate(self.all) if one.files == saved.files), "")

    def named(self, name: str) -> Saved | None:
        return next((one for one in self.all if self.name_of(one) == name), None)

    def place(self) -> gr.HTML:
        """The strip's component, where the page is being built."""
        return parts.buttons(self.html(), "examples")

    def label(self, saved: Saved) -> str:
        """That it is stored, of which model, and what made it."""
        name = saved.result.request.backbone
        with contextlib.suppress(RequestError):  # the model may be unusable here, its stored pictures are not
            name = self.offer.outline(name).spec.name
        return text.STORED.format(name=name, hardware=saved.result.hardware)

    def picked(self, data: dict[str, Any]) -> Saved:
        """The example of a clicked button; raises RequestError where there is none."""
        try:
            return self.all[int(data["index"])]
        except (LookupError, TypeError, ValueError) as error:
            raise RequestError("This example does not exist.") from error

    def html(self) -> str:
        """All of them as a row of buttons."""
        if not self.all:
            return ""
        buttons = "".join(button(i, saved) for i, saved in enumerate(self.all))
        return f'<section class="examples" aria-label="{text.EXAMPLES}"><h3>{text.EXAMPLES}</h3>{buttons}</section>'


def button(index: int, saved: Saved) -> str:
    small = first_frame(saved.files["student"])
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    request = saved.result.request
    prompt = escape(request.prompt)
    plan = f"{request.steps} steps, {request.switch} low"
    source = parts.inline(small, "webp")
    return (
        f'<button type="button" data-index="{index}" title="{prompt}"><img src="{source}" alt="">'
        f"<span><b>{prompt}</b><span>{plan}</span></span></button>"
    )
