"""What happens when something is clicked or moved: values in, component updates out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from rmd.backbones.outline import Outline
from rmd.checks import Cancelled, RequestError
from rmd.engine.results import Done
from rmd.method.plan import MAX_STEPS
from rmd.request import SETTINGS, offered
from rmd.serve import sentences
from rmd.serve.guard import sentence
from rmd.serve.runner import Runner, Saved
from rmd.ui import text, views
from rmd.ui.plots import schedule_svg
from rmd.ui.stage import Stage, complete, with_teacher_of

FIELDS: tuple[str, ...] = tuple(setting.name for setting in offered())
"""The settings on the page, in the order in which handlers receive them."""


class Handlers:
    """The page's reactions. `last` is the visitor's last result: Saved or None.

    Gradio fills in `request` by its type; it has to come first where `*values` follow.
    """

    def __init__(self, runner: Runner):
        self.runner = runner

    def generate(self, request: gr.Request, randomise: bool, *values: Any) -> Iterator[tuple[Any, ...]]:
        """Yields (*shown, status, seed)."""
        settings = dict(zip(FIELDS, values, strict=True))
        if randomise:
            settings["seed"] = None
        stage = None
        try:
            checked = self.runner.request(settings)
            stage = Stage(checked, self.runner.plan(checked))
            for event in self.runner.run(checked, visitor_of(request)):
                if isinstance(event, Done):
                    status = views.status(f"Done, seed {checked.seed}.")
                    yield *shown(self.runner.save(event)), status, checked.seed
                elif stage.take(event):
                    yield stage.value, *shown(None)[1:], views.status(stage.sentence), checked.seed
        except Exception as error:
            still = {**stage.value, "busy": False} if stage else gr.skip()
            stopped = isinstance(error, Cancelled)
            words = views.status(sentences.STOPPED if stopped else "")
            yield still, *shown(None)[1:], words, gr.skip()
            if not stopped:
                raise sentence(error, html=True) from None

    def live(self, request: gr.Request, on: bool, last: Saved | None, *values: Any) -> tuple[Any, ...]:
        """Returns (*shown, status): the student again, the teacher staying put where it still fits."""
        settings = {**dict(zip(FIELDS, values, strict=True)), "teacher": False}
        if not on:
            return *shown(None), gr.skip()
        try:
            settings["switch"] = min(settings["switch"], settings["steps"])
            for event in self.runner.run(self.runner.request(settings), visitor_of(request)):
                if isinstance(event, Done):
                    saved = with_teacher_of(self.runner.save(event), last)
                    return *shown(saved), views.status(f"Live, seed {event.request.seed}.")
        except Cancelled:
            pass
        return *shown(None), gr.skip()

    def stop(self, request: gr.Request, compare: dict[str, Any]) -> tuple[Any, ...]:
        """Returns (compare, status). Gradio cancels the event itself; the session stops at its next check."""
        self.runner.stop(visitor_of(request))
        return {**(compare or {}), "busy": False}, views.status(sentences.STOPPED)

    def leave(self, request: gr.Request) -> None:
        """The tab was closed: nobody waits for the result any more."""
        self.runner.stop(visitor_of(request))

    def picked(self, event: gr.EventData) -> str:
        """The prompt of a clicked suggestion."""
        return str(event._data.get("text", ""))

    def prompt_changed(self, backbone: str, prompt: str) -> str:
        return views.words_note(self._outline(backbone).spec, prompt or "") if backbone else ""

    def backbone_shown(self, backbone: str, prompt: str) -> tuple[Any, ...]:
        """Returns (suggestions, note, decoder)."""
        outline = self._outline(backbone)
        decoder = gr.update(visible=True) if outline.tiny_decoder else gr.update(visible=False, value="full")
        return views.chips_html(outline.spec), views.words_note(outline.spec, prompt or ""), decoder

    def backbone_chosen(self, backbone: str | None) -> tuple[Any, ...]:
        """The backbone's own settings: (mapping, steps, switch, teacher_steps, guidance, reinjection, eta)."""
        if backbone is None:  # it is the same as before
            return (gr.skip(),) * 7
        values = start_values(self._outline(backbone))
        rest = (values[name] for name in ("steps", "switch", "teacher_steps", "guidance", "reinjection", "eta"))
        return "logsnr", *rest

    def switch_taken(self, event: gr.EventData) -> Any:
        """The recommended switch, from its button in the schedule picture."""
        switch = str(event._data.get("switch", ""))
        return int(switch) if switch.isdigit() and int(switch) <= MAX_STEPS else gr.skip()

    def settings_moved(self, *values: Any) -> str:
        return self.schedule(dict(zip(FIELDS, values, strict=True)))

    def schedule(self, settings: dict[str, Any]) -> str:
        """The schedule picture of the settings as they are, or the reason why there is none; needs no model."""
        try:
            settings = {**settings, "prompt": "any", "seed": 0}
            settings["switch"] = min(settings["switch"], settings["steps"])
            checked = self.runner.request(settings)
            picture = schedule_svg(self._outline(settings["backbone"]), self.runner.plan(checked))
        except (RequestError, TypeError) as error:
            picture = f'<p class="note warn">{views.escape(str(error))}</p>'
        return views.figure(text.SCHEDULE, picture)

    def _outline(self, backbone: str) -> Outline:
        return self.runner.offer.outline(backbone)


def shown(saved: Saved | None) -> list[Any]:
    """[compare, speed, bars, table, student file, teacher file, last]; nothing changes for None."""
    if saved is None:
        return [gr.skip()] * 7
    files = [download(saved, role) for role in ("student", "teacher")]
    return [complete(saved), views.speed(saved), views.bars(saved), views.table(saved), *files, saved]


def start_values(outline: Outline | None) -> dict[str, Any]:
    """What the controls show at first for a backbone, and whether it has a tiny decoder here."""
    values = {name: SETTINGS[name].default for name in FIELDS if SETTINGS[name].default is not ... and name != "seed"}
    tiny = outline is not None and outline.tiny_decoder
    return {**values, **(outline.defaults() if outline else {}), "tiny_decoder": tiny}


def download(saved: Saved, role: str) -> Any:
    """A download button's update."""
    path = saved.files.get(role)
    return gr.update(value=str(path) if path else None, interactive=path is not None)


def visitor_of(request: gr.Request) -> str:
    return request.session_hash or "nobody"
