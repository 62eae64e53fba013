"""
Where the ledger lies open: one thread writes, everybody is told what changed.

The ledger is opened on first use, not at start, so that a server answers
before any disk work. Every change goes through `JobStore.apply`, which is what
makes a change visible: to waiting tool calls here, and by the file to other
processes.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, TypeVar, TypeVarTuple

import anyio
import anyio.to_thread

from kling_mcp.errors import LedgerUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from kling_mcp.jobs.job import Accepted, Event, Job
    from kling_mcp.jobs.journal import AcceptanceJournal
    from kling_mcp.jobs.ledger import ApplyResult, Ledger
    from kling_mcp.jobs.process_lock import ProcessRegistry
    from kling_mcp.runtime import Runtime

__all__ = ["JobStore"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

log = logging.getLogger(__name__)

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
        self._news: dict[str, anyio.Event] = {}
        self._listeners: list[Callable[[Job], Awaitable[None]]] = []

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
            await self.tell(found.job)
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

    async def tell(self, job: Job) -> None:
        """Wake everybody who waits for news of *job*; no listener can stop or hold up what is done for the job."""
        event = self._news.pop(job.job_id, None)
        if event is not None:
            event.set()
        for listener in self._listeners:
            try:
                with anyio.move_on_after(_LISTENER_SECONDS):
                    await listener(job)
            except Exception:
                log.exception("news of a job could not be told", extra={"job_id": job.job_id})

    def listen(self, listener: Callable[[Job], Awaitable[None]]) -> None:
        """Call *listener* with every job that changes in this process."""
        self._listeners.append(listener)

    async def wait_for_change(self, job: Job, seconds: float) -> Job:
        """
        The job as soon as it differs from *job*, or as it is after *seconds*.

        Another process may be the one that moves it, so the file is looked at
        every second too.
        """
        with anyio.move_on_after(seconds):
            while True:
                event = self._news.setdefault(job.job_id, anyio.Event())
                latest = await self.run(lambda ledger: ledger.get(job.job_id))
                if latest != job:
                    return latest
                with anyio.move_on_after(1):
                    await event.wait()
        return await self.run(lambda ledger: ledger.get(job.job_id))

    def close(self) -> None:
        """Let go of the ledger, the lock and the journal."""
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
