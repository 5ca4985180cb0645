"""How the page's events are sent: what goes past the queue, and the pair of buttons that starts and stops a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import gradio as gr
from gradio.blocks import Block
from gradio.components import Component

from rmd.serve.admission import ACCELERATOR
from rmd.serve.guard import in_words

Updates = dict[Block, Any]
"""What a handler answers: new values or updates of the components that change, and of no others."""
NO_CHANGE: Updates = gr.skip()
"""The answer of a handler that changes nothing: gradio takes an empty dict for one value."""
Given = dict[Component, Any]
"""What a handler is given: the value of each of its inputs."""
AT_ONCE: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""For handlers that answer in milliseconds."""
REFUSABLE: dict[str, Any] = {**AT_ONCE, "queue": True}
"""For quick handlers that may refuse: only what went through the queue brings its message to the page."""


def run_and_stop(
    starts: list[Callable[..., Any]],
    run: Callable[..., Any],
    inputs: Iterable[Component],
    outputs: Iterable[Component],
    buttons: tuple[gr.Button, gr.Button],
    status: Component,
    shown: Component,
    unfinished: str,
    stopped: str,
    limits: dict[str, Any] = ACCELERATOR,
    again: Callable[..., Any] | None = None,
) -> Any:
    """Connect a run (on the accelerator, or as `limits` says) with its buttons (start, stop); returns the run's event.

    After Stop a run ends with its current network call; until then the page would ignore that the next one is asked
    for, so neither button can be pressed. What was on its way when Stop was answered may be drawn after that answer:
    unfinished is a JavaScript function that takes the value of `shown` and returns it without its signs of a running
    event, or undefined where it has none; `status` then becomes `stopped`. again: a handler without inputs for what
    Stop has kept, which such a late drawing may have covered up.
    """
    both = list(buttons)
    flag = f"window.rmd_stopped_{str(buttons[1].elem_id).replace('-', '_')}"  # only what was stopped is settled
    gr.on(starts, None, None, both, js=pressable(True, True, f"{flag} = false"), **AT_ONCE)
    running = gr.on(
        starts,
        in_words(run),
        set(inputs),
        list(outputs),
        show_progress="minimal",
        show_progress_on=status,
        trigger_mode="once",
        api_visibility="private",
        **limits,
    )
    buttons[1].click(None, None, both, js=pressable(False, False, f"{flag} = true"), **AT_ONCE)
    words = json.dumps(stopped)
    for ended in (running.then, running.failure):
        ended(None, None, both, js=pressable(True, False), **AT_ONCE)
        settle = f"(shown) => {{ const s = {flag} ? ({unfinished})(shown) : undefined; return [s, s && {words}]; }}"
        # the page puts an answer into its values a moment after it came: read at once, they would be older than it
        moment = ended(None, None, None, js="() => new Promise((ready) => setTimeout(ready, 200))", **AT_ONCE)
        settled = moment.then(None, [shown], [shown, status], js=settle, **AT_ONCE)
        if again:
            settled.then(in_words(again), None, list(outputs), **AT_ONCE)
    return running


def pressable(start: bool, stop: bool, first: str = "0") -> str:
    """JavaScript that says which of the two buttons can be pressed, after doing something first."""
    updates = ", ".join(f"{{ __type__: 'update', interactive: {str(on).lower()} }}" for on in (start, stop))
    return f"() => {{ {first}; return [{updates}]; }}"


def visitor_of(request: gr.Request) -> str:
    """The page's session, by which its run can be stopped."""
    return request.session_hash or "nobody"
