"""Google's SDK: every tool as Gemini is told of it."""

# Runs in an environment of its own, which has these packages.
# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

from google.genai._mcp_utils import mcp_to_gemini_tools
from library import run
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client


async def drive(order: dict[str, Any]) -> list[dict[str, Any]]:
    """Convert what the server lists."""
    async with stdio_client(StdioServerParameters(**order["server"])) as pipes, ClientSession(*pipes) as session:
        await session.initialize()
        tools = (await session.list_tools()).tools
    return [tool.model_dump(mode="json", exclude_none=True) for tool in mcp_to_gemini_tools(tools)]


run(drive)
