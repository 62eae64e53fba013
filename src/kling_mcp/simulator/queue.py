"""
What happens to a request between submit and result, computed from the clock.

fal runs one Kling request per account at a time by default and keeps the others
in line. Nothing here runs in the background: each question first brings the
account's line up to the present, then answers from it. A thousand waiting
requests cost a thousand small objects.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from kling_mcp.simulator.outcomes import start_timeout

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kling_mcp.simulator.clock import Clock
    from kling_mcp.simulator.outcomes import Outcome

__all__ = ["CancelAnswer", "Job", "LogEntry", "Look", "Queue", "Shot", "State"]

State = Literal["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]
CancelAnswer = Literal["OK", "CANCELLATION_REQUESTED", "ALREADY_COMPLETED"]


@dataclass(frozen=True, slots=True)
class Shot:
    """One part of a video: what is shown, and for how many seconds."""

    prompt: str
    seconds: float


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line of a runner's log; ``at`` is in seconds since 1970."""

    message: str
    at: float


@dataclass(eq=False, slots=True)
class Job:
    """
    One accepted request.

    Times are seconds since 1970. ``work_seconds`` is how long a runner needs,
    ``outcome`` what it will have to show for it. ``start_by`` is when a request
    that has not started is given up.
    """

    request_id: str
    endpoint_id: str
    account: str
    body: Mapping[str, object]
    headers: Mapping[str, str]
    tags: Mapping[str, str]
    sent_at: float
    ready_at: float
    work_seconds: float
    outcome: Outcome
    shots: tuple[Shot, ...]
    start_by: float = math.inf
    low_priority: bool = False
    in_history: bool = True
    started_at: float | None = None
    ended_at: float | None = None
    cancel_requested: bool = False

    def state(self, now: float) -> State:
        """Where the request is at *now*; its line must be up to date."""
        if self.ended_at is not None and self.ended_at <= now:
            return "COMPLETED"
        return "IN_QUEUE" if self.started_at is None else "IN_PROGRESS"

    def logs(self, now: float) -> list[LogEntry]:
        """What the runner has written up to *now*, oldest first."""
        if self.started_at is None:
            return []
        planned = self.ended_at if self.ended_at is not None else now
        lines = [LogEntry("Runner ready, generation started.", self.started_at)]
        total = sum(shot.seconds for shot in self.shots) or 1
        before = 0.0
        for number, shot in enumerate(self.shots, start=1):
            for part in (0.0, 0.5):
                share = (before + shot.seconds * part) / total
                at = self.started_at + (planned - self.started_at) * share
                lines.append(LogEntry(f"Shot {number} of {len(self.shots)}: {share:.0%} of the video.", at))
            before += shot.seconds
        lines.append(LogEntry("Generation finished.", planned))
        return [line for line in lines if line.at <= now]


@dataclass(frozen=True, slots=True)
class Look:
    """
    A request at one moment.

    ``before`` is how many wait before it, 0 once it has started; ``at`` is the
    moment, in seconds since 1970.
    """

    state: State
    before: int
    at: float


class Queue:
    """
    Every account's requests, in the order in which they were sent.

    Args:
        clock: The time.
        concurrency: How many requests of one account run at once.
    """

    def __init__(self, clock: Clock, *, concurrency: int = 1) -> None:
        self._clock = clock
        self._concurrency = concurrency
        self._jobs: dict[str, Job] = {}
        self._lines: dict[str, _Line] = {}

    def add(self, job: Job) -> None:
        """Put *job* at the end of its account's line."""
        self._jobs[job.request_id] = job
        now = self._clock.now()
        self._up_to_date(job.account, now).join(job, now)

    def get(self, request_id: str) -> Job | None:
        """The request of that id."""
        return self._jobs.get(request_id)

    def look(self, job: Job) -> Look:
        """Where *job* is at this moment."""
        at = self._clock.now()
        line = self._up_to_date(job.account, at)
        state = job.state(at)
        return Look(state, line.position(job) if state == "IN_QUEUE" else 0, at)

    def waiting(self, account: str) -> int:
        """How many requests of *account* have not started."""
        return len(self._up_to_date(account, self._clock.now()))

    def cancel(self, job: Job, outcome: Outcome, *, stops_running: bool) -> CancelAnswer:
        """
        Take *job* out of its line, or ask its runner to stop.

        A runner that is asked finishes all the same unless *stops_running*:
        fal promises nothing else, and bills it.
        """
        now = self._clock.now()
        line = self._up_to_date(job.account, now)
        state = job.state(now)
        if state == "COMPLETED":
            return "ALREADY_COMPLETED"
        job.cancel_requested = True
        if state == "IN_QUEUE":
            line.leave(job)
            job.ended_at, job.outcome = now, outcome
            return "OK"
        if stops_running:
            line.stop(job, now)
            job.outcome = outcome
        return "CANCELLATION_REQUESTED"

    def ended(self, account: str, by: float) -> list[Job]:
        """The requests of *account* that had ended at *by*, the latest first."""
        self._up_to_date(account, self._clock.now())
        jobs = [job for job in self._jobs.values() if job.account == account and (job.ended_at or math.inf) <= by]
        return sorted(jobs, key=lambda job: (job.ended_at or 0.0, job.request_id), reverse=True)

    def _up_to_date(self, account: str, now: float) -> _Line:
        line = self._lines.get(account)
        if line is None:
            line = self._lines[account] = _Line([-math.inf] * self._concurrency)
        line.advance(now)
        return line


@dataclass(eq=False, slots=True)
class _Line:
    """One account's line: ``free_at`` has, for each runner, when it is free again."""

    free_at: list[float]
    normal: deque[Job] = field(default_factory=deque["Job"])
    low: deque[Job] = field(default_factory=deque["Job"])
    next_give_up: float = math.inf

    def __len__(self) -> int:
        return len(self.normal) + len(self.low)

    def join(self, job: Job, now: float) -> None:
        (self.low if job.low_priority else self.normal).append(job)
        self.next_give_up = min(self.next_give_up, job.start_by)
        self.advance(now)

    def advance(self, now: float) -> None:
        """Start what could start up to *now*, at the moment it could."""
        while (job := self._next()) is not None:
            starts = max(self.free_at[0], job.ready_at)
            if starts > now:
                break
            self.leave(job)
            if job.start_by < starts:
                self._give_up(job)
                continue
            job.started_at, job.ended_at = starts, starts + job.work_seconds
            heapq.heapreplace(self.free_at, job.ended_at)
        if self.next_give_up <= now:
            for job in [job for job in (*self.normal, *self.low) if job.start_by <= now]:
                self.leave(job)
                self._give_up(job)
            self.next_give_up = min((job.start_by for job in (*self.normal, *self.low)), default=math.inf)

    def position(self, job: Job) -> int:
        if job in self.normal:
            return self.normal.index(job)
        return len(self.normal) + self.low.index(job)

    def leave(self, job: Job) -> None:
        (self.low if job.low_priority else self.normal).remove(job)

    def stop(self, job: Job, now: float) -> None:
        if job.ended_at in self.free_at:
            self.free_at[self.free_at.index(job.ended_at)] = now
            heapq.heapify(self.free_at)
        job.ended_at = now

    def _next(self) -> Job | None:
        """Who goes next when a runner is free: a low-priority request only when no other could go."""
        heads = [line[0] for line in (self.normal, self.low) if line]
        return min(heads, key=lambda job: max(self.free_at[0], job.ready_at), default=None)

    @staticmethod
    def _give_up(job: Job) -> None:
        job.ended_at, job.outcome = job.start_by, start_timeout()
