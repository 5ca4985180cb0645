"""Who may join the queue, how a refusal reaches them, and whether they still wait for the answer.

The only module that knows Gradio's queue from inside: it offers no hook before an event is queued, and a request that
is refused only when its turn comes has held a place in the queue until then.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import gradio as gr
from fastapi import Request
from gradio.context import LocalContext
from gradio.queueing import Event, Queue
from gradio.route_utils import FnIndexInferError
from gradio.server_messages import ProcessCompletedMessage
from gradio.utils import error_payload
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rmd.serve import sentences

log = logging.getLogger("rmd.ui")

ACCELERATOR: dict[str, Any] = {"concurrency_id": "accelerator", "concurrency_limit": 1}
"""One picture at a time, whoever asks: page, live mode, sweep and API share the queue. See `admit` for more places."""
BURST = 10.0
"""Pictures a client may ask for at once."""
COSTS = {"redraw": 0.1, "start": 4.0, "ahead": 0.0}
"""What an accelerator handler takes from a client's allowance, by its name: a live redraw is one student picture, a
sweep (`start`) many; the few switches of a result that are drawn `ahead` belong to it; all others cost 1."""
CLIENTS = 10_000
"""Clients that are remembered; beyond that the one longest quiet is forgotten."""


class RateLimit:
    """A token bucket per client: `burst` pictures at once, refilled at `per_minute` (above 0)."""

    def __init__(self, per_minute: float, burst: float = BURST, clock: Callable[[], float] = time.monotonic):
        self.per_second, self.burst, self.clock = per_minute / 60, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str, cost: float = 1.0) -> float:
        """Take `cost` (at most `burst`) and return 0, or take nothing and return the seconds until there is enough."""
        now = self.clock()
        level, since = self._buckets.pop(client, (self.burst, now))
        level = min(self.burst, level + (now - since) * self.per_second)
        missing = cost - level
        self._buckets[client] = (level if missing > 0 else level - cost, now)
        if len(self._buckets) > CLIENTS:
            self._buckets.popitem(last=False)
        return max(0.0, missing / self.per_second)


def client_of(request: Request, proxies: int = 0) -> str:
    """Whom a request counts for: an IPv4 address or an IPv6 network of 64 bits (what one customer is given).

    proxies: how many reverse proxies of ours are in front. Each appends the address it was called from to
    X-Forwarded-For, so the entry that many places from the right is theirs; everything left of it may be made up.
    Without proxies the header is not looked at. MCP calls reach the queue from this very server and share one bucket.
    """
    if request.headers.get("x-gradio-user") == "mcp":
        return "mcp"
    host = request.client.host if request.client else "unknown"
    hops = [hop.strip() for line in request.headers.getlist("x-forwarded-for") for hop in line.split(",")]
    if 0 < proxies <= len(hops):
        host = hops[-proxies]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host[:64]
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


def admit(page: gr.Blocks, group: str, places: int) -> None:
    """Let as many events of a concurrency group run at once; called before the page is launched."""
    for fn in page.fns.values():
        if fn.concurrency_id == group:
            fn.concurrency_limit = places


def guard_queue(page: gr.Blocks, group: str, limit: RateLimit | None, proxies: int) -> None:
    """From now on what cannot be answered is refused with a sentence before it is queued.

    That is a request with too few values, and in the concurrency group `group` one of a client over its limit. Values
    that Gradio itself stumbles over get a sentence too.
    """
    push, send = page._queue.push, page._queue.send_message

    def sent(event: Event, event_message: Any) -> None:
        failed = isinstance(event_message, ProcessCompletedMessage) and not event_message.success
        if failed and not event_message.output.get("error"):  # what was raised is in the log and not for the outside
            event_message.output = error_payload(gr.Error(sentences.NOT_UNDERSTOOD, title=sentences.FAILED), False)
        send(event, event_message)

    page._queue.send_message = sent
    # Gradio keeps figures of the last ten thousand events and computes a summary of them after each one, for a page
    # that is off here.
    page._queue.ANALYTICS_MAX_EVENTS, page._queue.ANAYLTICS_CACHE_FREQUENCY = 1, sys.maxsize

    async def guarded(body: Any, request: Request, username: str | None) -> Any:
        fn = page.fns.get(body.fn_index)
        refusal = ""
        if fn is not None and len(body.data) < len(fn.inputs):
            refusal = sentences.TOO_FEW.format(name=fn.api_name, needed=len(fn.inputs), given=len(body.data))
        elif fn is not None and fn.concurrency_id == group and limit is not None:
            seconds = limit.wait(client_of(request, proxies), COSTS.get(str(fn.name), 1.0))
            refusal = sentences.TOO_MANY.format(seconds=math.ceil(seconds)) if seconds else ""
        if fn is None or not refusal:
            return await push(body=body, request=request, username=username)
        return True, answer(page._queue, Event(body.session_hash, fn, request, username), refusal), "success"

    page._queue.push = guarded


def answer(queue: Queue, event: Event, refusal: str) -> str:
    """Put a refusal where the client looks for its result; returns the event's id.

    Every other refusal comes through the event stream too. A bare status 429 would reach the users of gradio_client
    without its sentence.
    """
    if event.session_hash not in queue.pending_messages_per_session:
        queue.pending_messages_per_session[event.session_hash] = asyncio.Queue()
    queue.pending_event_ids_session.setdefault(event.session_hash, set()).add(event._id)
    error = gr.Error(refusal, title=sentences.FAILED, print_exception=False)
    queue.send_message(event, ProcessCompletedMessage(output=error_payload(error, False), success=False))
    return event._id


class Sentences:
    """Middleware for what Gradio's own routes stumble over: unknown names, missing fields, wrong shapes."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, sending)
        except Exception as error:
            if started and isinstance(error.__cause__, HTTPException):
                # The stream of a session that is gone (its tab was closed, the server began anew) has already said so
                # in an event of its own, and only its end is missing.
                log.info("a stream ended: %r", error.__cause__)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            if started or scope["type"] != "http":
                raise
            asked = isinstance(error, LookupError | TypeError | ValueError | FnIndexInferError)
            if asked:
                log.info("a request was not understood: %r", error)
            else:
                log.error("a request failed", exc_info=error)
            words, status = (sentences.NOT_UNDERSTOOD, 400) if asked else (sentences.UNEXPECTED, 500)
            await JSONResponse({"detail": words}, status_code=status)(scope, receive, send)


def listening() -> Callable[[], bool]:
    """Inside a queued handler: a function that says whether its client still waits for the answer."""
    page, name = LocalContext.blocks.get(None), LocalContext.event_id.get(None)
    if page is None or name is None:
        return lambda: True
    running = page._queue.event_ids_to_events
    event = running.get(name)
    return lambda: event is None or (event.alive and name in running)
