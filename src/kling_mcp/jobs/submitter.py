"""
From an intent to a request that fal has accepted, in the only order that is safe.

reserve (price held, on disk) → upload files (free, repeatable) → *sending*
(on disk) → one POST → what fal answered (on disk).

All of it runs in the server's own task group. A tool call only waits for it,
so a cancelled call, a closed pipe or a host's time limit cannot come between
the POST and its record.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Final, assert_never

import anyio

from kling_mcp.errors import KlingError, LedgerUnavailable
from kling_mcp.fal.queue import Accepted as FalAccepted
from kling_mcp.fal.queue import NotSent as FalNotSent
from kling_mcp.fal.queue import Rejected as FalRejected
from kling_mcp.fal.queue import Unknown as FalUnknown
from kling_mcp.jobs import faults
from kling_mcp.jobs.draft import filled
from kling_mcp.jobs.job import Accepted, Fault, Job, LostTrack, NotSent, Sending
from kling_mcp.jobs.ledger import Limits, Upload

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kling_mcp.catalog.plan import InputKind
    from kling_mcp.fal.client import Fal
    from kling_mcp.fal.queue import SubmitOutcome
    from kling_mcp.jobs.draft import Draft, PreparedInput
    from kling_mcp.jobs.film import FilmStep
    from kling_mcp.jobs.job import Intent
    from kling_mcp.jobs.ledger import ApplyResult
    from kling_mcp.jobs.store import JobStore
    from kling_mcp.settings import Settings

__all__ = ["Submission", "Submitter"]

log = logging.getLogger(__name__)

UPLOAD_LIFETIME_SECONDS: Final = 7 * 24 * 3600
"""How long fal keeps an uploaded file: long enough for a queue, short enough for privacy."""

_MB: Final = 1_000_000
_KINDS: Final[Mapping[InputKind, str]] = {"picture": "picture", "video": "video", "audio": "sound"}

_REUSE_MARGIN_SECONDS: Final = 24 * 3600
"""An upload is used again only while it has at least this long to live."""


class Submission:
    """A draft on its way; `known` once there is a job, `settled` once fal's answer is recorded."""

    def __init__(self, draft: Draft, nonce: str | None, film_step: FilmStep | None = None) -> None:
        self.draft = draft
        self.nonce = nonce
        self.film_step = film_step
        self.known = anyio.Event()
        self.settled = anyio.Event()
        self.fresh = False
        self.job_id: str | None = None
        self.error: Exception | None = None


