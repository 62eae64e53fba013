"""
Tasks extension (`io.modelcontextprotocol/tasks`, SEP-2663): a job is a task, under the same id.

A client that declares the extension gets a task in place of a result and asks
for it as long as it likes. Nothing is kept for that: every answer is read from
the ledger, so a task outlives the server that made it. `working` covers all
that a job goes through; a job that failed at fal.ai is a completed task whose
result is an error, because `failed` is for errors of the protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import mcp_types as t
from mcp.shared.exceptions import MCPError

from kling_mcp.errors import KlingError, UnknownJob
from kling_mcp.jobs.job import ENDED
from kling_mcp.jobs.warnings import warnings_of
from kling_mcp.money import cents, dollars
from kling_mcp.server.eras import MODERN
from kling_mcp.server.job_texts import describe_status
from kling_mcp.server.results import job_failure, job_result

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mcp.server.context import ServerRequestContext
    from mcp.server.lowlevel.server import Server

    from kling_mcp.jobs.job import Job
    from kling_mcp.server.context import AppContext

__all__ = [
    "EXTENSION",
    "JobTasks",
    "Task",
    "TaskParams",
    "TaskSource",
    "TaskUpdateParams",
    "declared",
    "offered",
    "offered_job",
    "serve",
    "undeclared",
]

EXTENSION: Final = "io.modelcontextprotocol/tasks"

_POLL_MS: Final = 3_000

Status = Literal["working", "input_required", "completed", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class Task:
    """The status of a task: with a result once completed, an error once failed, questions while it asks."""

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

    async def look(self, app: AppContext, task_id: str) -> Task:
        """
        The task as it is now.

        Raises:
            UnknownJob: No job has that id.
        """
        ...

    async def answer(self, app: AppContext, task_id: str, responses: Mapping[str, Any]) -> None:
        """Take answers to a task's questions; what was not asked is ignored."""
        ...

    async def cancel(self, app: AppContext, task_id: str) -> None:
        """Ask for a task to end; whether it does shows in the task."""
        ...


class TaskParams(t.RequestParams):
    """What names a task."""

    task_id: str


class TaskUpdateParams(TaskParams):
    """Answers to what a task asked."""

    input_responses: dict[str, Any] | None = None


class JobTasks:
    """Jobs seen as tasks."""

    async def look(self, app: AppContext, task_id: str) -> Task:
        """The job as it is now."""
        return _task(app, await app.call_budget().within(lambda: app.store.get(task_id)))

    async def answer(self, app: AppContext, task_id: str, responses: Mapping[str, Any]) -> None:
        """Do nothing: a job asks nothing once it is a task."""

    async def cancel(self, app: AppContext, task_id: str) -> None:
        """Cancel the job while it only waits: hosts cancel the tasks of a chat that was stopped, videos and all."""
        # Where fal.ai does not answer in time, what comes of it shows in the task.
        await app.call_budget().within_or(lambda: app.service.withdraw(task_id), None)


def serve(server: Server[AppContext], source: TaskSource) -> None:
    """Declare the extension on *server* and answer its methods from *source*."""

    async def look(ctx: ServerRequestContext[AppContext], params: TaskParams) -> Task:
        if not declared(ctx):
            raise undeclared()
        # The SDK compares this header for the methods it knows; these it does not know.
        headers = getattr(ctx.request, "headers", None)
        if headers is not None and headers.get("mcp-name") != params.task_id:
            raise MCPError(code=t.HEADER_MISMATCH, message="The Mcp-Name header is not the task id")
        try:
            return await source.look(ctx.lifespan_context, params.task_id)
        except UnknownJob as error:
            raise MCPError(code=t.INVALID_PARAMS, message="There is no task of that id") from error
        except KlingError as error:
            raise MCPError(code=t.INTERNAL_ERROR, message=str(error)) from error

    async def get(ctx: ServerRequestContext[AppContext], params: TaskParams) -> dict[str, Any]:
        task = await look(ctx, params)
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

    async def update(ctx: ServerRequestContext[AppContext], params: TaskUpdateParams) -> dict[str, Any]:
        await look(ctx, params)
        await source.answer(ctx.lifespan_context, params.task_id, params.input_responses or {})
        return {"resultType": "complete"}

    async def cancel(ctx: ServerRequestContext[AppContext], params: TaskParams) -> dict[str, Any]:
        task = await look(ctx, params)
        if task.status in {"working", "input_required"}:
            try:
                await source.cancel(ctx.lifespan_context, params.task_id)
            except KlingError as error:
                raise MCPError(code=t.INTERNAL_ERROR, message=str(error)) from error
        return {"resultType": "complete"}

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
    """The error for a client that asks for tasks without declaring them."""
    return MCPError(
        code=t.MISSING_REQUIRED_CLIENT_CAPABILITY,
        message=f"Tasks need the client capability {EXTENSION}",
        data={"requiredCapabilities": {"extensions": {EXTENSION: {}}}},
    )


def offered(task: Task) -> dict[str, Any]:
    """*task* as the answer to a call."""
    return {"resultType": "task", **_fields(task)}


def offered_job(app: AppContext, job: Job) -> dict[str, Any]:
    """*job* as a task as the answer to the call that started it."""
    # A task has neither a price nor warnings of its own, and a model may read nothing else before it ends.
    estimate, ceiling = dollars(job.intent.estimate_microusd), dollars(job.intent.ceiling_microusd)
    task = _task(app, job)
    message = f"{task.message}; about ${cents(estimate)}, at most ${cents(ceiling)}."
    return offered(task) | {"statusMessage": " ".join([message, *warnings_of(job, app.now_ms())])}


def _task(app: AppContext, job: Job) -> Task:
    now_ms = app.now_ms()
    status: Status = "working"
    result = None
    if job.state == "cancelled":
        status = "cancelled"
    elif job.state == "unknown" or (job.state in ENDED and app.service.is_settled(job)):
        status = "completed"
        result = job_failure(job, now_ms) if job.state in {"failed", "not_submitted"} else job_result(job, now_ms)
    return Task(job.job_id, status, describe_status(job, now_ms), job.created_ms, job.updated_ms, result)


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
