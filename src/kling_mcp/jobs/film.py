"""
A film: clips in order, each made by a job, and what is to be done next for them: pure, decided without I/O.

A film is a list of jobs and nothing that a job already is. It keeps what was planned, what the user agreed to pay,
and which job made which take of which clip; how a clip is, what it has cost and where its video is, its job says.

A clip is made again only by the user's word: `take` grows by a retake or after a failure, `attempt` after a job that
certainly was not sent. Both are in the nonce of the job, so that any number of processes make each take at most once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
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
"""How long an agreement lets clips be started: a restart days later does not spend."""

CONTINUE: Final = "continue"
"""A clip that begins with the last frame of the one before it."""

_NOBODY_REFUSED: Final = (faults.SAID_NOT_CHARGED, faults.STOPPED)
"""Why a job was not sent, where another attempt is what was agreed to anyway."""

_MOST_RUNNING: Final = 2
"""fal.ai's lowest limit of requests at a time."""

FilmState: TypeAlias = Literal["draft", "making", "paused", "joining", "ready"]

Why: TypeAlias = Literal[
    "clip_failed",
    "clip_not_sent",
    "clip_unknown",
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
Why nothing is done for a film.

* `clip_failed`      a job ended without a video
* `clip_not_sent`    a job certainly was not sent
* `clip_unknown`     nobody can tell whether fal.ai has a job; goes on by itself once that is known
* `agreement_old`    the user's agreement is more than a day old
* `over_agreement`   the next clip costs more than what is left of the agreement
* `refused`          a clip could not be started: its picture, a limit, the key
* `clips_differ`     a clip begins with a picture that is not in the film any more
* `only_some`        the clips that were asked for are made
* `changed`          the plan was changed
* `cancelled`        the user stopped it
* `join_failed`      the clips could not be joined
* `not_joined`       videos are not saved or cannot be joined on this machine
"""


class FilmPaused(KlingError):
    """A clip may not be started, because nothing is to be done for its film now."""

    code = "not_available"


@dataclass(frozen=True, slots=True)
class PlannedClip:
    """
    What the user wants of one clip.

    Args:
        arguments: What is sent to the tool that makes it, without its first picture.
        start: Its first picture: a picture argument, `CONTINUE`, the id of a finished job that is the clip, or "".
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
        """The finished job that is the clip, which costs nothing."""
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
    """A take of a clip that is about to be reserved; what `Ledger.reserve` checks against the agreement."""

    film_id: str
    number: int
    take: int
    attempt: int
    begins_with: str | None

    @property
    def nonce(self) -> str:
        """By which any number of processes make it once."""
        return f"{self.film_id}:{self.number}:{self.take}:{self.attempt}"


@dataclass(frozen=True, slots=True)
class FilmCut:
    """A joined film: of which jobs, where, and whether its pictures were copied or made anew."""

    version: int
    job_ids: tuple[str, ...]
    path: str
    how: Literal["copied", "rendered"]
    edit_list: str | None = None


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip as it stands: what is planned, and the job of its present take."""

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
        """Whether its video is on this machine, so that another clip can go on from it."""
        return self.made and self.job is not None and self.job.saved_to is not None

    @property
    def never_sent(self) -> bool:
        """Whether its last job was not sent, by the user's word or because a server stopped: it is still to be made."""
        return self.job is not None and self.job.state == "not_submitted" and self.job.fault in _NOBODY_REFUSED


@dataclass(frozen=True, slots=True)
class Film:
    """
    Everything that the ledger knows of a film.

    Times are UTC milliseconds since 1970, money is micro-dollars.

    Args:
        arguments: What the user planned, as `plan_film` takes it.
        agreed_microusd: What the user agreed to pay in all; None for a draft.
        going: Whether clips are to be started and joined.
        why: Why not.
        detail: The same in words, where there is more to say.
        only: The clips that are to be made; empty for all.
        accepted: The jobs that the user wants joined though a clip begins with another picture.
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
        """The film as it is joined of its present clips."""
        return next((cut for cut in reversed(self.cuts) if self.all_made and cut.job_ids == self.job_ids), None)

    @property
    def unknown(self) -> bool:
        """Whether of a clip nobody can tell whether fal.ai has its job."""
        return any(clip.job is not None and clip.job.state == "unknown" for clip in self.clips)

    @property
    def state(self) -> FilmState:
        """How it is, in a word."""
        if self.cut is not None or (self.all_made and self.why in {"join_failed", "not_joined"}):
            return "ready"
        if self.agreed_ms is None:
            return "draft"
        if not self.going or self.unknown:
            return "paused"
        return "joining" if self.all_made else "making"

    def matches(self, clip: Clip) -> bool:
        """Whether *clip* begins with the last frame of what is now the clip before it."""
        if clip.begins_with is None or clip.job is None:
            return True
        before = self.clips[clip.number - 2].job if clip.number > 1 else None
        return before is not None and before.job_id == clip.begins_with

    @property
    def wanted(self) -> tuple[Clip, ...]:
        """The clips that are to be made."""
        return tuple(clip for clip in self.clips if not self.only or clip.number in self.only)

    @property
    def remaining(self) -> tuple[Clip, ...]:
        """Those of them that no job makes or has made."""
        return tuple(clip for clip in self.wanted if clip.job is None or clip.never_sent)


@dataclass(frozen=True, slots=True)
class Start:
    """Start the job of a clip."""

    clip: Clip
    step: FilmStep


@dataclass(frozen=True, slots=True)
class Pause:
    """Do nothing more until the user says so."""

    why: Why


@dataclass(frozen=True, slots=True)
class Join:
    """Join the clips as they are."""

    job_ids: tuple[str, ...] = field(default=())


Action: TypeAlias = Start | Pause | Join


def decide(film: Film, now_ms: int) -> Sequence[Action]:
    """What is to be done for *film* now; nothing where only time or a job brings it on."""
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
    if not film.remaining:
        made = all(clip.ready for clip in film.wanted)
        return (Pause("only_some"),) if made else ()
    room = _MOST_RUNNING - sum(job.open for _, job in jobs)
    begins = [(clip, _picture_of(film, clip)) for clip in film.remaining]
    ready = [_start(film, clip, begin) for clip, begin in begins if begin is not _NOT_YET][: max(room, 0)]
    if ready and now_ms - (film.agreed_ms or 0) > AGREED_FOR_MS:
        return (Pause("agreement_old"),)
    return ready


_NOT_YET: Final = "not yet"


def _picture_of(film: Film, clip: Clip) -> str | None:
    """The job whose last frame *clip* begins with, None where it needs none, or `_NOT_YET`."""
    if clip.planned.start != CONTINUE:
        return None
    before = film.clips[clip.number - 2]
    return before.job.job_id if before.ready and before.job is not None else _NOT_YET


def _start(film: Film, clip: Clip, begins_with: str | None) -> Start:
    attempt = clip.attempt + 1 if clip.never_sent else clip.attempt
    return Start(clip, FilmStep(film.film_id, clip.number, clip.take, attempt, begins_with))
