"""LangChain: the tools as an agent has them, and their answers as the next turn sends them to OpenAI."""

# Runs in an environment of its own, which has these packages.
# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage, HumanMessage
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_mcp_adapters.tools import load_mcp_tools
from langchain_openai import ChatOpenAI
from library import in_turn, run


async def drive(order: dict[str, Any]) -> dict[str, Any]:
    """Make a video, read all about it, and build the next request for both of OpenAI's interfaces."""
    client = MultiServerMCPClient({"kling": {**order["server"], "transport": "stdio"}})
    turns: list[Any] = [HumanMessage("Make it.")]
    async with client.session("kling") as session:
        tools = {tool.name: tool for tool in await load_mcp_tools(session)}

        async def call(name: str, given: dict[str, Any]) -> Any:
            asked = {"type": "tool_call", "id": f"call_{len(turns)}", "name": name, "args": given}
            turns.extend([AIMessage("", tool_calls=[asked]), await tools[name].ainvoke(asked)])
            return turns[-1].content

        await in_turn(order, call)
    # Nothing is sent: building the request is where a block that OpenAI does not know ends an agent.
    model = ChatOpenAI(model="gpt-5", api_key="none", base_url="http://127.0.0.1:9/v1")
    responses = model.model_copy(update={"use_responses_api": True})
    return {
        "tools": [tool["function"]["name"] for tool in model.bind_tools(list(tools.values())).kwargs["tools"]],
        "completions": model._get_request_payload(turns)["messages"],
        "responses": responses._get_request_payload(turns)["input"],
    }


run(drive)
