"""Which event calls which handler, and what it may change."""

from __future__ import annotations

import json
from typing import Any, get_args

import gradio as gr

from rmd.method.plan import Mapping
from rmd.serve.admission import ACCELERATOR
from rmd.serve.guard import in_words
from rmd.serve.runner import Offer
from rmd.ui.controls import Rail
from rmd.ui.examples import Examples
from rmd.ui.handlers import Handlers
from rmd.ui.pairs import Pairs
from rmd.ui.quality import Maps
from rmd.ui.sharing import Sharing
from rmd.ui.sweeps import Sweeps

AT_ONCE: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""For handlers that answer in milliseconds."""
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
REFUSABLE: dict[str, Any] = {**AT_ONCE, "queue": True}
"""For quick handlers that may refuse: only what went through the queue brings its message to the page."""
GENTLY = "block: 'start', behavior: matchMedia('(prefers-reduced-motion: reduce)').matches ? 'auto' : 'smooth'"
RUNNING, ENDING, READY = (
    f"() => [{start}, {stop}].map((on) => ({{ __type__: 'update', interactive: on }}))"
    for start, stop in (("true", "true"), ("false", "false"), ("true", "false"))
)
"""Whether [Generate or Start, Stop] can be pressed. After Stop a run ends with its current network call; until then the
page would ignore that the next one is asked for."""
SHOWN = ("compare", "speed", "bars", "table", "student", "teacher")
"""What changes with a result, before `last`; the order of `handlers.shown`."""


def connect_rail(page: gr.Blocks, act: Handlers, rail: Rail, view: dict[str, Any]) -> None:
    """Controls that change other controls or the schedule picture; no model is loaded."""
    c = rail.settings
    asked = [c["backbone"], c["prompt"]]
    rail.suggestions.select(act.picked, None, c["prompt"], **AT_ONCE)
    view["schedule"].select(act.switch_taken, None, c["switch"], **AT_ONCE)
    c["prompt"].change(in_words(act.prompt_changed), asked, rail.note, trigger_mode="always_last", **AT_ONCE)
    bounded = [[c["steps"], c["switch"]], c["switch"]]
    c["steps"].change(None, *bounded, js=WITHIN_STEPS, **AT_ONCE)
    page.load(None, *bounded, js=WITHIN_STEPS, **AT_ONCE)
    for begins in (c["backbone"].change, page.load):
        begins(None, c["backbone"], c["mapping"], js=own_mappings(act.runner.offer), **AT_ONCE)
    own = [c[n] for n in ("mapping", "steps", "switch", "teacher_steps", "guidance", "reinjection", "eta")]
    c["backbone"].change(in_words(act.backbone_shown), asked, [rail.suggestions, rail.note, c["decoder"]], **AT_ONCE)
    c["backbone"].focus(None, c["backbone"], None, js=FOCUSED, **AT_ONCE)
    c["backbone"].input(
        in_words(act.backbone_chosen), c["backbone"], own, js=IF_ANOTHER, trigger_mode="always_last", **AT_ONCE
    )
    c["seed"].input(lambda: False, None, rail.randomise, **AT_ONCE)
    gr.on(
        [c[name].change for name in ("backbone", "steps", "switch", "mapping")],
        in_words(act.settings_moved),
        rail.fields,
        view["schedule"],
        trigger_mode="always_last",
        **AT_ONCE,
    )


def own_mappings(offer: Offer) -> str:
    """JavaScript that leaves a backbone's time mappings to choose. In the browser alone: the server would refuse the
    mapping of a link before it knows of the other backbone."""
    ratios = {name: offer.outline(name).spec.shift_ratio for name in offer.usable}
    own = {name: [(m, m) for m in get_args(Mapping) if m != "shift" or ratio] for name, ratio in ratios.items()}
    return f"(name) => ({{ __type__: 'update', choices: {json.dumps(own)}[name] ?? [] }})"


def connect_generate(act: Handlers, rail: Rail, view: dict[str, Any], last: gr.State) -> None:
    """Generate, Stop and live mode."""
    c = rail.settings
    result = [*(view[name] for name in SHOWN), last]
    pressed = [rail.generate.click, c["prompt"].submit]
    buttons = [rail.generate, rail.stop]
    gr.on(pressed, None, None, buttons, js=RUNNING, **AT_ONCE)
    view["running"] = gr.on(
        pressed,
        in_words(act.generate),
        [rail.randomise, *rail.fields],
        [*result, view["status"], c["seed"]],
        show_progress="minimal",
        show_progress_on=view["status"],
        trigger_mode="once",
        api_visibility="private",
        **ACCELERATOR,
    )
    rail.stop.click(None, None, buttons, js=ENDING, **AT_ONCE)
    stopped = [view["compare"], view["status"]]
    rail.stop.click(act.stop, view["compare"], stopped, cancels=[view["running"]], **AT_ONCE)
    when_over(view["running"], buttons)
    # While one redraw runs only the newest position waits, so the last one always wins.
    view["redrawn"] = gr.on(
        [rail.live.input, *(c[name].input for name in ("steps", "switch", "eta", "reinjection"))],
        in_words(act.live),
        [rail.live, last, *rail.fields],
        [*result, view["status"]],
        show_progress="hidden",
        trigger_mode="always_last",
        api_visibility="private",
        **ACCELERATOR,
    )


def when_over(running: Any, buttons: list[gr.Button]) -> None:
    """After a run, whether it was finished, stopped or refused."""
    for ended in (running.then, running.failure):
        ended(None, None, buttons, js=READY, **AT_ONCE)


def connect_sharing(
    page: gr.Blocks, share: Sharing, rail: Rail, view: dict[str, Any], last: gr.State, history: gr.BrowserState
) -> None:
    """Links, files and history bring settings back."""
    controls = [*rail.fields, rail.randomise]
    result = [*(view[name] for name in SHOWN), last]
    page.load(in_words(share.visited), None, controls, **REFUSABLE)
    page.load(share.remember, [gr.State(None), history], [history, view["history"]], **AT_ONCE)
    view["load"].upload(in_words(share.uploaded), view["load"], controls, **REFUSABLE)
    view["running"].success(share.remember, [last, history], [history, view["history"]], **AT_ONCE)
    last.change(share.link, last, view["link"], **AT_ONCE)
    view["history"].select(in_words(share.reopen), history, [*result, *controls], **REFUSABLE).success(
        lambda: gr.Tabs(selected="compare"), None, view["tabs"], **AT_ONCE
    )


def connect_examples(strip: Examples, rail: Rail, view: dict[str, Any], last: gr.State) -> None:
    """A stored result on the stage, its settings in the rail."""
    result = [*(view[name] for name in SHOWN), last, view["status"]]
    view["examples"].select(in_words(strip.picked), None, [*result, *rail.fields, rail.randomise], **REFUSABLE)


def connect_maps(maps: Maps, rail: Rail, view: dict[str, Any]) -> None:
    """A measured plan's settings from the quality-and-speed map."""
    names = ("backbone", "steps", "switch", "reinjection", "eta", "mapping", "upsampler")
    chosen = [*(rail.settings[name] for name in names), view["tabs"]]
    view["maps"].select(in_words(maps.picked), None, chosen, **REFUSABLE)


