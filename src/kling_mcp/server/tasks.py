"""
The tasks extension (`io.modelcontextprotocol/tasks`, SEP-2663): a job is a task, under the same id.

A client that declares the extension gets a task in place of a result and asks
for it as long as it likes. Nothing is kept for that: every answer is read from
the ledger, so a task outlives the server that made it. `working` covers all
that a job goes through; a job that failed at fal is a completed task whose
result is an error, because `failed` is for errors of the protocol.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import mcp_types as t
from mcp.shared.exceptions import MCPError

from kling_mcp.errors import KlingError, UnknownJob
from kling_mcp.jobs.job import ENDED
from kling_mcp.server.deliver import standing
from kling_mcp.server.results import job_failure, job_result

if TYPE_CHECKING:
    from mcp.server.context import ServerRequestContext

    from kling_mcp.jobs.job import Job
    from kling_mcp.server.app import App

__all__ = ["EXTENSION", "MODERN", "TaskParams", "TaskUpdateParams", "Tasks"]

EXTENSION: Final = "io.modelcontextprotocol/tasks"
MODERN: Final = "2026-07-28"

_POLL_MS: Final = 3_000


class TaskParams(t.RequestParams):
    """What names a task."""

    task_id: str


class TaskUpdateParams(TaskParams):
    """Answers to what a task asked; none of ours asks anything."""

    input_responses: dict[str, Any] | None = None


class Tasks:
    """Jobs seen as tasks."""

    def __init__(self, app: App) -> None:
        self._app = app

    def task_for(self, ctx: ServerRequestContext[App], job: Job) -> dict[str, Any] | None:
        """*job* as the answer to a call, if the client takes tasks; None if it does not."""
        if not _declared(ctx):
            return None
        return {"resultType": "task", **self._fields(job)}

    async def get(self, ctx: ServerRequestContext[App], params: TaskParams) -> dict[str, Any]:
        """How a task stands, with its result once there is one."""
        job = await self._job(ctx, params)
        answer = {"resultType": "complete", **self._fields(job)}
        if answer["status"] == "completed":
            now_ms = self._app.now_ms()
            result = job_failure(job, now_ms) if job.state in {"failed", "not_submitted"} else job_result(job, now_ms)
            answer["result"] = result.model_dump(by_alias=True, mode="json", exclude_none=True) | {
                "resultType": "complete"
            }
        return answer

    async def update(self, ctx: ServerRequestContext[App], params: TaskUpdateParams) -> dict[str, Any]:
        """Take answers that were not asked for, as the specification wants: by leaving them."""
        await self._job(ctx, params)
        return {"resultType": "complete"}

    async def cancel(self, ctx: ServerRequestContext[App], params: TaskParams) -> dict[str, Any]:
        """Ask fal to drop the job; whether it does shows in the task."""
        job = await self._job(ctx, params)
        if job.open:
            try:
                await self._app.studio.cancel(job.job_id)
            except KlingError as error:
                raise MCPError(code=t.INTERNAL_ERROR, message=str(error)) from error
        return {"resultType": "complete"}

    async def _job(self, ctx: ServerRequestContext[App], params: TaskParams) -> Job:
        if not _declared(ctx):
            raise MCPError(
                code=t.MISSING_REQUIRED_CLIENT_CAPABILITY,
                message=f"Tasks need the client capability {EXTENSION}",
                data={"requiredCapabilities": {"extensions": {EXTENSION: {}}}},
            )
        headers = getattr(ctx.request, "headers", None)
        if headers is not None and headers.get("mcp-name") != params.task_id:
            raise MCPError(code=t.HEADER_MISMATCH, message="The Mcp-Name header is not the task id")
        try:
            return await self._app.studio.get(params.task_id)
        except UnknownJob as error:
            raise MCPError(code=t.INVALID_PARAMS, message="There is no task of that id") from error
        except KlingError as error:
            raise MCPError(code=t.INTERNAL_ERROR, message=str(error)) from error

    def _fields(self, job: Job) -> dict[str, Any]:
        return {
            "taskId": job.job_id,
            "status": self._status(job),
            "statusMessage": standing(job, self._app.now_ms()),
            "createdAt": _moment(job.created_ms),
            "lastUpdatedAt": _moment(job.updated_ms),
            # The ledger forgets nothing.
            "ttlMs": None,
            "pollIntervalMs": _POLL_MS,
        }

    def _status(self, job: Job) -> str:
        if job.state == "cancelled":
            return "cancelled"
        if job.state == "unknown" or (job.state in ENDED and self._app.studio.at_rest(job)):
            return "completed"
        return "working"


def _declared(ctx: ServerRequestContext[App]) -> bool:
    capabilities = ctx.session.client_capabilities
    extensions = capabilities.extensions if capabilities else None
    return ctx.protocol_version >= MODERN and extensions is not None and EXTENSION in extensions


def _moment(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
