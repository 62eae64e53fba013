"""
Poller: follows accepted requests to saved videos. It polls or listens, fetches the result, and downloads.

One task per job, each with its own growing interval. The result is in the
ledger before the download begins: fal keeps it for as little as an hour, the
video for much longer.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import anyio

from kling_mcp.errors import KlingError, LedgerUnavailable
from kling_mcp.fal.failures import RequestNotFound
from kling_mcp.fal.queue import Completed, Finished, NotReady, QueueStatus, Receipt, stated_end
from kling_mcp.fal.wire import standard_result
from kling_mcp.jobs import faults
from kling_mcp.jobs.job import CancelledAtFal, Failed, Fault, Job, Progressed, Trouble
from kling_mcp.jobs.job import Finished as JobFinished
from kling_mcp.jobs.status_stream import StatusStream
from kling_mcp.money import micro_dollars

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from anyio.abc import TaskGroup

    from kling_mcp.fal.client import Fal
    from kling_mcp.fal.platform import PastRequest
    from kling_mcp.fal.queue import CancelOutcome, ResultOutcome
    from kling_mcp.jobs.saver import Saver
    from kling_mcp.jobs.store import JobStore
    from kling_mcp.settings import Settings

__all__ = ["PollState", "Poller", "receipt_of"]

log = logging.getLogger(__name__)

_SLOWEST_POLL_SECONDS: Final = 15.0
_RAREST_POLL_SECONDS: Final = 600.0
_POLLS_OF_A_LONG_JOB: Final = 40
"""How often a job that never ends is asked about while the time it has taken doubles, more or less."""
_TROUBLED_POLL_SECONDS: Final = 60.0
_GROWTH: Final = 1.5
_POLLS_AT_ONCE: Final = 32
_RESULT_PATIENCE_SECONDS: Final = 3_600.0
"""How long the result of a finished job is asked for: fal keeps it for at least an hour."""
_MISSING_PATIENCE_SECONDS: Final = 600.0
"""How long fal may say that it does not know a request that it accepted."""
_ASK_HISTORY_SECONDS: Final = 600.0
_GIVE_UP_SECONDS: Final = 86_400.0
"""For how long the history may not list a request whose result is gone: it has lagged by most of a day."""
_HISTORY_MARGIN_MS: Final = 2 * 86_400_000
"""The history is asked by fal's clock, which may not be ours."""


