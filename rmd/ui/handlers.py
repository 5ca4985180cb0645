"""What happens when something is clicked or moved: values in, component updates out."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import gradio as gr

from rmd.backbones.outline import Outline
from rmd.config import SEED_LIMIT, Cancelled, GenerateRequest, RequestError
from rmd.session import Done
from rmd.ui import text, views
from rmd.ui.guard import sentence
from rmd.ui.plots import schedule_svg
from rmd.ui.runner import Runner, Saved
from rmd.ui.stage import Stage, complete

FIELDS: tuple[str, ...] = (
    "backbone", "prompt", "negative", "steps", "switch", "seed", "teacher", "teacher_steps", "guidance",
    "reinjection", "eta", "mapping", "upsampler",
)  # fmt: skip
"""The settings on the page, in the order in which handlers receive them."""

SAME_TEACHER = ("backbone", "prompt", "negative", "seed", "teacher_steps", "guidance")
"""Settings that decide the teacher's picture: while they stay, an earlier teacher run still stands for comparison."""


class Handlers:
    """The page's reactions. `last` is the visitor's last result: Saved or None.

    Gradio fills in `request` by its type; it has to come first where `*values` follow.
    """

    def __init__(self, runner: Runner):
        self.runner = runner

    def generate(self, request: gr.Request, randomise: bool, *values: Any) -> Iterator[tuple[Any, ...]]:
        """Yields (compare, status, speed, bars, table, student file, teacher file, seed, stop, last)."""
        settings = dict(zip(FIELDS, values, strict=True))
        if randomise:
            settings["seed"] = None
        keep = gr.skip()
        stage = None
        try:
            checked = self.runner.request(settings)
            stage = Stage(checked, self.runner.plan(checked))
            for event in self.runner.run(checked, visitor_of(request)):
                if isinstance(event, Done):
                    yield self._done(self.runner.save(event), event)
                elif stage.take(event):
                    busy = gr.update(interactive=True)
                    yield stage.value, views.status(stage.sentence), *[keep] * 5, checked.seed, busy, keep
        except (RequestError, Cancelled, OSError) as error:
            still = {**stage.value, "busy": False} if stage else keep
            words = text.STOPPED if isinstance(error, Cancelled) else ""
            yield still, views.status(words), *[keep] * 6, gr.update(interactive=False), keep
            if not isinstance(error, Cancelled):
                raise sentence(error, html=True) from None

    def _done(self, saved: Saved, done: Done) -> tuple[Any, ...]:
        return (
            complete(saved, done.plan),
            views.status(f"Done, seed {done.request.seed}."),
            views.speed(saved.info),
            views.bars(saved.info),
            views.table(saved.info),
            *(download(saved, role) for role in ("student", "teacher")),
            done.request.seed,
            gr.update(interactive=False),
            saved,
        )

    def stop(self, request: gr.Request, compare: dict[str, Any]) -> tuple[Any, ...]:
        """Returns (compare, status, stop). Gradio cancels the event itself; the session stops at its next check."""
        self.runner.stop(visitor_of(request))
        return {**(compare or {}), "busy": False}, views.status(text.STOPPED), gr.update(interactive=False)

    def leave(self, request: gr.Request) -> None:
        """The tab was closed: nobody waits for the result any more."""
        self.runner.stop(visitor_of(request))

    def picked(self, event: gr.EventData) -> str:
        """The prompt of a clicked suggestion."""
        return str(event._data.get("text", ""))

    def prompt_changed(self, backbone: str, prompt: str) -> str:
        return views.words_note(self._outline(backbone).spec, prompt or "") if backbone else ""

    def steps_changed(self, steps: int, switch: int) -> Any:
        """The switch can never lie beyond the steps."""
        return gr.update(maximum=steps, value=min(switch, steps))

    def backbone_changed(self, backbone: str, prompt: str) -> tuple[Any, ...]:
        """Returns (suggestions, note, mapping, steps, switch, teacher_steps, guidance, reinjection, eta)."""
        outline = self._outline(backbone)
        values = start_values(outline)
        note = views.words_note(outline.spec, prompt or "")
        switch = gr.update(maximum=values["steps"], value=values["switch"])
        rest = (values[name] for name in ("teacher_steps", "guidance", "reinjection", "eta"))
        mapping = gr.update(choices=values["mappings"], value="logsnr")
        return views.chips_html(outline.spec), note, mapping, values["steps"], switch, *rest

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


def start_values(outline: Outline | None) -> dict[str, Any]:
    """What the controls show at first for a backbone, and the time mappings it has."""
    values = {name: getattr(GenerateRequest, name) for name in FIELDS[3:] if name != "seed"}
    mappings = ["logsnr", "shift", "none"] if outline and outline.spec.shift_ratio else ["logsnr", "none"]
    return {**values, **(outline.defaults() if outline else {}), "mappings": mappings}


def download(saved: Saved, role: str) -> Any:
    """A download button's update."""
    path = saved.files.get(role)
    return gr.update(value=str(path) if path else None, interactive=path is not None)


def new_seed() -> tuple[int, bool]:
    """Returns (seed, randomise)."""
    return secrets.randbelow(SEED_LIMIT), False


def visitor_of(request: gr.Request) -> str:
    return request.session_hash or "nobody"
