"""What stands beside a result: the same with another switch, stored with an example or drawn here in idle moments, so
that moving the switch shows a picture at once."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

from rmd.checks import Cancelled, RequestError
from rmd.engine.film import Film
from rmd.engine.results import Done, Result
from rmd.request import GenerateRequest
from rmd.serve.runner import PLANS, Runner, Saved, settings_in

FAST = 2.0
"""Seconds from prompt to picture up to which a student's other switches are drawn in advance."""
LIVE = 1.0
"""Seconds up to which Live goes on by itself."""
Others = dict[tuple[int, int], Saved]
"""Results that differ from one in steps and switch alone."""


def plans_of(saved: Saved) -> Others:
    """A result itself and what lies in its folder `plans`: the same with other steps and switches.

    One of these gives the same as the result that it lies beside.
    """
    base, folder = saved.result, folder_of(saved)
    found: Others = {}
    for file in [*sorted(folder.glob("*student.png")), *sorted((folder / PLANS).glob("steps-*.png"))]:
        with contextlib.suppress(RequestError, LookupError):
            own = Result.from_dict(settings_in(file))
            asked = base.request  # its teacher goes with all of them
            request = replace(own.request, backbone=asked.backbone, teacher_steps=asked.teacher_steps)
            found[own.plan.steps, own.plan.switch] = Saved(
                replace(own, request=request, teacher=base.teacher),
                {**saved.files, "student": file},
                saved.stored,
                teacher_earlier=own.teacher is None,
                beside=file.parent != folder,
            )
    plan = saved.result.plan
    return {**found, (plan.steps, plan.switch): saved}


def missing(runner: Runner, saved: Saved | None, others: Others) -> list[GenerateRequest]:
    """Requests for the switches of a result made here that are not there yet, the nearest first; none of a clip, of a
    plan of several sizes, of a slow student, and where computing is lent."""
    if saved is None or saved.stored or not runner.session.draws_ahead:
        return []
    request, result = saved.result.request, saved.result
    if request.plan or result.frames > 1 or result.student.end_to_end > FAST:
        return []
    free = [switch for switch in range(request.steps + 1) if (request.steps, switch) not in others]
    nearest = sorted(free, key=lambda switch: abs(switch - request.switch))
    return [replace(request, switch=switch, teacher=False, count=1) for switch in nearest]


def at_once(runner: Runner, saved: Saved) -> bool:
    """Whether a student is so fast that moving the controls may draw at once, and that costs nobody a share."""
    result = saved.result
    return runner.session.draws_ahead and result.frames == 1 and result.student.end_to_end <= LIVE


def draw(runner: Runner, saved: Saved | None, visitor: str) -> bool:
    """Draw one of the missing; False where there is none, or somebody else wants something drawn."""
    wanted = missing(runner, saved, plans_of(saved)) if saved else []
    if saved is None or not wanted or runner.session.busy:
        return False
    film = Film()
    try:
        for event in runner.run(wanted[0], visitor):
            film.take(event)
            if isinstance(event, Done):
                runner.save(event, film, beside=folder_of(saved))
                return True
    except (Cancelled, RequestError):  # nobody asked for it
        pass
    return False


def folder_of(saved: Saved) -> Path:
    """The folder of the result that all these stand beside."""
    own = saved.files["student"].parent
    return own.parent if saved.beside else own
