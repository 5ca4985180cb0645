"""The rail: everything one can choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import gradio as gr

from rmd.backbones.cards import with_article
from rmd.backbones.outline import Outline
from rmd.method.plan import MAX_STEPS, Mapping
from rmd.request import GUIDANCE, PROMPT_LENGTH, TEACHER_STEPS
from rmd.ui import text, views
from rmd.ui.handlers import FIELDS, start_values


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
            c["backbone"] = gr.Dropdown(names, value=names[0][1] if names else None, label=text.MODEL, filterable=False)
        with gr.Column(elem_id="compose"):
            c["prompt"] = gr.Textbox(
                prompt, label=text.PROMPT, placeholder=text.PROMPT_HINT, lines=2, max_lines=5,
                max_length=PROMPT_LENGTH, elem_id="prompt",
            )  # fmt: skip
            note = views.block("", "note")
            suggestions = views.buttons(views.chips_html(outline.spec if outline else None), "suggestions")
            with gr.Row(elem_id="buttons"):
                generate = gr.Button(text.GENERATE, variant="primary", elem_id="generate", min_width=0)
                stop = gr.Button(text.STOP, elem_id="stop", interactive=False, min_width=0)
        with gr.Column(elem_id="settings"):
            c["steps"] = gr.Slider(1, MAX_STEPS, start["steps"], step=1, label=text.STEPS, info=text.STEPS_INFO)
            c["switch"] = gr.Slider(
                0, MAX_STEPS, start["switch"], step=1, label=text.SWITCH, info=text.SWITCH_INFO, elem_id="switch"
            )
            live = gr.Checkbox(False, label=text.LIVE, show_label=False, container=False)
            c["seed"] = gr.Number(0, label=text.SEED, info=text.SEED_INFO, precision=0, elem_id="seed")
            randomise = gr.Checkbox(True, label=text.RANDOMISE, show_label=False, container=False)
            advanced(c, start)
    return Rail(c, randomise, live, suggestions, note, generate, stop)


def advanced(c: dict[str, Any], start: dict[str, Any]) -> None:
    """The folded part, in the field's own words."""
    with gr.Accordion(text.ADVANCED, open=False, elem_id="advanced"):
        c["reinjection"] = gr.Radio(
            text.REINJECTIONS, value=start["reinjection"], label=text.REINJECTION, info=text.REINJECTION_INFO
        )
        c["eta"] = gr.Slider(0, 1, start["eta"], step=0.05, label=text.ETA, info=text.ETA_INFO)
        c["mapping"] = gr.Radio(get_args(Mapping), value="logsnr", label=text.MAPPING, info=text.MAPPING_INFO)
        c["upsampler"] = gr.Radio(["bilinear", "bicubic", "nearest"], value="bilinear", label=text.UPSAMPLER)
        c["decoder"] = gr.Radio(
            text.DECODERS, value="full", label=text.DECODER, info=text.DECODER_INFO, visible=start["tiny_decoder"]
        )
        c["teacher"] = gr.Checkbox(True, label=text.TEACHER, show_label=False, container=False)
        c["teacher_steps"] = gr.Slider(*TEACHER_STEPS, start["teacher_steps"], step=1, label=text.TEACHER_STEPS)
        c["guidance"] = gr.Slider(*GUIDANCE, start["guidance"], step=0.1, label=text.GUIDANCE, info=text.GUIDANCE_INFO)
        c["negative"] = gr.Textbox("", label=text.NEGATIVE, placeholder=text.NEGATIVE_HINT, max_length=PROMPT_LENGTH)
