"""
A film: its clips, the jobs that make them, and what to do next. Pure functions, no I/O.

A film is a list of jobs. It stores only what no job knows: the plan, the price that the user agreed to, and which job
made which take of which clip. The state, cost and video of a clip are those of its job.

Every take of a clip is one job, however many processes work on the film: take and attempt are part of the job's nonce.
`take` grows when the user asks for a retake or goes on after a failure, `attempt` after a job that was never sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from kling_mcp.errors import KlingError
from kling_mcp.jobs import faults

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kling_mcp.jobs.job import Job

__all__ = [
    "AGREED_FOR_MS",
    "CONTINUE",
    "Action",
    "Clip",
    "Film",
    "FilmCut",
    "FilmPaused",
    "FilmState",
    "FilmStep",
    "FilmTake",
    "Join",
    "Pause",
    "PlannedClip",
    "Start",
    "Why",
    "decide",
]

AGREED_FOR_MS: Final = 24 * 3600 * 1000
"""How long clips may be started under an agreement. A restart days later must not spend money."""

CONTINUE: Final = "continue"
"""The start of a clip that begins with the last frame of the clip before it."""

_NOBODY_REFUSED: Final = (faults.SAID_NOT_CHARGED, faults.STOPPED)
"""Faults of jobs that were never sent, and that nobody refused: another attempt is covered by the agreement."""

_MOST_RUNNING: Final = 2
"""fal.ai's lowest limit of requests at a time."""

FilmState: TypeAlias = Literal["draft", "making", "paused", "joining", "ready"]

Why: TypeAlias = Literal[
    "clip_failed",
    "clip_not_sent",
    "agreement_old",
    "over_agreement",
    "refused",
    "clips_differ",
    "only_some",
    "changed",
    "cancelled",
    "join_failed",
    "not_joined",
]
"""
Why a film is paused.

* `clip_failed`      a job ended without a video
* `clip_not_sent`    a job could not be sent
* `agreement_old`    the agreement is more than a day old
* `over_agreement`   the next clip costs more than the agreement has left
* `refused`          a clip could not be started: its picture, a limit, the key
* `clips_differ`     a clip begins with a picture that is no longer in the film
* `only_some`        the clips that were asked for are made
* `changed`          the plan was changed
* `cancelled`        the user stopped it
* `join_failed`      the clips could not be joined
* `not_joined`       this machine does not save videos, or cannot join them
"""


class FilmPaused(KlingError):
    """A clip may not be started, because its film is paused or has moved on to another take."""

    code = "not_available"


@dataclass(frozen=True, slots=True)
class PlannedClip:
    """
    One clip as the user planned it.

    Args:
        arguments: What is sent to the tool that makes it, without its first picture.
        start: Its first picture, `CONTINUE`, or "" for none; or the id of a finished job, whose video is the clip.
        seconds: Its length.
        estimate_microusd: What it is expected to cost.
        ceiling_microusd: What it may cost at most.
    """

    arguments: Mapping[str, object]
    start: str
    seconds: int
    estimate_microusd: int
    ceiling_microusd: int

    @property
    def given(self) -> str | None:
        """The finished job whose video is the clip. It costs nothing."""
        return self.start if self.start.startswith("kj_") else None


@dataclass(frozen=True, slots=True)
class FilmTake:
    """
    Which job made a take of a clip.

    Args:
        begins_with: The job whose last frame it began with; None where it continues no clip.
    """

    number: int
    take: int
    attempt: int
    job_id: str
    begins_with: str | None


@dataclass(frozen=True, slots=True)
class FilmStep:
    """The take of a clip that a job is reserved for; `Ledger.reserve` checks it against the agreement."""

    film_id: str
    number: int
    take: int
    attempt: int
    begins_with: str | None

    @property
    def nonce(self) -> str:
        """The job's nonce: the same for every process that reserves this take."""
        return f"{self.film_id}:{self.number}:{self.take}:{self.attempt}"


