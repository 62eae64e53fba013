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

import logging
from typing import TYPE_CHECKING, Final

from kling_mcp.errors import KlingError, UnknownJob
from kling_mcp.jobs import faults
from kling_mcp.jobs.job import Accepted, LostTrack, ProvenAbsent, Withdrawn
from kling_mcp.jobs.journal import JournaledAcceptances, journaled
from kling_mcp.jobs.matching import judge, since_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kling_mcp.fal.client import Fal
    from kling_mcp.fal.platform import PastRequest
    from kling_mcp.jobs.job import Job
    from kling_mcp.jobs.matching import Judge
    from kling_mcp.jobs.poller import Poller
    from kling_mcp.jobs.process_lock import ProcessRegistry
    from kling_mcp.jobs.store import JobStore

__all__ = ["EVERY_SECONDS", "LOOK_AFTER_MS", "Reconciler"]

log = logging.getLogger(__name__)

EVERY_SECONDS: Final = 60.0

_DAY_MS: Final = 86_400_000
_OFTEN_SAVED_MS: Final = 10 * 60_000
"""For so long after its end a video that could not be saved is tried every minute."""
LOOK_AFTER_MS: Final = tuple(1000 * seconds for seconds in (0, 30, 120, 600, 3_600, 21_600, 86_400))
"""Ages at which an unknown request is looked for; from then on once a day."""


class Reconciler:
    """
    Brings the ledger back to the truth; see the table above.

    Args:
        under_way: Whether this process is still bringing a job to fal.
        can_ask: Whether there is a key to read the history with.
        simulated: Whether a request is gone with the process that sent it: so it is with the simulator.
        judge: Says what the history proves.
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
        judge: Judge = judge,
    ) -> None:
        self._store = store
        self._fal = fal
        self._poller = poller
        self._under_way = under_way
        self._can_ask = can_ask
        self._simulated = simulated
        self._judge = judge
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
        # Before the journals are read: a process that has ended by now left the id in there, if anywhere.
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
                await self._store.apply(job.job_id, ProvenAbsent(faults.SIMULATOR_GONE))

    async def _take_over(self, job: Job) -> None:
        """
        What a job becomes that nobody is bringing to fal any more.

        It is read again: between the look at all jobs and the death of its process it
        may have been sent, and what was only being prepared then must not count as unsent.
        """
        job = await self._store.run(lambda ledger: ledger.get(job.job_id))
        match job.state:
            case "preparing":
                await self._store.apply(job.job_id, Withdrawn(faults.STOPPED))
            case "submitting":
                await self._store.apply(job.job_id, LostTrack("the program stopped while the request was on its way"))
            case _:
                self._go_on(job)

    def _go_on(self, job: Job) -> None:
        if job.state in {"queued", "running"} or (job.state == "completed" and self._save_is_due(job)):
            self._poller.follow(job)

    def _save_is_due(self, job: Job) -> bool:
        """Whether to try again to save a video: every minute at first, then less and less often, about once an hour."""
        runtime = self._store.runtime
        age_ms = runtime.now_ms() - (job.ended_ms or 0)
        return job.save_trouble is None or runtime.chance() * age_ms < max(_OFTEN_SAVED_MS, age_ms / 60)

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
            endpoint_id, *since_ms(waiting, await self._store.run(lambda ledger: ledger.requests(endpoint_id)))
        )
        # Read after the history: whatever is in there was being sent by now, or has its id recorded.
        waiting = await self._waiting(endpoint_id)
        known = await self._store.run(lambda ledger: ledger.requests(endpoint_id))
        for verdict in self._judge(waiting, history, known):
            if verdict.request_id is None:
                await self._store.apply(verdict.job_id, ProvenAbsent(faults.PROVEN_ABSENT))
                continue
            found = await self._store.apply(verdict.job_id, Accepted(verdict.request_id))
            if found.changed:
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

    async def _waiting(self, endpoint_id: str) -> Sequence[Job]:
        return [
            job
            for job in await self._store.run(lambda ledger: ledger.unfinished())
            if job.intent.endpoint_id == endpoint_id and job.state in {"unknown", "submitting"}
        ]
