"""The app as a tool server for assistants, through the protocol's own client."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers import serving

pytest.importorskip("mcp", reason='MCP is on only with pip install "gradio[mcp]"')

from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client


async def talk(url: str, arguments: dict[str, Any], headers: dict[str, str] | None = None) -> tuple[Any, Any, Any]:
    """The tools, the result of a good call and of a bad one."""
    async with (
        streamablehttp_client(f"{url}/gradio_api/mcp/", headers) as (read, write, _),
        ClientSession(read, write) as mcp,
    ):
        await mcp.initialize()
        tools = (await mcp.list_tools()).tools
        good = await mcp.call_tool(tools[0].name, arguments)
        bad = await mcp.call_tool(tools[0].name, {**arguments, "steps": 99})
        return tools, good, bad


def test_the_one_tool_is_generate(tiny_sdxl: Path, tmp_path: Path) -> None:
    named = shutil.copytree(tiny_sdxl, tmp_path / "tiny")
    with serving(named, tmp_path / "files") as server:
        wanted = {"prompt": "a fox", "teacher": False, "seed": 3}
        with ThreadPoolExecutor(1) as thread:  # the browser tests keep an event loop in the main one
            tools, good, bad = thread.submit(lambda: asyncio.run(talk(server.url, wanted))).result()
    assert [tool.name.rpartition("_")[2] for tool in tools] == ["generate"]
    assert "few-step student" in tools[0].description
    properties = tools[0].inputSchema["properties"]
    assert "1 to 8" in properties["steps"]["description"]
    assert not good.isError
    shown = " ".join(part.model_dump_json() for part in good.content)
    assert "student.png" in shown
    assert bad.isError
    assert "steps must be a whole number from 1 to 8, not 99" in json.dumps(bad.model_dump(mode="json"))


@pytest.mark.parametrize("how", ["basic", "cookie"])
def test_with_a_password_tools_are_for_members(tiny_sdxl: Path, tmp_path: Path, how: str) -> None:
    named = shutil.copytree(tiny_sdxl, tmp_path / "tiny")
    with serving(named, tmp_path / "files", auth=("ann", "secret")) as server:
        for given in ({}, {"auth": ("ann", "wrong")}, {"headers": {"Authorization": "Basic nonsense"}}):
            for path in ("mcp/schema", "mcp/"):
                seen = httpx.get(f"{server.url}/gradio_api/{path}", **given)
                assert seen.status_code == 401
                assert "generate" not in seen.text
        if how == "basic":
            headers = {"Authorization": "Basic " + base64.b64encode(b"ann:secret").decode()}
        else:
            signed = httpx.post(f"{server.url}/login/", data={"username": "ann", "password": "secret"})
            headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in signed.cookies.items())}
        wanted = {"prompt": "a fox", "teacher": False, "seed": 3}
        with ThreadPoolExecutor(1) as thread:
            _, good, _ = thread.submit(lambda: asyncio.run(talk(server.url, wanted, headers))).result()
    assert not good.isError, good.content
    assert "student.png" in " ".join(part.model_dump_json() for part in good.content)
