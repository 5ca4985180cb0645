"""The page: rail and stage, and which event calls which handler."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from rmd.session import Session
from rmd.ui import controls, text, views
from rmd.ui.api import Api
from rmd.ui.controls import Rail
from rmd.ui.guard import in_words
from rmd.ui.handlers import Handlers
from rmd.ui.runner import Offer, Runner

ACCELERATOR: dict[str, Any] = {"concurrency_id": "accelerator", "concurrency_limit": 1}
"""One picture at a time, whoever asks: page, live mode, sweep and API share the queue."""
AT_ONCE: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""For handlers that answer in milliseconds."""
QUEUE_LIMIT = 24


def build(session: Session, folders: Sequence[Path] = ()) -> gr.Blocks:
    """The whole app, ready to launch. folders: diffusers folders offered beside the bundled backbones."""
    offer = Offer(folders)
    outline = offer.outline(offer.default) if offer.default else None
    # Pictures live as long as a visit takes; Gradio removes what is older.
    with gr.Blocks(title="RMD", fill_width=True, analytics_enabled=False, delete_cache=(3600, 6 * 3600)) as page:
        runner = Runner(session, offer, Path(page.GRADIO_CACHE) / "rmd")
        act = Handlers(runner)
        gr.api(Api(runner).generate, api_name="generate", **ACCELERATOR)  # first, so that the name is free
        views.block(views.head(), "head-row")
        if outline is None:
            views.block(f'<div class="note warn">{text.NO_MODEL}</div>', "no-model")
        last = gr.State(None)
        with gr.Row(elem_id="shell"):
            rail = controls.rail(offer.usable, outline)
            with gr.Column(elem_id="stage"):
                view = stage(act, rail)
        connect_rail(act, rail, view)
        connect_generate(act, rail, view, last)
        page.unload(act.leave)
    return page.queue(max_size=QUEUE_LIMIT, default_concurrency_limit=4)


def stage(act: Handlers, rail: Rail) -> dict[str, Any]:
    """The right-hand side; returns its components by name."""
    view: dict[str, Any] = {}
    with gr.Tabs():
        with gr.Tab("Compare"):
            with gr.Row(elem_id="duo"):
                with gr.Column(elem_id="pictures"):
                    view["compare"] = views.compare()
                with gr.Column(elem_id="verdict"):
                    view["speed"] = views.block(views.speed(None), "speed")
                    view["status"] = views.block(views.status(text.IDLE), "status")
                    for role in ("student", "teacher"):
                        view[role] = gr.DownloadButton(f"Save the {role}'s picture", interactive=False, size="sm")
            with gr.Row(elem_id="figures"):
                settings = {name: component.value for name, component in rail.settings.items()}
                view["schedule"] = views.block(act.schedule(settings), "schedule")
                view["bars"] = views.block(views.bars(None), "bars")
            with gr.Accordion("All timings", open=False):
                view["table"] = views.block(views.table(None), "table")
        with gr.Tab("About"):
            gr.Markdown(text.ABOUT, elem_id="about")
    return view


def connect_rail(act: Handlers, rail: Rail, view: dict[str, Any]) -> None:
    """Controls that change other controls or the schedule picture; no model is loaded."""
    c = rail.settings
    rail.suggestions.select(act.picked, None, c["prompt"], **AT_ONCE)
    c["prompt"].change(
        in_words(act.prompt_changed), [c["backbone"], c["prompt"]], rail.note, trigger_mode="always_last", **AT_ONCE
    )
    c["steps"].change(act.steps_changed, [c["steps"], c["switch"]], c["switch"], trigger_mode="always_last", **AT_ONCE)
    follows = [c[name] for name in ("mapping", "steps", "switch", "teacher_steps", "guidance", "reinjection", "eta")]
    c["backbone"].change(
        in_words(act.backbone_changed), [c["backbone"], c["prompt"]], [rail.suggestions, rail.note, *follows], **AT_ONCE
    )
    c["seed"].input(lambda: False, None, rail.randomise, **AT_ONCE)
    drawn = [c[name] for name in ("backbone", "steps", "switch", "mapping")]
    gr.on(
        [component.change for component in drawn],
        in_words(act.settings_moved),
        rail.fields,
        view["schedule"],
        trigger_mode="always_last",
        **AT_ONCE,
    )


def connect_generate(act: Handlers, rail: Rail, view: dict[str, Any], last: gr.State) -> None:
    """Generate and Stop."""
    shown = [view[name] for name in ("compare", "status", "speed", "bars", "table", "student", "teacher")]
    pressed = [rail.generate.click, rail.settings["prompt"].submit]
    gr.on(pressed, lambda: gr.update(interactive=True), None, rail.stop, **AT_ONCE)
    running = gr.on(
        pressed,
        in_words(act.generate),
        [rail.randomise, *rail.fields],
        [*shown, rail.settings["seed"], rail.stop, last],
        show_progress="minimal",
        show_progress_on=view["status"],
        trigger_mode="once",
        api_visibility="private",
        **ACCELERATOR,
    )
    rail.stop.click(
        act.stop, view["compare"], [view["compare"], view["status"], rail.stop], cancels=[running], **AT_ONCE
    )