class Poller:
    """
    Follows accepted jobs until they end and their video is saved.

    Args:
        tasks: The server's task group, which outlives every tool call.
    """

    def __init__(
        self, store: JobStore, settings: Settings, fal: Callable[[], Fal], saver: Saver, tasks: Callable[[], TaskGroup]
    ) -> None:
        self._store = store
        self._settings = settings
        self._fal = fal
        self._saver = saver
        self._tasks = tasks
        self.followed: set[str] = set()
        """The ids of the jobs that are followed now."""
        self._polls = anyio.CapacityLimiter(_POLLS_AT_ONCE)
        self._stream_waiter = StatusStream(store.runtime, self._stream, settings.poll_seconds)

    def follow(self, job: Job) -> None:
        """Follow *job* from now on; asking twice follows it once."""
        if job.job_id not in self.followed:
            self.followed.add(job.job_id)
            self._tasks().start_soon(self._run, job)

    async def _run(self, job: Job) -> None:
        try:
            state = PollState(self._settings.poll_seconds)
            while job.state in {"queued", "running"}:
                job = await self.poll_once(job, state)
                if job.state in {"queued", "running"}:
                    await self._pause(job, state)
                    job = await self._store.run(lambda ledger, job_id=job.job_id: ledger.get(job_id))
            self._store.runtime.checkpoint("end recorded")
            if job.state == "completed":
                await self._saver.save(job)
        except Exception:
            # Another minute, another try: recovery finds every unfinished job again.
            log.exception("following a job was interrupted", extra={"job_id": job.job_id})
        finally:
            self.followed.discard(job.job_id)
            self._stream_waiter.forget(job)

    async def _pause(self, job: Job, state: PollState) -> None:
        seconds = state.pause() * (0.9 + 0.2 * self._store.runtime.chance())
        if state.calm:
            await self._stream_waiter.pause(job, seconds, self._progress)
        else:
            await self._store.runtime.sleep(seconds)

    def _stream(self, job: Job) -> AsyncGenerator[QueueStatus | Completed]:
        return self._fal().queue.status_stream(job.intent.endpoint_id, receipt_of(job))

    async def poll_once(self, job: Job, state: PollState) -> Job:
        """Poll *job* once: record what fal says, or since when it says nothing."""
        state.calm = False
        try:
            async with self._polls:
                if job.cancel_requested and not state.cancel_asked:
                    # The user's wish may have come before fal had given an id to cancel.
                    job, _ = await self.cancel(job)
                    state.cancel_asked = True
                return await self._poll(job, state) if job.open else job
        except KlingError as trouble:
            state.slow_down()
            if isinstance(trouble, LedgerUnavailable):
                log.warning("polling a job failed", extra={"job_id": job.job_id, "why": trouble.what})
                return job
            return await self._troubled(job, trouble.code, f"{trouble.what} {trouble.next_step}")

    async def _troubled(self, job: Job, code: str, message: str) -> Job:
        """Record that fal does not say how *job* is: once per kind of reason, not at every poll."""
        before = job.trouble
        if before is not None and before.code == code:
            return job
        log.warning("polling a job failed", extra={"job_id": job.job_id, "why": message})
        since_ms = self._store.runtime.now_ms() if before is None else before.since_ms
        return await self._noted(job, Trouble(code, message, since_ms))

    async def _noted(self, job: Job, trouble: Trouble | None) -> Job:
        try:
            job = await self._store.run(lambda ledger: ledger.note_trouble(job.job_id, trouble))
        except LedgerUnavailable as unavailable:
            log.warning("trouble with a job was not noted", extra={"job_id": job.job_id, "why": unavailable.what})
        else:
            await self._store.notify(job)
        return job

    async def cancel(self, job: Job) -> tuple[Job, CancelOutcome]:
        """
        Ask fal to cancel *job*, and record it where that was in time.

        Raises:
            FalUnreachable: fal.ai could not be asked.
        """
        outcome = await self._fal().queue.cancel(job.intent.endpoint_id, receipt_of(job))
        if outcome == "removed":
            job = (await self._store.apply(job.job_id, CancelledAtFal(faults.CANCELLED_IN_QUEUE))).job
        elif outcome == "requested" and job.state == "queued":
            job = (await self._store.apply(job.job_id, Progressed(running=True))).job
        return job, outcome

    async def is_waiting(self, job: Job) -> bool:
        """
        Whether fal has not begun with *job*, asked just now.

        Raises:
            FalUnreachable: fal.ai could not be asked.
        """
        status = await self._fal().queue.status(job.intent.endpoint_id, receipt_of(job))
        return isinstance(status, QueueStatus) and not status.running

    async def has_request(self, endpoint_id: str, request_id: str) -> None:
        """
        Check that fal has that request.

        Raises:
            KlingError: It has not, or could not be asked.
        """
        await self._fal().queue.status(endpoint_id, Receipt(request_id, None, None, None, None))

    async def _poll(self, job: Job, state: PollState) -> Job:
        try:
            status = await self._fal().queue.status(job.intent.endpoint_id, receipt_of(job))
        except RequestNotFound as refusal:
            patient = state.still("fal does not know the request") < _MISSING_PATIENCE_SECONDS
            if patient and self._settings.backend == "fal":
                raise
            return await self._give_up(job, state, f"fal.ai no longer answers for this request ({refusal.what})")
        self._store.runtime.checkpoint("polled")
        if isinstance(status, Completed):
            return await self._collect(job, status, state)
        state.grow()
        return await self._progress(job, status)

    async def _progress(self, job: Job, status: QueueStatus) -> Job:
        if job.trouble is not None:
            job = await self._noted(job, None)
        note = status.last_log or job.progress_note
        event = Progressed(status.running, status.queue_position, note)
        if (job.state == "running", job.queue_position, job.progress_note) == (
            status.running,
            status.queue_position,
            note,
        ):
            return job
        return (await self._store.apply(job.job_id, event)).job

    async def _collect(self, job: Job, status: Completed, state: PollState) -> Job:
        outcome: ResultOutcome
        try:
            outcome = await self._fal().queue.result(job.intent.endpoint_id, receipt_of(job))
        except KlingError as trouble:
            if status.failure is None:
                # A 504 here says nothing about the job: half of one user's finished clips were lost to that.
                gone = isinstance(trouble, RequestNotFound)
                if state.still("the result cannot be had") < _RESULT_PATIENCE_SECONDS and not gone:
                    raise
                return await self._give_up(job, state, f"the result could not be fetched ({trouble.what})")
            # If fal says that a job has ended, it has, even if the result cannot be fetched.
            outcome = stated_end(status.failure, trouble)
        self._store.runtime.checkpoint("result fetched")
        if status.failure is not None:
            outcome = stated_end(status.failure, outcome)
        if isinstance(outcome, NotReady):
            return job
        if isinstance(outcome, Finished):
            units = outcome.billable_units
            cost = None if units is None else await self._fal().platform.cost_usd(job.intent.endpoint_id, units)
            event = JobFinished(outcome.body, None if cost is None else micro_dollars(cost))
            return (await self._store.apply(job.job_id, event)).job
        return (await self._store.apply(job.job_id, faults.end_of(outcome.failure, job))).job

    async def _give_up(self, job: Job, state: PollState, why: str) -> Job:
        """Take the result from the history, and accept that it is gone only after a day of asking."""
        if self._settings.backend == "simulator":
            return (await self._store.apply(job.job_id, Failed(faults.SIMULATOR_GONE))).job
        state.slow_down()
        if job.trouble is None:
            job = await self._troubled(job, "fal_unreachable", f"It is still being looked for: {why}.")
        if state.still("nobody has the result") < state.ask_history_after:
            return job
        past = await self._past(job)
        state.ask_history_after += _ASK_HISTORY_SECONDS
        body, video = standard_result(None if past is None else past.output)
        if video is not None or (job.intent.voice is not None and job.intent.voice.id_in(body)):
            return (await self._store.apply(job.job_id, JobFinished(body))).job
        failed = past is not None and past.status_code is not None and past.status_code >= 400
        if not failed and (state.ask_history_after < _GIVE_UP_SECONDS or job.intent.account != self._settings.account):
            # It may be a job of another key, whose history this key cannot see.
            return job
        fault = Fault(
            "fal_unreachable",
            f"The video of this job cannot be had here: {why}. The user can look for request {job.request_id} at "
            "https://fal.ai/dashboard/requests.",
            "maybe",
        )
        return (await self._store.apply(job.job_id, Failed(fault))).job

    async def _past(self, job: Job) -> PastRequest | None:
        start_ms = (job.sent_ms or job.created_ms) - _HISTORY_MARGIN_MS
        async for request in self._fal().platform.history(job.intent.endpoint_id, start_ms=start_ms, end_ms=None):
            if request.request_id == job.request_id:
                return request
        return None


