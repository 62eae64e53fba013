"""
Making the ledger true again: after a crash, after a lost answer, every minute.

| found, its owner gone | means | becomes |
|---|---|---|
| preparing | nothing was on the wire | not_submitted, hold released |
| submitting | fal may have it | unknown, looked for |
| queued, running | fal has it | followed by this process |
| completed, not saved | paid | downloaded by this process |

An unknown request is looked for in fal's history. History begins somewhere
and lags, so absence counts only where it lists an earlier request of ours, and
later ones as ended when this one could not be waiting or running any more.
Nothing is ever sent again.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from kling_mcp.errors import KlingError, UnknownJob
from kling_mcp.fal.queue import START_TIMEOUT_SECONDS
from kling_mcp.jobs.job import Accepted, Fault, LostTrack, ProvenAbsent, Withdrawn
from kling_mcp.jobs.journal import JournaledAcceptances, journaled
from kling_mcp.jobs.poller import SIMULATOR_GONE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from kling_mcp.fal.client import Fal
    from kling_mcp.fal.platform import PastRequest
    from kling_mcp.jobs.job import Job
    from kling_mcp.jobs.ledger import KnownRequest
    from kling_mcp.jobs.poller import Poller
    from kling_mcp.jobs.process_lock import ProcessRegistry
    from kling_mcp.jobs.store import JobStore

__all__ = ["EVERY_SECONDS", "LOOK_AFTER_MS", "OVER_AFTER_MS", "Reconciler", "Verdict", "judge"]

log = logging.getLogger(__name__)

EVERY_SECONDS: Final = 60.0

OVER_AFTER_MS: Final = 1000 * (START_TIMEOUT_SECONDS + 2 * 3600)
"""After this long a request has ended: fal drops one that has not started in time, and no video takes two hours."""

_DAY_MS: Final = 86_400_000
LOOK_AFTER_MS: Final = tuple(1000 * seconds for seconds in (0, 30, 120, 600, 3_600, 21_600, 86_400))
"""Ages at which an unknown request is looked for; from then on once a day."""

_FARTHEST_MS: Final = 30 * _DAY_MS
"""How far back the history is read at the most for a request that was there before."""

_NEAR_MS: Final = 600_000
"""How far fal's idea of when a request was sent may be from ours."""


