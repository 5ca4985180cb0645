"""The rail: everything one can choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from rmd.backbones.cards import with_article
from rmd.backbones.outline import Outline
from rmd.checks import Choice, Real, Truth, Whole
from rmd.request import PROMPT_LENGTH, SETTINGS, Setting
from rmd.ui import text, views
from rmd.ui.handlers import FIELDS, start_values

LONGEST_SLIDER = 1000
"""Whole numbers of larger ranges are typed."""


@dataclass(frozen=True)
class Rail:
    """The rail's components; `settings` by field name."""

    settings: dict[str, Any]
    randomise: gr.Checkbox
    live: gr.Checkbox
    suggestions: gr.HTML
    note: gr.HTML
    generate: gr.Button
    stop: gr.Button

    @property
    def fields(self) -> list[Any]:
        """The settings in the order handlers expect."""
        return [self.settings[name] for name in FIELDS]


def rail(names: list[tuple[str, str]], outline: Outline | None, prompt: str | None = None) -> Rail:
    """Build the rail with the defaults of the first backbone and a prompt it knows, unless one is given.

    names: (label, name) of the usable backbones.
    """
    start = start_values(outline)
    known = outline.spec.known_words if outline else ()
    colours = outline.spec.colours if outline else ()
    if prompt is None and known:
        prompt = f"{with_article(known[0])} on a {(colours or ('white',))[0]} background"
    c: dict[str, Any] = {}
    with gr.Column(elem_id="rail"):
        with gr.Column(elem_id="model"):
            first = names[0][1] if names else None
            c["backbone"] = gr.Dropdown(names, value=first, label=SETTINGS["backbone"].label, filterable=False)
        with gr.Column(elem_id="compose"):
            c["prompt"] = gr.Textbox(
                prompt, label=SETTINGS["prompt"].label, placeholder=text.PROMPT_HINT, lines=2, max_lines=5,
                max_length=PROMPT_LENGTH, elem_id="prompt",
            )  # fmt: skip
            note = views.block("", "note")
            suggestions = views.buttons(views.chips_html(outline.spec if outline else None), "suggestions")
            with gr.Row(elem_id="buttons"):
                generate = gr.Button(text.GENERATE, variant="primary", elem_id="generate", min_width=0)
                stop = gr.Button(text.STOP, elem_id="stop", interactive=False, min_width=0)
        with gr.Column(elem_id="settings"):
            for setting in placed("settings"):
                if setting.name == "seed":  # between the two kinds of settings that redraw
                    live = gr.Checkbox(False, label=text.LIVE, show_label=False, container=False)
                c[setting.name] = control(setting, start.get(setting.name, setting.default))
            randomise = gr.Checkbox(True, label=text.RANDOMISE, show_label=False, container=False)
            with gr.Accordion(text.ADVANCED, open=False, elem_id="advanced"):
                for setting in placed("advanced"):
                    c[setting.name] = control(setting, start.get(setting.name, setting.default))
            c["decoder"].visible = start["tiny_decoder"]
    return Rail(c, randomise, live, suggestions, note, generate, stop)


def placed(place: str) -> list[Setting]:
    """The settings of one group, those of the teacher alone last."""
    found = [setting for setting in SETTINGS.values() if setting.place == place]
    return found if place == "settings" else sorted(found, key=lambda s: s.teacher or s.name == "teacher")


def control(setting: Setting, value: Any) -> Any:
    """A setting's component, by its kind."""
    kind, about = setting.kind, {"label": setting.label, "info": setting.info or None, "elem_id": setting.name}
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
    return gr.Textbox(value, label=setting.label, placeholder=text.NEGATIVE_HINT, max_length=kind.longest)
