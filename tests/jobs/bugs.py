"""
Programs with one bug each, of the kinds that have cost somebody money.

Each is the real program with one part in another shape: a part that is handed to
the service or the ledger, or that stands between two of them. A state machine that
does not find them proves nothing about the program without them.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import threading
from collections import defaultdict
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

from kling_mcp.errors import LedgerUnavailable
from kling_mcp.fal.platform import PastRequest
from kling_mcp.fal.queue import Unknown
from kling_mcp.jobs.draft import Draft
from kling_mcp.jobs.job import Accepted, Failed, Fault, Finished, LostTrack, NotSent, Sending, Step, Withdrawn, step
from kling_mcp.jobs.ledger import DEDUPE_WINDOW_MS, ApplyResult, KnownRequest, Limits
from kling_mcp.jobs.matching import Verdict, judge
from kling_mcp.jobs.reconciler import Reconciler
from kling_mcp.jobs.sqlite.engine import SqliteLedger
from kling_mcp.jobs.sqlite.row_codec import JOB, checksum_of
from kling_mcp.jobs.submitter import Submitter
from tests.jobs.machine import Variant

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from kling_mcp.fal.client import Fal
    from kling_mcp.fal.queue import SubmitOutcome
    from kling_mcp.jobs.film import FilmStep
    from kling_mcp.jobs.job import Event, Intent, Job
    from kling_mcp.jobs.ledger import Reservation
    from kling_mcp.jobs.store import JobStore
    from kling_mcp.settings import Settings

__all__ = ["BUGS"]

_NO = Fault("fal_unreachable", "It was not sent.", "no")


# ---- between a worker and its store, or fal


class _Between:
    """What a worker is given in the place of *real*; a subclass does something of it in another way."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


class TakesLostForUnsent(_Between):
    async def apply(self, job_id: str, event: Event) -> ApplyResult:
        return await self.real.apply(job_id, NotSent(_NO) if isinstance(event, LostTrack) else event)


class HasNoJournal(_Between):
    async def keep_accepted(self, job_id: str, accepted: Accepted) -> Job | None:
        try:
            return (await self.real.apply(job_id, accepted)).job
        except LedgerUnavailable:
            await self.real.apply(job_id, NotSent(_NO))
            return None


class SendsAgain(_Between):
    """The queue of fal, and what stands for fal as a whole."""

    @property
    def queue(self) -> SendsAgain:
        return self

    async def submit(self, endpoint_id: str, body: Mapping[str, object], *, job_id: str) -> SubmitOutcome:
        outcome = await self.real.queue.submit(endpoint_id, body, job_id=job_id)
        if isinstance(outcome, Unknown):
            outcome = await self.real.queue.submit(endpoint_id, body, job_id=job_id)
        return outcome


class RecordsAfterwards(_Between):
    """The store, and fal's queue: what is to be recorded as about to leave leaves first."""

    def __init__(self, real: Any, fal: Callable[[], Fal]) -> None:
        super().__init__(real)
        self._fal = fal
        self._outcomes: dict[str, SubmitOutcome] = {}

    @property
    def queue(self) -> RecordsAfterwards:
        return self

    async def apply(self, job_id: str, event: Event) -> ApplyResult:
        if isinstance(event, Sending):
            job = await self.real.run(lambda ledger: ledger.get(job_id))
            self._outcomes[job_id] = await self._fal().queue.submit(job.intent.endpoint_id, event.body, job_id=job_id)
        return await self.real.apply(job_id, event)

    async def submit(self, endpoint_id: str, body: Mapping[str, object], *, job_id: str) -> SubmitOutcome:
        return self._outcomes.pop(job_id)


def _retries_read_errors(store: JobStore, settings: Settings, fal: Callable[[], Fal], accepted: Any) -> Submitter:
    return Submitter(store, settings, lambda: cast("Fal", SendsAgain(fal())), accepted)


def _sends_before_recording(store: JobStore, settings: Settings, fal: Callable[[], Fal], accepted: Any) -> Submitter:
    between = cast("Any", RecordsAfterwards(store, fal))
    return Submitter(between, settings, lambda: between, accepted)


def _with_store(part: Callable[..., Any], between: Callable[[Any], Any]) -> Callable[..., Any]:
    def made(store: JobStore, *others: Any, **named: Any) -> Any:
        return part(between(store), *others, **named)

    return made


# ---- drafts


class IgnoresTheTake(Draft):
    def fingerprint(self, account: str) -> str:
        first = Draft(replace(self.plan, take=1), self.quote, self.arguments, self.inputs)
        return first.fingerprint(account)


class TakesEveryCallForNew(Draft):
    """The fingerprint has something in it that differs from call to call."""

    def fingerprint(self, account: str) -> str:
        return super().fingerprint(f"{account}{id(self)}")


# ---- what the history proves


