"""
One job, delivered the way the caller can take it.

A call waits no longer than it asked for. While it waits it reports progress,
and what it answers is the job as it is then, with the next call to make.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import anyio

from kling_mcp.errors import LedgerUnavailable
from kling_mcp.jobs.warnings import place_in_line, trouble_words, warnings_of
from kling_mcp.money import cents, dollars
from kling_mcp.server.eras import PROGRESS_HAS_WORDS
from kling_mcp.server.results import job_result
from kling_mcp.server.storyboard import storyboard
from kling_mcp.server.ui import page

if TYPE_CHECKING:
    from collections.abc import Sequence

    import mcp_types as t

    from kling_mcp.jobs.job import Job
    from kling_mcp.server.app import App
    from kling_mcp.server.tools import Call

__all__ = ["describe_status", "job"]

_PROGRESS_EVERY_SECONDS: Final = 5.0


async def job(
    call: Call,
    current: Job,
    wait_seconds: int,
    warnings: Sequence[str] = (),
    *,
    as_task: bool = True,
) -> t.CallToolResult | dict[str, Any]:
    """The job as a task where the client takes tasks, else as a result after at most *wait_seconds*."""
    app = call.app
    if as_task:
        task = app.jobs.of(current)
        # A task has neither a price nor warnings of its own, and a model may read nothing else before it ends.
        intent = current.intent
        price = f"about ${cents(dollars(intent.estimate_microusd))}, at most ${cents(dollars(intent.ceiling_microusd))}"
        said = replace(task, message=" ".join([f"{task.message}; {price}.", *warnings_of(current, app.now_ms())]))
        if (offered := app.tasks.offered(call.ctx, said)) is not None:
            return offered
    current = await _watched(call, current, wait_seconds)
    answer = job_result(current, app.now_ms(), *warnings, with_arguments=not as_task)
    return page.with_ui(answer, storyboard(app.catalog, current))


async def _watched(call: Call, current: Job, wait_seconds: int) -> Job:
    app, said = call.app, 0.0
    with anyio.move_on_after(wait_seconds):
        while not app.service.is_settled(current):
            elapsed = max(said + 0.001, (app.now_ms() - current.created_ms) / 1000)
            said = elapsed
            expected = current.intent.expected_seconds
            total = float(expected) if expected and expected > elapsed else None
            words = describe_status(current, app.now_ms()) if call.ctx.protocol_version >= PROGRESS_HAS_WORDS else None
            await call.ctx.session.report_progress(elapsed, total, words)
            try:
                current = await _news(app, current)
            except LedgerUnavailable:
                # The job is what was asked for, and it goes on; how it was last known is the better answer.
                break
    return current


async def _news(app: App, current: Job) -> Job:
    """The job as soon as it has changed; as it was, where the ledger is busy."""
    late = LedgerUnavailable("", "")
    try:
        return await app.call_budget().within(
            lambda: app.service.store.wait(current, _PROGRESS_EVERY_SECONDS), late, extra_seconds=2
        )
    except LedgerUnavailable as trouble:
        if trouble is not late:
            raise
        return current


def describe_status(current: Job, now_ms: int) -> str:
    """Where a job stands, in words for a person who waits."""
    match current.state:
        case "preparing":
            return "uploading pictures"
        case "submitting":
            return "sending the request to fal.ai"
        case "queued":
            place = place_in_line(current)
            words = "" if place is None else f", place {place + 1} in line"
            return f"queued at fal.ai{words}{_then(current)}{_troubled(current)}"
        case "running":
            note = f": {current.progress_note}" if current.progress_note else ""
            return f"rendering{_left(current, now_ms)}{note}{_troubled(current)}"
        case "completed":
            return "finished" if current.saved_to else "finished, saving the video"
        case _:
            return current.state.replace("_", " ")


def _troubled(current: Job) -> str:
    words = trouble_words(current)
    return "" if words is None else f". {words}"


def _then(current: Job) -> str:
    expected = current.intent.expected_seconds
    return "" if expected is None else f", then about {expected} s"


def _left(current: Job, now_ms: int) -> str:
    expected = current.intent.expected_seconds
    if expected is None:
        return ""
    since_ms = now_ms - (current.started_ms or current.accepted_ms or current.created_ms)
    left = expected - since_ms // 1000
    return f", about {left} s left" if left > 0 else ", longer than expected"
