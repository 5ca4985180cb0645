"""What follows the controls without a run: the schedule picture, the strip, and whether the stage still shows what the
controls say."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rmd.checks import RequestError, size_of
from rmd.request import teacher_key
from rmd.serve.runner import Runner, Saved
from rmd.ui import parts, text
from rmd.ui.beside import missing
from rmd.ui.draw.schedule import schedule_svg
from rmd.ui.share import query_of
from rmd.ui.strip import film_of, strip_value
from rmd.ui.tabs.examples import Examples

Settings = dict[str, Any]

NOT_SHOWN = ("count", "teacher")
"""Settings that say how much is made, not what."""


class Follow:
    """Reads settings (by name, as the controls hold them); loads no model."""

    def __init__(self, runner: Runner, examples: Examples):
        self.runner, self.examples = runner, examples

    def is_shown(self, settings: Settings, saved: Saved, but: tuple[str, ...] = ()) -> bool:
        """Whether the settings are what a result was made with, except for some of them.

        Raises RequestError for settings that no run can have.
        """
        asked, made = asdict(self.runner.request(within(settings))), asdict(saved.result.request)
        return all(asked[name] == made[name] for name in asked if name not in (*NOT_SHOWN, *but))

    def schedule(self, settings: Settings) -> str:
        """The schedule picture of the settings as they are, or the reason why there is none."""
        try:
            checked = self.runner.request(within({**settings, "prompt": "any", "seed": 0}))
            outline = self.runner.offer.outline(checked.backbone, checked.student)
            low = outline.latent_size(size_of(str(checked.low)), checked.frames)
            picture = schedule_svg(outline, self.runner.plan(checked), low)
            if off := outline.off_training(checked):
                picture += f'<p class="note warn">{parts.escape(off)}</p>'
        except RequestError as error:
            picture = f'<p class="note warn">{parts.escape(str(error))}</p>'
        return parts.figure(text.SCHEDULE, picture)

    def strip(self, settings: Settings, last: Saved | None) -> Settings:
        """The strip of the settings, with the film of the result on the stage where that is theirs, and the page's
        address.

        Raises RequestError for settings that no run can have.
        """
        checked = self.runner.request(within({**settings, "prompt": settings["prompt"] or "any"}))
        outline = self.runner.offer.outline(checked.backbone, checked.student)
        shown = last is not None and self.is_shown(settings, last)
        film = film_of(last) if shown and last is not None else None
        stale = last is not None and not shown
        stale_teacher = last is not None and stale and teacher_key(checked) != teacher_key(last.result.request)
        others = self.examples.others(last)
        value = strip_value(outline, self.runner.plan(checked), film, others, stale, stale_teacher)
        value["idle"] = shown and bool(missing(self.runner, last, others))
        opened = last is not None and shown and last.files == self.examples.first_files  # what a plain address opens
        if last is not None and shown:
            value["shown"] = self.name_of(last)
        if settings["prompt"]:
            value["query"] = "" if opened else query_of(self.runner, checked)
        return value

    def strip_of(self, saved: Saved) -> Settings:
        """The strip of a result that is on the stage."""
        request = saved.result.request
        outline = self.runner.offer.outline(request.backbone, request.student)
        value = strip_value(outline, saved.result.plan, film_of(saved), self.examples.others(saved))
        return {**value, "passing": True, "shown": self.name_of(saved)}

    def name_of(self, saved: Saved) -> str:
        """By which `found` gives a result back; "" for what is only passed by, the other plans of a result."""
        return self.examples.name_of(saved) if saved.stored else saved.id * (not saved.beside)

    def found(self, name: str) -> Saved | None:
        """A result by its name, where it is still there."""
        return self.examples.named(name) or self.runner.find(name)


def within(settings: Settings) -> Settings:
    """Settings whose switch does not lie beyond their steps, as the browser makes them a moment later; an emptied
    number box is left to the check."""
    switch, steps = settings["switch"], settings["steps"]
    return settings if switch is None or steps is None else {**settings, "switch": min(switch, steps)}