class NoWatermark(Reconciler):
    """What the history does not show, even of yesterday, is believed not to be."""

    def __init__(self, store: JobStore, *others: Any, **named: Any) -> None:
        def believes(
            waiting: Sequence[Job], history: Sequence[PastRequest], known: Mapping[str, KnownRequest | None]
        ) -> Sequence[Verdict]:
            found = judge(waiting, history, known)
            adopted = {verdict.job_id for verdict in found}
            late = [job for job in waiting if job.state == "unknown" and job.job_id not in adopted]
            hours = [job for job in late if store.runtime.now_ms() - (job.sent_ms or 0) > 3 * 3_600_000]
            return [*found, *(Verdict(job.job_id, None) for job in hours)]

        super().__init__(store, *others, **named, judge=believes)


def _absence_at_once(
    waiting: Sequence[Job], history: Sequence[PastRequest], known: Mapping[str, KnownRequest | None]
) -> Sequence[Verdict]:
    found = judge(waiting, history, known)
    adopted = {verdict.job_id for verdict in found}
    return [*found, *(Verdict(job.job_id, None) for job in waiting if job.job_id not in adopted)]


def _history_is_whole(
    waiting: Sequence[Job], history: Sequence[PastRequest], known: Mapping[str, KnownRequest | None]
) -> Sequence[Verdict]:
    """Where it begins is not looked at."""
    first = PastRequest("first", "", None, None, 200, {}, None)
    account = waiting[0].intent.account if waiting else ""
    return judge(waiting, [*history, first], {**known, "first": KnownRequest(0, 0, 0, account)})


def _whatever_is_near(
    waiting: Sequence[Job], history: Sequence[PastRequest], known: Mapping[str, KnownRequest | None]
) -> Sequence[Verdict]:
    free = [request.request_id for request in history if request.request_id not in known]
    unknown = [job for job in waiting if job.state == "unknown"]
    return [Verdict(job.job_id, request_id) for job, request_id in zip(unknown, free, strict=False)]


class ThrowsSpoolsAway(Reconciler):
    def __init__(self, store: JobStore, *others: Any, **named: Any) -> None:
        super().__init__(store, *others, **named)
        self._owners = store.folder / "owners"

    async def recover(self) -> None:
        for path in self._owners.glob("*.spool"):
            path.unlink()
        await super().recover()


# ---- steps


def _what_may_be_billed_is_free(job: Job, event: Event) -> Step:
    leads_to = step(job, event)
    return Step(leads_to.state, 0) if isinstance(event, Failed) else leads_to


def _withdraws_what_is_on_its_way(job: Job, event: Event) -> Step:
    """What was only being prepared when somebody looked counts as unsent, though it has left since."""
    if isinstance(event, Withdrawn) and job.state == "submitting":
        return Step("not_submitted", 0)
    return step(job, event)


# ---- ledgers


class AcceptsOnlyWhatIsBeingSent(SqliteLedger):
    """An answer that comes after the job was given up as unknown is dropped."""

    def apply(self, job_id: str, event: Event, now_ms: int) -> ApplyResult:
        job = self.get(job_id)
        if isinstance(event, Accepted) and job.state != "submitting":
            return ApplyResult(job, changed=False)
        return super().apply(job_id, event, now_ms)


class _Meddling(SqliteLedger):
    """A ledger that also writes into its file by a way of its own."""

    def __init__(self, folder: Path, new_id: Callable[[], str]) -> None:
        super().__init__(folder, new_id)
        self._path = folder / "ledger.sqlite3"

    def meddle(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self._path, isolation_level=None)) as db:
            return db.execute(statement, values).fetchall()


class SettlesTwice(_Meddling):
    def apply(self, job_id: str, event: Event, now_ms: int) -> ApplyResult:
        found = super().apply(job_id, event, now_ms)
        if isinstance(event, Finished | Failed) and found.changed:
            self.meddle("UPDATE budget SET spent_u = spent_u + ?", found.job.cost_microusd)
        return found


class EndsAreNotTheEnd(_Meddling):
    """A late acceptance brings an ended job back to life."""

    def apply(self, job_id: str, event: Event, now_ms: int) -> ApplyResult:
        job = self.get(job_id)
        if not (isinstance(event, Accepted) and job.state in {"completed", "failed"}):
            return super().apply(job_id, event, now_ms)
        self.meddle("UPDATE job SET state = 'queued' WHERE id = ?", job_id)
        (row,) = self.meddle(f"SELECT {', '.join(JOB)} FROM job WHERE id = ?", job_id)
        self.meddle("UPDATE job SET seal = ? WHERE id = ?", checksum_of(row), job_id)
        return ApplyResult(self.get(job_id), changed=True)


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


class WindowOnly(SqliteLedger):
    """A call is compared with those of the last fifteen minutes, whether their jobs have ended or not."""

    def reserve(
        self, intent: Intent, limits: Limits, owner: str, now_ms: int, film_step: FilmStep | None = None
    ) -> Reservation:
        first = self.find_duplicate(intent.fingerprint, now_ms)
        if first is not None and first.created_ms <= now_ms - DEDUPE_WINDOW_MS:
            intent = replace(intent, fingerprint=f"{intent.fingerprint} at {now_ms}")
        return super().reserve(intent, limits, owner, now_ms, film_step)


