"""Bringing settings back from links and files, and the link to the last result."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from rmd.checks import RequestError
from rmd.request import SETTINGS, GenerateRequest, offered
from rmd.serve.guard import in_words
from rmd.serve.runner import Runner, Saved, settings_in
from rmd.ui import text
from rmd.ui.events import AT_ONCE, NO_CHANGE, REFUSABLE, Updates
from rmd.ui.rail import SHAPES, Rail, first_prompt


class Share:
    """The part of the Compare tab that shares, loads and saves settings."""

    def __init__(self, runner: Runner, rail: Rail):
        self.runner, self.rail = runner, rail
        with gr.Accordion(text.SHARE, open=False):
            self.link = gr.Textbox(label=text.LINK, interactive=False, buttons=["copy"], elem_id="link")
            self.load = gr.UploadButton(text.LOAD, file_types=[".png", ".mp4"], size="sm", elem_id="load")

    def connect(self, page: gr.Blocks, last: gr.State) -> None:
        page.load(in_words(self.visited), None, self.rail.outputs, **REFUSABLE)
        self.load.upload(in_words(self.uploaded), self.load, self.rail.outputs, **REFUSABLE)
        last.change(self.link_to, last, self.link, **AT_ONCE)

    def visited(self, request: gr.Request) -> Updates:
        """Settings from the address of the page; raises RequestError for a link that does not fit."""
        return self.linked(request.query_params)

    def linked(self, query: Mapping[str, str]) -> Updates:
        """Settings from the end of an address; raises RequestError for a link that does not fit."""
        given = {name: value for name, value in query.items() if name in self.rail.settings}
        if not given:
            return NO_CHANGE
        try:
            parsed = {name: SETTINGS[name].kind.parse(value) for name, value in given.items()}
            checked = self.runner.request({"prompt": "any", **parsed})
        except RequestError as error:
            raise RequestError(f"The link could not be used: {error}") from error
        filled = self.rail.fill(checked, leave=tuple(name for name in ("prompt", "seed") if name not in given))
        if "prompt" not in given and checked.backbone != self.runner.offer.default:  # the box holds another model's
            known = first_prompt(self.runner.offer.outline(checked.backbone), None)
            return filled | ({self.rail.settings["prompt"]: known} if known else {})
        return filled

    def uploaded(self, path: str) -> Updates:
        """Settings from a file that this app or the command line saved."""
        settings = settings_in(Path(path))["request"]
        name = self.runner.offer.id_of(str(settings.get("backbone")))
        if name is None:
            raise RequestError(text.OTHER_MODEL.format(name=settings.get("backbone")))
        student = self.runner.offer.student_of(name, settings.get("student"))
        return self.rail.fill(self.runner.request({**settings, "backbone": name, "student": student}))

    def link_to(self, request: gr.Request, last: Saved | None) -> str:
        """The address that opens the page with the last picture's settings."""
        if last is None:
            return ""
        page = (request.headers.get("referer") or "").partition("?")[0]
        return f"{page}?{query_of(self.runner, last.result.request)}"


def query_of(runner: Runner, request: GenerateRequest) -> str:
    """A request as the end of an address, which brings its settings back; the prompt first."""
    values: dict[str, Any] = {setting.name: getattr(request, setting.name) for setting in offered()}
    own = {name: setting.default for name, setting in SETTINGS.items()}
    with contextlib.suppress(RequestError):  # a stored example's model may not be offered here
        defaults = runner.offer.outline(request.backbone).defaults()
        own |= {name: defaults[name] for name in SHAPES}  # the model's own need not be said
    said = {k: v for k, v in values.items() if k != "teacher" and (SETTINGS[k].linked or v not in (None, own[k]))}
    return urlencode({name: said[name] for name in ("prompt", *said) if name in said})
