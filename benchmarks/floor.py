"""
The floor: the least that a server on this SDK can be.

One tool that does nothing, on the low-level server, with nothing tuned. What
takes longer than this is ours.
"""

from __future__ import annotations

from typing import Any

import anyio
import mcp_types as t
from mcp.server.lowlevel.server import Server
from mcp.server.stdio import stdio_server

TOOL = t.Tool(name="nothing", description="Does nothing.", input_schema={"type": "object", "properties": {}})


async def list_tools(ctx: Any, params: Any) -> t.ListToolsResult:
    """The one tool."""
    return t.ListToolsResult(tools=[TOOL])


async def call_tool(ctx: Any, params: Any) -> t.CallToolResult:
    """Do nothing; with `characters`, say so in as many, in both halves of the answer."""
    characters = int((params.arguments or {}).get("characters", 0))
    if not characters:
        return t.CallToolResult(content=[t.TextContent(type="text", text="done")])
    text = "done " * (characters // 10)
    return t.CallToolResult(content=[t.TextContent(type="text", text=text)], structured_content={"done": text})


async def main() -> None:
    """Serve until standard input ends."""
    server: Server[Any] = Server("floor", on_list_tools=list_tools, on_call_tool=call_tool)
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


if __name__ == "__main__":
    anyio.run(main)
