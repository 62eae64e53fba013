"""
Making the ledger true again: after a crash, after a lost answer, every minute.

| found, its owner gone | means | becomes |
|---|---|---|
| preparing | nothing was on the wire | not_submitted, hold released |
| submitting | fal may have it | unknown, looked for |
| queued, running | fal has it | followed by this process |
| completed, not saved | paid | downloaded by this process |

An unknown request is looked for in fal's history. History lags, so absence
counts only once a later request of ours is listed as ended and the request
could not be waiting any more. Nothing is ever sent again.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kling_mcp.errors import KlingError
from kling_mcp.jobs.job import Accepted, Fault, LostTrack, NotSent, ProvenAbsent
from kling_mcp.jobs.spool import Spooled, spooled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kling_mcp.fal.client import Fal
    from kling_mcp.fal.platform import PastRequest
    from kling_mcp.jobs.desk import Desk
    from kling_mcp.jobs.follow import Follower
    from kling_mcp.jobs.job import Job

__all__ = ["EVERY_SECONDS", "LOOK_AFTER_MS", "START_TIMEOUT_SECONDS", "Reconciler", "Verdict", "judge"]

log = logging.getLogger(__name__)

EVERY_SECONDS: Final = 60.0

START_TIMEOUT_SECONDS: Final = 3600
"""fal drops a request that has not started by then; it bounds how long a lost one can still turn up."""

LOOK_AFTER_MS: Final = tuple(1000 * seconds for seconds in (0, 30, 120, 600, 3_600, 21_600, 86_400))

_NEAR_MS: Final = 600_000
"""How far fal's idea of when a request was sent may be from ours."""


