"""Bringing settings back: links, files and this browser's history."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from rmd.checks import RequestError
from rmd.engine.files import first_frame
from rmd.request import SETTINGS, GenerateRequest
from rmd.serve.runner import Runner, Saved, settings_in
from rmd.ui import text, views
from rmd.ui.handlers import FIELDS, shown
from rmd.ui.pairs import figures

KEPT = 24
"""Pictures in the history."""
THUMBNAIL = 160


class Sharing:
    """Handlers that fill in the controls. Their outputs are (*controls in the order of FIELDS, randomise)."""

    def __init__(self, runner: Runner):
        self.runner = runner

    def visited(self, request: gr.Request) -> list[Any]:
        """Settings from the address of the page; raises RequestError for a link that does not fit."""
        given = {name: value for name, value in request.query_params.items() if name in FIELDS}
        if not given:
            return [gr.skip()] * (len(FIELDS) + 1)
        try:
            updates = self.controls(
                self.runner.request(
                    {"prompt": "any", **{name: SETTINGS[name].kind.parse(value) for name, value in given.items()}}
                )
            )
        except RequestError as error:
            raise RequestError(f"The link could not be used: {error}") from error
        for name, place in (("prompt", FIELDS.index("prompt")), ("seed", FIELDS.index("seed")), ("seed", -1)):
            if name not in given:
                updates[place] = gr.skip()
        return updates

    def uploaded(self, path: str) -> list[Any]:
        """Settings from a file that this app or the command line saved."""
        settings = settings_in(Path(path))["request"]
        name = self.runner.offer.name_of(str(settings.get("backbone")))
        if name is None:
            raise RequestError(text.OTHER_MODEL.format(name=settings.get("backbone")))
        return self.controls(self.runner.request({**settings, "backbone": name, "student": None}))

    def controls(self, request: GenerateRequest) -> list[Any]:
        """Updates for all controls from a checked request."""
        values = {name: getattr(request, name) for name in FIELDS}
        values["backbone"] = self.runner.offer.name_of(request.backbone)
        return [*values.values(), False]

    def link(self, request: gr.Request, last: Saved | None) -> str:
        """The address that opens the page with the last picture's settings."""
        if last is None:
            return ""
        page = (request.headers.get("referer") or "").partition("?")[0]
        values = {name: getattr(last.result.request, name) for name in FIELDS if name != "teacher"}
        values["backbone"] = self.runner.offer.name_of(values["backbone"])
        said = {k: v for k, v in values.items() if SETTINGS[k].linked or v != SETTINGS[k].default}
        return f"{page}?" + urlencode(said)

    def remember(self, last: Saved | None, history: list[dict[str, Any]] | None) -> tuple[Any, ...]:
        """Returns (history, its pictures) with the last result in front."""
        entries = [entry for entry in history or [] if isinstance(entry, dict)]
        if last is not None and (not entries or entries[0].get("id") != last.id):
            entries = [self.entry(last), *entries][:KEPT]
        return entries, history_html(entries)

    def entry(self, saved: Saved) -> dict[str, Any]:
        request = saved.result.request
        picture = first_frame(saved.files["student"])
        picture.thumbnail((THUMBNAIL, THUMBNAIL))
        speedup = saved.result.speedup
        return {
            "id": saved.id,
            "picture": views.inline(picture, "webp"),
            "prompt": request.prompt,
            "plan": f"{request.steps} steps, {request.switch} low",
            "speedup": views.times(speedup["end_to_end"]) if speedup else "",
            "figures": figures(saved.result),
            "request": {**asdict(request), "backbone": self.runner.offer.name_of(request.backbone)},
        }

    def reopen(self, history: list[dict[str, Any]] | None, event: gr.EventData) -> list[Any]:
        """A clicked entry: (*shown, *controls, randomise). Pictures the server no longer has leave the stage alone."""
        try:
            entry = (history or [])[int(event._data["index"])]
            checked = self.runner.request({**entry["request"], "student": None})
        except (LookupError, TypeError, ValueError) as error:
            if isinstance(error, RequestError):
                raise
            raise RequestError("This entry can no longer be opened.") from error
        saved = self.runner.find(str(entry.get("id")))
        return [*shown(saved), *self.controls(checked)]


def history_html(entries: list[dict[str, Any]]) -> str:
    """The history as cards, each to open or to mark for a comparison; it comes from the browser, so all is escaped."""
    if not entries:
        return '<p class="note">Nothing yet: your pictures will be listed here.</p>'
    buttons = []
    for i, entry in enumerate(entries):
        words = (views.escape(str(entry.get(name, ""))) for name in ("picture", "prompt", "plan", "speedup"))
        picture, prompt, plan, speedup = words
        source = picture if picture.startswith("data:image/webp;base64,") else ""
        buttons.append(
            f'<article><button type="button" class="open" data-index="{i}" title="{prompt}"><img src="{source}" alt="">'
            f"<b>{prompt}</b><span>{plan}</span><span>{speedup}</span></button>"
            f'<button type="button" class="mark" data-mark="{i}" aria-pressed="false" '
            f'aria-label="Compare: {prompt}, {plan}">Compare</button></article>'
        )
    hint = f'<p class="note" role="status" data-none="{text.MARK_NONE}" data-one="{text.MARK_ONE}">{text.MARK_NONE}</p>'
    return f'{hint}<div class="history">{"".join(buttons)}</div>'
