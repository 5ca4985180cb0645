"""The rail: everything one can choose, and how the choices follow one another. No model is loaded here."""

from __future__ import annotations

import json
from dataclasses import asdict
from html import escape
from typing import Any, get_args

import gradio as gr
from gradio.components import Component

from rmd.backbones.cards import with_article
from rmd.backbones.outline import Outline
from rmd.backbones.sizes import lengths, low_for, presets
from rmd.checks import Choice, Real, RequestError, Size, Stages, Truth, Whole, size_text
from rmd.method.plan import Mapping
from rmd.request import PROMPT_LENGTH, SETTINGS, GenerateRequest, Setting, offered
from rmd.serve.guard import in_words
from rmd.serve.offer import Offer
from rmd.ui import parts, text
from rmd.ui.draw.chips import chips_html, words_note
from rmd.ui.events import AT_ONCE, NO_CHANGE, Given, Updates

LONGEST_SLIDER = 1000
"""Whole numbers of larger ranges are typed."""
WITHIN_STEPS = "(steps, low) => ({ __type__: 'update', maximum: steps, value: Math.min(steps, low) })"
"""The switch never lies beyond the steps. Done in the browser alone: a maximum that the server lowers would refuse
what was sent a moment before; `make_request` checks in any case."""
FOCUSED = "(name) => { document.querySelector('#model').dataset.before = name; }"
IF_ANOTHER = """(name) => {
  const { dataset } = document.querySelector('#model'), same = name === dataset.before;
  dataset.before = name;
  return same ? null : name;
}"""
"""A dropdown reports input also when it is only left again, which must not bring the model's own settings back."""


OWN = ""
"""The control's value for a backbone's own student, which a request leaves out."""


