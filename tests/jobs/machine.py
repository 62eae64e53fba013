"""
Histories of jobs, made up by Hypothesis and judged after every step.

The code is the real one, from the service to the file of the ledger. What is
made up is the world around it: fal (see `model`), the clocks, when processes
die, and whether the disk takes a write. A process that dies loses its ledger
at that moment, so that nothing it would do on the way out can be recorded.

`Variant` puts other parts in the place of some of the real ones: the bugs that
the machine has to find.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import shutil
import sqlite3
import sys
import tempfile
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kling_mcp.catalog.models import load
from kling_mcp.catalog.plan import plan
from kling_mcp.catalog.pricing import quote
from kling_mcp.errors import KlingError, LedgerUnavailable, OverBudget
from kling_mcp.fal.queue import Unknown
from kling_mcp.jobs.draft import Draft, PreparedInput
from kling_mcp.jobs.job import Accepted
from kling_mcp.jobs.journal import AcceptanceJournal, journaled
from kling_mcp.jobs.ledger import DEDUPE_WINDOW_MS
from kling_mcp.jobs.matching import OVER_AFTER_MS
from kling_mcp.jobs.poller import Poller, PollState
from kling_mcp.jobs.reconciler import Reconciler
from kling_mcp.jobs.service import JobService
from kling_mcp.jobs.sqlite.engine import SqliteLedger
from kling_mcp.jobs.store import JobStore
from kling_mcp.jobs.submitter import Submission, Submitter
from kling_mcp.jobs.workers import Workers
from kling_mcp.runtime import Runtime
from kling_mcp.settings import Secret, Settings
from tests.conftest import CANARY_KEY
from tests.jobs.model import Answer, End, ModelFal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

    from kling_mcp.fal.client import Fal
    from kling_mcp.jobs.job import Job
    from kling_mcp.jobs.ledger import Ledger

LIMIT_USD = Decimal("1.70")
"""Four jobs of $0.42 fit into a day, a fifth does not."""

CALLS = (("a cat looks up", 1), ("a cat looks up", 2), ("a dog runs off", 1), ("a dog runs off", 2))
"""What is asked for: a prompt and a take."""

POINTS = ("reserved", "before sending is recorded", "sending recorded", "answered", "answer recorded")

_MINUTE = 60_000


class Killed(BaseException):
    """The process is gone."""


@dataclass(frozen=True)
class Variant:
    """The parts of a program; the default ones are the real ones."""

    ledger: Callable[[Path, Callable[[], str]], SqliteLedger] = SqliteLedger
    submitter: Callable[..., Submitter] = Submitter
    reconciler: Callable[..., Reconciler] = Reconciler
    poller: Callable[..., Poller] = Poller
    draft: type[Draft] = Draft
    alive: Callable[[set[str], str], bool] = lambda living, owner: owner in living


class Mortal:
    """A ledger that is gone with its process."""

    def __init__(self, process: Process, ledger: SqliteLedger) -> None:
        self._process = process
        self._ledger = ledger

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._ledger, name)
        if not callable(method):
            return method

        def call(*arguments: Any, **named: Any) -> Any:
            if self._process.dead:
                raise Killed
            if self._process.disk_full and name == "apply" and isinstance(arguments[1], Accepted):
                raise LedgerUnavailable("The disk is full.", "Free some space.")
            return method(*arguments, **named)

        return call


class _Name:
    """A process among the owners of jobs."""

    def __init__(self, mine: str, living: set[str], alive: Callable[[set[str], str], bool]) -> None:
        self.mine = mine
        self._living = living
        self._alive = alive
        living.add(mine)

    def alive(self, owner: str) -> bool:
        return self._alive(self._living, owner)

    def close(self) -> None:
        self._living.discard(self.mine)


class _Tasks:
    """A task group that leaves following to the rules of the machine."""

    def start_soon(self, *_: object) -> None:
        pass


class _Store(JobStore):
    """A store without a thread, which is what makes a step quick; two at once take one each."""

    threads = False
    hold: Callable[[], Awaitable[Any]] | None = None
    """Waited for before a question, once *hold_after* others have been asked."""
    hold_after = 0
    then: Callable[[], Awaitable[Any]] | None = None
    """Done after a question, once *then_after* others have been asked."""
    then_after = 0

    async def run(self, question: Callable[[Ledger], Any]) -> Any:
        if self.hold is not None:
            if self.hold_after == 0:
                hold, self.hold = self.hold, None
                await hold()
            self.hold_after -= 1
        answer = await super().run(question)
        if self.then is not None:
            if self.then_after == 0:
                then, self.then = self.then, None
                await then()
            self.then_after -= 1
        return answer

    async def in_thread(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await super().in_thread(work, *arguments) if self.threads else work(*arguments)


class Process:
    """One server process, without its server."""

    def __init__(self, name: str, histories: Histories) -> None:
        self.name = name
        self.dead = False
        self.disk_full = False
        self.kill_at: str | None = None
        self.watches: dict[str, PollState] = {}
        self._variant = histories.variant
        self._journal: AcceptanceJournal | None = None
        self._living = histories.living
        self._sqlite_ledger: SqliteLedger | None = None
        settings = Settings(
            histories.folder, None, (), fal_key=Secret(CANARY_KEY), daily_budget_usd=LIMIT_USD, max_job_usd=Decimal(1)
        )
        runtime = Runtime(
            now_ms=histories.clock,
            new_id=lambda: f"kj_{next(histories.numbers)}",
            chance=lambda: 0.5,
            checkpoint=self._at,
        )
        self.store = _Store(settings.data_dir, runtime, self._open, self._named)
        self.service = JobService(
            settings, lambda: cast("Fal", histories.fal), store=self.store, runtime=runtime, make_workers=self._workers
        )

    def _open(self) -> Ledger:
        self._sqlite_ledger = self._variant.ledger(self.store.folder, lambda: "ledger")
        return cast("Ledger", Mortal(self, self._sqlite_ledger))

    def _named(self, folder: Path) -> tuple[_Name, AcceptanceJournal]:
        self._journal = AcceptanceJournal(folder, self.name)
        return _Name(self.name, self._living, self._variant.alive), self._journal

    def _at(self, point: str) -> None:
        if self.dead or point == self.kill_at:
            self.dead = True
            raise Killed

    def _workers(self, store: JobStore, settings: Settings, fal: Callable[[], Fal], _: object) -> Workers:
        """The workers of this variant; what follows jobs is the rules of the machine."""
        poller = self._variant.poller(store, settings, fal, cast("Any", None), lambda: cast("Any", _Tasks()))
        submitter = self._variant.submitter(store, settings, fal, poller.follow)
        reconciler = self._variant.reconciler(store, fal, poller, under_way=submitter.under_way, can_ask=True)
        return Workers(submitter, poller, reconciler)

    @property
    def followed(self) -> set[str]:
        return self.service.workers.poller.followed

    def produce(self, take: Submission) -> Coroutine[Any, Any, None]:
        return self.service.workers.submitter.produce(take)

    def recover_once(self) -> Coroutine[Any, Any, None]:
        return self.service.workers.reconciler.recover()

    def look(self, job: Job) -> Coroutine[Any, Any, Job]:
        return self.service.workers.poller.poll_once(job, self.watches.setdefault(job.job_id, PollState(3.0)))

    def bury(self) -> None:
        """What the kernel does for a dead process."""
        self.dead = True
        self._living.discard(self.name)
        if self._sqlite_ledger is not None:
            self._sqlite_ledger.close()
        if self._journal is not None:
            self._journal.close()
            (self.store.folder / "owners" / f"{self.name}.spool").touch()  # it stays behind, even where it is empty


class Histories(RuleBasedStateMachine):
    """See the module."""

    variant: ClassVar[Variant] = Variant()
    loop: ClassVar[asyncio.AbstractEventLoop]
    steps: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        shm = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(dir=shm if shm.is_dir() else None))
        self.numbers = itertools.count(1)
        self.living: set[str] = set()
        self.offset_ms = 0
        self.set_clock = False
        self.nudges = 0
        self.fal = self.run(self._new_fal())
        self.processes = [self.new_process(), self.new_process()]
        self.hanging: list[tuple[Process, asyncio.Task[None]]] = []
        self.ends: dict[str, tuple[str, int | None]] = {}
        self.told: set[str] = set()
        self.heard: set[str] = set()
        self.unrecorded: list[str] = []
        self.auditor: sqlite3.Connection | None = None
        self.seen: int | None = None
        self.known_rows: list[dict[str, Any]] = []

    async def _new_fal(self) -> ModelFal:
        return ModelFal(on_post=self._on_post)

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(coroutine)

    def clock(self) -> int:
        return self.fal.now_ms + self.offset_ms

    def new_process(self) -> Process:
        return Process(f"process-{next(self.numbers)}", self)

    def rows(self) -> list[dict[str, Any]]:
        """The jobs as they are in the file, oldest first."""
        if self.auditor is None:
            if not (self.folder / "ledger.sqlite3").exists():
                return []
            self.auditor = sqlite3.connect(self.folder / "ledger.sqlite3", isolation_level=None)
            self.auditor.row_factory = sqlite3.Row
        version = self.auditor.execute("PRAGMA data_version").fetchone()[0]
        if version != self.seen:
            found = self.auditor.execute("SELECT * FROM job JOIN paper USING (seq) ORDER BY seq")
            self.seen, self.known_rows = version, [dict(row) for row in found]
        return self.known_rows

    def ledger_ms(self) -> int:
        assert self.auditor is not None
        row = self.auditor.execute("SELECT value FROM meta WHERE name = 'last_ms'").fetchone()
        return max(self.clock(), 0 if row is None else int(row[0]))

    # ---- calls

    @initialize()
    def begin(self) -> None:
        for process in self.processes:
            self.run(process.service.store.page(None, 1, None))

    @rule(
        process=st.integers(0, 1),
        call=st.sampled_from(CALLS),
        answer=st.sampled_from(("accepted", "accepted", "rejected", "not sent", "lost on the way", "answer lost")),
    )
    def call(self, process: int, call: tuple[str, int], answer: Answer) -> None:
        self._call(self.processes[process], call, answer)

    @rule(process=st.integers(0, 1), call=st.sampled_from(CALLS))
    def call_and_hear_nothing(self, process: int, call: tuple[str, int]) -> None:
        """fal takes the request and keeps its answer back."""
        self._call(self.processes[process], call, "silent")

    @rule(process=st.integers(0, 1), call=st.sampled_from(CALLS), point=st.sampled_from(POINTS))
    def call_and_die(self, process: int, call: tuple[str, int], point: str) -> None:
        self.processes[process].kill_at = point
        self._call(self.processes[process], call, "accepted")
        self.processes[process].kill_at = None

    @rule(process=st.integers(0, 1), call=st.sampled_from(CALLS))
    def call_on_a_full_disk(self, process: int, call: tuple[str, int]) -> None:
        self.processes[process].disk_full = True
        self._call(self.processes[process], call, "accepted")
        self.processes[process].disk_full = False

    @rule(process=st.integers(0, 1), call=st.sampled_from(CALLS))
    def confirm_once_and_call_twice(self, process: int, call: tuple[str, int]) -> None:
        """A confirmation is replayed long after the job that it was for."""
        nonce = f"nonce-{next(self.numbers)}"
        first = self._call(self.processes[process], call, "accepted", nonce)
        if first is None or first.job_id is None:
            return
        for request in self.fal.unfinished():
            self.fal.finish(request, "video")
        self._poll_all()
        self.fal.advance(2 * DEDUPE_WINDOW_MS)
        again = self._call(self.processes[process], call, "accepted", nonce)
        assert again is None or again.job_id == first.job_id, "a confirmation made two jobs"

    @rule(call=st.sampled_from(CALLS))
    def call_in_both_at_once(self, call: tuple[str, int]) -> None:
        takes = [Submission(self._draft(call), None) for _ in self.processes]
        standing = self._standing(takes[0].draft)
        self.fal.answer = "accepted"

        async def both() -> None:
            await asyncio.gather(*(one.produce(take) for one, take in zip(self.processes, takes, strict=True)))

        for process in self.processes:
            process.store.threads = True
        self.run(both())
        for process in self.processes:
            process.store.threads = False
        self._judge_answer(takes[0], standing, alone=False)
        made = {take.job_id for take in takes if take.job_id is not None}
        assert len(made) <= 1, "the same call in two processes made two jobs"

    @rule(heard=st.booleans())
    def fal_answers_late(self, heard: bool) -> None:
        # Not a precondition: two threads race elsewhere, and what is drawn must not depend on who wins.
        if not self.hanging:
            return
        process, task = self.hanging.pop(0)
        post = self.fal.waiting[0]
        self.fal.answer = "accepted"
        post.answer.set_result(post.outcome if heard else Unknown("the connection broke"))
        self._finish(process, task)

    @rule(
        process=st.integers(0, 1),
        call=st.sampled_from(CALLS),
        asked=st.integers(0, 3),
        cancels=st.booleans(),
        dies=st.booleans(),
    )
    def it_is_sent_meanwhile(self, process: int, call: tuple[str, int], asked: int, cancels: bool, dies: bool) -> None:
        """One process prepares a job, and sends it while another decides what to do about it."""
        other, sender = self.processes[process], self.processes[1 - process]
        go = asyncio.Event()
        sender.store.hold, sender.store.hold_after = go.wait, 1
        self.fal.answer = "silent"
        self.fal.arrived.clear()
        take = Submission(self._draft(call), None)
        task = self.loop.create_task(sender.produce(take))
        self.run(take.known.wait())
        if not take.fresh:
            sender.store.hold = None
            self._finish(sender, task)
            return

        async def meanwhile() -> None:
            go.set()
            await self._until_arrived(task)
            if dies:
                sender.dead = True
                self.living.discard(sender.name)

        other.store.then, other.store.then_after = meanwhile, asked
        self.run(_forgiving(other.service.cancel(take.job_id or "") if cancels else other.recover_once()))
        other.store.then = None
        if not go.is_set():
            self.run(meanwhile())
        if task.done():
            self._finish(sender, task)
        else:
            self.hanging.append((sender, task))
        if sender.dead and sender in self.processes:
            self._replace(sender)

    # ---- processes

    @rule(process=st.integers(0, 1))
    def die(self, process: int) -> None:
        self._replace(self.processes[process])

    @rule(process=st.integers(0, 1))
    def recover(self, process: int) -> None:
        self._recover(self.processes[process])

    @rule(process=st.integers(0, 1))
    def poll(self, process: int) -> None:
        self._poll(self.processes[process])

    @rule(process=st.integers(0, 1), which=st.integers(0, 9))
    def cancel(self, process: int, which: int) -> None:
        rows = self.rows()
        if rows:
            self.run(_forgiving(self.processes[process].service.cancel(rows[which % len(rows)]["id"])))

    @rule(process=st.integers(0, 1), with_id=st.booleans())
    def the_user_settles(self, process: int, with_id: bool) -> None:
        """The user looks at fal's dashboard and says what is there."""
        for row in self.rows():
            if row["state"] != "unknown":
                continue
            sent = [request for request in self.fal.requests if request.job_id == row["id"]]
            self.told.add(row["id"])
            self.run(
                _forgiving(
                    self.processes[process].service.resolve(
                        row["id"], charged=bool(sent), request_id=sent[0].request_id if sent and with_id else None
                    )
                )
            )
            return

    @rule(process=st.integers(0, 1), which=st.integers(0, 9))
    def an_answer_comes_again(self, process: int, which: int) -> None:
        """What was recorded long ago is reported once more."""
        sent = [request for request in self.fal.requests if request.job_id]
        if sent:
            request = sent[which % len(sent)]
            owner = next((row for row in self.rows() if row["request_id"] == request.request_id), None)
            if owner is not None:
                event = Accepted(request.request_id)
                self.run(self.processes[process].store.apply(owner["id"], event))

    # ---- fal

    @rule(which=st.integers(0, 9))
    def fal_starts(self, which: int) -> None:
        waiting = [request for request in self.fal.unfinished() if request.started_ms is None]
        if waiting:
            self.fal.start(waiting[which % len(waiting)])

    @rule(which=st.integers(0, 9), end=st.sampled_from(("video", "video", "free failure", "charged failure")))
    def fal_ends(self, which: int, end: End) -> None:
        running = self.fal.unfinished()
        if running:
            request = running[which % len(running)]
            request.started_ms = request.started_ms or self.fal.now_ms
            self.fal.finish(request, end)

    @rule(process=st.integers(0, 1), call=st.sampled_from(CALLS), end=st.sampled_from(("free failure", "dropped")))
    def an_uncharged_job_is_asked_for_again(self, process: int, call: tuple[str, int], end: End) -> None:
        """What ran and failed answers for the same call for a while; what never ran does not."""
        take = self._call(self.processes[process], call, "accepted")
        ours = [one for one in self.fal.unfinished() if take is not None and one.job_id == take.job_id]
        for request in ours:
            if end == "free failure":
                request.started_ms = request.started_ms or self.fal.now_ms
            if end == "free failure" or request.started_ms is None:
                self.fal.finish(request, end)
        self._poll_all()
        self._call(self.processes[process], call, "accepted")

    @rule(which=st.integers(0, 9))
    def fal_drops(self, which: int) -> None:
        """What has not started in time is taken out of the line; the next poll shows it."""
        waiting = [request for request in self.fal.unfinished() if request.started_ms is None]
        if waiting:
            self.fal.finish(waiting[which % len(waiting)], "dropped")
            self._poll_all()

    @rule(call=st.sampled_from(CALLS))
    def somebody_else_makes_a_video(self, call: tuple[str, int]) -> None:
        """The account has another user, whose video has other words."""
        body = self._draft(call).plan.body
        self.fal.strange(_ENDPOINT, {**body, "prompt": f"{body['prompt']} in the rain"})

    @rule(reachable=st.booleans(), lag_minutes=st.sampled_from((0, 0, 5, 15 * 60)))
    def the_history_lags(self, reachable: bool, lag_minutes: int) -> None:
        self.fal.reachable = reachable
        self.fal.lag_ms = lag_minutes * _MINUTE

    @rule()
    def payloads_are_no_longer_kept(self) -> None:
        self.fal.payloads_kept = not self.fal.payloads_kept

    # ---- time

    @rule(minutes=st.sampled_from((0.2, 1, 16, 70, 200, 1_500)))
    def time_passes(self, minutes: float) -> None:
        self.fal.advance(round(minutes * _MINUTE))

    @rule(minutes=st.sampled_from((-120, -1, 1, 30, 600, 2_000)))
    def the_clock_is_set(self, minutes: int) -> None:
        self.offset_ms += minutes * _MINUTE
        self.nudges += 1
        # Ten minutes apart, what was sent when is a guess; until then it takes only as long as the clock was set back.
        self.set_clock = self.set_clock or abs(minutes) > 1 or self.nudges > 9

    @rule(process=st.integers(0, 1), call=st.sampled_from(CALLS))
    def an_answer_is_lost_while_the_clock_is_days_ahead(self, process: int, call: tuple[str, int]) -> None:
        """What fal has of it is then older than anything that is asked for by this clock."""
        self.the_clock_is_set(4_000)
        self._call(self.processes[process], call, "answer lost")
        for request in self.fal.unfinished():
            self.fal.finish(request, "video")
        self.fal.advance(1_200 * _MINUTE)

    @rule(process=st.integers(0, 1), call=st.sampled_from(CALLS))
    def a_day_after_a_lost_answer(self, process: int, call: tuple[str, int]) -> None:
        """What absence is judged by: later jobs, and a history that has got past them."""
        for number, wait in enumerate((1, 1, OVER_AFTER_MS // _MINUTE + 10, 10)):
            self.fal.advance(wait * _MINUTE)
            self._call(self.processes[process], (f"a bird number {number}", 1), "accepted")
            for request in self.fal.unfinished()[-1:]:
                request.started_ms = request.started_ms or self.fal.now_ms
                self.fal.finish(request, "video")
            self._poll_all()
        self._recover(self.processes[process])

    # ---- what must always be true

    @invariant()
    def every_step_is_counted(self) -> None:
        type(self).steps += 1

    @invariant()
    def an_intent_is_charged_once(self) -> None:
        tags = [request.job_id for request in self.fal.requests if request.job_id]
        assert len(tags) == len(set(tags)), "one job was accepted twice"
        assert len(self.fal.posts) == len(set(self.fal.posts)), "one job was sent twice"
        assert not self.unrecorded, "a request left without its record"

    @invariant()
    def no_request_is_lost(self) -> None:
        rows = self.rows()
        owned = [row["request_id"] for row in rows if row["request_id"] is not None]
        assert len(owned) == len(set(owned)), "two jobs share a request"
        kept = set(owned) | self._orphans() | self._spooled()
        assert self.heard <= kept, "an id that fal had given was forgotten"
        assert not self._orphans(), "a charged request came back to a job that had been written off"
        bodies = {request.request_id: _key(request.body) for request in self.fal.requests}
        for row in rows:
            if row["request_id"] is not None and row["id"] not in self.told:
                assert bodies[row["request_id"]] == row["body"], "a job was given somebody else's request"
        lost = [
            _key(request.body) for request in self.fal.requests if request.job_id and request.request_id not in kept
        ]
        for body in set(lost):
            open_to_it = [
                row
                for row in rows
                if row["body"] == body and (row["state"] in {"submitting", "unknown"} or row["id"] in self.told)
            ]
            assert lost.count(body) <= len(open_to_it), "a charged request belongs to no job"

    @invariant()
    def the_money_adds_up(self) -> None:
        rows = self.rows()
        if self.auditor is None:
            return
        limit = int(LIMIT_USD * 1_000_000)
        for day, held, spent in self.auditor.execute("SELECT day, held_u, spent_u FROM budget").fetchall():
            of_day = [row for row in rows if row["day"] == day]
            assert held == sum(row["ceiling_u"] for row in of_day if row["open"]), "what is held does not add up"
            assert spent == sum(row["cost_u"] or 0 for row in of_day), "what is spent does not add up"
            assert held + spent <= limit, "the budget of a day was passed"
        requests = {request.request_id: request for request in self.fal.requests}
        for row in rows:
            request = requests.get(row["request_id"])
            if not row["open"] and request is not None and request.charged:
                assert row["cost_u"], "a charged job counts nothing"

    @invariant()
    def what_has_ended_stays_as_it_ended(self) -> None:
        for row in self.rows():
            if row["state"] in {"completed", "failed", "cancelled", "not_submitted"}:
                end = (row["state"], row["cost_u"])
                assert self.ends.setdefault(row["id"], end) == end, "a job that had ended has changed"

    def teardown(self) -> None:
        """Everything dies, fal finishes what it has, and one new process has all the time it needs."""
        try:
            if not _failing():
                self._last_recovery()
        finally:
            for process in self.processes:
                self._let_go(process)
            if self.auditor is not None:
                self.auditor.close()
            shutil.rmtree(self.folder)

    def _last_recovery(self) -> None:
        self.fal.reachable, self.fal.lag_ms, self.fal.payloads_kept = True, 0, True
        for process in list(self.processes):
            self._replace(process)
        for request in self.fal.unfinished():
            self.fal.start(request)
            self.fal.finish(request, "video")
        self.fal.advance((1 + self.nudges) * _MINUTE)
        last = self.processes[0]
        for _ in range(4):
            self._recover(last)
            self._poll(last)
        self.no_request_is_lost()
        self.the_money_adds_up()
        self.what_has_ended_stays_as_it_ended()
        rows = self.rows()
        assert not [row for row in rows if row["state"] in {"preparing", "submitting", "queued", "running"}], (
            "a job is stuck"
        )
        if not self.set_clock and not self.told:
            owned = {row["request_id"] for row in rows} | self._orphans()
            assert {request.request_id for request in self.fal.requests if request.job_id} <= owned, (
                "a charged video was not found again"
            )

    # ---- helpers

    def _draft(self, call: tuple[str, int]) -> Draft:
        real = _draft(*call)
        return self.variant.draft(real.plan, real.quote, real.arguments, real.inputs)

    def _standing(self, draft: Draft) -> str | None:
        """The job that has to answer for a call: worked out from the rows, not by the ledger."""
        rows = self.rows()
        if self.auditor is None:
            return None
        now_ms = self.ledger_ms()
        prompt, take = draft.arguments["prompt"], draft.plan.take
        dropped = {request.request_id for request in self.fal.requests if request.end == "dropped"}
        found = [
            row
            for row in rows
            if (intent := _intent(row["intent"]))["arguments"]["prompt"] == prompt
            and intent["take"] == take
            and row["state"] != "not_submitted"
            and (
                row["open"]
                # What never ran and cost nothing may be asked for again at once.
                or (row["ended_ms"] > now_ms - DEDUPE_WINDOW_MS and row["request_id"] not in dropped)
            )
        ]
        return found[-1]["id"] if found else None

    def _call(
        self, process: Process, call: tuple[str, int], answer: Answer, nonce: str | None = None
    ) -> Submission | None:
        take = Submission(self._draft(call), nonce)
        standing = None if nonce is not None else self._standing(take.draft)
        self.fal.answer = answer
        task = self.loop.create_task(process.produce(take))
        self.fal.arrived.clear()
        self.run(self._until_arrived(task))
        if not task.done():
            self.hanging.append((process, task))
            return None
        self._finish(process, task)
        if process.dead:
            return None
        if answer == "accepted" and take.fresh:
            self.heard |= {request.request_id for request in self.fal.requests if request.job_id == take.job_id}
        if nonce is None:
            self._judge_answer(take, standing)
        return take

    def _judge_answer(self, take: Submission, standing: str | None, *, alone: bool = True) -> None:
        if take.error is not None:
            assert isinstance(take.error, OverBudget | LedgerUnavailable), take.error
            assert standing is None or not isinstance(take.error, OverBudget), "a repeated call was refused"
        elif standing is not None:
            assert take.job_id == standing, "the same call is another job"
        else:
            assert take.fresh or not alone, "another call is answered by a job that is not its own"

    async def _until_arrived(self, task: asyncio.Task[None]) -> None:
        arrived = self.loop.create_task(self.fal.arrived.wait())
        await asyncio.wait({task, arrived}, return_when=asyncio.FIRST_COMPLETED)
        arrived.cancel()

    def _finish(self, process: Process, task: asyncio.Task[None]) -> None:
        with contextlib.suppress(Killed):
            self.run(_result(task))
        if process.dead and process in self.processes:
            self._replace(process)

    def _on_post(self, job_id: str, body: Mapping[str, object]) -> None:
        (row,) = [row for row in self.rows() if row["id"] == job_id]
        if row["state"] != "submitting" or row["body"] != _key(body):
            self.unrecorded.append(job_id)

    def _replace(self, process: Process) -> None:
        process.dead = True
        for mine in [pair for pair in self.hanging if pair[0] is process]:
            self.hanging.remove(mine)
            mine[1].cancel()
            with contextlib.suppress(Killed, asyncio.CancelledError):
                self.run(_result(mine[1]))
        process.bury()
        fresh = self.new_process()
        self.processes[self.processes.index(process)] = fresh
        self.run(fresh.service.store.page(None, 1, None))

    def _let_go(self, process: Process) -> None:
        process.dead = True
        for _, task in self.hanging:
            task.cancel()
            with contextlib.suppress(BaseException):
                self.run(_result(task))
        self.hanging.clear()
        process.bury()

    def _recover(self, process: Process) -> None:
        of_the_living = {
            row["id"]: row["state"]
            for row in self.rows()
            if row["owner"] in self.living and row["state"] in {"preparing", "submitting"}
            if row["owner"] != process.name or process.service.workers.submitter.under_way(row["id"])
        }
        spooled_jobs = {job_id for left in journaled(self.folder / "owners") for job_id, _ in left.entries}
        self.run(_forgiving(process.recover_once()))
        for row in self.rows():
            if row["id"] in of_the_living and row["id"] not in spooled_jobs:
                assert row["state"] == of_the_living[row["id"]], "a job of a living process was taken away"

    def _poll(self, process: Process) -> None:
        for job_id in sorted(process.followed):
            job = self.run(process.service.store.get(job_id))
            if job.state in {"queued", "running"}:
                self.run(process.look(job))

    def _poll_all(self) -> None:
        for process in self.processes:
            self._poll(process)

    def _orphans(self) -> set[str]:
        if self.auditor is None:
            return set()
        return {row[0] for row in self.auditor.execute("SELECT request_id FROM orphan")}

    def _spooled(self) -> set[str]:
        folder = self.folder / "owners"
        return {accepted.request_id for left in journaled(folder) for _, accepted in left.entries}


async def _forgiving(work: Coroutine[Any, Any, Any]) -> None:
    with contextlib.suppress(KlingError):
        await work


async def _result(task: asyncio.Task[None]) -> None:
    await task


def _failing() -> bool:
    return sys.exc_info()[0] is not None


def _key(body: Mapping[str, object]) -> str:
    return json.dumps(body, sort_keys=True)


@cache
def _intent(text: str) -> dict[str, Any]:
    return json.loads(text)


@cache
def _draft(prompt: str, take: int) -> Draft:
    arguments: dict[str, object] = {"image": "https://example.com/first.png", "prompt": prompt, "take": take}
    wanted = plan(load(), "image_to_video", arguments)
    price = quote(wanted.endpoint, seconds=wanted.seconds, audio=wanted.audio, voice=wanted.voice)
    inputs = tuple(PreparedInput(slot, slot.value) for slot in wanted.inputs)
    return Draft(wanted, price, arguments, inputs)


_ENDPOINT = load().default.endpoint_id
