"""The page: rail and stage. What calls what is in `wiring`."""

from __future__ import annotations

from typing import Any

import gradio as gr

from rmd.checks import Choice
from rmd.method.plan import MAX_STEPS
from rmd.request import SETTINGS
from rmd.serve import sentences
from rmd.serve.admission import ACCELERATOR
from rmd.serve.api import endpoint
from rmd.serve.runner import KEEP, Runner, Saved
from rmd.ui import controls, examples, sharing, text, views, wiring
from rmd.ui.examples import Examples
from rmd.ui.handlers import Handlers
from rmd.ui.models import models_html
from rmd.ui.pairs import Pairs
from rmd.ui.quality import Maps
from rmd.ui.sharing import Sharing
from rmd.ui.stage import complete
from rmd.ui.sweeps import Sweeps

QUEUE_LIMIT = 24


def build(runner: Runner) -> gr.Blocks:
    """The whole app, ready to launch."""
    offer = runner.offer
    outline = offer.outline(offer.default) if offer.default else None
    ready = examples.load(offer)
    example = ready[0] if ready else None
    with gr.Blocks(title="RMD", fill_width=True, analytics_enabled=False, delete_cache=(3600, int(KEEP))) as page:
        act, share, sweeps = Handlers(runner), Sharing(runner), Sweeps(runner)
        strip = Examples(share, offer, ready)
        # first, so that the name is free
        gr.api(endpoint(runner), api_name="generate", **ACCELERATOR)
        views.block(views.head(), "head-row")
        if outline is None:
            views.block(f'<div class="note warn">{sentences.NO_MODEL}</div>', "no-model")
        last = gr.State(example)
        # A fixed secret, so that the history outlives the server; it stays in the visitor's browser anyway.
        history = gr.BrowserState([], storage_key="rmd-history", secret="rmd")
        with gr.Row(elem_id="shell"):
            names = [(offer.outline(name).spec.name, name) for name in offer.usable]
            own = outline is not None and example is not None and example.result.request.backbone == outline.entry.id
            rail = controls.rail(names, outline, example.result.request.prompt if own and example else None)
            settings = {name: component.value for name, component in rail.settings.items()}
            with gr.Column(elem_id="stage"), gr.Tabs() as tabs:
                with gr.Tab("Compare", id="compare"):
                    view = compare_tab(act, strip, settings)
                with gr.Tab("Sweep", id="sweep"):
                    grid = sweep_tab(sweeps, settings)
                with gr.Tab("History", id="history"):
                    view |= history_tab()
                with gr.Tab("Models", id="models"):
                    views.block(models_html(offer), "models")
                    maps = Maps(offer)
                    view["maps"] = views.buttons(maps.html(), "maps")
                with gr.Tab("About", id="about"):
                    gr.Markdown(text.ABOUT, elem_id="about-text")
        view |= {"tabs": tabs}
        wiring.connect_rail(page, act, rail, view)
        wiring.connect_generate(act, rail, view, last)
        wiring.connect_sharing(page, share, rail, view, last, history)
        wiring.connect_maps(maps, rail, view)
        wiring.connect_pairs(Pairs(runner), view, history)
        wiring.connect_examples(strip, rail, view, last)
        wiring.connect_sweep(sweeps, rail, view, grid, last)
        page.unload(act.leave)
    return page.queue(max_size=QUEUE_LIMIT, default_concurrency_limit=4, api_open=False)


def compare_tab(act: Handlers, strip: Examples, settings: dict[str, Any]) -> dict[str, Any]:
    """The comparison, its verdict and its figures; returns the components by name."""
    view: dict[str, Any] = {}
    example: Saved | None = strip.all[0] if strip.all else None
    words = strip.label(example) if example else text.IDLE
    with gr.Row(elem_id="duo"):
        with gr.Column(elem_id="pictures"):
            view["compare"] = views.compare(complete(example) if example else None)
        with gr.Column(elem_id="verdict"):
            view["speed"] = views.block(views.speed(example), "speed")
            view["status"] = views.block(views.status(words), "status")
            for role in ("student", "teacher"):
                path = str(example.files[role]) if example and role in example.files else None
                label = f"Save the {role}'s result"
                view[role] = gr.DownloadButton(label, path, interactive=path is not None, size="sm")
    view["examples"] = views.buttons(strip.strip(), "examples")
    with gr.Row(elem_id="figures"):
        view["schedule"] = views.buttons(act.schedule(settings), "schedule")
        view["bars"] = views.block(views.bars(example), "bars")
    with gr.Accordion("All timings", open=False):
        view["table"] = views.block(views.table(example), "table")
    with gr.Accordion(text.SHARE, open=False):
        view["link"] = gr.Textbox(label=text.LINK, interactive=False, buttons=["copy"], elem_id="link")
        view["load"] = gr.UploadButton(text.LOAD, file_types=[".png", ".mp4"], size="sm", elem_id="load")
    return view


def history_tab() -> dict[str, Any]:
    """The history and the comparison of two of its entries; returns the components by name."""
    views.block(f'<p class="note">{text.HISTORY_ABOUT}</p>', "history-about")
    with gr.Column(visible=False, elem_id="pair-block") as block:
        pair = views.compare({}, "pair")
        table = views.block("", "pair-table")
    history = views.buttons(sharing.history_html([]), "history", "history.js")
    return {"history": history, "pair-block": block, "pair": pair, "pair-table": table}


def sweep_tab(sweeps: Sweeps, settings: dict[str, Any]) -> dict[str, Any]:
    """The sweep's choice, grid and files; returns the components by name."""
    grid: dict[str, Any] = {"state": gr.State(None)}
    first = [1, 2, 4]
    views.block(f'<p class="note">{text.SWEEP_ABOUT}</p>', "sweep-about")
    with gr.Row(elem_id="sweep-bar"):
        grid["steps"] = gr.CheckboxGroup(list(range(1, MAX_STEPS + 1)), value=first, label=text.SWEEP_STEPS)
        grid["start"] = gr.Button("Start", variant="primary", elem_id="sweep-start", scale=0, min_width=110)
        grid["stop"] = gr.Button("Stop", interactive=False, elem_id="sweep-stop", scale=0, min_width=80)
    with gr.Accordion(text.SWEEP_MORE, open=False):
        kinds_of_noise = SETTINGS["reinjection"].kind
        assert isinstance(kinds_of_noise, Choice)
        kinds = [(label.partition(":")[0], value) for label, value in kinds_of_noise.pairs]
        grid["kinds"] = gr.CheckboxGroup(kinds, label=text.SWEEP_KINDS, info=text.SWEEP_MORE_INFO)
        grid["etas"] = gr.CheckboxGroup([0, 0.25, 0.5, 0.75, 1], label=text.SWEEP_ETAS, info=text.SWEEP_MORE_INFO)
    cost = sweeps.cost(first, [], [], None, *settings.values()) if settings["backbone"] else ""
    grid["status"] = views.block(cost, "sweep-status")
    grid["table"] = views.buttons("", "sweep-table")
    with gr.Row():
        for name, label in (("sheet", "Contact sheet (PNG)"), ("csv", "Timings (CSV)"), ("zip", "Everything (ZIP)")):
            grid[name] = gr.DownloadButton(label, interactive=False, size="sm", min_width=120)
    return grid
