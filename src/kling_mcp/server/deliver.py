"""
One job, delivered the way the caller can take it.

A call waits no longer than it asked for. While it waits it reports progress,
and what it answers is the job as it is then, with the next call to make.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import anyio

from kling_mcp.server.results import job_result

if TYPE_CHECKING:
    from collections.abc import Sequence

    import mcp_types as t
    from mcp.server.context import ServerRequestContext

    from kling_mcp.jobs.job import Job
    from kling_mcp.server.app import App

__all__ = ["job", "standing"]

_PROGRESS_EVERY_SECONDS: Final = 5.0


async def job(
    app: App,
    ctx: ServerRequestContext[App],
    current: Job,
    wait_seconds: int,
    warnings: Sequence[str] = (),
    *,
    as_task: bool = True,
) -> t.CallToolResult | dict[str, Any]:
    """The job as a task where the client takes tasks, else as a result after at most *wait_seconds*."""
    if as_task and (task := app.tasks.task_for(ctx, current)) is not None:
        return task
    current = await _watched(app, ctx, current, wait_seconds)
    return job_result(current, app.now_ms(), *warnings)


async def _watched(app: App, ctx: ServerRequestContext[App], current: Job, wait_seconds: int) -> Job:
    said = 0.0
    with anyio.move_on_after(wait_seconds):
        while not app.studio.at_rest(current):
            elapsed = max(said + 0.001, (app.now_ms() - current.created_ms) / 1000)
            said = elapsed
            expected = current.intent.expected_seconds
            total = float(expected) if expected and expected > elapsed else None
            await ctx.session.report_progress(elapsed, total, standing(current, app.now_ms()))
            current = await app.studio.news(current, _PROGRESS_EVERY_SECONDS)
    return current


def standing(current: Job, now_ms: int) -> str:
    """Where a job stands, in words for a person who waits."""
    match current.state:
        case "preparing":
            return "uploading pictures"
        case "submitting":
            return "sending the request to fal.ai"
        case "queued":
            place = "" if current.queue_position is None else f", place {current.queue_position + 1} in line"
            return f"queued at fal.ai{place}"
        case "running":
            return f"rendering{_left(current, now_ms)}{f': {current.progress_note}' if current.progress_note else ''}"
        case "completed":
            return "finished" if current.saved_to else "finished, saving the video"
        case _:
            return current.state.replace("_", " ")


def _left(current: Job, now_ms: int) -> str:
    expected = current.intent.expected_seconds
    if expected is None:
        return ""
    since_ms = now_ms - (current.started_ms or current.accepted_ms or current.created_ms)
    left = expected - since_ms // 1000
    return f", about {left} s left" if left > 0 else ", longer than expected"
