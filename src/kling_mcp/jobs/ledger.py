"""
The durable record of jobs and money: what an engine must do, whatever it is made of.

An engine is synchronous and used from one worker thread. Every method is one
transaction that is on disk when it returns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from kling_mcp.money import micro_dollars

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kling_mcp.jobs.film import Film, FilmCut, FilmStep, PlannedClip, Why
    from kling_mcp.jobs.job import Event, Intent, Job, State, Trouble
    from kling_mcp.settings import Settings

__all__ = ["DEDUPE_WINDOW_MS", "ApplyResult", "DaySpend", "KnownRequest", "Ledger", "Limits", "Reservation", "Upload"]

DEDUPE_WINDOW_MS = 15 * 60 * 1000
"""How long after its end a job is still the answer to the same call."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The operator's hard limits in micro-dollars, for one job and for one UTC day."""

    job_microusd: int
    day_microusd: int

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """The limits that are set."""
        return cls(micro_dollars(settings.max_job_usd), micro_dollars(settings.daily_budget_usd))


@dataclass(frozen=True, slots=True)
class Reservation:
    """The job that answers for an intent, and whether this call made it."""

    job: Job
    fresh: bool


@dataclass(frozen=True, slots=True)
class ApplyResult:
    """What became of an event: the row as it is now, and whether the event changed it."""

    job: Job
    changed: bool


@dataclass(frozen=True, slots=True)
class KnownRequest:
    """
    A request id that a job got as the answer to its own submit, and the job's times.

    Args:
        created_ms: When the job was reserved; nothing was sent before.
        sent_ms: When it was about to be sent.
        ended_ms: When its end was recorded; None while it is open.
        account: Whose key it was sent with.
    """

    created_ms: int
    sent_ms: int
    ended_ms: int | None = None
    account: str = ""


@dataclass(frozen=True, slots=True)
class DaySpend:
    """Money of one UTC day in micro-dollars."""

    day: str
    held_microusd: int
    spent_microusd: int


@dataclass(frozen=True, slots=True)
class Upload:
    """A picture that fal's storage already has, until *expires_ms*."""

    sha256: str
    url: str
    expires_ms: int


class Ledger(Protocol):
    """
    Jobs and money, shared by every server process of a user.

    Every method may raise `LedgerUnavailable`; reading goes on where it can.
    """

    @property
    def trouble(self) -> str | None:
        """Why nothing may be spent, or None."""
        ...

    def reserve(
        self, intent: Intent, limits: Limits, owner: str, now_ms: int, film_step: FilmStep | None = None
    ) -> Reservation:
        """
        Record *intent* and hold its ceiling, or find the job that already answers for it.

        A nonce finds the job that it was first used for, whatever became of it.

        Args:
            film_step: The take of a clip that the job makes. It is checked against the film's agreement, and always
                gets a job of its own.

        Raises:
            OverBudget: The ceiling is over a limit, or over what the agreement has left; nothing was recorded.
            FilmPaused: The film is paused, or has moved on to another take.
            InvalidArguments: A voice made from another sample has the name that a new one is to have.
        """
        ...

    def afford(self, ceiling_microusd: int, limits: Limits, now_ms: int) -> None:
        """
        See whether a job of that ceiling could be reserved now; nothing is held.

        Raises:
            OverBudget: The ceiling is over a limit.
        """
        ...

    def find_duplicate(self, fingerprint: str, now_ms: int) -> Job | None:
        """
        The newest job that answers for the same call.

        One that certainly cost nothing and never ran does not: it was not submitted, or fal dropped it in its queue.
        """
        ...

    def apply(self, job_id: str, event: Event, now_ms: int) -> ApplyResult:
        """
        Move a job by *event*, if its state allows; a late or repeated event changes nothing.

        An acceptance that cannot be placed is kept as an orphan, never dropped, and the job warns of it.

        Raises:
            UnknownJob: No such job.
        """
        ...

    def adopt(self, job_id: str, old_owner: str, owner: str, now_ms: int) -> bool:
        """Take a job over from an owner that is gone; False if another process was faster."""
        ...

    def mark_cancel(self, job_id: str, now_ms: int) -> Job:
        """Note that the user wants the job cancelled."""
        ...

    def mark_saved(
        self, job_id: str, path: str | None, trouble: str | None, now_ms: int, *, again: bool = False
    ) -> Job:
        """Note where the video was saved, or why it was not; with *again* the job stays among the unfinished."""
        ...

    def note_trouble(self, job_id: str, trouble: Trouble | None) -> Job:
        """Note why it cannot be learned how a job is, or that it can be again."""
        ...

    def warn(self, job_id: str, warning: str, now_ms: int) -> Job:
        """Add *warning* to a job, once."""
        ...

    def get(self, job_id: str) -> Job:
        """
        One job.

        Raises:
            UnknownJob: No such job.
        """
        ...

    def of_request(self, request_id: str) -> Job | None:
        """The job that fal knows as *request_id*."""
        ...

    def page(self, *, state: State | None = None, limit: int = 20, before_seq: int | None = None) -> Sequence[Job]:
        """Jobs, newest first."""
        ...

    def voices(self) -> Sequence[Job]:
        """Jobs that have made a voice, or still may, newest first."""
        ...

    def unfinished(self) -> Sequence[Job]:
        """Jobs that are open, and finished ones whose video is still to be saved."""
        ...

    def requests(self, endpoint_id: str) -> Mapping[str, KnownRequest | None]:
        """
        Every request id of an endpoint that the ledger knows, orphans included.

        None stands for an id that did not come as the answer to a submit: it was found again, or is an orphan.
        """
        ...

    def spend(self, now_ms: int, days: int = 30) -> Sequence[DaySpend]:
        """Money by day, newest first; today is always there."""
        ...

    def upload(self, sha256: str, now_ms: int) -> Upload | None:
        """Where fal's storage has this content, if it still has."""
        ...

    def remember_upload(self, upload: Upload) -> None:
        """Note where fal's storage has a content."""
        ...

    # ---- films

    def plan_film(
        self, film_id: str, title: str, plan: Mapping[str, object], clips: Sequence[PlannedClip], now_ms: int
    ) -> Film:
        """Record a new film, or change one: a clip whose plan differs gets its next take, and the film is paused."""
        ...

    def draft_of(self, plan: Mapping[str, object]) -> str | None:
        """The newest film of the same plan that nobody has agreed to."""
        ...

    def film(self, film_id: str) -> Film:
        """
        One film with its jobs.

        Raises:
            UnknownJob: No such film.
        """
        ...

    def films(self, *, going: bool = False, limit: int = 50) -> Sequence[Film]:
        """Films, newest first."""
        ...

    def films_of(self, job_id: str) -> Sequence[str]:
        """The films that a job made a take of."""
        ...

    def agree(
        self, film_id: str, agreed_microusd: int | None, *, only: Sequence[int], retake: Sequence[int], now_ms: int
    ) -> Film:
        """
        Make a film, or go on with it; *agreed_microusd* raises the agreement and never lowers it.

        A clip gets its next take where its job failed, or where it is in *retake* and has a video. It gets its next
        attempt where its job was not sent. Jobs that are open are left alone, so calling this twice changes nothing.
        """
        ...

    def pause_film(self, film_id: str, why: Why, detail: str) -> Film:
        """Pause a film."""
        ...

    def add_cut(self, film_id: str, cut: FilmCut) -> bool:
        """Record a joined film; False if the same jobs are joined already."""
        ...

    def change_counter(self) -> int:
        """A number that differs after any process changed the ledger."""
        ...

    def close(self) -> None:
        """Close the ledger; no method may be called afterwards."""
        ...