class Reconciler:
    """
    Brings the ledger back to the truth; see the table above.

    Args:
        under_way: Whether this process is still bringing a job to fal.
        can_ask: Whether there is a key to read the history with.
        simulated: Whether a request is gone with the process that sent it: so it is with the simulator.
    """

    def __init__(
        self,
        store: JobStore,
        fal: Callable[[], Fal],
        poller: Poller,
        *,
        under_way: Callable[[str], bool],
        can_ask: bool,
        simulated: bool = False,
    ) -> None:
        self._store = store
        self._fal = fal
        self._poller = poller
        self._under_way = under_way
        self._can_ask = can_ask
        self._simulated = simulated
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
            await self._store.runtime.sleep(EVERY_SECONDS)

    async def recover(self) -> None:
        """
        Look at every unfinished job once.

        Raises:
            LedgerUnavailable: The ledger cannot be used.
        """
        unfinished = await self._store.run(lambda ledger: ledger.unfinished())
        if not unfinished and not any((self._store.folder / "owners").glob("*.spool")):
            return
        owner = await self._store.owner()
        # Before the journals are read: whoever has let go of a job by now has its id in there, if anywhere.
        left = [job for job in unfinished if self._is_left(job, owner)]
        await self._read_spools(owner)
        for job in left:
            if job.owner == owner.mine:
                await self._take_over(job)
            else:
                await self._adopt(job, owner.mine)
        await self._look_for_unknown(owner.mine)

    def _is_left(self, job: Job, owner: ProcessRegistry) -> bool:
        """Whether nobody moves *job* on any more: its process is dead, or could not write what should have."""
        return not (self._under_way(job.job_id) if job.owner == owner.mine else owner.alive(job.owner))

    async def _read_spools(self, owner: ProcessRegistry) -> None:
        def over(name: str) -> bool:
            return name == owner.mine or not owner.alive(name)

        for left in journaled(self._store.folder / "owners", over):
            await self._bring_in(left, mine=left.owner == owner.mine)

    async def _bring_in(self, left: JournaledAcceptances, *, mine: bool) -> None:
        placed = True
        for job_id, accepted in left.entries:
            try:
                found = await self._store.apply(job_id, accepted)
            except UnknownJob:
                # Another ledger than it was written beside: the file stays for when that one is back.
                placed = False
                log.critical("PAID-UNPLACED", extra={"job_id": job_id, "request_id": accepted.request_id})
            else:
                if found.changed:
                    self._go_on(found.job)
        if placed and not mine:
            left.path.unlink(missing_ok=True)

    async def _adopt(self, job: Job, mine: str) -> None:
        now_ms = self._store.runtime.now_ms()
        if await self._store.run(lambda ledger: ledger.adopt(job.job_id, job.owner, mine, now_ms)):
            await self._take_over(job)
            if self._simulated:
                await self._store.apply(job.job_id, ProvenAbsent(SIMULATOR_GONE))

    async def _take_over(self, job: Job) -> None:
        """
        What a job becomes that nobody is bringing to fal any more.

        It is read again: between the look at all jobs and the death of its process it
        may have been sent, and what was only being prepared then must not count as unsent.
        """
        job = await self._store.run(lambda ledger: ledger.get(job.job_id))
        match job.state:
            case "preparing":
                await self._store.apply(job.job_id, Withdrawn(_NEVER_LEFT))
            case "submitting":
                await self._store.apply(job.job_id, LostTrack("the program stopped while the request was on its way"))
            case _:
                self._go_on(job)

    def _go_on(self, job: Job) -> None:
        if job.state in {"queued", "running", "completed"}:
            self._poller.follow(job)

    async def _look_for_unknown(self, mine: str) -> None:
        """Ask fal's history for requests of which nobody knows, less and less often."""
        if not self._can_ask:
            return
        jobs = [job for job in await self._store.run(lambda ledger: ledger.unfinished()) if job.state == "unknown"]
        due = [job for job in jobs if job.owner == mine and self._looks.get(job.job_id, 0) < self._looks_by_now(job)]
        for endpoint_id in sorted({job.intent.endpoint_id for job in due}):
            try:
                await self.look(endpoint_id)
            except KlingError as trouble:
                log.warning("fal's history could not be read", extra={"endpoint": endpoint_id, "why": trouble.what})
            else:
                # Only a look that saw something counts; another is made in a minute.
                self._looks |= {
                    job.job_id: self._looks_by_now(job) for job in due if job.intent.endpoint_id == endpoint_id
                }

    def _looks_by_now(self, job: Job) -> int:
        age_ms = self._store.runtime.now_ms() - (job.sent_ms or job.created_ms)
        return sum(1 for after_ms in LOOK_AFTER_MS if age_ms >= after_ms) + max(0, age_ms // _DAY_MS)

    async def look(self, endpoint_id: str) -> None:
        """
        Compare the unknown requests of an endpoint with fal's history, and settle what is certain.

        Raises:
            KlingError: The history could not be read.
        """
        waiting = await self._waiting(endpoint_id)
        if not any(job.state == "unknown" for job in waiting):
            return
        history = await self._history(
            endpoint_id, *_since_ms(waiting, await self._store.run(lambda ledger: ledger.requests(endpoint_id)))
        )
        # Read after the history: whatever is in there was being sent by now, or has its id recorded.
        waiting = await self._waiting(endpoint_id)
        known = await self._store.run(lambda ledger: ledger.requests(endpoint_id))
        for verdict in self._judge(waiting, history, known):
            event = (
                ProvenAbsent(_PROVEN_ABSENT) if verdict.request_id is None else Accepted(request_id=verdict.request_id)
            )
            found = await self._store.apply(verdict.job_id, event)
            if found.changed and verdict.request_id is not None:
                self._poller.follow(found.job)

    async def _history(self, endpoint_id: str, near_ms: int, far_ms: int) -> Sequence[PastRequest]:
        """From *far_ms* on, which may prove that a request is absent, or else from *near_ms*, where one is found."""
        history = self._fal().platform.history
        try:
            return [past async for past in history(endpoint_id, start_ms=far_ms)]
        except KlingError:
            if far_ms == near_ms:
                raise
            return [past async for past in history(endpoint_id, start_ms=near_ms)]

    def _judge(
        self, waiting: Sequence[Job], history: Sequence[PastRequest], known: Mapping[str, KnownRequest | None]
    ) -> Sequence[Verdict]:
        return judge(waiting, history, known)

    async def _waiting(self, endpoint_id: str) -> Sequence[Job]:
        return [
            job
            for job in await self._store.run(lambda ledger: ledger.unfinished())
            if job.intent.endpoint_id == endpoint_id and job.state in {"unknown", "submitting"}
        ]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is certain about an unknown job: the request that it is, or (None) that there is none."""

    job_id: str
    request_id: str | None


def judge(
    waiting: Sequence[Job], history: Sequence[PastRequest], known: Mapping[str, KnownRequest | None]
) -> Sequence[Verdict]:
    """
    What *history* proves about the unknown ones among *waiting* (jobs of one endpoint); pure.

    Requests with the same payload can stand for each other, so any of them may
    be given to any of the jobs. While a twin is still being sent nothing is
    decided, because the request in the history may be the twin's; nor is it
    where there are more such requests than jobs, because one is then somebody
    else's.

    Args:
        waiting: The jobs of the endpoint that are unknown or being sent.
        known: Every request id in the ledger, with the times of those that were answered.
    """
    skew_ms = _skew_ms(history, known, since_ms=min(map(_sent_ms, waiting), default=0) - 2 * _DAY_MS)
    strangers = [request for request in history if request.request_id not in known]
    return [
        verdict
        for twins in _twins(waiting)
        if skew_ms is not None and all(job.state == "unknown" for job in twins)
        for verdict in _verdicts(twins, strangers, history, known, skew_ms)
    ]


def _verdicts(
    twins: Sequence[Job],
    strangers: Sequence[PastRequest],
    history: Sequence[PastRequest],
    known: Mapping[str, KnownRequest | None],
    skew_ms: int,
) -> Iterator[Verdict]:
    free = [request for request in strangers if any(_could_be(request, job, skew_ms) for job in twins)]
    if len(free) > len(twins):
        return
    # Both in the order of time, with a window of the same length for each: the first that fits is the best choice.
    free.sort(key=lambda request: request.sent_ms or 0)
    unmatched: list[Job] = []
    for job in twins:
        match = next((request for request in free if _could_be(request, job, skew_ms)), None)
        if match is None:
            unmatched.append(job)
        else:
            free.remove(match)
            strangers = [request for request in strangers if request is not match]
            yield Verdict(job.job_id, match.request_id)
    for job in unmatched:
        hidden = any(_may_be_disguised(request, job) for request in strangers)
        if not hidden and _begun(job, history, known) and _over(job, history, known):
            yield Verdict(job.job_id, None)


def _twins(waiting: Sequence[Job]) -> Sequence[Sequence[Job]]:
    """The jobs in groups of the same payload, each in the order of sending."""
    groups: dict[str, list[Job]] = {}
    for job in sorted(waiting, key=_sent_ms):
        groups.setdefault(json.dumps(job.body, sort_keys=True), []).append(job)
    return list(groups.values())


def _sent_ms(job: Job) -> int:
    return job.sent_ms or job.created_ms


def _skew_ms(history: Sequence[PastRequest], known: Mapping[str, KnownRequest | None], *, since_ms: int) -> int | None:
    """How far fal's clock is ahead of ours, by the requests that both know of; None if that is not one number."""
    apart_ms = [
        request.sent_ms - ours.sent_ms
        for request in history
        if request.sent_ms is not None
        and (ours := known.get(request.request_id)) is not None
        and ours.sent_ms >= since_ms
    ]
    if not apart_ms:
        return 0
    # A clock that was set in between makes every comparison of times a guess.
    return (min(apart_ms) + max(apart_ms)) // 2 if max(apart_ms) - min(apart_ms) <= _NEAR_MS else None


def _could_be(request: PastRequest, job: Job, skew_ms: int) -> bool:
    near = request.sent_ms is None or abs(request.sent_ms - _sent_ms(job) - skew_ms) <= _NEAR_MS
    return near and request.input is not None and _contains(request.input, job.body or {})


def _contains(whole: Mapping[str, object], part: Mapping[str, object]) -> bool:
    """Whether fal's record has all that was sent; it may have filled in defaults."""
    return all(name in whole and whole[name] == value for name, value in part.items())


def _may_be_disguised(request: PastRequest, job: Job) -> bool:
    """
    Whether *request* could be *job* after all, at whatever time and however fal has rewritten it.

    A payload that fal does not show could be anything. One that it shows may have
    other numbers and addresses than were sent, but not other words.
    """
    return request.input is None or set(_words(job.body)) <= set(_words(request.input))


def _words(value: object) -> Iterator[str]:
    if isinstance(value, str):
        if any(letter.isalpha() for letter in value) and "://" not in value:
            yield value
    elif isinstance(value, dict):
        for member in cast("Mapping[str, object]", value).values():
            yield from _words(member)
    elif isinstance(value, (list, tuple)):
        for item in cast("Sequence[object]", value):
            yield from _words(item)


def _since_ms(waiting: Sequence[Job], known: Mapping[str, KnownRequest | None]) -> tuple[int, int]:
    """Well before the oldest of *waiting*, and well before the request of ours that had ended before it."""
    oldest_ms = min(map(_sent_ms, waiting))
    ended_ms = [
        ours.ended_ms
        for ours in known.values()
        if ours is not None and ours.ended_ms is not None and 0 < oldest_ms - ours.ended_ms <= _FARTHEST_MS
    ]
    return oldest_ms - 2 * _DAY_MS, max(ended_ms, default=oldest_ms) - 2 * _DAY_MS


def _begun(job: Job, history: Sequence[PastRequest], known: Mapping[str, KnownRequest | None]) -> bool:
    """
    Whether the history begins before the end of *job*, had fal had it.

    It is read from a moment on that our clock tells, which may be wrong, fal keeps
    nothing for ever, and it may be that of another account; but where it lists a
    request of the same key that had ended before *job* was sent, it lists all that
    ended later. The record's clock can stand still, so the same moment is not before.
    """
    return any(
        (ours := known.get(request.request_id)) is not None
        and ours.ended_ms is not None
        and ours.ended_ms < _sent_ms(job)
        and ours.account == job.intent.account
        for request in history
    )


def _over(job: Job, history: Sequence[PastRequest], known: Mapping[str, KnownRequest | None]) -> bool:
    """
    Whether the history has got past the moment by which *job* would have ended, had fal had it.

    By fal's own clock throughout: a request of ours that was made after *job* was
    lost tells how late fal can have got it, and another one that ended long
    after that tells how far the history has come.
    """
    later_ms = [
        request.sent_ms
        for request in history
        if request.sent_ms is not None
        and (ours := known.get(request.request_id)) is not None
        and ours.created_ms > job.updated_ms
    ]
    shown_ms = [request.ended_ms for request in history if request.ended_ms is not None and request.request_id in known]
    return bool(later_ms and shown_ms) and max(shown_ms) > min(later_ms) + OVER_AFTER_MS


_NEVER_LEFT: Final = Fault(
    "internal", "The server was stopped before the request was sent. The same call starts the job again.", "no"
)
_PROVEN_ABSENT: Final = Fault(
    "fal_unreachable",
    "The request never reached fal.ai: its history shows earlier and later requests and not this one.",
    "no",
)