class Reconciler:
    """Brings the ledger back to the truth; see the table above."""

    def __init__(self, desk: Desk, fal: Callable[[], Fal], follower: Follower, *, can_ask: bool) -> None:
        self._desk = desk
        self._fal = fal
        self._follower = follower
        self._can_ask = can_ask
        self._looks: dict[str, int] = {}

    async def run(self) -> None:
        """Recover now and every minute."""
        while True:
            try:
                await self.recover()
            except KlingError as trouble:
                log.warning("recovery was put off", extra={"why": trouble.what})
            except Exception:
                log.exception("recovery was put off")
            await self._desk.world.sleep(EVERY_SECONDS)

    async def recover(self) -> None:
        """
        Look at every unfinished job once.

        Raises:
            LedgerUnavailable: The ledger cannot be used.
        """
        unfinished = await self._desk.ask(lambda ledger: ledger.unfinished())
        if not unfinished and not any((self._desk.folder / "owners").glob("*.spool")):
            return
        owner = await self._desk.owner()
        await self._read_spools()
        for job in unfinished:
            if job.owner == owner.mine:
                self._go_on(job)
            elif not owner.alive(job.owner):
                await self._adopt(job, owner.mine)
        await self._look_for_unknown(owner.mine)

    async def _read_spools(self) -> None:
        owner = await self._desk.owner()
        for left in list(spooled(self._desk.folder / "owners")):
            if not owner.alive(left.owner) or left.owner == owner.mine:
                await self._bring_in(left, mine=left.owner == owner.mine)

    async def _bring_in(self, left: Spooled, *, mine: bool) -> None:
        for job_id, accepted in left.entries:
            found = await self._desk.apply(job_id, accepted)
            if found.changed:
                self._follower.follow(found.job)
        if not mine:
            left.path.unlink(missing_ok=True)

    async def _adopt(self, job: Job, mine: str) -> None:
        now_ms = self._desk.world.now_ms()
        if await self._desk.ask(lambda ledger: ledger.adopt(job.job_id, job.owner, mine, now_ms)):
            await self._take_over(job)

    async def _take_over(self, job: Job) -> None:
        """What a job becomes whose process is gone."""
        match job.state:
            case "preparing":
                await self._desk.apply(job.job_id, NotSent(_NEVER_LEFT))
            case "submitting":
                await self._desk.apply(job.job_id, LostTrack("the program stopped while the request was on its way"))
            case _:
                self._go_on(job)

    def _go_on(self, job: Job) -> None:
        if job.state in {"queued", "running", "completed"}:
            self._follower.follow(job)

    async def _look_for_unknown(self, mine: str) -> None:
        """Ask fal's history for requests of which nobody knows, less and less often."""
        if not self._can_ask:
            return
        jobs = await self._desk.ask(lambda ledger: ledger.page(state="unknown", limit=1000))
        due = [job for job in jobs if job.owner == mine and self._due(job)]
        for endpoint_id in {job.intent.endpoint_id for job in due}:
            try:
                await self.look(endpoint_id)
            except KlingError as trouble:
                log.warning("fal's history could not be read", extra={"endpoint": endpoint_id, "why": trouble.what})

    def _due(self, job: Job) -> bool:
        age_ms = self._desk.world.now_ms() - (job.sent_ms or job.created_ms)
        looks = sum(1 for after_ms in LOOK_AFTER_MS if age_ms >= after_ms)
        if looks <= self._looks.get(job.job_id, 0):
            return False
        self._looks[job.job_id] = looks
        return True

    async def look(self, endpoint_id: str) -> None:
        """
        Compare the unknown requests of an endpoint with fal's history, and settle what is certain.

        Raises:
            KlingError: The history could not be read.
        """
        jobs = [
            job
            for job in await self._desk.ask(lambda ledger: ledger.page(limit=1000))
            if job.intent.endpoint_id == endpoint_id
        ]
        waiting = [job for job in jobs if job.state in {"unknown", "submitting"}]
        if not any(job.state == "unknown" for job in waiting):
            return
        start_ms = min(job.sent_ms or job.created_ms for job in waiting) - _NEAR_MS
        history = [
            request async for request in self._fal().platform.history(endpoint_id, start_ms=start_ms, end_ms=None)
        ]
        known = await self._desk.ask(lambda ledger: ledger.request_ids(endpoint_id))
        for verdict in judge(jobs, history, known, self._desk.world.now_ms()):
            event = (
                ProvenAbsent(_PROVEN_ABSENT) if verdict.request_id is None else Accepted(request_id=verdict.request_id)
            )
            found = await self._desk.apply(verdict.job_id, event)
            if found.changed and verdict.request_id is not None:
                self._follower.follow(found.job)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is certain about an unknown job: the request that it is, or (None) that there is none."""

    job_id: str
    request_id: str | None


def judge(jobs: Sequence[Job], history: Sequence[PastRequest], known: frozenset[str], now_ms: int) -> Sequence[Verdict]:
    """
    What *history* proves about the unknown ones among *jobs* (all of one endpoint); pure.

    Requests with the same payload can stand for each other, so any of them may
    be given to any of the jobs. While a twin is still being sent nothing is
    decided, because the request in the history may be the twin's.
    """
    verdicts: list[Verdict] = []
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        if job.state in {"unknown", "submitting"}:
            groups.setdefault(json.dumps(job.body, sort_keys=True), []).append(job)
    for twins in groups.values():
        if any(job.state == "submitting" for job in twins):
            continue
        free = [
            request
            for request in history
            if request.request_id not in known and any(_could_be(request, job) for job in twins)
        ]
        for job in sorted(twins, key=lambda twin: twin.sent_ms or 0):
            match = next((request for request in free if _could_be(request, job)), None)
            if match is not None:
                free.remove(match)
                verdicts.append(Verdict(job.job_id, match.request_id))
            elif _watermark(job, history, known, now_ms):
                verdicts.append(Verdict(job.job_id, None))
    return verdicts


def _could_be(request: PastRequest, job: Job) -> bool:
    return _near(request, job) and request.input is not None and _contains(request.input, job.body or {})


def _near(request: PastRequest, job: Job) -> bool:
    return request.sent_ms is None or abs(request.sent_ms - (job.sent_ms or job.created_ms)) <= _NEAR_MS


def _contains(whole: Mapping[str, object], part: Mapping[str, object]) -> bool:
    """Whether fal's record has all that was sent; it may have filled in defaults."""
    return all(name in whole and whole[name] == value for name, value in part.items())


def _watermark(job: Job, history: Sequence[PastRequest], known: frozenset[str], now_ms: int) -> bool:
    """Whether the history has got past the moment by which *job* would have ended, had fal had it."""
    over_ms = (job.sent_ms or job.created_ms) + 1000 * (
        START_TIMEOUT_SECONDS + 2 * (job.intent.expected_seconds or 600)
    )
    hidden = any(
        request.input is None and request.request_id not in known and _near(request, job) for request in history
    )
    shown_up_to_ms = max(
        (request.ended_ms for request in history if request.request_id in known and request.ended_ms is not None),
        default=0,
    )
    return not hidden and min(now_ms, shown_up_to_ms) > over_ms


_NEVER_LEFT: Final = Fault(
    "internal", "The server was stopped before the request was sent. The same call starts the job again.", "no"
)
_PROVEN_ABSENT: Final = Fault(
    "fal_unreachable",
    "The request never reached fal.ai: its history shows a later request and not this one.",
    "no",
)
