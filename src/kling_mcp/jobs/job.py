"""
A job, its states, and which event leads where: pure, decided without I/O.

```text
preparing ── Sending ──► submitting ── Accepted ──► queued ◄─ Progressed ─► running ── Finished ──► completed
    │                        │  │                      ▲ │                     │
    │  NotSent, Withdrawn    │  │                      │ └──── Failed / CancelledAtFal ──► failed / cancelled
    └─► not_submitted ◄──────┘  │                      │
                   NotSent      │                      │
                                └─ LostTrack ► unknown ┴ Accepted (found again)
                                                  ├─ ProvenAbsent ──► not_submitted
                                                  └─ SettledByUser ──► failed (charged) | not_submitted
```

A state that ends a job never changes again. `unknown` means that fal may
have the request: it is never sent again, only found again or settled.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, cast

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kling_mcp.errors import Billed

__all__ = [
    "ENDED",
    "OPEN",
    "STATES",
    "Accepted",
    "Again",
    "CancelledAtFal",
    "Event",
    "Failed",
    "Fault",
    "Finished",
    "IllegalTransitionError",
    "Intent",
    "Job",
    "LostTrack",
    "NewVoice",
    "NotSent",
    "Progressed",
    "ProvenAbsent",
    "Sending",
    "SettledByUser",
    "State",
    "Step",
    "Trouble",
    "Withdrawn",
    "step",
]

State = Literal[
    "preparing",
    "submitting",
    "queued",
    "running",
    "completed",
    "failed",
    "cancelled",
    "not_submitted",
    "unknown",
]

OPEN: Final[frozenset[State]] = frozenset({"preparing", "submitting", "queued", "running", "unknown"})
"""States in which the price is held against the budget."""

ENDED: Final[frozenset[State]] = frozenset({"completed", "failed", "cancelled", "not_submitted"})
"""States that never change again."""

STATES: Final[tuple[State, ...]] = (
    "preparing",
    "submitting",
    "queued",
    "running",
    "completed",
    "failed",
    "cancelled",
    "not_submitted",
    "unknown",
)


Again: TypeAlias = Literal["same_call", "next_take", "changed_call"]
"""Which call can still bring the video of a job that has ended without one."""


class IllegalTransitionError(Exception):
    """An event reached a job in a state that it cannot change."""

    def __init__(self, state: State, event: Event) -> None:
        super().__init__(f"{type(event).__name__} does not apply to a job that is {state}")


@dataclass(frozen=True, slots=True)
class Fault:
    """
    Why a job has no video, in words a caller can act on.

    Args:
        upstream_detail: Text from fal.ai, cleaned and marked as such; never an instruction.
        again: Which call can still bring the video; None where nothing is known to.
    """

    code: str
    message: str
    billed: Billed
    field: str | None = None
    upstream_detail: str | None = None
    again: Again | None = None


@dataclass(frozen=True, slots=True)
class Trouble:
    """
    Why fal does not say how a job is.

    Args:
        code: The kind, by which a repetition is told from something new.
        message: What happened last and what would help, in words a caller can act on.
        since_ms: When fal first failed to say how the job is, in UTC milliseconds since 1970.
    """

    code: str
    message: str
    since_ms: int


@dataclass(frozen=True, slots=True)
class NewVoice:
    """
    The voice that a job makes.

    Args:
        name: What it is called here; None where the call has no name.
        sample: A key that is equal for equal recordings.
        field: The member of fal's result that is its id.
    """

    name: str | None
    sample: str
    field: str

    @property
    def key(self) -> str:
        """By which names are compared; empty where there is none."""
        return (self.name or "").casefold()

    def id_in(self, result: Mapping[str, object] | None) -> str | None:
        """Its id, if *result* has it."""
        found = (result or {}).get(self.field)
        return found.strip() or None if isinstance(found, str) else None


@dataclass(frozen=True, slots=True)
class Intent:
    """
    One paid generation that somebody wants, before anything was sent.

    Args:
        account: First twelve hex digits of the key's SHA-256; never the key.
        fingerprint: What makes two calls the same call.
        estimate_microusd: Expected price in micro-dollars.
        ceiling_microusd: Highest price in micro-dollars; this is what the budget holds.
        arguments: The friendly arguments, for people; pictures as they were named.
        sound: Whether the video has sound; None where that is not known.
        mode: What its endpoint makes from what.
        voice: The voice that it makes; None where it makes a video.
    """

    job_id: str
    account: str
    fingerprint: str
    take: int
    model: str
    endpoint_id: str
    arguments: Mapping[str, object]
    estimate_microusd: int
    ceiling_microusd: int
    basis: str
    video_seconds: int
    expected_seconds: int | None
    warnings: tuple[str, ...] = ()
    nonce: str | None = None
    sound: bool | None = None
    mode: str = "image-to-video"
    voice: NewVoice | None = None

    @property
    def description(self) -> str:
        """What it is about, in the user's words where there are any: its prompt, what is said, or its files."""
        if told := self.prompt or self.arguments.get("text"):
            return str(told)
        files = [(name, _file_name(self.arguments.get(name))) for name in ("image", "video", "audio", "sample")]
        told = ", ".join(f"{name} {file}" for name, file in files if file)
        if self.voice is None:
            return told
        return f"voice {self.voice.name} from {told}" if self.voice.name else f"voice from {told}"

    @property
    def prompt(self) -> str:
        """The prompt, or the shots' prompts joined by a slash."""
        shots = self.arguments.get("shots")
        asked = cast("Sequence[object]", shots) if isinstance(shots, (list, tuple)) and shots else [self.arguments]
        prompts = [cast("Mapping[str, object]", one).get("prompt") for one in asked if isinstance(one, dict)]
        return " / ".join(str(prompt) for prompt in prompts if prompt not in (None, ""))


