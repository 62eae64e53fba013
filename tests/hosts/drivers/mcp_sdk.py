"""The MCP SDK of an older year: each call of the order, and what its own models make of the answer."""

from __future__ import annotations

from typing import Any

from library import in_turn, run
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client


async def drive(order: dict[str, Any]) -> dict[str, Any]:
    """Make a video and read everything about it."""
    async with stdio_client(StdioServerParameters(**order["server"])) as pipes, ClientSession(*pipes) as session:
        await session.initialize()
        tools = await session.list_tools()
        answers: list[Any] = []

        async def call(name: str, given: dict[str, Any]) -> Any:
            answers.append(await session.call_tool(name, given))
            return answers[-1]

        await in_turn(order, call)
        lists = [await session.list_resources(), await session.list_resource_templates(), await session.list_prompts()]
    return {
        "tools": [tool.name for tool in tools.tools],
        "answers": [answer.model_dump(mode="json", by_alias=True, exclude_none=True) for answer in answers],
        "lists": [len(getattr(found, name)) for found, name in zip(lists, order["lists"], strict=True)],
    }


run(drive)
