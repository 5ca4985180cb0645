"""From the session's events to what the compare view and the status line show."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from rmd.engine.events import Decoded, Event, Loading, Progress, Timing, Waiting, Warming
from rmd.engine.results import Result, Timings
from rmd.method.plan import CascadePlan
from rmd.request import GenerateRequest, teacher_key
from rmd.serve.runner import Saved, file_of
from rmd.ui import text
from rmd.ui.draw.units import duration
from rmd.ui.parts import inline

Side = dict[str, Any]

INTERVAL = 0.12
"""Seconds between two pictures of the teacher's progress: more would only be traffic."""


class LiveView:
    """The compare view's value while a request runs. `value` is what to show now, `sentence` the status line."""

    def __init__(self, request: GenerateRequest, plan: CascadePlan):
        self.request, self.plan = request, plan
        wait = "after the student" if request.teacher else "not asked for"
        self.value: dict[str, Any] = {
            "busy": True,
            "ratio": plan.size[-1] / plan.size[-2],
            "student": {"wait": "…", "kinds": kinds_of(plan), "done": 0, "total": plan.steps},
            "teacher": {"wait": wait, "done": 0, "total": request.teacher_steps if request.teacher else 0},
        }
        self.sentence = text.QUEUED
        self._last = 0.0

    def take(self, event: Event) -> bool:
        """Note an event; True when the page should be told."""
        if isinstance(event, Loading):
            self.sentence = event.sentence
        elif isinstance(event, Waiting):
            self.sentence = text.WAITING
        elif isinstance(event, Progress):
            last = event.index == event.total
            if event.role == "teacher" and not last and time.monotonic() - self._last < INTERVAL:
                return False
            self._last = time.monotonic()
            self._progress(event)
        elif isinstance(event, Warming):
            self.sentence = text.WARMING.format(index=event.index, total=event.total)
        elif isinstance(event, Timing):
            self.sentence = text.TIMING.format(index=event.index, total=event.total)
        elif isinstance(event, Decoded):
            picture = inline(event.output.image, "webp")
            self._side(event.role, src=picture, preview=False, sub="done", done=10**6)
        else:
            return False
        return True

    def _progress(self, event: Progress) -> None:
        words = f"step {event.index} of {event.total}"
        self.sentence = f"{event.role.capitalize()}: {words}"
        changes: Side = {"sub": words, "done": event.index}
        if event.preview is not None:
            changes |= {"src": inline(event.preview), "preview": True}
        self._side(event.role, **changes)

    def _side(self, role: str, **changes: Any) -> None:
        side = {**self.value[role], **changes}
        side["done"] = min(side["done"], side["total"])
        self.value = {**self.value, role: side}


def complete(saved: Saved) -> dict[str, Any]:
    """The compare view's value for a finished request."""
    plan = saved.result.plan
    sides: dict[str, Any] = {role: finished(saved, role) for role in saved.files}
    sides["student"] |= {"kinds": kinds_of(plan), "done": plan.steps, "total": plan.steps}
    sides.setdefault("teacher", {"wait": "not asked for"})
    return {"busy": False, "ratio": plan.size[-1] / plan.size[-2], **sides}


def with_teacher_of(saved: Saved, last: Saved | None) -> Saved:
    """A student-only result beside the teacher of an earlier one, where that teacher would come out the same.

    A stored example lends its picture but not its time, which another machine may have taken.
    """
    if last is None or "teacher" in saved.files or "teacher" not in last.files:
        return saved
    if teacher_key(saved.result.request) != teacher_key(last.result.request):
        return saved
    files = {**saved.files, "teacher": last.files["teacher"]}
    if last.stored:
        return replace(saved, files=files)
    return replace(saved, result=replace(saved.result, teacher=last.result.teacher), files=files, teacher_earlier=True)


def kinds_of(plan: CascadePlan) -> list[str]:
    """ "low" or "high" for every step of a plan."""
    return ["low" if stage.size != plan.size else "high" for stage in plan.stages for _ in stage.times]


def finished(saved: Saved, role: str) -> Side:
    """One side of the compare view when its picture is complete."""
    result, side = saved.result, {"file": file_of(saved.files[role]), **clip(saved.result)}
    if role not in result.timings:  # only the picture was taken over, see `with_teacher_of`
        return {**side, "sub": text.STORED_PICTURE}
    timings = result.timings[role]
    words = f"{steps_of(timings)}, {duration(timings.end_to_end)}"
    return {**side, "sub": words + (", not distilled" if role == "student" and not result.distilled else "")}


def clip(result: Result) -> Side:
    """What the compare view needs to play a side's file; nothing for a picture."""
    return {"clip": {"frames": result.frames, "fps": result.fps}} if result.frames > 1 else {}


def steps_of(timings: Timings) -> str:
    steps = [stage.steps for stage in timings.stages]
    return " + ".join(map(str, steps)) + (" step" if sum(steps) == 1 else " steps")
