"""
From an accepted request to a saved video: poll, fetch the result, download.

One task per job, each with its own growing interval. The result is in the
ledger before the download begins: fal keeps it for as little as an hour, the
video for much longer.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import anyio

from kling_mcp.errors import FalRejected, KlingError
from kling_mcp.fal.queue import Completed, Finished, NotReady, Receipt
from kling_mcp.fal.queue import Failed as FalFailed
from kling_mcp.jobs.budget import micro_dollars
from kling_mcp.jobs.job import CancelledAtFal, Failed, Fault, Job, Progressed
from kling_mcp.jobs.job import Finished as JobFinished

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyio.abc import TaskGroup

    from kling_mcp.fal.client import Fal
    from kling_mcp.fal.failures import Failure
    from kling_mcp.fal.queue import QueueStatus
    from kling_mcp.jobs.desk import Desk
    from kling_mcp.jobs.save import Saver
    from kling_mcp.settings import Settings

__all__ = ["Follower", "receipt_of"]

log = logging.getLogger(__name__)

_SLOWEST_POLL_SECONDS: Final = 15.0
_TROUBLED_POLL_SECONDS: Final = 60.0
_GROWTH: Final = 1.25
_POLLS_AT_ONCE: Final = 32
_RESULT_PATIENCE_MS: Final = 3_600_000
"""How long the result of a finished job is asked for: fal keeps it for at least an hour."""
_MISSING_PATIENCE_MS: Final = 600_000
"""How long fal may say that it does not know a request that it accepted."""


class Follower:
    """
    Follows accepted jobs until they end and their video is saved.

    Args:
        tasks: The server's task group, which outlives every tool call.
    """

    def __init__(
        self, desk: Desk, settings: Settings, fal: Callable[[], Fal], saver: Saver, tasks: Callable[[], TaskGroup]
    ) -> None:
        self._desk = desk
        self._settings = settings
        self._fal = fal
        self._saver = saver
        self._tasks = tasks
        self._followed: set[str] = set()
        self._polls = anyio.CapacityLimiter(_POLLS_AT_ONCE)

    def follow(self, job: Job) -> None:
        """Follow *job* from now on; asking twice follows it once."""
        if job.job_id not in self._followed:
            self._followed.add(job.job_id)
            self._tasks().start_soon(self._run, job)

    async def _run(self, job: Job) -> None:
        try:
            job = await self._until_ended(job)
            self._desk.world.passed("end recorded")
            if job.state == "completed":
                await self._saver.save(job)
        except Exception:
            # Another minute, another try: recovery finds every unfinished job again.
            log.exception("following a job was interrupted", extra={"job_id": job.job_id})
        finally:
            self._followed.discard(job.job_id)

    async def _until_ended(self, job: Job) -> Job:
        pause_seconds = self._settings.poll_seconds
        missing_since_ms: int | None = None
        finished_since_ms: int | None = None
        while job.state in {"queued", "running"}:
            try:
                async with self._polls:
                    status = await self._fal().queue.status(job.intent.endpoint_id, receipt_of(job))
                    self._desk.world.passed("polled")
                    missing_since_ms = None
                    if isinstance(status, Completed):
                        finished_since_ms = finished_since_ms or self._desk.world.now_ms()
                        job = await self._collect(job, status, finished_since_ms)
                    else:
                        job = await self._progress(job, status)
                        pause_seconds = min(pause_seconds * _GROWTH, _SLOWEST_POLL_SECONDS)
            except FalRejected as refusal:
                missing_since_ms = missing_since_ms or self._desk.world.now_ms()
                pause_seconds = min(pause_seconds * 2, _TROUBLED_POLL_SECONDS)
                if self._desk.world.now_ms() - missing_since_ms > _MISSING_PATIENCE_MS:
                    job = await self._give_up(job, f"fal.ai no longer answers for this request ({refusal.what})")
            except KlingError as trouble:
                pause_seconds = min(pause_seconds * 2, _TROUBLED_POLL_SECONDS)
                log.warning("polling a job failed", extra={"job_id": job.job_id, "why": trouble.what})
            if job.state in {"queued", "running"}:
                await self._desk.world.sleep(pause_seconds * (0.9 + 0.2 * self._desk.world.chance()))
                job = await self._desk.ask(lambda ledger, job_id=job.job_id: ledger.get(job_id))
        return job

    async def _progress(self, job: Job, status: QueueStatus) -> Job:
        note = status.logs[-1].message if status.logs else job.progress_note
        event = Progressed(status.running, status.queue_position, note)
        if (job.state == "running", job.queue_position, job.progress_note) == (
            status.running,
            status.queue_position,
            note,
        ):
            return job
        return (await self._desk.apply(job.job_id, event)).job

    async def _collect(self, job: Job, status: Completed, finished_since_ms: int) -> Job:
        try:
            outcome = await self._fal().queue.result(job.intent.endpoint_id, receipt_of(job))
        except KlingError as trouble:
            # A 504 here says nothing about the job: half of one user's finished clips were lost to that.
            if self._desk.world.now_ms() - finished_since_ms > _RESULT_PATIENCE_MS:
                return await self._give_up(job, f"the result could not be fetched for an hour ({trouble.what})")
            raise
        self._desk.world.passed("result fetched")
        match outcome:
            case Finished(body=body, billable_units=units):
                cost = None if units is None else await self._fal().platform.cost_usd(job.intent.endpoint_id, units)
                event = JobFinished(body, None if cost is None else micro_dollars(cost))
            case FalFailed(failure=failure):
                event = _ended(job, status.failure or failure)
            case NotReady():
                return job
        return (await self._desk.apply(job.job_id, event)).job

    async def _give_up(self, job: Job, why: str) -> Job:
        body = await self._from_history(job)
        if body is not None:
            return (await self._desk.apply(job.job_id, JobFinished(body))).job
        fault = Fault(
            "fal_unreachable",
            f"The video of this job cannot be had here: {why}. The user can look for request {job.request_id} at "
            "https://fal.ai/dashboard/requests.",
            "maybe",
        )
        return (await self._desk.apply(job.job_id, Failed(fault))).job

    async def _from_history(self, job: Job) -> Mapping[str, object] | None:
        try:
            async for request in self._fal().platform.history(
                job.intent.endpoint_id, start_ms=(job.sent_ms or job.created_ms) - 600_000, end_ms=None
            ):
                if request.request_id == job.request_id:
                    return request.output
        except KlingError:
            return None
        return None


def receipt_of(job: Job) -> Receipt:
    """What fal gave for *job* when it accepted it."""
    return Receipt(
        request_id=job.request_id or "",
        status_url=job.status_url,
        response_url=job.response_url,
        cancel_url=job.cancel_url,
        queue_position=job.queue_position,
    )


def _ended(job: Job, failure: Failure) -> CancelledAtFal | Failed:
    fault = Fault(
        failure.code,
        f"{failure.sentence} {failure.next_step}",
        failure.billed,
        failure.field,
        failure.upstream_detail,
    )
    if job.cancel_requested and failure.type == "client_cancelled":
        return CancelledAtFal(fault)
    return Failed(fault)
