"""
Job store: the ledger behind one worker thread, and the one watcher of what changes in it.

The ledger is opened on first use, not at start, so that a server answers
before any disk work. Every change goes through `JobStore.apply`, which is what
makes a change visible: to waiting tool calls here, and by the file to other
processes.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeVar, TypeVarTuple

import anyio
import anyio.to_thread

from kling_mcp.errors import KlingError, LedgerUnavailable, UnknownJob

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from kling_mcp.jobs.film import Film
    from kling_mcp.jobs.job import Accepted, Event, Job, State
    from kling_mcp.jobs.journal import AcceptanceJournal
    from kling_mcp.jobs.ledger import ApplyResult, DaySpend, Ledger
    from kling_mcp.jobs.process_lock import ProcessRegistry
    from kling_mcp.runtime import Runtime

__all__ = ["JOBS_FOLLOWED", "JobStore"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

log = logging.getLogger(__name__)

_LOOK_EVERY_SECONDS: Final = 1.0
JOBS_FOLLOWED: Final = 50
"""How many of the newest jobs listeners hear of when another process changes them."""
_ANY: Final = ""
"""The key of those who wait for any change, such as that of a film."""
_LISTENER_SECONDS: Final = 1.0
"""How long a listener may take: what happens to money does not wait for a client that does not read."""


class JobStore:
    """
    The ledger of *folder*, and who else has it open.

    Args:
        open_ledger: Opens the engine; called once, in the worker thread.
        take_name: Names this process among the owners of jobs, and reserves its journal.
    """

    def __init__(
        self,
        folder: Path,
        runtime: Runtime,
        open_ledger: Callable[[], Ledger],
        take_name: Callable[[Path], tuple[ProcessRegistry, AcceptanceJournal]] | None = None,
    ) -> None:
        self.runtime = runtime
        self.folder = folder
        self._open_ledger = open_ledger
        self._take_name = take_name or _locked_name
        self._opening = anyio.Lock()
        self._one_at_a_time = anyio.CapacityLimiter(1)
        self._ledger: Ledger | None = None
        self._owner: ProcessRegistry | None = None
        self._journal: AcceptanceJournal | None = None
        self._changed: dict[str, anyio.Event] = {}
        """What wakes those who wait for a job."""
        self._listeners: list[Callable[[Job], Awaitable[None]]] = []
        self._uploading: dict[str, str] = {}
        """How far the uploads of this process are, by job; no row says it, because it ends with the process."""
        self._told: dict[str, Job] = {}
        """How each job was when listeners heard of it last, while other processes are followed."""
        self._follows_others = False
        self._watchers = 0
        self._wanted = anyio.Event()
        self._counter: int | None = None

    async def run(self, question: Callable[[Ledger], T]) -> T:
        """
        Put *question* to the ledger in its thread.

        Raises:
            LedgerUnavailable: The ledger cannot be opened or used.
        """
        ledger = self._ledger or await self._opened()
        return await self.in_thread(question, ledger)

    async def owner(self) -> ProcessRegistry:
        """
        This process among the owners of jobs; named when it first takes one on.

        Raises:
            LedgerUnavailable: There is no room for the files that keep a job safe.
        """
        async with self._opening:
            if self._owner is None:
                try:
                    self._owner, self._journal = await self.in_thread(self._take_name, self.folder / "owners")
                except OSError as error:
                    raise LedgerUnavailable(
                        f"The folder {self.folder} has no room for, or does not allow, the files that keep a job safe "
                        f"({error.strerror}).",
                        "Free some disk space or set KLING_MCP_DATA_DIR to a folder that can be written.",
                    ) from error
            return self._owner

    async def apply(self, job_id: str, event: Event) -> ApplyResult:
        """Move a job by *event* and tell everybody who waits for it."""
        found = await self.run(lambda ledger: ledger.apply(job_id, event, self.runtime.now_ms()))
        if found.changed:
            await self.notify(found.job)
        return found

    async def keep_accepted(self, job_id: str, accepted: Accepted) -> Job | None:
        """
        Record what fal accepted, in the ledger or, if that fails, in the journal.

        Returns the job, or None where only the journal could take it.
        """
        try:
            found = await self.apply(job_id, accepted)
        except Exception:
            # Whatever went wrong: this id is all there is to find a paid video by.
            log.exception("accepted request could not be recorded in the ledger", extra={"job_id": job_id})
        else:
            if not found.changed and found.job.request_id != accepted.request_id:
                log.critical("PAID-UNPLACED", extra={"job_id": job_id, "request_id": accepted.request_id})
            return found.job
        try:
            if self._journal is None:
                raise OSError("no journal")
            await self.in_thread(self._journal.keep, job_id, accepted)
        except OSError:
            log.critical("PAID-UNRECORDED", extra={"job_id": job_id, "request_id": accepted.request_id})
        return None

    # ---- reading

    async def get(self, job_id: str) -> Job:
        """
        One job, by its own id or by fal's for its request.

        Raises:
            UnknownJob: No such job.
        """
        try:
            return self.as_it_is(await self.run(lambda ledger: ledger.get(job_id)))
        except UnknownJob:
            found = await self.run(lambda ledger: ledger.of_request(job_id))
            if found is None:
                raise
            return found

    async def page(self, state: State | None, limit: int, before_seq: int | None = None) -> Sequence[Job]:
        """Jobs, newest first."""
        return await self.run(lambda ledger: ledger.page(state=state, limit=limit, before_seq=before_seq))

    def as_it_is(self, job: Job) -> Job:
        """*job* with how far its upload is, where this process uploads its files."""
        note = self._uploading.get(job.job_id)
        return replace(job, progress_note=note) if note and job.state == "preparing" else job

    def note_upload(self, job_id: str, note: str | None) -> None:
        """Say how far the upload of a job's files is, to those who wait for it; None when it is over."""
        if note is None:
            self._uploading.pop(job_id, None)
        else:
            self._uploading[job_id] = note
            self._wake(job_id)

    async def spend(self) -> Sequence[DaySpend]:
        """Money by UTC day, newest first."""
        return await self.run(lambda ledger: ledger.spend(self.runtime.now_ms()))

    # ---- changes

    async def wait(self, job: Job, seconds: float) -> Job:
        """The job as soon as it differs from *job*, whichever process changes it, or as it is after *seconds*."""
        return await self._differing(job, lambda ledger: self.as_it_is(ledger.get(job.job_id)), seconds, job.job_id)

    async def wait_for_film(self, film: Film, seconds: float) -> Film:
        """The film as soon as it or one of its jobs differs from *film*, or as it is after *seconds*."""
        return await self._differing(film, lambda ledger: ledger.film(film.film_id), seconds, _ANY)

    async def _differing(self, seen: T, ask: Callable[[Ledger], T], seconds: float, key: str) -> T:
        self._watch_begins()
        try:
            with anyio.move_on_after(seconds):
                while True:
                    changed = self._changed.setdefault(key, anyio.Event())
                    latest = await self.run(ask)
                    if latest != seen:
                        return latest
                    await changed.wait()
        finally:
            self._watch_ends()
        return await self.run(ask)

    def film_changed(self) -> None:
        """Wake those who wait for a film."""
        self._wake()

    def subscribe(self, listener: Callable[[Job], Awaitable[None]]) -> None:
        """Call *listener* with every job that changes in this process, and in others while they are followed."""
        self._listeners.append(listener)

    def follow_others(self, newest: Sequence[Job]) -> None:
        """
        Tell listeners of what other processes change too, from now on.

        Args:
            newest: Jobs as they are known already, which is not told.
        """
        self._told.update((job.job_id, job) for job in newest)
        if not self._follows_others:
            self._follows_others = True
            self._watch_begins()

    def unfollow_others(self) -> None:
        """Tell listeners only of what this process changes."""
        if self._follows_others:
            self._follows_others = False
            self._told.clear()
            self._watch_ends()

    async def notify(self, job: Job) -> None:
        """Wake everybody who waits for *job*; no listener can stop or hold up what is done for the job."""
        self._wake(job.job_id)
        if self._told.get(job.job_id) == job:
            return
        if self._follows_others:
            self._told[job.job_id] = job
        for listener in self._listeners:
            try:
                with anyio.move_on_after(_LISTENER_SECONDS):
                    await listener(job)
            except Exception:
                log.exception("a change of a job could not be told", extra={"job_id": job.job_id})

    async def watch(self) -> None:
        """Find out what other processes change, while somebody wants to know; runs as long as the service."""
        while True:
            await self._wanted.wait()
            await self.runtime.sleep(_LOOK_EVERY_SECONDS)
            try:
                await self._look()
            except KlingError as trouble:
                log.debug("the ledger could not be watched", extra={"why": trouble.what})
                self._wake(*self._changed)

    async def _look(self) -> None:
        counter = await self.run(lambda ledger: ledger.change_counter())
        if counter == self._counter:
            return
        newest = await self.page(None, JOBS_FOLLOWED) if self._follows_others else ()
        self._counter = counter
        self._wake(*self._changed)
        for job in reversed(newest):
            await self.notify(job)

    def _wake(self, *job_ids: str) -> None:
        for job_id in (*job_ids, _ANY):
            if (changed := self._changed.pop(job_id, None)) is not None:
                changed.set()

    def _watch_begins(self) -> None:
        self._watchers += 1
        self._wanted.set()

    def _watch_ends(self) -> None:
        self._watchers -= 1
        if not self._watchers:
            self._wanted = anyio.Event()

    def close(self) -> None:
        """Close the ledger, the lock and the journal."""
        if self._ledger is not None:
            self._ledger.close()
        if self._journal is not None:
            self._journal.close()
        if self._owner is not None:
            self._owner.close()

    async def in_thread(self, work: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Do *work* where it may block; one thing at a time, and to its end even if the caller is cancelled."""
        return await anyio.to_thread.run_sync(work, *arguments, limiter=self._one_at_a_time)

    async def _opened(self) -> Ledger:
        async with self._opening:
            if self._ledger is None:
                self._ledger = await self.in_thread(self._open_ledger)
            return self._ledger


def _locked_name(folder: Path) -> tuple[ProcessRegistry, AcceptanceJournal]:
    import uuid

    from kling_mcp.jobs.journal import AcceptanceJournal
    from kling_mcp.jobs.process_lock import ProcessLock

    owner = ProcessLock(folder, uuid.uuid4().hex)
    try:
        # The journal is named like its owner: it is read once that owner is gone.
        return owner, AcceptanceJournal(folder, owner.mine)
    except OSError:
        owner.close()
        raise
