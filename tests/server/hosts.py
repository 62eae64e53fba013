"""
Hosts of every kind before the same server: each transport in each protocol era.

A `ServerHarness` is a simulator with a fresh ledger; `connect` gives the SDK's client,
joined to a server by memory, by the real command over a pipe, or by HTTP.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import anyio
import mcp_types as t
import pytest
from mcp.client.client import Client
from mcp.client.extension import ClientExtension, ResultClaim
from mcp.client.stdio import StdioServerParameters
from mcp.shared.exceptions import MCPError

from kling_mcp.server.app import build
from kling_mcp.server.tasks import EXTENSION
from kling_mcp.settings import Settings
from kling_mcp.simulator.app import Simulator
from kling_mcp.simulator.render import sample_video
from kling_mcp.simulator.serve import serving
from tests.conftest import CANARY_KEY
from tests.server.serving import http

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from mcp.client.extension import ClaimContext

    from kling_mcp.runtime import Runtime

OLDER, NEWER = "2025-11-25", "2026-07-28"
ERAS = (OLDER, NEWER)
TRANSPORTS = ("memory", "stdio", "http")

PICTURE = "https://pictures.example.com/fox.png"
SHORT = {"image": PICTURE, "prompt": "The fox looks up; slow push in.", "duration": 3}
"""A job under the amount that is confirmed."""

DEAR = {**SHORT, "model": "o3-4k", "duration": 10}
"""A job of $4.20, which is confirmed."""

everywhere = pytest.mark.parametrize(
    ("transport", "era"), [pytest.param(transport, era) for transport in TRANSPORTS for era in ERAS]
)
"""The same body over every transport in both eras."""


@dataclass
class ServerHarness:
    """A simulator, and the settings of servers that work with it."""

    simulator: Simulator
    environment: dict[str, str]
    transport: str
    runtime: Runtime | None = None
    log: Path = field(default=Path(os.devnull))

    @asynccontextmanager
    async def connect(self, era: str, **options: Any) -> AsyncGenerator[Client]:
        """A client of *era* before a server of its own; *options* are those of `Client`."""
        mode = "legacy" if era == OLDER else "auto"
        if self.transport == "stdio":
            # What a host passes on: the environment of the tests holds nothing of this machine.
            command = StdioServerParameters(
                command=sys.executable, args=["-m", "kling_mcp"], env={**os.environ, **self.environment}
            )
            async with Client(command, mode=mode, **options) as client:
                yield client
            return
        server = build(Settings.from_environment(self.environment), runtime=self.runtime)
        if self.transport == "memory":
            async with Client(server, mode=mode, **options) as client:
                yield client
            return
        async with http(server) as url, Client(url, mode=mode, **options) as client:
            yield client

    @property
    def accepted(self) -> int:
        """How many requests fal would have charged."""
        return len(self.simulator.accepted)


@asynccontextmanager
async def house(
    tmp_path: Path, transport: str = "memory", *, speed: float = 200, runtime: Runtime | None = None, **environment: str
) -> AsyncGenerator[ServerHarness]:
    """A house for one test; *environment* is what the operator sets, by the names of the variables."""
    simulator = Simulator(speed=speed, renderer=sample_video)
    async with serving(simulator) as urls:
        whole = {
            "FAL_KEY": CANARY_KEY,
            "KLING_MCP_DATA_DIR": str(tmp_path / "state"),
            "KLING_MCP_OUTPUT_DIR": str(tmp_path / "videos"),
            "KLING_MCP_INPUT_DIRS": str(tmp_path),
            "KLING_MCP_POLL_SECONDS": "0.05",
            "KLING_MCP_LOG_LEVEL": "ERROR",
            **urls.environment(),
            **environment,
        }
        yield ServerHarness(simulator, whole, transport, runtime)


def data(result: t.CallToolResult) -> dict[str, Any]:
    """The structured half of a result that has one, having looked that the text says the same."""
    assert not result.is_error, result.content
    assert result.structured_content is not None
    first = result.content[0]
    assert isinstance(first, t.TextContent)
    headline, _, text = first.text.partition("\n")
    assert headline
    assert json.loads(text) == result.structured_content
    return result.structured_content


def refused(result: t.CallToolResult) -> dict[str, Any]:
    """What programs read of a refusal, having looked that its text says it and that nothing hides the text."""
    assert result.is_error
    assert result.structured_content is None
    (only,) = result.content
    assert isinstance(only, t.TextContent)
    assert result.meta is not None
    error: dict[str, Any] = result.meta["kling-mcp/error"]
    assert only.text.startswith(f"{error['code']}: ")
    assert error["next_step"] in only.text
    return error


async def finished(client: Client, job_id: str) -> dict[str, Any]:
    """The job once it has ended and its video is saved, waiting the way an assistant does."""
    with anyio.fail_after(30):
        while True:
            job = data(await client.call_tool("get_job", {"job_id": job_id, "wait_seconds": 5}))
            if job["state"] in {"failed", "cancelled", "unknown", "not_submitted"}:
                return job
            if job["state"] == "completed" and ("voice" in job or job["video"]["saved_to"] or job["warnings"]):
                return job


async def code_of(awaitable: Any) -> int:
    """The code of the protocol error that *awaitable* ends in."""
    with pytest.raises(MCPError) as raised:
        await awaitable
    return raised.value.error.code


# ---- tasks, as a client that takes them


class TaskResult(t.Result):
    """The answer to a call that became a task."""

    result_type: Literal["task"] = "task"
    task_id: str
    status: str
    status_message: str | None = None
    ttl_ms: int | None = None
    poll_interval_ms: int | None = None


class TaskName(t.RequestParams):
    """What names a task."""

    task_id: str


class GetTask(t.Request[TaskName, Literal["tasks/get"]]):
    """Ask how a task stands."""

    name_param: ClassVar[str | None] = "taskId"
    method: Literal["tasks/get"] = "tasks/get"
    params: TaskName


class CancelTask(t.Request[TaskName, Literal["tasks/cancel"]]):
    """Ask for a task to end."""

    name_param: ClassVar[str | None] = "taskId"
    method: Literal["tasks/cancel"] = "tasks/cancel"
    params: TaskName


class TaskState(t.Result):
    """How a task stands."""

    task_id: str
    status: str
    status_message: str | None = None
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None


class TakesTasks(ClientExtension):
    """A client that polls tasks to their end; what it heard on the way is in `seen`."""

    identifier = EXTENSION

    def __init__(self) -> None:
        self.offered: list[TaskResult] = []
        self.seen: list[TaskState] = []

    def claims(self) -> Sequence[ResultClaim[Any]]:
        return [ResultClaim(result_type="task", model=TaskResult, resolve=self._resolve)]

    async def _resolve(self, task: TaskResult, context: ClaimContext) -> t.CallToolResult:
        self.offered.append(task)
        state = await self.end_of(context.session, task.task_id)
        return t.CallToolResult.model_validate(state.result, by_name=False)

    async def end_of(self, session: Any, task_id: str) -> TaskState:
        """The task once it has ended."""
        with anyio.fail_after(30):
            while True:
                state = await look(session, task_id)
                self.seen.append(state)
                if state.status not in {"working", "input_required"}:
                    return state
                await anyio.sleep(0.05)


async def look(session: Any, task_id: str) -> TaskState:
    """How a task stands."""
    return await session.send_request(GetTask(params=TaskName(task_id=task_id)), TaskState)