class _Told:
    """
    Says how far an upload is: of a large one in steps of a fiftieth, so that nobody is told each piece.

    Args:
        say: Called with the words.
        kind: What is uploaded.
    """

    def __init__(self, say: Callable[[str], None], kind: str) -> None:
        self._say = say
        self._kind = kind
        self._next = 0

    def __call__(self, sent: int, size: int) -> None:
        """Take note that *sent* of *size* bytes have left."""
        if sent < self._next and sent < size:
            return
        self._next = sent + max(_MB, size // 50)
        how_far = f": {sent // _MB} of {round(size / _MB)} MB" if size >= 2 * _MB else ""
        self._say(f"uploading {self._kind}{how_far}")


class Submitter:
    """
    Sends drafts to fal, each at most once.

    Args:
        fal: Gives the client, made on first use.
        accepted: Called with every job that fal has accepted.
    """

    def __init__(
        self,
        store: JobStore,
        settings: Settings,
        fal: Callable[[], Fal],
        accepted: Callable[[Job], None],
    ) -> None:
        self._store = store
        self._settings = settings
        self._fal = fal
        self._accepted = accepted
        self._busy: set[str] = set()
        self._under_way = 0
        self._idle = anyio.Event()
        self._closing = False

    async def produce(self, submission: Submission) -> None:
        """Bring *submission* as far as it gets; what went wrong is on the submission or in the ledger."""
        try:
            await self._produce(submission)
        except Exception as error:
            if submission.job_id is None:
                submission.error = error
            else:
                log.exception("a job could not be submitted", extra={"job_id": submission.job_id})
        finally:
            submission.known.set()
            submission.settled.set()

    async def _produce(self, submission: Submission) -> None:
        owner = (await self._store.owner()).mine
        intent = submission.draft.intent(self._store.runtime.new_id(), self._settings.account, submission.nonce)
        self._busy.add(intent.job_id)
        try:
            await self._bring(submission, intent, owner)
        finally:
            self._busy.discard(intent.job_id)

    async def _bring(self, submission: Submission, intent: Intent, owner: str) -> None:
        limits = Limits.of(self._settings)
        reservation = await self._store.run(
            lambda ledger: ledger.reserve(intent, limits, owner, self._store.runtime.now_ms(), submission.film_step)
        )
        job = reservation.job
        submission.job_id, submission.fresh = job.job_id, reservation.fresh
        submission.known.set()
        if not reservation.fresh:
            return
        self._store.runtime.checkpoint("reserved")
        await self._store.notify(job)
        try:
            body = await self._body(job.job_id, submission.draft)
        except KlingError as error:
            await self._store.apply(job.job_id, NotSent(faults.of_error(error)))
            return
        except Exception:
            await self._store.apply(job.job_id, NotSent(faults.UPLOAD_BROKE))
            raise
        finally:
            self._store.note_upload(job.job_id, None)
        if self._closing:
            await self._store.apply(job.job_id, NotSent(faults.STOPPED))
            return
        await self._send(job, body)

    def under_way(self, job_id: str) -> bool:
        """Whether this process is still bringing *job_id* to fal."""
        return job_id in self._busy

    async def _body(self, job_id: str, draft: Draft) -> dict[str, object]:
        values = [(given.slot.path, await self._sent(job_id, given)) for given in draft.inputs]
        return filled(draft.plan.body, values)

    async def _sent(self, job_id: str, given: PreparedInput) -> str:
        """What stands in the request for *given*: its link or id, or the link of what is uploaded."""
        content = given.content
        if isinstance(content, str):
            return content
        now_ms = self._store.runtime.now_ms()
        known = await self._store.run(
            lambda ledger: ledger.upload(content.sha256, now_ms + _REUSE_MARGIN_SECONDS * 1000)
        )
        # The simulator forgets its files when it ends, fal does not.
        if known is not None and self._settings.backend == "fal":
            return known.url
        self._store.runtime.checkpoint("uploading")
        kind = _KINDS.get(given.slot.kind, "file")
        tell = _Told(lambda note: self._store.note_upload(job_id, note), kind)
        tell(0, content.size)
        url = await self._fal().storage.upload(content, lifetime_seconds=UPLOAD_LIFETIME_SECONDS, progress=tell)
        upload = Upload(content.sha256, url, now_ms + UPLOAD_LIFETIME_SECONDS * 1000)
        self._store.runtime.checkpoint("uploaded")
        await self._store.run(lambda ledger: ledger.remember_upload(upload))
        return url

    async def _send(self, job: Job, body: Mapping[str, object]) -> None:
        self._under_way += 1
        try:
            self._store.runtime.checkpoint("before sending is recorded")
            sending = await self._recorded_as_sending(job, body)
            self._store.runtime.checkpoint("sending recorded")
            if sending.changed and self._closing:
                await self._store.apply(job.job_id, NotSent(faults.STOPPED))
            elif sending.changed:
                await self._post(job, body)
        finally:
            self._under_way -= 1
            if self._under_way == 0:
                self._idle.set()
                self._idle = anyio.Event()

    async def _recorded_as_sending(self, job: Job, body: Mapping[str, object]) -> ApplyResult:
        try:
            return await self._store.apply(job.job_id, Sending(body))
        except LedgerUnavailable as trouble:
            # Nothing leaves without its record, so it is certain that nothing has left.
            with contextlib.suppress(LedgerUnavailable):
                await self._store.apply(job.job_id, NotSent(faults.of_error(trouble)))
            raise

    async def _post(self, job: Job, body: Mapping[str, object]) -> None:
        outcome: SubmitOutcome = FalUnknown("the program was interrupted while the request was on its way")
        try:
            outcome = await self._fal().queue.submit(job.intent.endpoint_id, body, job_id=job.job_id)
        finally:
            # The one shield: what fal has accepted is written down before anything may stop this task.
            with anyio.CancelScope(shield=True):
                self._store.runtime.checkpoint("answered")
                await self._record(job, outcome)
                self._store.runtime.checkpoint("answer recorded")

    async def _record(self, job: Job, outcome: SubmitOutcome) -> None:
        match outcome:
            case FalAccepted(receipt=receipt):
                accepted = Accepted(
                    receipt.request_id,
                    receipt.status_url,
                    receipt.response_url,
                    receipt.cancel_url,
                    receipt.queue_position,
                )
                recorded = await self._store.keep_accepted(job.job_id, accepted)
                if recorded is None:
                    # Only the journal has it: follow it from memory, recovery brings it into the ledger.
                    recorded = replace(
                        job, state="queued", request_id=receipt.request_id, status_url=receipt.status_url,
                        response_url=receipt.response_url, cancel_url=receipt.cancel_url,
                    )  # fmt: skip
                self._accepted(recorded)
            case FalRejected(failure=failure):
                await self._store.apply(job.job_id, NotSent(faults.of_refusal(failure)))
            case FalNotSent(reason=reason):
                log.warning("a request was not sent", extra={"job_id": job.job_id, "why": reason})
                fault = Fault("fal_unreachable", f"fal.ai could not be reached ({reason}). Nothing was sent.", "no")
                await self._store.apply(job.job_id, NotSent(fault))
            case FalUnknown(reason=reason):
                await self._store.apply(job.job_id, LostTrack(reason))
            case _:
                assert_never(outcome)

    async def drain(self, seconds: float) -> None:
        """Send nothing new, and give what is on its way *seconds* to be answered."""
        self._closing = True
        with anyio.move_on_after(seconds, shield=True):
            while self._under_way:
                await self._idle.wait()