class Rail:
    """The rail's components; `settings` by the setting's name.

    example: a stored request of the first model, whose prompt stands in the box at first.
    """

    def __init__(self, offer: Offer, example: GenerateRequest | None = None):
        self.offer = offer
        outline = offer.outline(offer.default) if offer.default else None
        spec = outline.spec if outline else None
        start = start_values(outline)
        self.settings: dict[str, Any] = {}
        with gr.Column(elem_id="rail"):
            with gr.Column(elem_id="model"):
                names = [(offer.outline(name).spec.name, name) for name in offer.usable]
                self.settings["backbone"] = gr.Dropdown(
                    names, value=offer.default, label=SETTINGS["backbone"].label, filterable=False
                )
                students = self.student_choices(offer.default)
                self.settings["student"] = gr.Dropdown(
                    students["choices"], value=OWN, visible=students["visible"], label=SETTINGS["student"].label,
                    filterable=False, elem_id="student",
                )  # fmt: skip
            with gr.Column(elem_id="compose"):
                self.settings["prompt"] = gr.Textbox(
                    first_prompt(outline, example), label=SETTINGS["prompt"].label, placeholder=text.PROMPT_HINT,
                    lines=2, max_lines=5, max_length=PROMPT_LENGTH, elem_id="prompt",
                )  # fmt: skip
                self.note = parts.block("", "note")
                self.suggestions = parts.buttons(chips_html(spec), "suggestions")
                with gr.Row(elem_id="buttons"):
                    self.generate = gr.Button(text.GENERATE, variant="primary", elem_id="generate", min_width=0)
                    self.stop = gr.Button(text.STOP, elem_id="stop", interactive=False, min_width=0)
            with gr.Column(elem_id="settings"):
                for setting in placed("settings"):
                    if setting.name == "seed":  # between the two kinds of settings that redraw
                        self.live = gr.Checkbox(False, label=text.LIVE, show_label=False, container=False)
                    self.settings[setting.name] = control(setting, start.get(setting.name, setting.default))
                    if setting.name == "size":
                        self.size_note = parts.block("", "size-note")
                self.randomise = gr.Checkbox(True, label=text.RANDOMISE, show_label=False, container=False)
                with gr.Accordion(text.ADVANCED, open=False, elem_id="advanced"):
                    for setting in placed("advanced"):
                        self.settings[setting.name] = control(setting, start.get(setting.name, setting.default))
                self.settings["decoder"].visible = outline is not None and outline.tiny_decoder
                for name, changes in shapes(outline).items():
                    for attribute, value in changes.items():
                        setattr(self.settings[name], attribute, value)

    @property
    def inputs(self) -> set[Component]:
        """What holds a request's settings."""
        return {*self.settings.values()}

    @property
    def outputs(self) -> list[Component]:
        """What `fill` may change."""
        return [*self.settings.values(), self.randomise]

    def values(self, given: Given) -> dict[str, Any]:
        """The settings by name out of a handler's inputs."""
        return {name: optional(name, given[component]) for name, component in self.settings.items()}

    def shown_at_first(self) -> dict[str, Any]:
        """The settings the page opens with."""
        return {name: component.value for name, component in self.settings.items()}

    def fill(self, request: GenerateRequest, leave: tuple[str, ...] = ()) -> Updates:
        """Put a request's settings into the controls, those in `leave` excepted; its seed stays for the next run."""
        values = {**asdict(request), "student": request.student or OWN}
        updates: Updates = {c: values[name] for name, c in self.settings.items() if name not in leave}
        return updates if "seed" in leave else {**updates, self.randomise: False}

    def connect(self, page: gr.Blocks) -> None:
        """Controls that change other controls."""
        c = self.settings
        asked = {c["backbone"], c["prompt"]}
        self.suggestions.select(self.picked, None, c["prompt"], **AT_ONCE)
        c["prompt"].change(in_words(self.noted), asked, self.note, trigger_mode="always_last", **AT_ONCE)
        for begins in (c["steps"].change, page.load):
            begins(None, [c["steps"], c["switch"]], c["switch"], js=WITHIN_STEPS, **AT_ONCE)
        for begins in (c["backbone"].change, page.load):
            begins(None, c["backbone"], c["mapping"], js=self.own_mappings(), **AT_ONCE)
        shown = [self.suggestions, self.note, c["decoder"], c["student"], *(c[name] for name in SHAPES)]
        c["backbone"].change(in_words(self.another_shown), asked, shown, **AT_ONCE)
        sized = {c[name] for name in ("backbone", *SHAPES)}
        c["size"].input(in_words(self.another_size), sized, [c["low"], c["plan"], self.size_note], **AT_ONCE)
        for name in ("steps", "switch", "low"):
            c[name].input(None, None, c["plan"], js="() => ''", **AT_ONCE)  # the plan would overrule it
        for name in ("frames", "backbone"):
            c[name].change(in_words(self.sized), sized, self.size_note, trigger_mode="always_last", **AT_ONCE)
        c["backbone"].focus(None, c["backbone"], None, js=FOCUSED, **AT_ONCE)
        own = [c[name] for name, s in SETTINGS.items() if s.decided_by != "request" and name in c]
        c["backbone"].input(
            in_words(self.chosen), c["backbone"], [*own, c["student"]], js=IF_ANOTHER, trigger_mode="always_last",
            **AT_ONCE,
        )  # fmt: skip
        c["student"].input(in_words(self.student_chosen), {c["backbone"], c["student"]}, own, **AT_ONCE)
        c["seed"].input(lambda: False, None, self.randomise, **AT_ONCE)

    def picked(self, event: gr.EventData) -> str:
        """The prompt of a clicked suggestion."""
        return str(event._data.get("text", ""))

    def noted(self, given: Given) -> Updates:
        """A word about a prompt that the model does not know."""
        backbone, prompt = given[self.settings["backbone"]], given[self.settings["prompt"]]
        return {self.note: words_note(self.offer.outline(backbone).spec, prompt or "") if backbone else ""}

    def another_shown(self, given: Given) -> Updates:
        """Another model stands in the box, whoever put it there: what it knows and can do."""
        outline, decoder = self.offer.outline(given[self.settings["backbone"]]), self.settings["decoder"]
        kept = gr.update(visible=True) if outline.tiny_decoder else gr.update(visible=False, value="full")
        own = {self.settings[name]: gr.update(**changes) for name, changes in shapes(outline).items()}
        own[self.settings["student"]] = gr.update(**self.student_choices(outline.entry.id))
        return {self.suggestions: chips_html(outline.spec), decoder: kept, **own, **self.noted(given)}

    def another_size(self, given: Given) -> Updates:
        """A visitor chose another size: the low one follows; a plan of several sizes is for the old one."""
        outline, size = self.offer.outline(given[self.settings["backbone"]]), given[self.settings["size"]]
        try:
            low = outline.fill({"size": size})["low"]
        except RequestError:
            return NO_CHANGE  # Generate will say it
        shown = {**given, self.settings["low"]: low}
        return {self.settings["low"]: low, self.settings["plan"]: "", **self.sized(shown)}

    def sized(self, given: Given) -> Updates:
        """What to expect of a size that is not the model's usual one."""
        asked = {name: given[self.settings[name]] for name in SHAPES}
        outline = self.offer.outline(given[self.settings["backbone"]])
        try:
            notes = outline.notes(outline.request({**asked, "prompt": "any"}))
        except RequestError as error:
            notes = [str(error)]
        return {self.size_note: f'<p class="note warn">{escape(" ".join(notes))}</p>' if notes else ""}

    def chosen(self, backbone: str | None) -> Updates:
        """A visitor chose another model: its own settings. None: it is the same as before."""
        if backbone is None:
            return NO_CHANGE
        return {**self.defaults_of(backbone, None), self.settings["student"]: OWN}

    def student_chosen(self, given: Given) -> Updates:
        """A visitor chose another student: its own settings."""
        return self.defaults_of(given[self.settings["backbone"]], given[self.settings["student"]] or None)

    def defaults_of(self, backbone: str, student: str | None) -> Updates:
        """What a backbone and its student decide."""
        defaults = self.offer.outline(backbone, student).defaults()
        return {self.settings[name]: value for name, value in defaults.items() if name in self.settings}

    def student_choices(self, backbone: str | None) -> dict[str, Any]:
        """The attributes of the student's control for a backbone."""
        known = self.offer.students(backbone) if backbone else []
        return {"choices": [(words, one or OWN) for one, words in known], "visible": len(known) > 1}

    def own_mappings(self) -> str:
        """JavaScript that leaves a backbone's time mappings to choose. In the browser alone: the server would refuse
        the mapping of a link before it knows of the other backbone."""
        ratios = {name: self.offer.outline(name).spec.shift_ratio for name in self.offer.usable}
        own = {name: [(m, m) for m in get_args(Mapping) if m != "shift" or r] for name, r in ratios.items()}
        return f"(name) => ({{ __type__: 'update', choices: {json.dumps(own)}[name] ?? [] }})"


