"""The Compare tab: the comparison, its verdict and its figures; Generate, Stop and live mode."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any
from urllib.parse import parse_qsl

import gradio as gr
from gradio.components import Component

from rmd.checks import Cancelled, RequestError
from rmd.engine.events import Decoded, Progress
from rmd.engine.film import Film
from rmd.engine.results import ROLES, Done
from rmd.method.plan import MAX_STEPS
from rmd.serve import sentences
from rmd.serve.admission import ACCELERATOR
from rmd.serve.guard import in_words, sentence
from rmd.serve.runner import Runner, Saved
from rmd.ui import parts, text
from rmd.ui.beside import at_once, draw
from rmd.ui.draw import verdict
from rmd.ui.draw.results import results_html
from rmd.ui.events import AT_ONCE, NO_CHANGE, REFUSABLE, Given, Updates, run_and_stop, visitor_of
from rmd.ui.follow import NOT_SHOWN, Follow, within
from rmd.ui.halves import Halves
from rmd.ui.rail import Rail
from rmd.ui.share import Share
from rmd.ui.strip import moved, strip, strip_value
from rmd.ui.tabs.examples import Examples
from rmd.ui.tour import Tour
from rmd.ui.view import LiveView, complete, with_teacher_of


class Compare:
    """The tab. `last` holds the visitor's last result (Saved or None); other tabs put theirs here by `show`."""

    def __init__(self, runner: Runner, rail: Rail, examples: Examples, tabs: gr.Tabs):
        self.runner, self.rail, self.examples, self.tabs = runner, rail, examples, tabs
        self.follow = Follow(runner, examples)
        self.halves = Halves(runner)
        first = examples.all[0] if examples.all else None
        self.last = gr.State(first)
        self.drawn = gr.State(0)  # how many switches were drawn in idle moments
        self.tour = Tour(self)
        with gr.Row(elem_id="duo"):
            with gr.Column(elem_id="pictures"):
                self.pictures = parts.compare(complete(first) if first else None)
                self.steps = strip(self.follow.strip_of(first) if first else None)
            with gr.Column(elem_id="verdict"):
                self.speed = parts.block(verdict.speed(first), "speed")
                self.again = gr.Button(text.MEASURE_AGAIN, size="sm", elem_id="again", interactive=first is not None)
                self.status = parts.block(parts.status(examples.label(first) if first else text.IDLE), "status")
                self.files = {role: parts.download_button(first, role) for role in ROLES}
        self.results = gr.State([])
        self.row = parts.buttons("", "results")
        self.strip = examples.place()
        with gr.Row(elem_id="figures"):
            self.schedule = parts.buttons(self.follow.schedule(rail.shown_at_first()), "schedule")
            self.bars = parts.block(verdict.bars(first), "bars")
        with gr.Accordion("All timings", open=False):
            self.table = parts.block(verdict.table(first), "table")
        self.share = Share(runner, rail)

    @property
    def outputs(self) -> list[Component]:
        """What `show` changes."""
        figures = [self.speed, self.again, self.bars, self.table]
        return [self.pictures, self.steps, *figures, *self.files.values(), self.last, self.results, self.row]

    def show(self, saved: Saved | None, among: list[Saved] | None = None) -> Updates:
        """A result on the stage; None leaves it alone. among: those of one request that came with it."""
        if saved is None:
            return {}
        among = among or [saved]
        files: Updates = {self.files[role]: parts.download(saved, role) for role in ROLES}
        figures: Updates = {self.again: gr.update(interactive=True)}
        figures |= {self.speed: verdict.speed(saved), self.bars: verdict.bars(saved), self.table: verdict.table(saved)}
        beside: Updates = {self.results: among, self.row: results_html(among, saved)}
        with contextlib.suppress(RequestError):  # of a model that is not offered any more
            beside[self.steps] = self.follow.strip_of(saved)
        return {self.pictures: complete(saved), **figures, **files, self.last: saved, **beside}

    def in_front(self) -> Updates:
        """This tab before the others."""
        return {self.tabs: gr.Tabs(selected="compare")}

    def connect(self, page: gr.Blocks) -> Any:
        """Wire the tab; returns the event of a run."""
        c, rail = self.rail.settings, self.rail
        self.schedule.select(self.switch_taken, None, c["switch"], **AT_ONCE)
        gr.on(
            # a result as well: in live mode it may arrive before the answer to the move that asked for it
            [self.last.change, self.drawn.change, *(c[name].change for name in c if name not in NOT_SHOWN)],
            in_words(self.settings_moved),
            {*rail.inputs, self.last},
            [self.schedule, self.steps],
            trigger_mode="always_last",
            **AT_ONCE,
        )
        runs: list[tuple[list[Any], Any, set[Component]]] = [
            ([rail.generate.click, c["prompt"].submit], self.generate, {*rail.inputs, rail.randomise, rail.untouched}),
            ([self.again.click], self.measure_again, {self.last}),
        ]
        running = [
            run_and_stop(
                starts,
                run,
                inputs,
                [*self.outputs, self.status, c["seed"], rail.live],
                (rail.generate, rail.stop),
                self.status,
                self.pictures,
                "pictures => pictures?.busy ? { ...pictures, busy: false } : undefined",
                parts.status(sentences.STOPPED),
                again=self.kept_again,
            )
            for starts, run, inputs in runs
        ]
        stopped = [*self.outputs, self.status]
        self.stopping = rail.stop.click(self.stop, {self.pictures}, stopped, cancels=running, **AT_ONCE)
        # While one redraw runs only the newest position waits, so the last one always wins.
        quietly: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", **ACCELERATOR}
        redrawn: dict[str, Any] = {
            "inputs": {*rail.inputs, rail.live, self.last},
            "outputs": [*self.outputs, self.status],
            "trigger_mode": "always_last",
            **quietly,
        }
        moving = (c[name].input for name in ("steps", "switch", "eta", "reinjection"))
        gr.on([rail.live.input, *moving], in_words(self.redraw), **redrawn)
        example = [*self.outputs, self.status, *rail.outputs]
        taken: set[Any] = {*rail.inputs, self.last}
        after = self.steps.select(self.strip_taken, taken, example, trigger_mode="multiple", **AT_ONCE)
        after.then(in_words(self.redraw), **redrawn)
        self.steps.input(in_words(self.ahead), {self.last, self.drawn}, self.drawn, **quietly)
        # of "always_last" the last event would come with the first one's data
        in_turn: dict[str, Any] = {"trigger_mode": "multiple", "concurrency_limit": 1, **REFUSABLE}
        self.steps.submit(in_words(self.gone_back), None, example, **in_turn)
        self.strip.select(in_words(self.example_taken), None, example, **REFUSABLE)
        self.row.select(in_words(self.result_taken), {self.results}, self.outputs, **REFUSABLE)
        self.share.connect(page, self.last)
        self.tour.connect(page)
        page.unload(self.leave)
        return running[0]

    def generate(self, request: gr.Request, given: Given) -> Iterator[Updates]:
        """A run from its first event to its result."""
        settings = self.rail.values(given)
        if given[self.rail.randomise]:
            settings["seed"] = None
        yield from self.shown(request, settings, live=given[self.rail.untouched])

    def measure_again(self, request: gr.Request, given: Given) -> Iterator[Updates]:
        """The comparison on the stage once more, its teacher as well where that came from the cache."""
        saved = given[self.last]
        if saved is None:
            yield NO_CHANGE
        else:
            yield from self.shown(request, asdict(saved.result.request), cached=False)

    def shown(
        self, request: gr.Request, settings: dict[str, Any], cached: bool = True, live: bool = False
    ) -> Iterator[Updates]:
        """The stage while a request runs. live: whether Live goes on after it where the student is fast."""
        view, visitor = None, visitor_of(request)
        self.halves.forget(visitor)
        try:
            checked = self.runner.request(settings)
            view, seed = LiveView(checked, self.runner.plan(checked)), {self.rail.settings["seed"]: checked.seed}
            outline = self.runner.offer.outline(checked.backbone, checked.student)
            finished: list[Saved] = []
            film = Film()
            yield {button: gr.update(interactive=False) for button in self.files.values()}  # what they save goes now
            for event in self.runner.run(checked, visitor, cached=cached):
                film.take(event)
                if isinstance(event, Decoded) and event.alone:
                    self.halves.note(visitor, (event.alone, film, finished))
                if isinstance(event, Done):
                    self.halves.forget(visitor)
                    finished.append(self.runner.save(event, film))
                    film = Film()
                    view = LiveView(checked, self.runner.plan(checked))  # for the next one
                    view.sentence = text.OF_SEVERAL.format(index=len(finished), total=checked.count)
                    words = f"Done, seed {event.request.seed}." if len(finished) == checked.count else view.sentence
                    yield {**self.show(finished[-1], finished), **self.say(words), **seed}
                    if live and at_once(self.runner, finished[-1]):
                        yield {self.rail.live: True}
                elif view.take(event):
                    yield {self.pictures: view.value, **self.say(view.sentence), **seed}
                    if isinstance(event, Progress) and event.role == "student":
                        yield {self.steps: {**strip_value(outline, view.plan, film.frames), "passing": True}}
        except Exception as error:
            stopped = isinstance(error, Cancelled)
            still = {self.pictures: {**view.value, "busy": False}} if view else {}
            if not stopped:
                yield {**still, **self.say("")}
            elif not self.halves.known(visitor):
                yield {**still, **self.say(sentences.STOPPED)}
            elif half := self.halves.take(visitor):  # unless Stop's own answer has it already
                yield self.kept(self.halves.keep(visitor, half))
            if not stopped:
                raise sentence(error, html=True) from None

    def redraw(self, request: gr.Request, given: Given) -> Updates:
        """Live mode: the student again, the teacher staying put where it still fits."""
        if not given[self.rail.live]:
            return NO_CHANGE
        last, film = given[self.last], Film()
        checked = self.runner.request(within({**self.rail.values(given), "teacher": False, "count": 1}))
        saved = self.runner.made(checked)  # also where the strip has put it on the stage a moment ago
        with contextlib.suppress(Cancelled):
            for event in [] if saved else self.runner.run(checked, visitor_of(request)):
                film.take(event)
                saved = self.runner.save(event, film) if isinstance(event, Done) else None
        if saved is None:
            return NO_CHANGE
        updates = {**self.show(with_teacher_of(saved, last)), **self.say(f"Live, seed {checked.seed}.")}
        updates.pop(self.steps, None)  # it follows the controls and this result; what it waits for is not covered up
        return updates

    def ahead(self, request: gr.Request, given: Given) -> Updates:
        """The strip has nothing to do: one more switch of the result on the stage."""
        drawn = draw(self.runner, given[self.last], visitor_of(request))
        return {self.drawn: given[self.drawn] + 1} if drawn else NO_CHANGE

    def stop(self, request: gr.Request, given: Given) -> Updates:
        """Gradio cancels the event itself; the session stops at its next check. A finished student stays."""
        visitor = visitor_of(request)
        half = self.halves.take(visitor)  # before the run can, whose words nobody hears any more
        self.runner.stop(visitor)
        if half:
            return self.kept(self.halves.keep(visitor, half))
        return {self.pictures: {**(given[self.pictures] or {}), "busy": False}, **self.say(sentences.STOPPED)}

    def kept(self, among: list[Saved]) -> Updates:
        """A stopped run's finished student on the stage."""
        return {**self.show(among[-1], among), **self.say(text.STOPPED_HALF)}

    def kept_again(self, request: gr.Request) -> Updates:
        """The same after the run's end, over what was on its way when Stop was answered."""
        among = self.halves.kept(visitor_of(request))
        return self.kept(among) if among else NO_CHANGE

    def leave(self, request: gr.Request) -> None:
        """The browser's tab was closed: nobody waits for the result any more."""
        self.runner.stop(visitor_of(request))
        self.halves.forget(visitor_of(request))

    def words_of(self, saved: Saved) -> str:
        """Where a result comes from that was not made just now."""
        if saved.stored:
            return self.examples.label(saved)
        return (text.AHEAD if saved.beside else text.EARLIER).format(seed=saved.result.request.seed)

    def say(self, words: str) -> Updates:
        """The status line."""
        return {self.status: parts.status(words)}

    def switch_taken(self, event: gr.EventData) -> Any:
        """The recommended switch, from its button in the schedule picture."""
        switch = str(event._data.get("switch", ""))
        return int(switch) if switch.isdigit() and int(switch) <= MAX_STEPS else gr.skip()

    def gone_back(self, event: gr.EventData) -> Updates:
        """Back or forward in the browser: the result that stood there and its settings; where it is forgotten, those of
        the address."""
        saved = self.follow.found(str(event._data.get("shown", "")))
        query = dict(parse_qsl(str(event._data.get("query", "")).removeprefix("?")))
        if saved is None:
            return self.share.linked(query)
        return {**self.show(saved), **self.settings_of(saved), **self.say(self.words_of(saved))}

    def settings_of(self, saved: Saved) -> Updates:
        """The rail with a stored result's settings, where they can be used here."""
        stored = saved.result.request
        try:
            student = self.runner.offer.student_of(stored.backbone, stored.student)
            return self.rail.fill(self.runner.request({**asdict(stored), "student": student}))
        except RequestError:
            return {}

    def example_taken(self, event: gr.EventData) -> Updates:
        """A stored result on the stage; its settings follow where they can be used."""
        saved = self.examples.picked(event._data)
        return {**self.show(saved), **self.say(self.examples.label(saved)), **self.settings_of(saved)}

    def result_taken(self, given: Given, event: gr.EventData) -> Updates:
        """One of several results on the stage."""
        among: list[Saved] = given[self.results] or []
        saved = next((one for one in among if one.id == event._data.get("result")), None)
        return self.show(saved, among) or NO_CHANGE

    def strip_taken(self, given: Given, event: gr.EventData) -> Updates:
        """Other steps, another switch or number of sizes: the controls follow, and the stage where that is stored."""
        c, last, settings = self.rail.settings, given[self.last], self.rail.values(given)
        try:
            values = moved(self.runner, settings, event._data)
        except (RequestError, LookupError, TypeError, ValueError):  # of settings that no plan can be made of
            return NO_CHANGE
        controls: Updates = {c[name]: value for name, value in values.items()}
        saved = None if values["plan"] else self.examples.others(last).get((values["steps"], values["switch"]))
        if saved is None or last is None or not self.follow.is_shown(settings, last, ("steps", "switch", "plan")):
            return controls
        return {**controls, **self.show(saved), **self.say(self.words_of(saved))}

    def settings_moved(self, given: Given) -> Updates:
        """The schedule and the strip follow the controls."""
        values = self.rail.values(given)
        updates: Updates = {self.schedule: self.follow.schedule(values)}
        with contextlib.suppress(RequestError):
            updates[self.steps] = self.follow.strip(values, given[self.last])
        return updates
