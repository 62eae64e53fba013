"""
The service: what a server asks for jobs, and everything that outlives a tool call.

A tool only starts something here or waits for it. Sending, following,
downloading and recovering happen in the service's task group, which lives as
long as the server.
"""

from __future__ import annotations

import logging
import secrets
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, assert_never
from urllib.parse import unquote, urlsplit

import anyio
import anyio.to_thread

from kling_mcp.catalog.pricing import quote_plan
from kling_mcp.errors import Internal, InvalidArguments, KlingError, LedgerUnavailable, NoApiKey, UnknownJob
from kling_mcp.jobs import faults
from kling_mcp.jobs.job import Accepted, Job, SettledByUser, Withdrawn
from kling_mcp.jobs.ledger import Limits
from kling_mcp.jobs.store import JobStore
from kling_mcp.jobs.voices import refuse_taken
from kling_mcp.jobs.warnings import CANCELLED_TOO_LATE
from kling_mcp.money import micro_dollars
from kling_mcp.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
    from decimal import Decimal

    from anyio.abc import TaskGroup

    from kling_mcp.catalog.plan import Plan
    from kling_mcp.fal.client import Fal
    from kling_mcp.jobs.draft import Draft
    from kling_mcp.jobs.film import FilmStep
    from kling_mcp.jobs.inputs import Lookup
    from kling_mcp.jobs.ledger import Ledger
    from kling_mcp.jobs.workers import Workers
    from kling_mcp.settings import Settings

__all__ = ["JobService", "Started"]

log = logging.getLogger(__name__)

_SENT_WITHIN_SECONDS: Final = 3.0
"""How long a withdrawal waits for fal's answer to a request that is on its way."""

_JOBS_LOOKED_THROUGH: Final = 200
_LINK_SECONDS: Final = 3.0
"""How long fal is asked for whether a link of its own still leads to a file."""
_DRAIN_SECONDS: Final = 1.5
"""How long a request on its way may take when the server stops: hosts kill after two seconds."""


@dataclass(frozen=True, slots=True)
class Started:
    """The job that answers a call, and whether the call made it."""

    job: Job
    fresh: bool


