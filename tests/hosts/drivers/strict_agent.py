"""OpenAI's Agents SDK in strict mode, where a model has to fill every argument of a tool in."""

# Runs in an environment of its own, which has these packages.
# pyright: reportMissingImports=false

from __future__ import annotations

import json
from typing import Any

from agents import Agent
from agents.mcp import MCPServerStdio, MCPUtil
from agents.run_context import RunContextWrapper
from agents.tool_context import ToolContext
from library import in_turn, run

NOTHING: dict[str, Any] = {"string": "", "array": [], "boolean": False, "integer": 1, "number": 0.5}
"""What a model writes where it has nothing to say."""


def filled(schema: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    """Every required property: what is said, else the first value that may be chosen, else nothing."""
    properties = schema["properties"]
    return {
        name: said.get(name, properties[name].get("enum", [NOTHING[properties[name]["type"]]])[0])
        for name in schema["required"]
    }


async def drive(order: dict[str, Any]) -> dict[str, Any]:
    """Call each tool of the order with all of its arguments."""
    answers: list[dict[str, Any]] = []
    async with MCPServerStdio(order["server"], client_session_timeout_seconds=60) as server:
        listed = await MCPUtil.get_all_function_tools(
            [server], convert_schemas_to_strict=True, run_context=RunContextWrapper(None), agent=Agent("director")
        )
        tools = {tool.name: tool for tool in listed}

        async def call(name: str, said: dict[str, Any]) -> Any:
            given = filled(tools[name].params_json_schema, said)
            written = json.dumps(given)
            context = ToolContext(None, tool_name=name, tool_call_id=f"call_{len(answers)}", tool_arguments=written)
            answers.append({"tool": name, "given": given, "output": await tools[name].on_invoke_tool(context, written)})
            return answers[-1]["output"]

        await in_turn(order, call)
    return {"strict": {name: tool.strict_json_schema for name, tool in tools.items()}, "answers": answers}


run(drive)
