"""What a backbone's folder tells without loading its weights: enough to fill in controls and to draw plans."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from rmd.backbones.base import Grid
from rmd.backbones.cards import BackboneSpec, StudentSpec
from rmd.backbones.catalog import Entry, check_there, decoder_folder, known_card, student_folder, with_folder
from rmd.backbones.folders import adapter_of, first_line, read_config, read_spec
from rmd.backbones.machine import GB, best_device, default_dtype, memory_gb
from rmd.backbones.naming import named
from rmd.backbones.sizes import check_side, check_sizes, low_for, on_grid
from rmd.backbones.students import student_card
from rmd.checks import RequestError, size_of, size_text, stages_of
from rmd.method.schedule import NoiseSchedule
from rmd.request import SETTINGS, GenerateRequest, make_request

MORE_WORK = 1.5
"""Times the usual pixels, from which on a request is warned of."""


@dataclass(frozen=True)
class Outline:
    """A backbone as its cards and configurations describe it."""

    entry: Entry
    spec: BackboneSpec
    card: StudentSpec | None
    schedule: NoiseSchedule
    grid: Grid
    widest: float
    """As `PipelineBackbone.widest`."""
    unguided: bool = False
    """As `PipelineBackbone.unguided`."""

    @property
    def cell(self) -> int:
        """Pixels per latent cell."""
        return self.grid.cell

    @property
    def shifts(self) -> bool:
        """Whether the model has timestep shifts of its own by size, so that mapping "shift" can be used."""
        low, high = self.latent_size(self.spec.low), self.latent_size(self.spec.high)
        return bool(self.spec.shift_ratio or self.schedule.own_ratio(low, high, self.spec.default_steps))

    @property
    def tiny_decoder(self) -> bool:
        """Whether there is one, and it is on this machine."""
        return self.entry.decoder is not None and self.entry.decoder.path is not None

    def latent_size(self, pixels: tuple[int, int], frames: int | None = None) -> tuple[int, ...]:
        """As `Backbone.latent_size`."""
        return self.grid.latent_size(pixels, self.spec.frames if frames is None else frames)

    def defaults(self) -> dict[str, Any]:
        """The settings to begin with: the student's where there is one, else the backbone's."""
        values: dict[str, Any] = {}
        for name, setting in SETTINGS.items():
            if setting.decided_by != "request":
                sources = [self.card, self.spec] if setting.decided_by == "student" else [self.spec]
                found = [getattr(one, key) for one in sources for key in (f"default_{name}", name) if hasattr(one, key)]
                values[name] = found[0] if found else setting.default
        plan = self.own_plan(self.spec.high)
        return {**values, "switch": min(values["switch"], values["steps"]), "plan": plan}

    def own_plan(self, size: tuple[int, int]) -> str | None:
        """The student's plan of several sizes for a result of `size`; None where it has none of its own."""
        if self.card is None or not self.card.scales:
            return None
        sizes = [size_text(on_grid(self.grid, size[0] * scale, size[1] * scale)) for scale in self.card.scales]
        return ",".join(f"{one}:{len([*same])}" for one, same in groupby(sizes))

    def fill(self, values: dict[str, Any]) -> dict[str, Any]:
        """`values` with what is missing or None taken from the defaults; a switch that is not given fits the steps."""
        given = {k: v for k, v in values.items() if v is not None}
        filled = self.defaults() | given
        if "switch" not in given and isinstance(filled["steps"], int):
            filled["switch"] = min(filled["switch"], filled["steps"])
        if filled["plan"] and "plan" not in given:
            if any(name in given for name in ("steps", "switch", "low")):
                filled["plan"] = None  # the short form was asked for
            elif "size" in given:
                filled["plan"] = self.own_plan(size_of(str(SETTINGS["size"].kind.check("size", given["size"]))))
        if filled["plan"]:
            stages = stages_of(str(SETTINGS["plan"].kind.check("plan", filled["plan"])))
            sizes, counts = [size_text(size) for size, _ in stages], [steps for _, steps in stages]
            filled |= {"steps": sum(counts), "switch": sum(counts[:-1]), "size": sizes[-1], "low": sizes[0]}
        elif "size" in given and "low" not in given:
            size = size_of(str(SETTINGS["size"].kind.check("size", given["size"])))
            filled["low"] = size_text(low_for(self.spec, self.grid, size))
        return filled

    def notes(self, request: GenerateRequest) -> list[str]:
        """Sentences on what to expect of a size, a length or a guidance that is not the usual one."""
        assert request.size is not None
        assert request.frames is not None
        size, usual, found = size_of(request.size), self.spec.high, []
        words = size_text(usual) + (f" with {self.spec.frames} frames" if self.spec.frames > 1 else "")
        if self.unguided and request.guidance != 1:
            found.append(f"{self.spec.name} was trained to run without guidance, which is a guidance of 1.")
        if (size, request.frames) == (usual, self.spec.frames):
            return found
        if self.spec.known_words:
            found.append(f"{self.spec.name} was trained at {words} alone.")
        work = math.prod(size) * request.frames / math.prod(usual) / self.spec.frames
        if work >= MORE_WORK:
            found.append(f"At least {work:.1f}× the time and memory of its usual {words}.")
        return found

    def request(self, values: dict[str, Any]) -> GenerateRequest:
        """A checked request, filled with the defaults; raises RequestError for what cannot be done here."""
        request = make_request(self.fill({"backbone": self.entry.id, **values}))
        assert request.size is not None
        assert request.low is not None
        assert request.frames is not None
        for size, _ in stages_of(request.plan) if request.plan else ():
            check_side(self.spec, self.grid, "plan", size)
        check_sizes(self.spec, self.grid, size_of(request.size), size_of(request.low), request.frames)
        self.check_room(request)
        if request.decoder == "tiny":
            decoder_folder(self.entry)
        return request

    def check_room(self, request: GenerateRequest) -> None:
        """Raise RequestError for a size or length of which one network call's largest tensor alone has no room here.

        What fits so may be too large all the same; that the accelerator says when it is tried.
        """
        device = best_device()
        cells = math.prod(self.latent_size(size_of(str(request.size)), request.frames))
        doubled = 2 if request.teacher and request.guidance != 1 else 1
        needed, has = doubled * cells * self.widest * default_dtype(device).itemsize / GB, memory_gb(device)
        if needed > has:
            clip = f" with {request.frames} frames" if request.frames != 1 else ""
            where = "this machine" if device.type == "cpu" else "the accelerator"
            raise RequestError(
                f"size {request.size}{clip} needs more than {needed:.1f} GB of memory; {where} has {has:.1f} GB."
            )

    def off_training(self, request: GenerateRequest) -> str:
        """As `StudentSpec.off_training`; empty without a student."""
        own = request.plan is not None and request.plan == self.own_plan(size_of(str(request.size)))
        return self.card.off_training(request.steps, request.switch, own) if self.card else ""


def read_outline(entry: Entry, student: str | None = None) -> Outline:
    """Read an entry's cards and configurations; `student` as in `GenerateRequest`.

    Raises RequestError when they are missing or damaged.
    """
    entry = with_folder(entry)
    check_there(entry)
    adapter = adapter_of(entry.folder)
    spec = entry.spec or read_spec(entry.folder, entry.id)[0]
    network, vae, scheduler = (read_config(entry.folder, n) for n in (adapter.component, "vae", "scheduler"))
    folder = student_folder(entry, student)
    card = known_card(entry, student) or (student_card(folder, spec) if folder else None)
    try:
        schedule = adapter.schedule_of(scheduler, card.shift if card and card.shift else spec.shift)
    except (TypeError, ValueError) as error:
        raise RequestError(f"{named(entry.folder)} does not fit: {first_line(error)}") from error
    grid, widest = adapter.grid_of(vae, network), adapter.widest(network)
    return Outline(entry, spec, card, schedule, grid, widest, adapter.unguided(scheduler))
