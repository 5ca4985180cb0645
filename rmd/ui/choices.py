"""What can be chosen depends on the backbone: which of the controls' options each one leaves.

The server knows the options of all backbones together, and the browser narrows them: the server would refuse what a
link or an example asks for before it knows of the other backbone.
"""

from __future__ import annotations

import json
from typing import Any, get_args

from rmd.backbones.sizes import lengths, low_for, presets
from rmd.checks import size_text
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


class Choices:
    """The options of every usable backbone."""

    def __init__(self, offer: Offer):
        self.own = {name: options_of(offer, name) for name in offer.usable}

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
        return (
            f"(name) => ({json.dumps(own)}[name] ?? {json.dumps(none)}).map(one => ({{ __type__: 'update', ...one }}))"
        )
