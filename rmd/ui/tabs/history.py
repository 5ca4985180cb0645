"""The History tab: this browser's last pictures, to open again or to see two of them side by side."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import gradio as gr

from rmd.checks import RequestError
from rmd.engine.files import first_frame
from rmd.engine.results import Result
from rmd.serve.guard import in_words
from rmd.serve.runner import Runner, Saved, file_of
from rmd.ui import parts, text
from rmd.ui.draw.history import history_html, pair_table
from rmd.ui.draw.units import times
from rmd.ui.events import AT_ONCE, REFUSABLE, Given, Updates
from rmd.ui.panes import candidate, panes, panes_value
from rmd.ui.rail import Rail
from rmd.ui.tabs.compare import Compare
from rmd.ui.view import clip

KEPT = 24
"""Pictures in the history."""
MOST = 4
"""Pictures in step."""
THUMBNAIL = 160
GENTLY = "block: 'start', behavior: matchMedia('(prefers-reduced-motion: reduce)').matches ? 'auto' : 'smooth'"


READ = """() => {
  try {
    const kept = JSON.parse(localStorage.getItem("rmd-history"));
    return [Array.isArray(kept) ? kept.filter((one) => one && typeof one === "object" && !Array.isArray(one)) : []];
  } catch { return [[]]; }
}"""
ADD = f"""(fresh) => {{
  const [kept] = ({READ})(), there = new Set(kept.map((one) => one.id));
  const entries = [...fresh.filter((one) => !there.has(one.id)), ...kept].slice(0, {KEPT});
  try {{ localStorage.setItem("rmd-history", JSON.stringify(entries)); }} catch {{ /* full, or a private window */ }}
  return [entries];
}}"""
"""The browser's own store, read anew at the moment in which anything is added, so that several tabs keep one history
and nothing is lost between two answers of the server."""


class History:
    """The tab. `entries` is what the visitor's browser keeps; nothing of it is stored on the server."""

    def __init__(self, runner: Runner, rail: Rail, compare: Compare):
        self.runner, self.rail, self.compare = runner, rail, compare
        self.entries = gr.JSON([], visible="hidden", render=False)  # and not left out: its change is looked at
        self.fresh = gr.JSON([], visible=False, render=False)
        parts.block(f'<p class="note">{text.HISTORY_ABOUT}</p>', "history-about")
        with gr.Column(visible=False, elem_id="pair-block") as self.pair_block:
            self.pair = parts.compare({}, "pair")
            self.pair_table = parts.block("", "pair-table")
        self.panes = panes("history-panes")
        self.cards = parts.buttons(history_html([]), "history", "history.js")

    def connect(self, page: gr.Blocks, running: Any, tab: gr.Tab) -> None:
        """running: the event of a run, after whose end there is something to remember. tab: where this is."""
        for part in (self.entries, self.fresh):
            part.render()  # outside the tab, whose parts the browser makes only when it is opened
        for begins in (page.load, tab.select, self.cards.input):  # the last where another tab of the browser wrote
            begins(None, None, self.entries, js=READ, **AT_ONCE)
        for ended in (running.success, self.compare.stopping.then):
            new = ended(self.remember, {self.compare.results}, self.fresh, **AT_ONCE)
            new.then(None, self.fresh, self.entries, js=ADD, **AT_ONCE)
        self.entries.change(self.listed, {self.entries}, self.cards, trigger_mode="always_last", **AT_ONCE)
        on_stage = [*self.compare.outputs, *self.rail.outputs, self.compare.tabs]
        self.cards.select(in_words(self.reopen), {self.entries}, on_stage, **REFUSABLE)
        shown = [self.pair_block, self.pair, self.pair_table, self.panes]
        marked = self.cards.submit(
            in_words(self.compared), {self.entries}, shown, trigger_mode="multiple", concurrency_limit=1, **REFUSABLE
        )
        marked.success(
            None, None, None, js=f"() => document.querySelector('#history-about').scrollIntoView({{ {GENTLY} }})",
            **AT_ONCE,
        )  # fmt: skip

    def listed(self, given: Given) -> Updates:
        """What the browser keeps."""
        return {self.cards: history_html(known(given[self.entries]))}

    def remember(self, given: Given) -> Updates:
        """The last results, the newest first, for the browser to keep."""
        mine = [one for one in given[self.compare.results] or [] if not one.stored and not one.beside]
        return {self.fresh: [entry(one) for one in reversed(mine)]}

    def reopen(self, given: Given, event: gr.EventData) -> Updates:
        """A clicked entry. Where the server no longer has its pictures the stage is left alone."""
        try:
            one = (given[self.entries] or [])[int(event._data["index"])]
            stored = one["request"]
            student = self.runner.offer.student_of(stored["backbone"], stored.get("student"))
            checked = self.runner.request({**stored, "student": student})
        except RequestError:
            raise
        except (LookupError, TypeError, ValueError) as error:
            raise RequestError("This entry can no longer be opened.") from error
        saved = self.runner.find(str(one.get("id")))
        return {**self.compare.show(saved), **self.rail.fill(checked), **self.compare.in_front()}

    def compared(self, given: Given, event: gr.EventData) -> Updates:
        """The two marked entries in one compare view, with what differs between them; three or four as panes."""
        try:
            if len(event._data["marks"]) > 2:
                return self.several([(given[self.entries] or [])[int(mark)] for mark in event._data["marks"][:MOST]])
            both = [(given[self.entries] or [])[int(mark)] for mark in event._data["marks"]]
            sides = [self.side(mark, one) for mark, one in zip("AB", both, strict=True)]
            table = pair_table(both)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise RequestError("These entries can no longer be compared.") from error
        ratio = next((side.pop("ratio") for side in sides if "ratio" in side), 1)
        view = {"student": sides[0], "teacher": sides[1], "ratio": ratio}
        there: Updates = {self.pair_block: gr.update(visible=True), self.pair: view, self.pair_table: table}
        return {**there, self.panes: {}}

    def several(self, marked: list[dict[str, Any]]) -> Updates:
        """Up to four in step; those alone whose pictures the server still has."""
        saved = [self.runner.find(str(one.get("id"))) for one in marked]
        there = [(letter, one, known) for letter, one, known in zip("ABCD", saved, marked, strict=False) if one]
        if len(there) < 2:
            raise RequestError(text.FORGOTTEN_ALL)
        named = [candidate(one, f"{letter}: {known['plan']}") for letter, one, known in there]
        return {self.pair_block: gr.update(visible=False), self.panes: panes_value(named, there[0][1].result)}

    def side(self, mark: str, one: dict[str, Any]) -> dict[str, Any]:
        """One picture; the small copy from the browser where the server no longer has it."""
        side = {"name": f"Picture {mark}", "sub": str(one["plan"])}
        saved = self.runner.find(str(one.get("id")))
        if saved is not None:
            size = saved.result.plan.size
            return {**side, "file": file_of(saved.files["student"]), "ratio": size[-1] / size[-2], **clip(saved.result)}
        small = str(one.get("picture"))
        if small.startswith("data:image/webp;base64,"):
            return {**side, "src": small, "sub": f"{side['sub']}; {text.SMALL_COPY}"}
        return {**side, "wait": text.FORGOTTEN}


def known(entries: Any) -> list[dict[str, Any]]:
    """What of the browser's list can be an entry; anything may stand there."""
    return [one for one in entries if isinstance(one, dict)] if isinstance(entries, list) else []


def entry(saved: Saved) -> dict[str, Any]:
    """What the browser keeps of a result: a small picture, the settings and the figures."""
    request, speedup = saved.result.request, saved.result.speedup
    picture = first_frame(saved.files["student"])
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    return {
        "id": saved.id,
        "picture": parts.inline(picture, "webp"),
        "prompt": request.prompt,
        "plan": f"{request.steps} steps, {request.switch} low",
        "speedup": times(speedup["end_to_end"]) if speedup else "",
        "figures": figures(saved.result),
        "request": asdict(request),
    }


def figures(result: Result) -> dict[str, Any]:
    """What an entry keeps of a result, so that it can be compared when the server has forgotten it."""
    values: dict[str, Any] = {name: getattr(result.student, name) for name in ("denoiser", "end_to_end", "nfe")}
    if result.teacher and result.speedup:
        values |= {"teacher_end_to_end": result.teacher.end_to_end, "speedup": result.speedup["end_to_end"]}
    return {**values, "hardware": result.hardware}