def _file_name(given: object) -> str:
    """The last part of a path or an address; of a job's video, which job."""
    if not isinstance(given, str):
        return ""
    if found := re.match(r"kling:/*jobs/([^/]+)", given):
        return f"of job {found[1]}"
    return given if given.startswith("data:") else re.split(r"[?#]", given)[0].replace("\\", "/").rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Job:
    """
    A row of the ledger: everything that is known of one paid generation.

    Times are UTC milliseconds since 1970, money is micro-dollars.
    """

    seq: int
    intent: Intent
    state: State
    owner: str
    day: str
    created_ms: int
    updated_ms: int
    attempt: int = 0
    body: Mapping[str, object] | None = None
    request_id: str | None = None
    status_url: str | None = None
    response_url: str | None = None
    cancel_url: str | None = None
    queue_position: int | None = None
    progress_note: str | None = None
    sent_ms: int | None = None
    accepted_ms: int | None = None
    started_ms: int | None = None
    ended_ms: int | None = None
    cancel_requested: bool = False
    cost_microusd: int | None = None
    cost_source: Literal["billed", "estimated"] | None = None
    result: Mapping[str, object] | None = None
    fault: Fault | None = None
    saved_to: str | None = None
    save_trouble: str | None = None
    trouble: Trouble | None = None
    warnings: tuple[str, ...] = field(default=())

    @property
    def job_id(self) -> str:
        """The id that users, resources and tasks know it by."""
        return self.intent.job_id

    @property
    def open(self) -> bool:
        """Whether its price is still held."""
        return self.state in OPEN

    @property
    def video_file(self) -> Mapping[str, object]:
        """What fal said of the video, none of it checked; empty where there is nothing."""
        file = (self.result or {}).get("video")
        return cast("Mapping[str, object]", file) if isinstance(file, dict) else {}

    @property
    def voice_id(self) -> str | None:
        """The id of the voice that it made."""
        return None if self.intent.voice is None else self.intent.voice.id_in(self.result)

    @property
    def billed(self) -> Billed:
        """Whether money moved for it, as far as that is known."""
        if self.fault is not None:
            return self.fault.billed
        return "yes" if self.state == "completed" else "no" if self.state == "preparing" else "maybe"