class ForgetsConfirmations(SqliteLedger):
    _numbers = itertools.count()

    def reserve(
        self, intent: Intent, limits: Limits, owner: str, now_ms: int, film_step: FilmStep | None = None
    ) -> Reservation:
        if intent.nonce is not None:
            intent = replace(intent, nonce=f"{intent.nonce} used {next(self._numbers)} times")
        return super().reserve(intent, limits, owner, now_ms, film_step)


class ChecksThenInserts(SqliteLedger):
    """The check reads in one transaction, the insert writes in another, and the other process is in between."""

    _between = threading.Barrier(2, timeout=0.05)
    _written: ClassVar[defaultdict[str, set[str]]] = defaultdict(set)
    """Under what each fingerprint was written, so that only the check finds it."""

    def find_duplicate(self, fingerprint: str, now_ms: int) -> Job | None:
        jobs = [super(ChecksThenInserts, self).find_duplicate(one, now_ms) for one in self._written[fingerprint]]
        return max((job for job in jobs if job is not None), key=lambda job: job.seq, default=None)

    def reserve(
        self, intent: Intent, limits: Limits, owner: str, now_ms: int, film_step: FilmStep | None = None
    ) -> Reservation:
        first = self.find_duplicate(intent.fingerprint, now_ms)
        if threading.current_thread() is not threading.main_thread():
            with contextlib.suppress(threading.BrokenBarrierError):
                self._between.wait()
            self._between.reset()
        under = f"{intent.fingerprint} of {intent.job_id}" if first is None else first.intent.fingerprint
        self._written[intent.fingerprint].add(under)
        return super().reserve(replace(intent, fingerprint=under), limits, owner, now_ms, film_step)


class TrustsItsMemory(SqliteLedger):
    """The budget is read when the ledger is opened and then kept in this process."""

    def __init__(self, folder: Path, new_id: Callable[[], str]) -> None:
        super().__init__(folder, new_id)
        newest = self.spend(0)[0]
        self._used_microusd = newest.held_microusd + newest.spent_microusd

    def reserve(
        self, intent: Intent, limits: Limits, owner: str, now_ms: int, film_step: FilmStep | None = None
    ) -> Reservation:
        if self._used_microusd + intent.ceiling_microusd <= limits.day_microusd:
            limits = Limits(limits.job_microusd, 10**12)
        made = super().reserve(intent, limits, owner, now_ms, film_step)
        if made.fresh:
            self._used_microusd += intent.ceiling_microusd
        return made


def _nobody_else_lives(living: set[str], owner: str) -> bool:
    return False


BUGS: Mapping[str, Variant] = {
    "a read error is sent again": Variant(submitter=_retries_read_errors),
    "an unknown outcome is released": Variant(submitter=_with_store(Submitter, TakesLostForUnsent)),
    "the request goes out before its record": Variant(submitter=_sends_before_recording),
    "a full disk loses the id": Variant(submitter=_with_store(Submitter, HasNoJournal)),
    "the fingerprint ignores the take": Variant(draft=IgnoresTheTake),
    "the fingerprint is never the same": Variant(draft=TakesEveryCallForNew),
    "absence is believed without a watermark": Variant(reconciler=NoWatermark),
    "absence is believed at once": Variant(reconciler=partial(Reconciler, judge=_absence_at_once)),
    "the history is taken for whole": Variant(reconciler=partial(Reconciler, judge=_history_is_whole)),
    "whatever is near is adopted": Variant(reconciler=partial(Reconciler, judge=_whatever_is_near)),
    "a request that was cut off is taken for unsent": Variant(reconciler=_with_store(Reconciler, TakesLostForUnsent)),
    "journals are thrown away": Variant(reconciler=ThrowsSpoolsAway),
    "a late answer is dropped": Variant(ledger=AcceptsOnlyWhatIsBeingSent),
    "a job is settled twice": Variant(ledger=SettlesTwice),
    "what may be billed is forgotten": Variant(ledger=partial(SqliteLedger, step=_what_may_be_billed_is_free)),
    "what ran is taken for dropped": Variant(ledger=TakesEveryFreeEndForDropped),
    "what was dropped is in the way": Variant(ledger=TakesTheDroppedForTried),
    "what is on its way is withdrawn": Variant(ledger=partial(SqliteLedger, step=_withdraws_what_is_on_its_way)),
    "an ended job comes back": Variant(ledger=EndsAreNotTheEnd),
    "the window ignores unfinished jobs": Variant(ledger=WindowOnly),
    "a confirmation is good for ever": Variant(ledger=ForgetsConfirmations),
    "the check and the insert are apart": Variant(ledger=ChecksThenInserts),
    "the budget is kept in memory": Variant(ledger=TrustsItsMemory),
    "a living owner is taken for dead": Variant(alive=_nobody_else_lives),
}