class JobService:
    """
    Jobs, from intent to saved video.

    Args:
        open_fal: Makes the client of fal.ai; called once, on first use.
        open_ledger: Opens the ledger; called once, on first use, in a worker thread.
        store: A store that is made already.
        make_workers: Makes the workers; called once, on first use.
    """

    def __init__(
        self,
        settings: Settings,
        open_fal: Callable[[], Fal],
        open_ledger: Callable[[], Ledger] | None = None,
        runtime: Runtime | None = None,
        *,
        store: JobStore | None = None,
        make_workers: Callable[[JobStore, Settings, Callable[[], Fal], Callable[[], TaskGroup]], Workers] | None = None,
    ) -> None:
        self.settings = settings
        self.runtime = runtime or Runtime()
        self.store = store or JobStore(settings.data_dir, self.runtime, open_ledger or self._sqlite)
        self._open_fal = open_fal
        self._opened_fal: Fal | None = None
        self._tasks: TaskGroup | None = None
        self._make_workers = make_workers
        self._workers: Workers | None = None
        self.unanswered: set[str] = set()
        """Fingerprints of calls whose price the user was asked about without an answer."""

    # ---- lifetime

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[JobService]:
        """Everything that must outlive a tool call, for as long as the server serves."""
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                tasks.start_soon(self.store.watch)
                try:
                    yield self
                finally:
                    await self.close()
                    tasks.cancel_scope.cancel()
        finally:
            # Only now: a task that was stopped may have had something to write down, or to ask.
            await self._close_fal()
            self.store.close()

    async def recover(self) -> None:
        """Bring the ledger back to the truth, now and every minute, for as long as the service is open."""
        await self.workers.reconciler.run()

    def in_background(self, work: Callable[..., Coroutine[object, object, None]], *arguments: object) -> None:
        """Do *work* for as long as the service is open."""
        self._group().start_soon(work, *arguments)

    async def close(self) -> None:
        """Send nothing new, and let what is on its way be answered."""
        if self._workers is not None:
            await self._workers.submitter.drain(_DRAIN_SECONDS)
        await self._close_fal()

    async def _close_fal(self) -> None:
        if self._opened_fal is not None:
            with anyio.move_on_after(0.2, shield=True):
                await self._opened_fal.aclose()

    # ---- starting

    async def prepare(self, plan: Plan, arguments: Mapping[str, object]) -> Draft:
        """
        Look at every input of *plan*, and price it, before anything costs or leaves this machine.

        Raises:
            InputRefused: An input may not be used, or the model would not take it.
            NotAvailable: An input needs what is not installed here, or the price is not known.
        """
        from kling_mcp.jobs.draft import Draft
        from kling_mcp.jobs.inputs import lengths, prepared

        # What cannot be priced cannot be used, whatever its inputs are.
        quote_plan(plan)
        inputs = await prepared(plan, self.settings, self._lookup())
        measured = lengths(inputs)
        paid = {name: measured.get(name) for name in plan.input_seconds}
        return Draft(plan, quote_plan(plan, paid), arguments, inputs)

    async def measure(self, plan: Plan) -> dict[str, Decimal | None]:
        """
        The lengths that set the price of *plan*, as far as they can be known without network, by argument.

        Raises:
            InputRefused: A file may not be used, or is longer than the model takes.
            UnknownJob: There is no such job.
        """
        from kling_mcp.jobs.inputs import measured

        return await measured(plan, self.settings, self._lookup())

    async def voices(self) -> Sequence[Job]:
        """Jobs that have made a voice, or still may, newest first."""
        return await self.store.run(lambda ledger: ledger.voices())

    async def find_duplicate(self, draft: Draft) -> Job | None:
        """The job that already answers for the same call, if there is one."""
        fingerprint = draft.fingerprint(self.settings.account)
        job = await self.store.run(lambda ledger: ledger.find_duplicate(fingerprint, self.runtime.now_ms()))
        return None if job is None else self.store.as_it_is(job)

    async def check(self, draft: Draft) -> None:
        """
        Refuse now what `start` would refuse, before a person is asked about the price.

        Raises:
            NoApiKey: There is no key to pay with.
            OverBudget: A limit would be passed.
            InvalidArguments: A voice of another sample has the name already.
            LedgerUnavailable: The job could not be recorded.
        """
        if self.settings.backend == "fal" and self.settings.fal_key is None:
            raise NoApiKey
        await self.store.owner()
        if draft.voice is not None:
            refuse_taken(await self.voices(), draft.voice)
        ceiling_microusd, limits = micro_dollars(draft.quote.ceiling_usd), Limits.of(self.settings)
        await self.store.run(lambda ledger: ledger.afford(ceiling_microusd, limits, self.runtime.now_ms()))

    async def start(self, draft: Draft, nonce: str | None = None, film_step: FilmStep | None = None) -> Started:
        """
        Start *draft*, once, and wait until fal's answer is recorded: the same call finds the same job.

        Args:
            film_step: The take of a film's clip that the job makes; it always gets a job of its own.

        Raises:
            FilmPaused: The film is paused, or has moved on to another take.
            NoApiKey: There is no key to pay with.
            OverBudget: A limit would be passed.
            LedgerUnavailable: The job could not be recorded, so it was not started.
        """
        from kling_mcp.jobs.submitter import Submission

        if self.settings.backend == "fal" and self.settings.fal_key is None:
            raise NoApiKey
        submission = Submission(draft, film_step.nonce if film_step else nonce, film_step)
        self._group().start_soon(self.workers.submitter.produce, submission)
        await submission.settled.wait()
        if isinstance(submission.error, KlingError):
            raise submission.error
        if submission.error is not None:
            # Before the reservation, so certainly before anything was sent.
            reference = secrets.token_hex(4)
            log.error("a job could not be reserved", exc_info=submission.error, extra={"reference": reference})
            raise Internal(reference) from submission.error
        try:
            return Started(await self.store.get(submission.job_id or ""), submission.fresh)
        except LedgerUnavailable as error:
            raise LedgerUnavailable(
                error.what,
                "The job goes on; list_jobs shows it once the ledger can be read, and the same call finds it.",
                billed="maybe",
                job_id=submission.job_id,
            ) from error

    # ---- looking

    def is_settled(self, job: Job) -> bool:
        """Whether nothing more will happen to *job* by itself soon."""
        if job.state == "completed":
            return not self._is_to_save(job) or job.save_trouble is not None
        return job.state in {"failed", "cancelled", "not_submitted", "unknown"}

    def repair_in_background(self, job: Job) -> None:
        """Save a finished video that could not be saved, or that nobody wanted saved when it was finished."""
        if job.state == "completed" and self._is_to_save(job):
            self.workers.poller.follow(job)

    def _is_to_save(self, job: Job) -> bool:
        return job.saved_to is None and job.intent.voice is None and self.settings.output_dir is not None

    async def last_frame(self, job_id: str) -> bytes:
        """
        The last frame of a job's video as PNG.

        Raises:
            UnknownJob: No such job, or none with a saved video.
            NotAvailable: The part that decodes videos is not installed.
        """
        path = (await self.store.get(job_id)).saved_to
        if path is None:
            raise UnknownJob(job_id)
        from kling_mcp.media.frames import last_frame

        return await anyio.to_thread.run_sync(last_frame, Path(path))

    # ---- ending

    async def cancel(self, job_id: str) -> tuple[Job, str]:
        """
        Ask for *job_id* to be cancelled; what is said back is certain only about what happened here.

        Raises:
            UnknownJob: No such job.
            FalUnreachable: fal.ai could not be asked.
        """
        job = await self.store.get(job_id)
        job_id = job.job_id
        if job.state == "preparing":
            found = await self.store.apply(job_id, Withdrawn(faults.CANCELLED_BEFORE))
            if found.changed:
                return found.job, "It was cancelled before anything was sent. Nothing was charged."
            job = found.job
        if not job.open:
            return job, f"It had already ended as {job.state}; nothing changed."
        job = await self.store.run(lambda ledger: ledger.mark_cancel(job_id, self.runtime.now_ms()))
        if job.state in {"submitting", "unknown"}:
            return job, (
                "fal.ai has not confirmed this request yet. It is cancelled as soon as that is known, "
                "and may still run and be billed."
            )
        job, outcome = await self.workers.poller.cancel(job)
        match outcome:
            case "removed":
                return job, "It was taken out of the queue before it ran. Nothing was charged."
            case "requested":
                return job, CANCELLED_TOO_LATE
            case "too_late":
                return job, "It had already finished at fal.ai, so it is billed; get_job brings the video."
            case "not_found":
                return job, "fal.ai does not know this request any more; get_job shows what becomes of it."
            case _:
                assert_never(outcome)

    async def withdraw(self, job_id: str) -> Job:
        """
        Cancel *job_id* if that certainly costs nothing; a video that is being rendered is billed and goes on.

        Raises:
            UnknownJob: No such job.
            FalUnreachable: fal.ai could not be asked.
        """
        job = await self.store.get(job_id)
        if job.state == "submitting":
            job = await self.store.wait(job, _SENT_WITHIN_SECONDS)
        if job.state == "queued" and not await self.workers.poller.is_waiting(job):
            return job
        return (await self.cancel(job.job_id))[0] if job.state in {"preparing", "queued"} else job

    async def resolve(self, job_id: str, *, charged: bool, request_id: str | None) -> Job:
        """
        Settle an unknown job by the user's word.

        Raises:
            UnknownJob: No such job.
            InvalidArguments: The job is not unknown, or fal has no such request.
        """
        job = await self.store.get(job_id)
        job_id = job.job_id
        if job.state != "unknown":
            raise InvalidArguments(
                f"Job {job_id} is {job.state}, not unknown; there is nothing to settle.",
                f"get_job with job_id {job_id} shows it.",
                field="job_id",
                billed=job.billed,
                job_id=job_id,
            )
        if charged and request_id is not None:
            return await self._found_by_user(job, request_id)
        fault = faults.SAID_CHARGED if charged else faults.SAID_NOT_CHARGED
        return (await self.store.apply(job_id, SettledByUser(charged=charged, fault=fault))).job

    async def _found_by_user(self, job: Job, request_id: str) -> Job:
        try:
            await self.workers.poller.has_request(job.intent.endpoint_id, request_id)
        except KlingError as error:
            raise InvalidArguments(
                f"fal.ai does not confirm request {request_id[:64]!r} ({error.what})",
                "The request id is shown at https://fal.ai/dashboard/requests; without one, leave request_id out.",
                field="request_id",
                billed="maybe",
                job_id=job.job_id,
            ) from error
        found = await self.store.apply(job.job_id, Accepted(request_id=request_id))
        if not found.changed:
            raise InvalidArguments(
                f"Request {request_id[:64]!r} already belongs to another job.",
                "list_jobs shows which one has it.",
                field="request_id",
                billed="maybe",
                job_id=job.job_id,
            )
        self.workers.poller.follow(found.job)
        return found.job

    # ---- parts

    def _lookup(self) -> Lookup:
        from kling_mcp.jobs.inputs import Lookup

        return Lookup(
            job=self.store.get,
            job_of=self._job_of,
            still_there=self._still_there,
            length_of=self._length_of,
            voices=self.voices,
        )

    async def _still_there(self, url: str) -> bool:
        """Whether fal has the file at *url*, of which only the head is asked for."""
        with anyio.move_on_after(_LINK_SECONDS):
            try:
                async with self._fal().media.fetch(url) as answer:
                    return answer.status == 200
            except KlingError:
                return False
        return False

    async def _length_of(self, url: str) -> Decimal | None:
        from kling_mcp.media.links import looked_into

        linked = await looked_into(self._fal().public, url)
        return None if linked is None else linked.measured.seconds

    async def _job_of(self, place: str) -> str | None:
        """The job whose video is at the path or address *place*, among the newest."""
        jobs = await self.store.page("completed", _JOBS_LOOKED_THROUGH, None)
        meant = _spelt(place)
        return next(
            (job.job_id for job in jobs if meant in (_spelt(job.saved_to), _spelt(job.video_file.get("url")))), None
        )

    def _group(self) -> TaskGroup:
        if self._tasks is None:
            msg = "the service is not open"
            raise RuntimeError(msg)
        return self._tasks

    def _fal(self) -> Fal:
        if self._opened_fal is None:
            self._opened_fal = self._open_fal()
        return self._opened_fal

    @property
    def workers(self) -> Workers:
        """What needs the client of fal.ai, made when the first of it is needed."""
        if self._workers is None:
            if self._make_workers is None:
                from kling_mcp.jobs.workers import make_workers

                self._make_workers = make_workers
            self._workers = self._make_workers(self.store, self.settings, self._fal, self._group)
        return self._workers

    def _sqlite(self) -> Ledger:
        import uuid

        from kling_mcp.jobs.sqlite.engine import SqliteLedger

        # The simulator spends nothing: its jobs never mix with those that were paid for.
        name = "ledger" if self.settings.backend == "fal" else "simulator"
        return SqliteLedger(self.settings.data_dir, lambda: uuid.uuid4().hex, name)


def _spelt(place: object) -> str | None:
    """What of a path, which ends in a name of ours, or of an address stays the same however it is written."""
    if not isinstance(place, str) or not place:
        return None
    parts = urlsplit(place)
    if parts.scheme in {"http", "https"}:
        return f"{parts.netloc.lower()}{parts.path}"
    return PurePosixPath(unquote(place).replace("\\", "/")).name
