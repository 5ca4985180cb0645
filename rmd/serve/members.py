"""A password is a password: what Gradio's own does not cover."""

from __future__ import annotations

import base64
import binascii
import secrets
from typing import Any

import gradio as gr
from gradio_client import Client
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from rmd.serve import sentences

MCP = "/gradio_api/mcp"


class Members:
    """Middleware before MCP, whose tools Gradio shows to everybody: only for those who signed in on the page, or who
    send name and password with the request (HTTP Basic), as assistants can."""

    def __init__(self, app: ASGIApp, login: tuple[str, str]):
        self.app, self.login = app, login

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and MCP in scope["path"] and not self.known(Request(scope)):
            head = {"WWW-Authenticate": 'Basic realm="RMD"'}
            await JSONResponse({"detail": sentences.MEMBERS}, status_code=401, headers=head)(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def known(self, request: Request) -> bool:
        """Whether a request is a member's."""
        app: Any = request.app
        cookies = (request.cookies.get(f"access-token{kind}-{app.cookie_id}") for kind in ("", "-unsecure"))
        if any(token in app.tokens for token in cookies if token):
            return True
        scheme, _, said = request.headers.get("authorization", "").partition(" ")
        try:
            given = base64.b64decode(said, validate=True)
        except (binascii.Error, ValueError):
            return False
        return scheme.lower() == "basic" and secrets.compare_digest(given, ":".join(self.login).encode())


def admit_tools(page: gr.Blocks, login: tuple[str, str]) -> None:
    """Let the tool server of a running page call the page: it does so as a client, and knows no password."""
    tools: Any = page.mcp_server_obj
    if tools is not None and page.local_url:
        tools._client_instance = Client(
            page.local_url,
            auth=login,
            headers={"x-gradio-user": "mcp"},
            download_files=False,
            verbose=False,
            analytics_enabled=False,
            ssl_verify=False,
            _skip_components=False,
        )
