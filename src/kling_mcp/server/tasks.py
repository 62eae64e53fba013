"""
The tasks extension (`io.modelcontextprotocol/tasks`, SEP-2663): a job is a task, under the same id.

A client that declares the extension gets a task in place of a result and asks
for it as long as it likes. Nothing is kept for that: every answer is read from
the ledger, so a task outlives the server that made it. `working` covers all
that a job goes through; a job that failed at fal is a completed task whose
result is an error, because `failed` is for errors of the protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import mcp_types as t
from mcp.shared.exceptions import MCPError

from kling_mcp.errors import FalUnreachable, KlingError, UnknownJob
from kling_mcp.jobs.job import ENDED
from kling_mcp.server.job_response import describe_status
from kling_mcp.server.results import job_failure, job_result

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mcp.server.context import ServerRequestContext
    from mcp.server.lowlevel.server import Server

    from kling_mcp.jobs.job import Job
    from kling_mcp.server.app import App

__all__ = [
    "EXTENSION",
    "MODERN",
    "JobTasks",
    "Task",
    "TaskParams",
    "TaskSource",
    "TaskUpdateParams",
    "Tasks",
    "declared",
    "serve",
    "undeclared",
]

EXTENSION: Final = "io.modelcontextprotocol/tasks"
MODERN: Final = "2026-07-28"

_POLL_MS: Final = 3_000

Status = Literal["working", "input_required", "completed", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class Task:
    """How a task stands: with a result once completed, an error once failed, questions while it asks."""

    task_id: str
    status: Status
    message: str
    created_ms: int
    updated_ms: int
    result: t.CallToolResult | None = None
    error: t.ErrorData | None = None
    questions: Mapping[str, Any] | None = None


class TaskSource(Protocol):
    """Where tasks are kept."""

    async def look(self, task_id: str) -> Task:
        """
        How a task stands.

        Raises:
            UnknownJob: No job has that id.
        """
        ...

    async def answer(self, task_id: str, responses: Mapping[str, Any]) -> None:
        """Take answers to a task's questions; what was not asked is left."""
        ...

    async def cancel(self, task_id: str) -> None:
        """Ask for a task to end; whether it does shows in the task."""
        ...


class TaskParams(t.RequestParams):
    """What names a task."""

    task_id: str


class TaskUpdateParams(TaskParams):
    """Answers to what a task asked."""

    input_responses: dict[str, Any] | None = None


class Tasks:
    """The tasks of *source* as the extension shows them."""

    def __init__(self, source: TaskSource) -> None:
        self._source = source

    def offered(self, ctx: ServerRequestContext[Any], task: Task) -> dict[str, Any] | None:
        """*task* as the answer to a call, if the client takes tasks; None if it does not."""
        return {"resultType": "task", **_fields(task)} if declared(ctx) else None

    async def get(self, ctx: ServerRequestContext[Any], params: TaskParams) -> dict[str, Any]:
        """How a task stands, with its result once there is one."""
        task = await self._look(ctx, params)
        answer = {"resultType": "complete", **_fields(task)}
        match task.status:
            case "completed" if task.result is not None:
                answer["result"] = _wire(task.result) | {"resultType": "complete"}
            case "failed" if task.error is not None:
                answer["error"] = _wire(task.error)
            case "input_required":
                answer["inputRequests"] = dict(task.questions or {})
            case _:
                pass
        return answer

    async def update(self, ctx: ServerRequestContext[Any], params: TaskUpdateParams) -> dict[str, Any]:
        """Pass answers on; those that were not asked for are left, as the specification wants."""
        await self._look(ctx, params)
        await self._source.answer(params.task_id, params.input_responses or {})
        return {"resultType": "complete"}

    async def cancel(self, ctx: ServerRequestContext[Any], params: TaskParams) -> dict[str, Any]:
        """Ask for the task to end; whether it does shows in the task."""
        task = await self._look(ctx, params)
        if task.status in {"working", "input_required"}:
            try:
                await self._source.cancel(params.task_id)
            except KlingError as error:
                raise MCPError(code=t.INTERNAL_ERROR, message=str(error)) from error
        return {"resultType": "complete"}

    async def _look(self, ctx: ServerRequestContext[Any], params: TaskParams) -> Task:
        if not declared(ctx):
            raise undeclared()
        # The SDK compares this header for the methods it knows; these it does not know.
        headers = getattr(ctx.request, "headers", None)
        if headers is not None and headers.get("mcp-name") != params.task_id:
            raise MCPError(code=t.HEADER_MISMATCH, message="The Mcp-Name header is not the task id")
        try:
            return await self._source.look(params.task_id)
        except UnknownJob as error:
            raise MCPError(code=t.INVALID_PARAMS, message="There is no task of that id") from error
        except KlingError as error:
            raise MCPError(code=t.INTERNAL_ERROR, message=str(error)) from error


