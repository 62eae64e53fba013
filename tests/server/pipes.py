"""The real command on a pipe, line by line, for what no well-behaved client would send."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

from tests.server.hosts import NEWER, OLDER

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

    from anyio.abc import Process

SERVER = [sys.executable, "-m", "kling_mcp"]
LONGEST_LINE = 64_000_000


class Pipe:
    """Both ends of a server's standard streams."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self._stdin = process.stdin
        self._stdout = BufferedByteReceiveStream(process.stdout)
        self.heard: list[dict[str, Any]] = []

    async def write(self, line: bytes) -> None:
        """Send *line* as it is."""
        await self._stdin.send(line + b"\n")

    async def send(self, method: str, params: dict[str, Any] | None = None, request_id: object = None) -> None:
        """Send a request, or a notification where there is no id."""
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        if params is not None:
            message["params"] = params
        if request_id is not None:
            message["id"] = request_id
        await self.write(json.dumps(message).encode())

    async def receive(self) -> dict[str, Any]:
        """The next line, which has to be a message."""
        line = await self._stdout.receive_until(b"\n", LONGEST_LINE)
        message = json.loads(line)
        assert message["jsonrpc"] == "2.0", line[:200]
        assert ("method" in message) is not ("result" in message or "error" in message), line[:200]
        self.heard.append(message)
        return message

    async def answer(self, request_id: object) -> dict[str, Any]:
        """The answer to a request; what comes before it is kept in `heard`."""
        with anyio.fail_after(30):
            while (message := await self.receive()).get("id") != request_id:
                pass
        return message

    async def ask(self, method: str, params: dict[str, Any] | None = None, request_id: object = 1) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        await self.send(method, params, request_id)
        return await self.answer(request_id)

    async def end(self) -> int:
        """Close standard input, and the exit code that follows."""
        await self._stdin.aclose()
        with anyio.fail_after(10):
            return await self.process.wait()


@asynccontextmanager
async def piped(
    tmp_path: Path, command: Sequence[str] = SERVER, *, log: int | None = None, **environment: str
) -> AsyncGenerator[Pipe]:
    """A server on a pipe; what it logs goes to the descriptor *log*, or to the file ``log`` in *tmp_path*."""
    whole = {**os.environ, "KLING_MCP_DATA_DIR": str(tmp_path / "state"), **environment}
    with (tmp_path / "log").open("wb") as file:
        async with await anyio.open_process(
            [*command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file if log is None else log, env=whole
        ) as process:
            try:
                yield Pipe(process)
            finally:
                if process.returncode is None:
                    process.kill()


def modern(**params: Any) -> dict[str, Any]:
    """Parameters in the envelope of the newer era."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": NEWER,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "pipe", "version": "1"},
    }
    return {"_meta": meta, **params}


def greeting() -> dict[str, Any]:
    """The parameters of `initialize`."""
    return {"protocolVersion": OLDER, "capabilities": {}, "clientInfo": {"name": "pipe", "version": "1"}}
