"""A host on raw pipes: what a client writes, and nothing that would hide what a server does."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.jobs.processes.fork_server import Process

__all__ = ["PipeClient"]


class PipeClient:
    """One client of one server process, in the era of 2025-11-25."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self._ids = itertools.count(1)
        self.said: list[bytes] = []

    async def hello(self) -> None:
        """
        Introduce itself.

        Raises:
            EOFError: The server has ended.
        """
        client = {"name": "host", "version": "1"}
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}
        await self.answer(self.send("initialize", params))
        self.notify("notifications/initialized", {})

    def send(self, method: str, params: Mapping[str, object]) -> int:
        """Ask, without waiting for the answer."""
        number = next(self._ids)
        self._write({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        return number

    def notify(self, method: str, params: Mapping[str, object]) -> None:
        """Tell."""
        self._write({"jsonrpc": "2.0", "method": method, "params": params})

    async def answer(self, number: int) -> dict[str, Any]:
        """
        The answer to a question, with all that comes before it passed over.

        Raises:
            EOFError: The server has ended.
        """
        while True:
            line = await self.process.line()
            self.said.append(line)
            message = json.loads(line)
            if message.get("id") == number and "method" not in message:
                return message

    def tool(self, name: str, arguments: Mapping[str, object]) -> int:
        """Call a tool, without waiting for the answer."""
        return self.send("tools/call", {"name": name, "arguments": arguments})

    async def job(self, name: str, arguments: Mapping[str, object]) -> dict[str, Any]:
        """
        Call a tool and give the job that it answers.

        Raises:
            EOFError: The server has ended.
        """
        answer = await self.answer(self.tool(name, arguments))
        assert "structuredContent" in answer.get("result", {}), answer
        return answer["result"]["structuredContent"]

    def _write(self, message: Mapping[str, object]) -> None:
        self.process.write(json.dumps(message).encode() + b"\n")
