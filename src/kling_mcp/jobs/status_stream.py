"""
Status stream: ends the pause between two polls of a job as soon as fal says that it has ended.

fal's status stream tells at once what polling finds out seconds later, for one
request. It only ends the pause early: what becomes of a job is decided by the poll
that follows, so a stream that is cut, late, wrong or missing costs some seconds
and nothing else.
"""

from __future__ import annotations

import logging
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Final, Literal

import anyio

from kling_mcp.errors import KlingError
from kling_mcp.fal.queue import Completed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from kling_mcp.fal.queue import QueueStatus
    from kling_mcp.jobs.job import Job
    from kling_mcp.runtime import Runtime

__all__ = ["StatusStream"]

log = logging.getLogger(__name__)

_STREAMS_AT_ONCE: Final = 32
_LONGEST_SECONDS: Final = 15.0
"""
A stream that says nothing for so long may be dead: then the job is polled.

A job that takes very long is polled less often, and listened to for as long as its pause.
"""


class StatusStream:
    """
    The pauses of many jobs; some of them listen to a stream.

    There are fewer streams than there can be jobs. The job that was begun first
    gets the next one that is free: it is likely to be the next to end.

    Args:
        stream: Opens fal's stream for a job.
        news_seconds: How soon after another a mere line of a log is worth telling.
    """

    def __init__(
        self, runtime: Runtime, stream: Callable[[Job], AsyncGenerator[QueueStatus | Completed]], news_seconds: float
    ) -> None:
        self._runtime = runtime
        self._stream = stream
        self._news_seconds = news_seconds
        self._deaf: set[str] = set()
        self._listening = 0
        self._waiting: dict[int, anyio.Event] = {}

    async def pause(self, job: Job, seconds: float, tell: Callable[[Job, QueueStatus], Awaitable[Job]]) -> None:
        """
        Pause until the next look at *job* is due: for *seconds*, or while a stream has it in view.

        Args:
            tell: Called with each change that the stream shows before the end; gives the job as it is then.
        """
        if job.job_id in self._deaf:
            await self._runtime.sleep(seconds)
            return
        async with self._turn(job, seconds) as ours:
            if not ours:
                return
            heard = await self._listen(job, tell, max(seconds, _LONGEST_SECONDS))
        if heard in {"nothing", "end"}:
            # Without a stream, or when the look finds no end where the stream told of one, polling goes on alone.
            self._deaf.add(job.job_id)
        if heard in {"nothing", "part"}:
            await self._runtime.sleep(seconds)

    def forget(self, job: Job) -> None:
        """Keep nothing about *job*."""
        self._deaf.discard(job.job_id)

    @asynccontextmanager
    async def _turn(self, job: Job, seconds: float) -> AsyncGenerator[bool]:
        """Whether there was a place for *job* among those that listen before *seconds* were over."""
        turn = self._waiting[job.seq] = anyio.Event()
        self._call_next()
        try:
            if not turn.is_set():
                async with anyio.create_task_group() as race:
                    race.start_soon(self._stop_after, seconds, race.cancel_scope)
                    await turn.wait()
                    race.cancel_scope.cancel()
            yield turn.is_set()
        finally:
            if turn.is_set():
                self._listening -= 1
            else:
                del self._waiting[job.seq]
            self._call_next()

    def _call_next(self) -> None:
        while self._waiting and self._listening < _STREAMS_AT_ONCE:
            self._listening += 1
            self._waiting.pop(min(self._waiting)).set()

    async def _listen(
        self, job: Job, tell: Callable[[Job, QueueStatus], Awaitable[Job]], seconds: float
    ) -> Literal["end", "part", "nothing", "silence"]:
        heard: Literal["end", "part", "nothing", "silence"] = "silence"
        async with anyio.create_task_group() as race:
            race.start_soon(self._stop_after, seconds, race.cancel_scope)
            heard = await self._follow(job, tell)
            race.cancel_scope.cancel()
        return heard

    async def _follow(
        self, job: Job, tell: Callable[[Job, QueueStatus], Awaitable[Job]]
    ) -> Literal["end", "part", "nothing"]:
        place: tuple[bool, int | None] | None = None
        told_ms = 0
        try:
            async with aclosing(self._stream(job)) as stream:
                async for status in stream:
                    if isinstance(status, Completed):
                        return "end"
                    now_ms = self._runtime.now_ms()
                    moved = (status.running, status.queue_position) != place
                    if not moved and now_ms - told_ms < 1000 * self._news_seconds:
                        continue
                    place, told_ms = (status.running, status.queue_position), now_ms
                    # Once it is written down, those who wait for it must hear of it.
                    with anyio.CancelScope(shield=True):
                        job = await tell(job, status)
        except KlingError as trouble:
            log.debug("a stream was of no use", extra={"job_id": job.job_id, "why": trouble.what})
        return "nothing" if place is None else "part"

    async def _stop_after(self, seconds: float, scope: anyio.CancelScope) -> None:
        await self._runtime.sleep(seconds)
        scope.cancel()