def optional(name: str, value: Any) -> Any:
    """A control's value as a request has it: an empty box stands for what may be left out."""
    return None if value == "" and SETTINGS[name].default is None else value


def start_values(outline: Outline | None) -> dict[str, Any]:
    """What the controls show at first for a backbone."""
    values = {s.name: s.default for s in offered() if s.default is not ... and s.name != "seed"}
    return values | (outline.defaults() if outline else {})


SHAPES = ("size", "low", "frames")
"""The settings whose choices are the backbone's."""


def shapes(outline: Outline | None) -> dict[str, dict[str, Any]]:
    """The attributes of the controls of size and length that follow the backbone."""
    if outline is None:
        return {name: {"visible": False} for name in SHAPES}
    spec, grid = outline.spec, outline.grid
    sizes = [size_text(one) for one in presets(spec, grid)]
    lows = [size_text(low_for(spec, grid, one)) for one in presets(spec, grid)]
    several = lengths(spec, grid)

    def pairs(values: list[Any]) -> list[tuple[str, Any]]:
        return [(str(value), value) for value in dict.fromkeys(values)]

    return {
        "size": {"choices": pairs(sizes), "visible": True},
        "low": {"choices": pairs(lows), "visible": True},
        "frames": {"choices": pairs(several), "visible": len(several) > 1},
    }


def first_prompt(outline: Outline | None, example: GenerateRequest | None) -> str | None:
    """The stored example's prompt where it is this model's, else one the model knows."""
    if outline and example and example.backbone == outline.entry.id:
        return example.prompt
    if outline is None or not outline.spec.known_words:
        return None
    colour = (outline.spec.colours or ("white",))[0]
    return f"{with_article(outline.spec.known_words[0])} on a {colour} background"


def placed(place: str) -> list[Setting]:
    """The settings of one group, those of the teacher alone last."""
    found = [setting for setting in SETTINGS.values() if setting.place == place]
    return found if place == "settings" else sorted(found, key=lambda s: s.teacher or s.name == "teacher")


def control(setting: Setting, value: Any) -> Any:
    """A setting's component, by its kind."""
    kind = setting.kind
    about: dict[str, Any] = {"label": setting.label, "info": setting.info or None, "elem_id": setting.name}
    if setting.name == "frames":
        return gr.Dropdown([value] if value else [], value=value, **about)
    if isinstance(kind, Whole) and kind.high > LONGEST_SLIDER:
        return gr.Number(value, precision=0, **about)
    if isinstance(kind, Whole):
        return gr.Slider(kind.low, kind.high, value, step=1, **about)
    if isinstance(kind, Real):
        return gr.Slider(kind.low, kind.high, value, step=kind.step, **about)
    if isinstance(kind, Choice):
        usual_first = sorted(kind.pairs, key=lambda pair: pair[1] != setting.default)
        return gr.Radio(usual_first, value=value, **about)
    if isinstance(kind, Truth):
        return gr.Checkbox(value, label=setting.label, show_label=False, container=False)
    if isinstance(kind, Size):
        choices = [value] if value else []
        return gr.Dropdown(choices, value=value, allow_custom_value=True, **about)
    hint, longest = (text.PLAN_HINT, PROMPT_LENGTH) if isinstance(kind, Stages) else (text.NEGATIVE_HINT, kind.longest)
    return gr.Textbox(value, placeholder=hint, max_length=longest, **about)
