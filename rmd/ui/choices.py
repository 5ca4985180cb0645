"""What can be chosen depends on the backbone: which of the controls' options each one leaves, and its own settings.

The server knows the options of all backbones together, and the browser narrows them: the server would refuse what a
link or an example asks for before it knows of the other backbone. Own settings come from the browser, too: were they
the server's answer, a run started before it would be the new backbone's with the settings of the one before.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from typing import Any, get_args

from rmd.backbones.sizes import lengths, low_for, presets
from rmd.checks import RequestError, size_text
from rmd.method.plan import Mapping
from rmd.serve.offer import Offer

OWN = ""
"""The student control's value for a backbone's own student, which a request leaves out."""
FREE = ("size", "low")
"""Those in which something else can be typed, too."""
NAMES = ("mapping", "size", "low", "frames", "student")

Options = list[tuple[str, Any]]
"""(label, value) pairs."""


def options_of(offer: Offer, name: str) -> dict[str, Options]:
    """What a backbone leaves to choose, by setting; one option alone is no choice."""
    outline = offer.outline(name)
    spec, grid = outline.spec, outline.grid
    sizes = presets(spec, grid)
    lows = [low_for(spec, grid, one) for one in sizes]

    def same(values: list[Any]) -> Options:
        return [(str(value), value) for value in dict.fromkeys(values)]

    return {
        "mapping": same([one for one in get_args(Mapping) if one != "shift" or outline.shifts]),
        "size": same([size_text(one) for one in sizes]),
        "low": same([size_text(one) for one in lows]),
        "frames": same(lengths(spec, grid)),
        "student": [(words, one or OWN) for one, words in offer.students(name)],
    }


UPDATES = "map(one => ({ __type__: 'update', ...one }))"
IF_ANOTHER = """(name) => {
  const { dataset } = document.querySelector('#model'), same = name === dataset.before;
  dataset.before = name;
  const student = { __type__: "update", ...(same ? {} : { value: "%(own)s" }) };
  return [...(%(defaults)s)(same ? null : name, "%(own)s"), student];
}"""
"""A dropdown reports input also when it is only left again, which must not bring the model's own settings back."""


class Choices:
    """The options and the defaults of every usable backbone."""

    def __init__(self, offer: Offer):
        self.own = {name: options_of(offer, name) for name in offer.usable}
        self.decided: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in offer.usable}
        for name, students in self.decided.items():
            for one, _ in offer.students(name):
                with contextlib.suppress(RequestError):  # of a student that cannot be read; Generate will say it
                    students[one or OWN] = offer.outline(name, one).defaults()

    def all(self, setting: str) -> Options:
        """Those of all backbones, once each."""
        found: dict[Any, str] = {}
        for options in self.own.values():
            for label, value in options[setting]:
                found.setdefault(value, label)
        return [(label, value) for value, label in found.items()]

    def shown(self, name: str | None, setting: str) -> bool:
        """Whether a backbone leaves any choice."""
        return name in self.own and (setting in FREE or len(self.own[name][setting]) > 1)

    @property
    def script(self) -> str:
        """JavaScript from a backbone's name to the updates of the controls in NAMES."""
        own = {
            name: [{"choices": options[one], "visible": self.shown(name, one)} for one in NAMES]
            for name, options in self.own.items()
        }
        none = [{} for _ in NAMES]
        return f"(name) => ({json.dumps(own)}[name] ?? {json.dumps(none)}).{UPDATES}"

    def defaults(self, settings: Sequence[str]) -> str:
        """JavaScript from the names of a backbone and a student to the updates of these settings' controls; of nothing
        for a name that is not there."""
        own = {
            name: {
                student: [{"value": decided[one]} if one in decided else {} for one in settings]
                for student, decided in students.items()
            }
            for name, students in self.decided.items()
        }
        none = [{} for _ in settings]
        return f"(name, student) => ({json.dumps(own)}[name]?.[student ?? ''] ?? {json.dumps(none)}).{UPDATES}"

    def another(self, settings: Sequence[str]) -> str:
        """`defaults` of a backbone that a visitor chose, unless it is the one that stood there when the box was met;
        and the update of the student's control, which becomes the backbone's own."""
        return IF_ANOTHER % {"defaults": self.defaults(settings), "own": OWN}