class JobTasks:
    """Jobs seen as tasks."""

    def __init__(self, app: App) -> None:
        self._app = app

    def of(self, job: Job) -> Task:
        """*job* as a task."""
        now_ms = self._app.now_ms()
        status = self._status(job)
        result = None
        if status == "completed":
            result = job_failure(job, now_ms) if job.state in {"failed", "not_submitted"} else job_result(job, now_ms)
        return Task(job.job_id, status, describe_status(job, now_ms), job.created_ms, job.updated_ms, result)

    async def look(self, task_id: str) -> Task:
        """How the job stands."""
        return self.of(await self._app.call_budget().within(lambda: self._app.service.store.get(task_id)))

    async def answer(self, task_id: str, responses: Mapping[str, Any]) -> None:
        """Leave them: a job asks nothing once it is a task."""

    async def cancel(self, task_id: str) -> None:
        """Cancel the job while it only waits: hosts cancel the tasks of a chat that was stopped, videos and all."""
        late = FalUnreachable("", "")
        try:
            await self._app.call_budget().within(lambda: self._app.service.withdraw(task_id), late)
        except FalUnreachable as trouble:
            # Asked all the same, behind this call: what comes of it shows in the task.
            if trouble is not late:
                raise

    def _status(self, job: Job) -> Status:
        if job.state == "cancelled":
            return "cancelled"
        if job.state == "unknown" or (job.state in ENDED and self._app.service.is_settled(job)):
            return "completed"
        return "working"


def serve(server: Server[Any], tasks: Callable[[Any], Tasks]) -> None:
    """
    Declare the extension on *server* and answer its methods.

    Args:
        tasks: Gives the `Tasks` of a request's lifespan context.
    """

    async def get(ctx: ServerRequestContext[Any], params: TaskParams) -> dict[str, Any]:
        return await tasks(ctx.lifespan_context).get(ctx, params)

    async def update(ctx: ServerRequestContext[Any], params: TaskUpdateParams) -> dict[str, Any]:
        return await tasks(ctx.lifespan_context).update(ctx, params)

    async def cancel(ctx: ServerRequestContext[Any], params: TaskParams) -> dict[str, Any]:
        return await tasks(ctx.lifespan_context).cancel(ctx, params)

    server.extensions[EXTENSION] = {}
    server.add_request_handler("tasks/get", TaskParams, get)
    server.add_request_handler("tasks/update", TaskUpdateParams, update)
    server.add_request_handler("tasks/cancel", TaskParams, cancel)


def declared(ctx: ServerRequestContext[Any]) -> bool:
    """Whether the client takes tasks; it says so with every request, in the newer era only."""
    capabilities = ctx.session.client_capabilities
    extensions = capabilities.extensions if capabilities else None
    return ctx.protocol_version >= MODERN and extensions is not None and EXTENSION in extensions


def undeclared() -> MCPError:
    """What a client hears that asks for tasks without declaring them."""
    return MCPError(
        code=t.MISSING_REQUIRED_CLIENT_CAPABILITY,
        message=f"Tasks need the client capability {EXTENSION}",
        data={"requiredCapabilities": {"extensions": {EXTENSION: {}}}},
    )


def _fields(task: Task) -> dict[str, Any]:
    return {
        "taskId": task.task_id,
        "status": task.status,
        "statusMessage": task.message,
        "createdAt": _moment(task.created_ms),
        "lastUpdatedAt": _moment(task.updated_ms),
        # The ledger forgets nothing.
        "ttlMs": None,
        "pollIntervalMs": _POLL_MS,
    }


def _wire(model: t.CallToolResult | t.ErrorData) -> dict[str, Any]:
    return model.model_dump(by_alias=True, mode="json", exclude_none=True)


def _moment(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
