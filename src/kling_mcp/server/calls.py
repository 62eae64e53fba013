"""Calls: what each tool does. Loaded with the first call, because the list of tools needs none of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kling_mcp.catalog.plan import plan
from kling_mcp.catalog.values import choice
from kling_mcp.errors import FalUnreachable, InvalidArguments, KlingError, LedgerUnavailable
from kling_mcp.server import confirm, models, tasks
from kling_mcp.server.arguments import read
from kling_mcp.server.estimates import estimate, estimate_headline, to_measure
from kling_mcp.server.inputs import CancelJob, GetJob, ListJobs, ListModels, ResolveJob
from kling_mcp.server.job_response import job_response, waited_for
from kling_mcp.server.resources import jobs_page
from kling_mcp.server.results import job_result, result
from kling_mcp.server.view_video import view_video

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from kling_mcp.catalog.models import Tool as JobTool
    from kling_mcp.jobs.job import Job
    from kling_mcp.server.context import Answer, Call

__all__ = ["HANDLERS"]

_FAL_SECONDS: Final = 3.0
"""How long fal.ai is waited for, so that a second is left to read how the job is then."""

_SPEND_SECONDS: Final = 1.0
"""How long an estimate waits for the ledger: the price is worth more at once than with the rest of the budget."""


async def _make_video(call: Call, tool: JobTool) -> Answer:
    app, service = call.app, call.app.service
    planned = plan(app.catalog, tool, call.arguments)
    # However large its files are, the ledger and fal.ai get their time afterwards.
    with call.budget.paused():
        draft = await service.prepare(planned, call.arguments)
    job = await call.budget.within(lambda: service.find_duplicate(draft))
    repeated = job is not None
    busy = LedgerUnavailable(
        "The record of jobs is busy: another program holds it. The job starts once that program has finished with it.",
        "list_jobs then shows it; the same call finds it and makes no second one.",
        billed="maybe",
    )
    if job is None:
        await call.budget.within(lambda: service.check(draft))
        with call.budget.paused():
            decision = await confirm.gate(draft, service, call.ctx, call.params)
        if not isinstance(decision, confirm.Go):
            return decision
        call.billed = "maybe"
        started = await call.budget.within_or(
            lambda: service.start(draft, decision.nonce), None, at_most_seconds=_FAL_SECONDS
        )
        if started is not None:
            job, repeated = started.job, not started.fresh
        else:
            job = await call.budget.within(lambda: service.find_duplicate(draft), busy)
    if job is None:
        raise busy
    call.billed = job.billed
    if not repeated and tasks.declared(call.ctx):
        return tasks.offered_job(app, job)
    # A job that was there before is no second task: a host would report it as a second video.
    job = await waited_for(call, job, planned.wait_seconds or 0)
    return job_response(app, job, *([_repeated(job)] if repeated else []), with_arguments=repeated)


def _repeated(job: Job) -> str:
    said = f"This call was made before: it is answered by job {job.job_id}, and nothing new was sent or charged."
    # Only where it is certain what became of the money: of anything else another take could be paid twice.
    if job.state != "completed":
        return said
    made = "voice" if job.intent.voice else "video"
    return f"{said} Another {made} of it is take {job.intent.take + 1}, for a new charge."


async def _estimate_cost(call: Call) -> Answer:
    app = call.app
    today = None
    try:
        days = await call.budget.within_or(app.store.spend, None, at_most_seconds=_SPEND_SECONDS)
        today = days[0] if days else None
    except KlingError:
        pass
    planned = to_measure(app.catalog, call.arguments)
    measured = await app.service.measure(planned) if planned else {}
    view = estimate(app.catalog, call.arguments, app.settings, today, measured)
    return result(estimate_headline(app.catalog, view), view)


async def _list_models(call: Call) -> Answer:
    catalog, given = call.app.catalog, read(call.arguments, ListModels)
    mode = None
    if given.mode is not None:
        mode = catalog.modes[choice(given.mode, "mode", catalog.modes)]
    if given.model is None:
        every = models.overview(catalog, call.app.tools, mode)
        return result(f"{len(every.models)} models; the default is {every.default}.", every)
    one = models.in_full(catalog.all_of(given.model, mode))
    return result(f"{one.title}, {one.mode}: {one.summary}", one)


async def _get_job(call: Call) -> Answer:
    app, given = call.app, read(call.arguments, GetJob)
    job = await call.budget.within(lambda: app.store.get(given.job_id))
    app.service.repair_in_background(job)
    return job_response(app, await waited_for(call, job, given.wait_seconds), with_arguments=True)


async def _list_jobs(call: Call) -> Answer:
    given = read(call.arguments, ListJobs)
    cursor = given.cursor
    if cursor is not None and not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise InvalidArguments(
            f"cursor {cursor[:40]!r} is not valid.", "Use next_cursor of the page before.", field="cursor"
        )
    before_seq = None if cursor is None else int(cursor)
    view = await jobs_page(call.app, call.budget, given.state, given.limit, before_seq)
    return result(view.headline, view)


async def _cancel_job(call: Call) -> Answer:
    app, job_id = call.app, read(call.arguments, CancelJob).job_id
    found = await call.budget.within_or(lambda: app.service.cancel(job_id), None, at_most_seconds=_FAL_SECONDS)
    job, said = found or (
        await call.budget.within(lambda: app.store.get(job_id)),
        "fal.ai has not answered yet whether it drops the job: it may still run and be billed.",
    )
    return job_response(app, job, said)


async def _resolve_job(call: Call) -> Answer:
    given = read(call.arguments, ResolveJob)
    late = FalUnreachable(
        "fal.ai has not confirmed the request id yet; it is still being asked.",
        f"get_job with job_id {given.job_id} shows whether it did.",
        billed="maybe",
        job_id=given.job_id,
    )
    job = await call.budget.within(
        lambda: call.app.service.resolve(given.job_id, charged=given.outcome == "charged", request_id=given.request_id),
        late if given.request_id else None,
    )
    return job_result(job, call.app.now_ms())


HANDLERS: Final[Mapping[str, Callable[[Call], Awaitable[Answer]]]] = {
    "image_to_video": lambda call: _make_video(call, "image_to_video"),
    "multi_shot_video": lambda call: _make_video(call, "multi_shot_video"),
    "text_to_video": lambda call: _make_video(call, "text_to_video"),
    "estimate_cost": _estimate_cost,
    "list_models": _list_models,
    "get_job": _get_job,
    "view_video": view_video,
    "list_jobs": _list_jobs,
    "cancel_job": _cancel_job,
    "resolve_job": _resolve_job,
    "reference_to_video": lambda call: _make_video(call, "reference_to_video"),
    "create_voice": lambda call: _make_video(call, "create_voice"),
    "edit_video": lambda call: _make_video(call, "edit_video"),
    "motion_control": lambda call: _make_video(call, "motion_control"),
    "lip_sync": lambda call: _make_video(call, "lip_sync"),
    "talking_avatar": lambda call: _make_video(call, "talking_avatar"),
}
"""By the name of the tool."""