def connect_pairs(pairs: Pairs, view: dict[str, Any], history: gr.BrowserState) -> None:
    """Two marked entries of the history in one place."""
    outputs = [view["pair-block"], view["pair"], view["pair-table"]]
    view["history"].submit(in_words(pairs.compared), history, outputs, **REFUSABLE).success(
        None, None, None, js=f"() => document.querySelector('#pair-block').scrollIntoView({{ {GENTLY} }})", **AT_ONCE
    )


def connect_sweep(sweeps: Sweeps, rail: Rail, view: dict[str, Any], grid: dict[str, Any], last: gr.State) -> None:
    """The Sweep tab."""
    files = [grid[name] for name in ("sheet", "csv", "zip")]
    axes = [grid[name] for name in ("steps", "kinds", "etas")]
    gr.on(
        [*(axis.change for axis in axes), last.change, rail.settings["backbone"].change],
        sweeps.cost,
        [*axes, last, *rail.fields],
        grid["status"],
        trigger_mode="always_last",
        **AT_ONCE,
    )
    buttons = [grid["start"], grid["stop"]]
    grid["start"].click(None, None, buttons, js=RUNNING, **AT_ONCE)
    running = grid["start"].click(
        in_words(sweeps.start),
        [*axes, grid["state"], *rail.fields],
        [grid["table"], grid["status"], *files, grid["state"]],
        show_progress="minimal",
        show_progress_on=grid["status"],
        trigger_mode="once",
        api_visibility="private",
        **ACCELERATOR,
    )
    grid["stop"].click(None, None, buttons, js=ENDING, **AT_ONCE)
    stopped = [grid["table"], grid["status"], *files]
    grid["stop"].click(sweeps.stop, grid["state"], stopped, cancels=[running], **AT_ONCE)
    when_over(running, buttons)
    result = [*(view[name] for name in SHOWN), last]
    chosen = [*rail.fields, rail.randomise, view["tabs"]]
    grid["table"].select(sweeps.picked, [grid["state"], last], [*result, *chosen], **AT_ONCE)
