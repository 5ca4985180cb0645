"""From the built page to a running server: limits, files, health, and what Gradio itself must not offer."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from rmd.checks import RequestError
from rmd.serve.admission import ACCELERATOR, RateLimit, Sentences, admit, guard_queue
from rmd.serve.members import Members, admit_tools
from rmd.serve.runner import Runner

LOCAL = ("127.0.0.1", "localhost", "::1", "[::1]")
RATE = 20.0
"""Pictures a minute for one client of a server that others can reach."""
SWEEPING = 600.0
"""Seconds between two looks for old files."""


@dataclass(frozen=True)
class Options:
    """How to serve. port: None for any that is free. rate_limit: pictures a minute for each client,
    0 for no limit, None to choose by the address.

    proxies: reverse proxies of ours in front (see `admission.client_of`).
    """

    host: str = "127.0.0.1"
    port: int | None = 7860
    share: bool = False
    auth: tuple[str, str] | None = None
    rate_limit: float | None = None
    proxies: int = 0

    @property
    def private(self) -> bool:
        """Whether only this machine can ask."""
        return self.host in LOCAL and not self.share

    @property
    def allowance(self) -> float:
        """Pictures a minute for each client; 0 where only this machine can ask, for nobody has to wait then."""
        return self.rate_limit if self.rate_limit is not None else 0.0 if self.private else RATE


def check_address(host: str, port: int) -> None:
    """Raise RequestError where nothing can listen; port 0 is any free one."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except OSError as error:
        raise RequestError(
            f"The app cannot listen on {host}, port {port}: {error.strerror}. Choose another address with --host or "
            "another port with --port; 0 is any free one."
        ) from error


def launch(page: gr.Blocks, runner: Runner, options: Options, **more: Any) -> Any:
    """Serve the page until the process ends; what `gr.Blocks.launch` returns. more: its looks and whatever else,
    `prevent_thread_lock` to return at once."""
    limit = RateLimit(options.allowance) if options.allowance else None
    guard_queue(page, ACCELERATOR["concurrency_id"], limit, options.proxies)
    admit(page, ACCELERATOR["concurrency_id"], runner.session.places)
    middleware, waiting = [Middleware(Sentences)], not more.pop("prevent_thread_lock", False)
    if options.auth:
        middleware.append(Middleware(Members, login=options.auth))
    started = page.launch(
        server_name=options.host,
        server_port=options.port,
        share=options.share,
        auth=options.auth,
        app_kwargs={
            "routes": [Route("/health", health(page, runner)), Route("/monitoring/summary", unwatched)],
            "lifespan": tidying(runner),
            "middleware": middleware,
        },
        mcp_server=importlib.util.find_spec("mcp") is not None,  # `pip install "gradio[mcp]"` turns it on
        enable_monitoring=False,
        run_history=False,  # Gradio's own pages about past runs, for people signed in at its maker's
        show_error=False,  # what the handlers refuse is shown all the same; this hides what was not meant for anyone
        footer_links=["api"],
        ssr_mode=False,
        max_file_size="20mb",
        state_session_capacity=200,
        _frontend=False,  # asks for no check of Gradio's own that a busy machine fails within its three seconds
        prevent_thread_lock=True,
        **more,
    )
    if options.auth:
        admit_tools(page, options.auth)
    if waiting:
        page.block_thread()
    return started


def health(page: gr.Blocks, runner: Runner) -> Any:
    """The handler of /health: alive, what the engine tells, how many run and wait. Takes no lock and loads nothing."""

    async def answer(request: Request) -> JSONResponse:
        queue = page._queue
        return JSONResponse(
            {
                "ok": not queue.stopped,
                **await asyncio.to_thread(runner.session.state),
                "running": queue.get_active_worker_count(),
                "queued": len(queue),
            },
            status_code=503 if queue.stopped else 200,
            headers={"Cache-Control": "no-store"},
        )

    return answer


async def unwatched(request: Request) -> JSONResponse:
    """What Gradio's API panel asks for and would get a 403: figures of calls, of which none are kept."""
    return JSONResponse({"functions": {}})


def tidying(runner: Runner) -> Any:
    """A lifespan that removes old files as long as the server runs, also when nobody asks for new ones."""

    async def tidy() -> None:
        while True:
            await asyncio.to_thread(runner.prune)
            await asyncio.sleep(SWEEPING)

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        task = asyncio.create_task(tidy())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    return lifespan
