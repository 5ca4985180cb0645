"""The rail: everything one can choose, and how the choices follow one another. No model is loaded here."""

from __future__ import annotations

from dataclasses import asdict
from html import escape
from typing import Any

import gradio as gr
from gradio.components import Component

from rmd.backbones.cards import with_article
from rmd.backbones.outline import Outline
from rmd.checks import Choice, Real, RequestError, Stages, Truth, Whole
from rmd.request import PROMPT_LENGTH, SETTINGS, GenerateRequest, Setting, offered
from rmd.serve.guard import in_words
from rmd.serve.offer import Offer
from rmd.ui import parts, text
from rmd.ui.choices import FREE, NAMES, OWN, Choices
from rmd.ui.draw.chips import chips_html, words_note
from rmd.ui.events import AT_ONCE, NO_CHANGE, Given, Updates

LONGEST_SLIDER = 1000
"""Whole numbers of larger ranges are typed."""
WITHIN_STEPS = "(steps, low) => ({ __type__: 'update', maximum: steps, value: Math.min(steps, low) })"
"""The switch never lies beyond the steps. Done in the browser alone: a maximum that the server lowers would refuse
what was sent a moment before; `make_request` checks in any case."""
FOCUSED = "(name) => { document.querySelector('#model').dataset.before = name; }"


class Rail:
    """The rail's components; `settings` by the setting's name.

    example: a stored request of the first model, whose prompt stands in the box at first.
    """

    def __init__(self, offer: Offer, example: GenerateRequest | None = None):
        self.offer = offer
        self.choices = Choices(offer)
        outline = offer.outline(offer.default) if offer.default else None
        spec = outline.spec if outline else None
        start = start_values(outline, example)
        self.settings: dict[str, Any] = {}
        with gr.Column(elem_id="rail"):
            with gr.Column(elem_id="model"):
                names = [(offer.outline(name).spec.name, name) for name in offer.usable]
                self.settings["backbone"] = gr.Dropdown(
                    names, value=offer.default, label=SETTINGS["backbone"].label, filterable=False
                )
                self.settings["student"] = self.control(SETTINGS["student"], OWN)
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
                        self.untouched = gr.State(True)  # until a visitor decides, Live goes on where it is fast
                    self.settings[setting.name] = self.control(setting, start.get(setting.name, setting.default))
                    if setting.name == "size":
                        self.size_note = parts.block("", "size-note")
                self.randomise = gr.Checkbox(
                    "seed" not in start, label=text.RANDOMISE, show_label=False, container=False
                )
                with gr.Accordion(text.ADVANCED, open=False, elem_id="advanced"):
                    for setting in placed("advanced"):
                        self.settings[setting.name] = self.control(setting, start.get(setting.name, setting.default))
                self.settings["decoder"].visible = outline is not None and outline.tiny_decoder

    def control(self, setting: Setting, value: Any) -> Any:
        """A setting's component; where the options are the backbone's, with those of all backbones."""
        if setting.name not in NAMES or setting.name == "mapping":
            return control(setting, value)
        return gr.Dropdown(
            self.choices.all(setting.name), value=value, label=setting.label, info=setting.info or None,
            visible=self.choices.shown(self.offer.default, setting.name), allow_custom_value=setting.name in FREE,
            filterable=setting.name in FREE, elem_id=setting.name,
        )  # fmt: skip

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
        return {name: optional(name, component.value) for name, component in self.settings.items()}

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
            begins(None, c["backbone"], [c[name] for name in NAMES], js=self.choices.script, **AT_ONCE)
        shown = [self.suggestions, self.note, c["decoder"]]
        c["backbone"].change(in_words(self.another_shown), asked, shown, **AT_ONCE)
        sized = {c[name] for name in ("backbone", *NOTED)}
        c["size"].input(in_words(self.another_size), sized, [c["low"], c["plan"], self.size_note], **AT_ONCE)
        for name in ("steps", "switch", "low"):
            c[name].input(None, None, c["plan"], js="() => ''", **AT_ONCE)  # the plan would overrule it
        for name in ("frames", "backbone", "guidance"):
            c[name].change(in_words(self.sized), sized, self.size_note, trigger_mode="always_last", **AT_ONCE)
        c["backbone"].focus(None, c["backbone"], None, js=FOCUSED, **AT_ONCE)
        own = [name for name, s in SETTINGS.items() if s.decided_by != "request" and name in c]
        decided = [c[name] for name in own]
        c["backbone"].input(None, c["backbone"], [*decided, c["student"]], js=self.choices.another(own), **AT_ONCE)
        c["student"].input(None, [c["backbone"], c["student"]], decided, js=self.choices.defaults(own), **AT_ONCE)
        c["seed"].input(lambda: False, None, self.randomise, **AT_ONCE)
        self.live.input(lambda: False, None, self.untouched, **AT_ONCE)

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
        return {self.suggestions: chips_html(outline.spec), decoder: kept, **self.noted(given)}

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
        """What to expect of a size or a guidance that is not the model's usual one."""
        asked = {name: given[self.settings[name]] for name in NOTED}
        outline = self.offer.outline(given[self.settings["backbone"]])
        try:
            notes = outline.notes(outline.request({**asked, "prompt": "any"}))
        except RequestError as error:
            notes = [str(error)]
        return {self.size_note: f'<p class="note warn">{escape(" ".join(notes))}</p>' if notes else ""}


def optional(name: str, value: Any) -> Any:
    """A control's value as a request has it: an empty box stands for what may be left out."""
    return None if value == "" and SETTINGS[name].default is None else value


def start_values(outline: Outline | None, example: GenerateRequest | None) -> dict[str, Any]:
    """What the controls show at first for a backbone: what the stored example on the stage was made with, seed and all,
    where it is the backbone's."""
    values = {s.name: s.default for s in offered() if s.default is not ... and s.name != "seed"}
    if outline and example and example.backbone == outline.entry.id:
        return values | {
            name: value for name, value in asdict(example).items() if name not in ("backbone", "prompt", "student")
        }
    return values | (outline.defaults() if outline else {})


SHAPES = ("size", "low", "frames")
"""What a result's size is made of."""
NOTED = (*SHAPES, "guidance")
"""What there may be something to say of."""


def first_prompt(outline: Outline | None, example: GenerateRequest | None) -> str | None:
    """The stored example's prompt where it is this model's, else one the model knows."""
    if outline and example and example.backbone == outline.entry.id:
        return example.prompt
    if outline is None or not outline.spec.known_words:
        return None
    if outline.spec.prompts:
        return outline.spec.prompts[0]
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
    hint, longest = (text.PLAN_HINT, PROMPT_LENGTH) if isinstance(kind, Stages) else (text.NEGATIVE_HINT, kind.longest)
    return gr.Textbox(value, placeholder=hint, max_length=longest, **about)