@dataclass(frozen=True, slots=True)
class FilmCut:
    """A joined film: its jobs, its file, and whether the pictures were copied or encoded again."""

    version: int
    job_ids: tuple[str, ...]
    path: str
    how: Literal["copied", "rendered"]
    edit_list: str | None = None


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip: its plan, and the job of its current take."""

    number: int
    planned: PlannedClip
    take: int
    attempt: int
    job: Job | None
    begins_with: str | None = None
    takes: int = 0

    @property
    def made(self) -> bool:
        """Whether it has a video."""
        return self.job is not None and self.job.state == "completed"

    @property
    def ready(self) -> bool:
        """Whether its video is saved on this machine, so that the next clip can continue it."""
        return self.made and self.job is not None and self.job.saved_to is not None

    @property
    def never_sent(self) -> bool:
        """Whether its job was never sent, because a server stopped or as the user has confirmed."""
        return self.job is not None and self.job.state == "not_submitted" and self.job.fault in _NOBODY_REFUSED


@dataclass(frozen=True, slots=True)
class Film:
    """
    A film as the ledger has it, with its jobs.

    Times are UTC milliseconds since 1970, money is micro-dollars.

    Args:
        arguments: What the user planned, as `plan_film` takes it.
        agreed_microusd: What the user agreed to pay for the whole film; None for a draft.
        going: Whether clips are being started and joined.
        why: Why it is paused.
        detail: The reason in words, where the code is not enough.
        only: The clips to make; empty for all.
        accepted: The jobs to join even where a clip no longer matches the one before it.
        spent_microusd: What its jobs have cost.
        held_microusd: What its open jobs may still cost.
    """

    film_id: str
    title: str
    arguments: Mapping[str, object]
    clips: tuple[Clip, ...]
    takes: tuple[FilmTake, ...]
    cuts: tuple[FilmCut, ...]
    agreed_microusd: int | None
    agreed_ms: int | None
    going: bool
    why: Why | None
    detail: str
    only: tuple[int, ...]
    accepted: tuple[str, ...]
    created_ms: int
    spent_microusd: int
    held_microusd: int

    @property
    def job_ids(self) -> tuple[str, ...]:
        """The job of each clip that has one, in order."""
        return tuple(clip.job.job_id for clip in self.clips if clip.job is not None)

    @property
    def all_made(self) -> bool:
        """Whether every clip has a video on this machine."""
        return all(clip.ready for clip in self.clips)

    @property
    def cut(self) -> FilmCut | None:
        """The joined film of the current clips."""
        return next((cut for cut in reversed(self.cuts) if self.all_made and cut.job_ids == self.job_ids), None)

    @property
    def unknown(self) -> bool:
        """Whether a clip's job is unknown: fal.ai may have it."""
        return any(clip.job is not None and clip.job.state == "unknown" for clip in self.clips)

    @property
    def state(self) -> FilmState:
        """The state, derived from the clips' jobs."""
        if self.cut is not None or (self.all_made and self.why in {"join_failed", "not_joined"}):
            return "ready"
        if self.agreed_ms is None:
            return "draft"
        if not self.going or self.unknown:
            return "paused"
        return "joining" if self.all_made else "making"

    def matches(self, clip: Clip) -> bool:
        """Whether *clip* begins with the last frame of the current take before it, or continues nothing."""
        if clip.begins_with is None or clip.job is None:
            return True
        before = self.clips[clip.number - 2].job if clip.number > 1 else None
        return before is not None and before.job_id == clip.begins_with

    @property
    def wanted(self) -> tuple[Clip, ...]:
        """The clips to make."""
        return tuple(clip for clip in self.clips if not self.only or clip.number in self.only)

    @property
    def to_start(self) -> tuple[Clip, ...]:
        """Those of them that have no job."""
        return tuple(clip for clip in self.wanted if clip.job is None or clip.never_sent)


@dataclass(frozen=True, slots=True)
class Start:
    """Start the job of a clip."""

    clip: Clip
    step: FilmStep


@dataclass(frozen=True, slots=True)
class Pause:
    """Start nothing more until the user asks for it."""

    why: Why


@dataclass(frozen=True, slots=True)
class Join:
    """Join the clips."""

    job_ids: tuple[str, ...]


Action: TypeAlias = Start | Pause | Join


def decide(film: Film, now_ms: int) -> Sequence[Action]:
    """The next actions for *film*; none while it is paused, waits for a job, or is ready."""
    if not film.going:
        return ()
    jobs = [(clip, clip.job) for clip in film.clips if clip.job is not None and not clip.never_sent]
    if any(job.state in {"failed", "cancelled"} for _, job in jobs):
        return (Pause("clip_failed"),)
    if any(job.state == "not_submitted" for _, job in jobs):
        return (Pause("clip_not_sent"),)
    if film.unknown:
        return ()
    if film.all_made:
        if film.cut is not None:
            return ()
        if all(film.matches(clip) for clip in film.clips) or film.accepted == film.job_ids:
            return (Join(film.job_ids),)
        return (Pause("clips_differ"),)
    if not film.to_start:
        made = all(clip.ready for clip in film.wanted)
        return (Pause("only_some"),) if made else ()
    room = _MOST_RUNNING - sum(job.open for _, job in jobs)
    begins = [(clip, _picture_of(film, clip)) for clip in film.to_start]
    ready = [_start(film, clip, begin) for clip, begin in begins if begin is not _NOT_YET][: max(room, 0)]
    if ready and now_ms - (film.agreed_ms or 0) > AGREED_FOR_MS:
        return (Pause("agreement_old"),)
    return ready


_NOT_YET: Final = "not yet"


def _picture_of(film: Film, clip: Clip) -> str | None:
    """The job whose last frame *clip* begins with; None if it continues nothing, `_NOT_YET` while that job runs."""
    if clip.planned.start != CONTINUE:
        return None
    before = film.clips[clip.number - 2]
    return before.job.job_id if before.ready and before.job is not None else _NOT_YET


def _start(film: Film, clip: Clip, begins_with: str | None) -> Start:
    attempt = clip.attempt + 1 if clip.never_sent else clip.attempt
    return Start(clip, FilmStep(film.film_id, clip.number, clip.take, attempt, begins_with))