@dataclass(frozen=True, slots=True)
class Sending:
    """The request is about to leave, with *body*; from here on fal may have it."""

    body: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class NotSent:
    """fal certainly has no such request."""

    fault: Fault


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """
    The job must not be sent; recorded by a process that is not sending it.

    It may be on its way by the time this is recorded, and then this changes nothing.
    """

    fault: Fault


@dataclass(frozen=True, slots=True)
class Accepted:
    """fal answered with a request id, or the request was found again by its id."""

    request_id: str
    status_url: str | None = None
    response_url: str | None = None
    cancel_url: str | None = None
    queue_position: int | None = None


@dataclass(frozen=True, slots=True)
class LostTrack:
    """The request may have reached fal, and nobody can tell from here."""

    reason: str


@dataclass(frozen=True, slots=True)
class Progressed:
    """fal says where the request stands."""

    running: bool
    queue_position: int | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """fal delivered; *cost_microusd* is what fal billed, where it said so."""

    result: Mapping[str, object]
    cost_microusd: int | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """fal ended the request without a video."""

    fault: Fault


@dataclass(frozen=True, slots=True)
class CancelledAtFal:
    """fal took the request out of the queue or stopped it."""

    fault: Fault


@dataclass(frozen=True, slots=True)
class ProvenAbsent:
    """fal's history shows an earlier request of ours and later ones, and not this one."""

    fault: Fault


@dataclass(frozen=True, slots=True)
class SettledByUser:
    """The user looked at fal's dashboard and says whether it was charged."""

    charged: bool
    fault: Fault


Event = (
    Sending
    | NotSent
    | Withdrawn
    | Accepted
    | LostTrack
    | Progressed
    | Finished
    | Failed
    | CancelledAtFal
    | ProvenAbsent
    | SettledByUser
)


@dataclass(frozen=True, slots=True)
class Step:
    """
    What an event does: the next state, and to the money that is held.

    ``settle_microusd`` is what the job costs in the end: None keeps the hold,
    0 releases it, anything else turns it into spending.
    """

    state: State
    settle_microusd: int | None = None
    cost_source: Literal["billed", "estimated"] | None = None


def step(job: Job, event: Event) -> Step:
    """
    Where *event* leads from the state that *job* is in.

    Raises:
        IllegalTransitionError: The event does not apply to that state.
    """
    match event, job.state:
        case Sending(), "preparing":
            return Step("submitting")
        case NotSent(), "preparing" | "submitting":
            return Step("not_submitted", settle_microusd=0)
        case Withdrawn(), "preparing":
            return Step("not_submitted", settle_microusd=0)
        case Accepted(), "submitting" | "unknown":
            return Step("queued")
        case LostTrack(), "submitting":
            return Step("unknown")
        case Progressed(running=running), "queued" | "running":
            return Step("running" if running else "queued")
        case Finished(cost_microusd=billed_microusd), "queued" | "running":
            if billed_microusd is not None:
                return Step("completed", billed_microusd, "billed")
            return Step("completed", job.intent.estimate_microusd, "estimated")
        case Failed(fault=fault), "queued" | "running":
            return _ended("failed", job, fault)
        case CancelledAtFal(fault=fault), "queued" | "running":
            return _ended("cancelled", job, fault)
        case ProvenAbsent(), "unknown":
            return Step("not_submitted", settle_microusd=0)
        case SettledByUser(charged=True, fault=fault), "unknown":
            return _ended("failed", job, fault)
        case SettledByUser(charged=False), "unknown":
            return Step("not_submitted", settle_microusd=0)
        case _:
            raise IllegalTransitionError(job.state, event)


def _ended(state: State, job: Job, fault: Fault) -> Step:
    if fault.billed == "no":
        return Step(state, settle_microusd=0)
    # A failure that may have been billed counts against the budget until somebody knows better.
    return Step(state, job.intent.estimate_microusd, "estimated")
