"""The guided minute: a few captions that move the real controls and put the pictures they speak of on the stage."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from html import escape
from typing import Any

import gradio as gr

from rmd.checks import RequestError
from rmd.engine.film import Film
from rmd.engine.results import Done
from rmd.request import NO_STUDENT
from rmd.serve.admission import ACCELERATOR
from rmd.serve.guard import in_words
from rmd.serve.runner import Saved
from rmd.ui import parts, text
from rmd.ui.beside import Others
from rmd.ui.draw.units import count, duration
from rmd.ui.events import AT_ONCE, NO_CHANGE, Updates, visitor_of
from rmd.ui.view import with_teacher_of

LAST = len(text.TOUR)
"""The caption after which there is none; it is also the one that runs something."""


class Tour:
    """The line over the pictures. Shown where the first stored example has what the captions speak of."""

    def __init__(self, compare: Any):  # the Compare tab, which holds this
        self.compare = compare
        self.first, self.others = self.stops()
        self.place = parts.buttons(self.html(0), "tour")

    def stops(self) -> tuple[Saved | None, Others]:
        """The example that the tour is about, and its plans; None where something is missing."""
        examples = self.compare.examples
        first = examples.all[0] if examples.all else None
        others = examples.others(first)
        if first is None:
            return None, {}
        steps, switch = first.result.plan.steps, first.result.plan.switch
        whole = all((steps, one) in others for one in (0, switch, steps))
        usable = first.result.request.backbone in self.compare.runner.offer.usable
        return (first if whole and usable and 0 < switch < steps else None), others

    def connect(self, page: gr.Blocks) -> None:
        if self.first is None:
            return
        outputs = [self.place, *self.compare.outputs, self.compare.status, *self.compare.rail.outputs]
        stopping: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", **ACCELERATOR}
        page.load(in_words(self.linked), None, outputs, **AT_ONCE)
        told = self.place.select(self.taken, None, outputs, **AT_ONCE)
        told.then(in_words(self.undistilled), self.place, outputs, **stopping)

    def linked(self, request: gr.Request) -> Updates:
        """The caption that the address asks for (`?tour=2`)."""
        wanted = str(request.query_params.get("tour", ""))
        return self.at(int(wanted)) if wanted.isdigit() and 1 <= int(wanted) <= LAST else NO_CHANGE

    def taken(self, event: gr.EventData) -> Updates:
        """A pressed button: another caption, or none."""
        wanted = str(event._data.get("tour", ""))
        return self.at(int(wanted)) if wanted.isdigit() and int(wanted) <= LAST else NO_CHANGE

    def at(self, index: int) -> Updates:
        """Caption `index` (1 is the first, 0 none) with its pictures and settings."""
        if self.first is None or index == 0:
            return {self.place: self.html(0)}
        saved, rail = self.shown(index), self.compare.rail
        stored = saved.result.request
        student = NO_STUDENT if index == LAST else self.compare.runner.offer.student_of(stored.backbone, stored.student)
        settings: Updates = {}
        with contextlib.suppress(RequestError):  # the model has other limits now; the pictures are there all the same
            settings = rail.fill(self.compare.runner.request({**asdict(stored), "student": student}))
        said = self.compare.say(self.compare.examples.label(saved))
        return {self.place: self.html(index), **self.compare.show(saved), **settings, **said}

    def shown(self, index: int) -> Saved:
        """The stored result that a caption is about."""
        assert self.first is not None
        steps, switch = self.first.result.plan.steps, self.first.result.plan.switch
        return self.others[steps, {1: 0, 3: steps}.get(index, switch)]

    def undistilled(self, request: gr.Request, html: str) -> Iterator[Updates]:
        """The last caption's picture is made here: the same plan on the teacher's own weights."""
        if self.first is None or f'data-at="{LAST}"' not in html:
            yield NO_CHANGE
            return
        stored = self.shown(LAST).result.request
        checked = self.compare.runner.request({**asdict(stored), "student": NO_STUDENT, "teacher": False})
        film = Film()
        for event in self.compare.runner.run(checked, visitor_of(request)):
            film.take(event)
            if isinstance(event, Done):
                saved = with_teacher_of(self.compare.runner.save(event, film), self.first)
                words = text.TOUR_MADE.format(time=duration(event.student.timings.end_to_end))
                yield {**self.compare.show(saved), **self.compare.say(words)}

    def html(self, index: int) -> str:
        """The caption with its buttons; 0: the offer to begin."""
        if self.first is None:
            return ""
        if index == 0:
            return f'<div class="tour"><button type="button" data-tour="1">{text.TOUR_BEGIN}</button></div>'
        timings, plan = self.shown(index).result.student, self.first.result.plan
        facts = {
            "steps": count(plan.steps), "switch": plan.switch, "time": duration(timings.end_to_end),
            "cheaper": self.share(),
        }  # fmt: skip
        title, words = text.TOUR[index - 1]
        back = f'<button type="button" data-tour="{index - 1}">Back</button>' if index > 1 else ""
        more = (
            f'<button type="button" class="next" data-tour="{index + 1}">Next</button>'
            if index < LAST
            else '<button type="button" class="next" data-tour="0">Done</button>'
        )
        skip = '<button type="button" data-tour="0">Skip</button>' if index < LAST else ""
        return (
            f'<section class="tour" data-at="{index}" aria-label="{text.TOUR_NAME}">'
            f'<div class="words"><h3>{escape(title)} <span>{index} of {LAST}</span></h3>'
            f'<p role="status">{escape(words.format(**facts))}</p></div>'
            f"<div>{back}{more}{skip}</div></section>"
        )

    def share(self) -> str:
        """What a small step took of a large one's time, in the example."""
        assert self.first is not None
        timings, size = self.first.result.student, self.first.result.plan.size
        each = {stage.size == size: stage.seconds / stage.steps for stage in timings.stages}
        return f"{each[False] / each[True]:.0%}"