class PollState:
    """
    What is remembered between two polls of a job.

    CallBudget is measured in the pauses that were made, so that no clock that
    jumps ends it.
    """

    def __init__(self, pause_seconds: float) -> None:
        self.calm = False
        """Whether the last poll found the job waiting or running, and nothing wrong."""
        self.cancel_asked = False
        self.ask_history_after = 0.0
        self._pause_seconds = pause_seconds
        self._watched_seconds = 0.0
        self._lasted: dict[str, float] = {}
        self._seen: set[str] = set()

    def still(self, trouble: str) -> float:
        """For how many seconds *trouble* has been seen at every poll."""
        self._seen.add(trouble)
        return self._lasted.setdefault(trouble, 0.0)

    def grow(self) -> None:
        """Ask a little less often, and much less often for a job that has run for hours."""
        self.calm = True
        slowest = max(_SLOWEST_POLL_SECONDS, min(self._watched_seconds / _POLLS_OF_A_LONG_JOB, _RAREST_POLL_SECONDS))
        self._pause_seconds = min(self._pause_seconds * _GROWTH, slowest)

    def slow_down(self) -> None:
        """Ask much less often."""
        self._pause_seconds = max(self._pause_seconds, min(self._pause_seconds * 2, _TROUBLED_POLL_SECONDS))

    def pause(self) -> float:
        """How many seconds to wait before the next poll."""
        self._lasted = {trouble: self._lasted[trouble] + self._pause_seconds for trouble in self._seen}
        self._seen = set()
        self._watched_seconds += self._pause_seconds
        return self._pause_seconds


def receipt_of(job: Job) -> Receipt:
    """What fal gave for *job* when it accepted it."""
    return Receipt(
        request_id=job.request_id or "",
        status_url=job.status_url,
        response_url=job.response_url,
        cancel_url=job.cancel_url,
        queue_position=job.queue_position,
    )
