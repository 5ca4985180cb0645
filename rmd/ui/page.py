"""The page: the rail and the tabs, each of which owns its components and what they do."""

from __future__ import annotations

import gradio as gr

from rmd.serve import sentences
from rmd.serve.admission import ACCELERATOR
from rmd.serve.api import endpoint
from rmd.serve.fetch import Fetch
from rmd.serve.runner import KEEP, Runner
from rmd.ui import parts, text
from rmd.ui.rail import Rail
from rmd.ui.tabs import examples
from rmd.ui.tabs.compare import Compare
from rmd.ui.tabs.examples import Examples
from rmd.ui.tabs.history import History
from rmd.ui.tabs.models import Models
from rmd.ui.tabs.sweep import Sweep

QUEUE_LIMIT = 24


def build(runner: Runner, downloads: bool = False) -> gr.Blocks:
    """The whole app, ready to launch. downloads: whether visitors may have models fetched onto this machine."""
    offer = runner.offer
    strip = Examples(offer, examples.load(offer))
    with gr.Blocks(title="RMD", fill_width=True, analytics_enabled=False, delete_cache=(3600, int(KEEP))) as page:
        # first, so that the name is free
        gr.api(endpoint(runner), api_name="generate", **ACCELERATOR)
        parts.block(parts.head(), "head-row")
        if offer.default is None:
            parts.block(f'<div class="note warn">{sentences.NO_MODEL}</div>', "no-model")
        with gr.Row(elem_id="shell"):
            rail = Rail(offer, strip.all[0].result.request if strip.all else None)
            with gr.Column(elem_id="stage"), gr.Tabs() as tabs:
                with gr.Tab("Compare", id="compare"):
                    compare = Compare(runner, rail, strip, tabs)
                with gr.Tab("Sweep", id="sweep") as sweeping:
                    sweep = Sweep(runner, rail, compare)
                with gr.Tab("History", id="history") as past:
                    history = History(runner, rail, compare)
                with gr.Tab("Models", id="models"):
                    models = Models(offer, rail, compare, Fetch() if downloads else None)
                with gr.Tab("About", id="about"):
                    gr.Markdown(text.ABOUT, elem_id="about-text")
        rail.connect(page)
        sweep.connect(sweeping)
        history.connect(page, compare.connect(page), past)
        models.connect()
    return page.queue(max_size=QUEUE_LIMIT, default_concurrency_limit=4, api_open=False)
