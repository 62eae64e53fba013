"""
Programs with one bug each, of the kinds that have cost somebody money.

Each is the real program with one part in another shape. A state machine that
does not find them proves nothing about the program without them.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from kling_mcp.errors import LedgerUnavailable
from kling_mcp.fal.platform import PastRequest
from kling_mcp.fal.queue import Unknown
from kling_mcp.jobs.job import (
    Accepted,
    Failed,
    Fault,
    Finished,
    NotSent,
    Sending,
    Step,
    Withdrawn,
    step,
)
from kling_mcp.jobs.ledger import ApplyResult, KnownRequest, Limits
from kling_mcp.jobs.matching import Verdict
from kling_mcp.jobs.reconciler import Reconciler
from kling_mcp.jobs.sqlite import SqliteLedger
from kling_mcp.jobs.submitter import Draft, Submitter
from tests.jobs.machine import Variant

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

    from kling_mcp.fal.queue import SubmitOutcome
    from kling_mcp.jobs.job import Event, Intent, Job
    from kling_mcp.jobs.ledger import Reservation
    from kling_mcp.jobs.process_lock import ProcessRegistry

__all__ = ["BUGS"]

_NO = Fault("fal_unreachable", "It was not sent.", "no")


class RetriesReadErrors(Submitter):
    async def _record(self, job: Job, outcome: SubmitOutcome) -> None:
        if isinstance(outcome, Unknown):
            outcome = await self._fal().queue.submit(job.intent.endpoint_id, job.body or {}, job_id=job.job_id)
        await super()._record(job, outcome)


class ReleasesUnknown(Submitter):
    async def _record(self, job: Job, outcome: SubmitOutcome) -> None:
        if isinstance(outcome, Unknown):
            await self._store.apply(job.job_id, NotSent(_NO))
        else:
            await super()._record(job, outcome)


class SendsBeforeRecording(Submitter):
    async def _send(self, job: Job, body: Mapping[str, object]) -> None:
        outcome = await self._fal().queue.submit(job.intent.endpoint_id, body, job_id=job.job_id)
        await self._store.apply(job.job_id, Sending(body))
        await self._record(job, outcome)


class ForgetsTheSpool(Submitter):
    async def _record(self, job: Job, outcome: SubmitOutcome) -> None:
        self._store._journal = None
        try:
            await super()._record(job, outcome)
        except LedgerUnavailable:
            await self._store.apply(job.job_id, NotSent(_NO))
        else:
            row = await self._store.run(lambda ledger: ledger.get(job.job_id))
            if row.state == "submitting":
                await self._store.apply(job.job_id, NotSent(_NO))


class IgnoresTheTake(Draft):
    def fingerprint(self, account: str) -> str:
        first = Draft(replace(self.plan, take=1), self.quote, self.arguments, self.frames)
        return first.fingerprint(account)


class TakesEveryCallForNew(Draft):
    """The fingerprint has something in it that differs from call to call."""

    def fingerprint(self, account: str) -> str:
        return super().fingerprint(f"{account}{id(self)}")


class NoWatermark(Reconciler):
    """What the history does not show, even of yesterday, is believed not to be."""

    def _judge(
        self, waiting: Sequence[Job], history: Sequence[PastRequest], known: Mapping[str, KnownRequest | None]
    ) -> Sequence[Verdict]:
        found = super()._judge(waiting, history, known)
        adopted = {verdict.job_id for verdict in found}
        late = [job for job in waiting if job.state == "unknown" and job.job_id not in adopted]
        hours = [job for job in late if self._store.runtime.now_ms() - (job.sent_ms or 0) > 3 * 3_600_000]
        return [*found, *(Verdict(job.job_id, None) for job in hours)]


class BelievesAbsenceAtOnce(Reconciler):
    def _judge(
        self, waiting: Sequence[Job], history: Sequence[PastRequest], known: Mapping[str, KnownRequest | None]
    ) -> Sequence[Verdict]:
        found = super()._judge(waiting, history, known)
        adopted = {verdict.job_id for verdict in found}
        return [*found, *(Verdict(job.job_id, None) for job in waiting if job.job_id not in adopted)]


class TakesTheHistoryForWhole(Reconciler):
    """Where it begins is not looked at."""

    def _judge(
        self, waiting: Sequence[Job], history: Sequence[PastRequest], known: Mapping[str, KnownRequest | None]
    ) -> Sequence[Verdict]:
        first = PastRequest("first", "", None, None, None, 200, {}, None)
        return super()._judge(
            waiting, [*history, first], {**known, "first": KnownRequest(0, 0, 0, self._account(waiting))}
        )

    @staticmethod
    def _account(waiting: Sequence[Job]) -> str:
        return waiting[0].intent.account if waiting else ""


class AdoptsWhateverIsNear(Reconciler):
    def _judge(
        self, waiting: Sequence[Job], history: Sequence[PastRequest], known: Mapping[str, KnownRequest | None]
    ) -> Sequence[Verdict]:
        free = [request.request_id for request in history if request.request_id not in known]
        unknown = [job for job in waiting if job.state == "unknown"]
        return [Verdict(job.job_id, request_id) for job, request_id in zip(unknown, free, strict=False)]


class TakesTheMaybeSentForUnsent(Reconciler):
    async def _take_over(self, job: Job) -> None:
        if job.state == "submitting":
            await self._store.apply(job.job_id, NotSent(_NO))
        else:
            await super()._take_over(job)


class ThrowsSpoolsAway(Reconciler):
    async def _read_spools(self, owner: ProcessRegistry) -> None:
        for path in (self._store.folder / "owners").glob("*.spool"):
            path.unlink()


class AcceptsOnlyWhatIsBeingSent(SqliteLedger):
    """An answer that comes after the job was given up as unknown is dropped."""

    def _accept(self, job_id: str, event: Accepted, now_ms: int) -> ApplyResult:
        job = self.get(job_id)
        return super()._accept(job_id, event, now_ms) if job.state == "submitting" else ApplyResult(job, changed=False)


class SettlesTwice(SqliteLedger):
    def apply(self, job_id: str, event: Event, now_ms: int) -> ApplyResult:
        found = super().apply(job_id, event, now_ms)
        if isinstance(event, Finished | Failed) and found.changed:
            with self._writing() as db:
                db.execute("UPDATE budget SET spent_u = spent_u + ?", (found.job.cost_microusd,))
        return found


class ForgetsWhatMayBeBilled(SqliteLedger):
    @staticmethod
    def _step(job: Job, event: Event) -> Step:
        leads_to = step(job, event)
        return Step(leads_to.state, 0) if isinstance(event, Failed) else leads_to


class TakesEveryFreeEndForDropped(SqliteLedger):
    """What ran and failed makes room for the same call, as if fal had never begun with it."""

    def apply(self, job_id: str, event: Event, now_ms: int) -> ApplyResult:
        if isinstance(event, Failed) and event.fault.billed == "no":
            event = Failed(replace(event.fault, again="same_call"))
        return super().apply(job_id, event, now_ms)


class TakesTheDroppedForTried(SqliteLedger):
    """What fal has dropped unstarted answers for the same call."""

    def apply(self, job_id: str, event: Event, now_ms: int) -> ApplyResult:
        if isinstance(event, Failed):
            event = Failed(replace(event.fault, again=None))
        return super().apply(job_id, event, now_ms)


class WithdrawsWhatIsOnItsWay(SqliteLedger):
    """What was only being prepared when somebody looked counts as unsent, though it has left since."""

    @staticmethod
    def _step(job: Job, event: Event) -> Step:
        if isinstance(event, Withdrawn) and job.state == "submitting":
            return Step("not_submitted", 0)
        return step(job, event)


class EndsAreNotTheEnd(SqliteLedger):
    """A late acceptance brings an ended job back to life."""

    def _accept(self, job_id: str, event: Accepted, now_ms: int) -> ApplyResult:
        job = self.get(job_id)
        if job.state in {"completed", "failed"}:
            with self._writing() as db:
                self._update(db, job.seq, {"state": "queued"}, {})
            return ApplyResult(self.get(job_id), changed=True)
        return super()._accept(job_id, event, now_ms)


class WindowOnly(SqliteLedger):
    """A call is compared with those of the last fifteen minutes, whether their jobs have ended or not."""

    def _standing(self, db: sqlite3.Connection, fingerprint: str, now_ms: int) -> Job | None:
        row = db.execute(
            "SELECT id FROM job WHERE fingerprint = ? AND state <> 'not_submitted' AND created_ms > ?",
            (fingerprint, now_ms - 15 * 60_000),
        ).fetchone()
        return None if row is None else self._row(db, row[0])


class ForgetsConfirmations(SqliteLedger):
    def _answered(self, db: sqlite3.Connection, nonce: str | None) -> Job | None:
        db.execute("DELETE FROM answered")
        return None


class ChecksThenInserts(SqliteLedger):
    """The check reads in one transaction, the insert writes in another, and the other process is in between."""

    _between = threading.Barrier(2, timeout=0.05)

    def reserve(self, intent: Intent, limits: Limits, owner: str, now_ms: int) -> Reservation:
        answers = self.find_duplicate(intent.fingerprint, now_ms) is not None
        if threading.current_thread() is not threading.main_thread():
            with contextlib.suppress(threading.BrokenBarrierError):
                self._between.wait()
            self._between.reset()
        if answers:
            return super().reserve(intent, limits, owner, now_ms)
        self._blind = True
        try:
            return super().reserve(intent, limits, owner, now_ms)
        finally:
            self._blind = False

    _blind = False

    def _standing(self, db: sqlite3.Connection, fingerprint: str, now_ms: int) -> Job | None:
        return None if self._blind else super()._standing(db, fingerprint, now_ms)


class TrustsItsMemory(SqliteLedger):
    """The budget is read once and then kept in this process."""

    _used: int | None = None

    def _hold(self, db: sqlite3.Connection, intent: Intent, limits: Limits, day: str) -> None:
        if self._used is None:
            row = db.execute("SELECT held_u + spent_u FROM budget WHERE day = ?", (day,)).fetchone()
            self._used = 0 if row is None else row[0]
        if self._used + intent.ceiling_microusd <= limits.day_microusd:
            limits = Limits(limits.job_microusd, 10**12)
            self._used += intent.ceiling_microusd
        super()._hold(db, intent, limits, day)


def _nobody_else_lives(living: set[str], owner: str) -> bool:
    return False


BUGS: Mapping[str, Variant] = {
    "a read error is sent again": Variant(submitter=RetriesReadErrors),
    "an unknown outcome is released": Variant(submitter=ReleasesUnknown),
    "the request goes out before its record": Variant(submitter=SendsBeforeRecording),
    "a full disk loses the id": Variant(submitter=ForgetsTheSpool),
    "the fingerprint ignores the take": Variant(draft=IgnoresTheTake),
    "the fingerprint is never the same": Variant(draft=TakesEveryCallForNew),
    "absence is believed without a watermark": Variant(reconciler=NoWatermark),
    "absence is believed at once": Variant(reconciler=BelievesAbsenceAtOnce),
    "the history is taken for whole": Variant(reconciler=TakesTheHistoryForWhole),
    "whatever is near is adopted": Variant(reconciler=AdoptsWhateverIsNear),
    "a request that was cut off is taken for unsent": Variant(reconciler=TakesTheMaybeSentForUnsent),
    "journals are thrown away": Variant(reconciler=ThrowsSpoolsAway),
    "a late answer is dropped": Variant(ledger=AcceptsOnlyWhatIsBeingSent),
    "a job is settled twice": Variant(ledger=SettlesTwice),
    "what may be billed is forgotten": Variant(ledger=ForgetsWhatMayBeBilled),
    "what ran is taken for dropped": Variant(ledger=TakesEveryFreeEndForDropped),
    "what was dropped is in the way": Variant(ledger=TakesTheDroppedForTried),
    "what is on its way is withdrawn": Variant(ledger=WithdrawsWhatIsOnItsWay),
    "an ended job comes back": Variant(ledger=EndsAreNotTheEnd),
    "the window ignores unfinished jobs": Variant(ledger=WindowOnly),
    "a confirmation is good for ever": Variant(ledger=ForgetsConfirmations),
    "the check and the insert are apart": Variant(ledger=ChecksThenInserts),
    "the budget is kept in memory": Variant(ledger=TrustsItsMemory),
    "a living owner is taken for dead": Variant(alive=_nobody_else_lives),
}
