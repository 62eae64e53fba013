"""
Job response: a job as the result of a call that waits for it.

A call waits no longer than it asked for. While it waits it reports progress,
and what it answers is the job as it is then, with the next call to make.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

from kling_mcp.errors import LedgerUnavailable
from kling_mcp.server.eras import PROGRESS_HAS_WORDS
from kling_mcp.server.job_texts import describe_status
from kling_mcp.server.results import job_result
from kling_mcp.server.storyboard import storyboard
from kling_mcp.server.ui import page

if TYPE_CHECKING:
    import mcp_types as t

    from kling_mcp.jobs.job import Job
    from kling_mcp.server.context import AppContext, Call

__all__ = ["job_response", "waited_for"]

_PROGRESS_EVERY_SECONDS: Final = 5.0


def job_response(app: AppContext, job: Job, *warnings: str, with_arguments: bool = False) -> t.CallToolResult:
    """*job* as a result that hosts can show the job's page beside."""
    answer = job_result(job, app.now_ms(), *warnings, with_arguments=with_arguments)
    return page.with_ui(answer, storyboard(app.catalog, job))


async def waited_for(call: Call, job: Job, wait_seconds: int) -> Job:
    """*job* once nothing more will happen to it soon, or as it is after *wait_seconds*."""
    app, reported = call.app, 0.0
    with anyio.move_on_after(wait_seconds):
        while not app.service.is_settled(job):
            now_ms = app.now_ms()
            reported = max(reported + 0.001, (now_ms - job.created_ms) / 1000)
            expected = job.intent.expected_seconds
            total = float(expected) if expected and expected > reported else None
            words = describe_status(job, now_ms) if call.ctx.protocol_version >= PROGRESS_HAS_WORDS else None
            await call.ctx.session.report_progress(reported, total, words)
            try:
                seen = job
                job = await app.call_budget(_PROGRESS_EVERY_SECONDS + 1).within_or(
                    lambda seen=seen: app.store.wait(seen, _PROGRESS_EVERY_SECONDS), seen
                )
            except LedgerUnavailable:
                # The job is what was asked for, and it goes on; how it was last known is the better answer.
                break
    return job
