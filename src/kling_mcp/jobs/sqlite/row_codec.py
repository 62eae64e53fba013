"""
A job as rows of a table: which columns there are, and the checksums that show damage.

A job is two rows. The small one (`job`) has a fixed size and fits a page with
room to spare, so that the moment that must never fail, fal's acceptance, is a
change in place. The large texts (`paper`) are in a row of their own, and so is
what older versions of this program do not know (`note`).

Each of the two ends with a checksum over all its values: a flipped bit that leaves the
file well-formed, such as a digit of a price, is found when the row is read.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, assert_never

from kling_mcp.jobs.job import (
    STATES,
    Accepted,
    CancelledAtFal,
    Failed,
    Fault,
    Finished,
    Intent,
    Job,
    LostTrack,
    NewVoice,
    NotSent,
    Progressed,
    ProvenAbsent,
    Sending,
    SettledByUser,
    Trouble,
    Withdrawn,
)
from kling_mcp.texts import showable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kling_mcp.jobs.job import Event, Step

__all__ = [
    "JOB",
    "NOTE",
    "PAYLOAD",
    "DamagedRowError",
    "changes_of",
    "checksum_of",
    "job_of",
    "note_of",
    "text_of",
    "text_of_path",
    "two_rows",
]

_BYTES: Final = "bytes:"
"""Before the bytes of a path that is not Unicode; every path in a row is absolute, so none begins like this."""

JOB: Final = (
    "seq",
    "id",
    "fingerprint",
    "endpoint",
    "day",
    "ceiling_u",
    "created_ms",
    "updated_ms",
    "owner",
    "state",
    "open",
    "busy",
    "attempt",
    "request_id",
    "status_url",
    "response_url",
    "cancel_url",
    "queue_position",
    "progress_note",
    "sent_ms",
    "accepted_ms",
    "started_ms",
    "ended_ms",
    "cancel_requested",
    "cost_u",
    "cost_source",
    "saved_to",
    "save_trouble",
)
"""The checked columns of the small row; padding and checksum come after them."""

PAYLOAD: Final = ("seq", "intent", "body", "result", "fault", "warnings")
"""The checked columns of the large row: JSON texts."""

MADE: Final = ("made", "makes_voice")
"""The checked columns of the note: what the job makes."""

NOTE: Final = ("sound", "again", "trouble_code", "trouble", "trouble_since_ms", *MADE, "made_seal")
"""The columns of the row that an older version did not write."""

_NOTED: Final = frozenset({"sound", "again", "mode", "voice"})
"""What is kept in a note and not in a paper."""

_ON_DISK: Final = {
    "estimate_microusd": "estimate_u",
    "ceiling_microusd": "ceiling_u",
    "cost_microusd": "cost_u",
}
"""Names that are shorter in the file: older versions of this program share it."""

_IN_MEMORY: Final = {on_disk: name for name, on_disk in _ON_DISK.items()}

_OF_THE_JOB: Final = frozenset(JOB) - {
    *("id", "fingerprint", "endpoint", "ceiling_u", "open", "busy", "state", "cancel_requested", "saved_to")
}
"""The columns whose values are those of `Job`."""


class DamagedRowError(ValueError):
    """A row is not what was written."""


def checksum_of(values: Sequence[object]) -> str:
    """What a row's checksum has to be."""
    return hashlib.sha256(json.dumps(list(values)).encode()).hexdigest()


def text_of_path(path: str | None) -> str | None:
    """*path* as it stands in a row, also where it is not Unicode; see `path_of_text`."""
    if path is None or showable(path) == path:
        return path
    return _BYTES + os.fsencode(path).hex()


def path_of_text(text: str | None) -> str | None:
    """The path that a row holds."""
    if text is None or not text.startswith(_BYTES):
        return text
    return os.fsdecode(bytes.fromhex(text.removeprefix(_BYTES)))


def text_of(value: object) -> str:
    """A value as it stands in a paper."""
    return json.dumps(value, sort_keys=True)


def job_of(row: Sequence[Any], *, checked: bool = True) -> Job:
    """
    The job in the columns `JOB`, checksum, `PAYLOAD`, checksum, `NOTE`.

    Args:
        checked: Whether the checksums are looked at; those of a newer program cannot be judged.

    Raises:
        DamagedRowError: It is not what was written.
    """
    papers_at, notes_at = len(JOB) + 1, len(JOB) + len(PAYLOAD) + 2
    small, checksum, large, payload_checksum = (
        row[: papers_at - 1], row[papers_at - 1], row[papers_at : notes_at - 1], row[notes_at - 1]
    )  # fmt: skip
    sound, again, *trouble, made, makes_voice, made_checksum = row[notes_at:]
    if checked and (checksum != checksum_of(small) or payload_checksum != checksum_of(large)):
        raise DamagedRowError("a job's record does not match its checksum")
    if checked and made is not None and made_checksum != checksum_of((row[0], made, makes_voice)):
        raise DamagedRowError("a job's note does not match its checksum")
    values: dict[str, Any] = dict(zip(JOB, small, strict=True))
    payload: dict[str, Any] = dict(zip(PAYLOAD, large, strict=True))
    if values["state"] not in STATES:
        raise DamagedRowError("a job is in a state that does not exist")
    try:
        intent: dict[str, Any] = json.loads(payload["intent"])
        intent["warnings"] = tuple(intent["warnings"])
        intent = {_IN_MEMORY.get(name, name): value for name, value in intent.items()}
        # A job that an older version has recorded makes what its endpoint's name ends with.
        noted: dict[str, Any] = {"mode": intent["endpoint_id"].rpartition("/")[2]} if made is None else json.loads(made)
        voice = noted.pop("voice", None)
        fault = _read(payload["fault"])
        return Job(
            intent=Intent(
                **intent,
                **noted,
                sound=None if sound is None else bool(sound),
                voice=None if voice is None else NewVoice(**voice),
            ),
            state=values["state"],
            body=_read(payload["body"]),
            result=_read(payload["result"]),
            fault=None if fault is None else Fault(**fault, again=again),
            trouble=None if trouble[0] is None else Trouble(*trouble),
            warnings=tuple(json.loads(payload["warnings"])),
            **{_IN_MEMORY.get(name, name): values[name] for name in _OF_THE_JOB},
            saved_to=path_of_text(values["saved_to"]),
            cancel_requested=bool(values["cancel_requested"]),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise DamagedRowError("a job's record cannot be read") from error


def two_rows(intent: Intent, day: str, owner: str, now_ms: int) -> tuple[dict[str, object], dict[str, object]]:
    """The columns of a new job, but for its number and the checksums."""
    small: dict[str, object] = {
        **dict.fromkeys(JOB[1:], None),
        "id": intent.job_id,
        "fingerprint": intent.fingerprint,
        "endpoint": intent.endpoint_id,
        "day": day,
        "ceiling_u": intent.ceiling_microusd,
        "created_ms": now_ms,
        "updated_ms": now_ms,
        "owner": owner,
        "state": "preparing",
        "open": 1,
        "busy": 1,
        "attempt": 0,
        "cancel_requested": 0,
    }
    payload = {"intent": _paper_of(intent), "warnings": text_of(intent.warnings)}
    return small, {**dict.fromkeys(PAYLOAD[1:], None), **payload}


def note_of(seq: int, intent: Intent) -> dict[str, str | int | None]:
    """The columns of a new job that an older version does not write, and by which its voice is found."""
    made = text_of({"mode": intent.mode, **({} if intent.voice is None else {"voice": asdict(intent.voice)})})
    makes_voice = int(intent.voice is not None)
    return {
        "sound": None if intent.sound is None else int(intent.sound),
        "made": made,
        "makes_voice": makes_voice,
        "made_seal": checksum_of((seq, made, makes_voice)),
    }


def changes_of(job: Job, event: Event, leads_to: Step, now_ms: int) -> tuple[dict[str, object], dict[str, object]]:
    """What *event* sets in the small row and in the large one."""
    small: dict[str, object] = {"state": leads_to.state, "updated_ms": now_ms}
    large: dict[str, object] = {}
    match event:
        case Sending(body=body):
            small |= {"sent_ms": now_ms, "attempt": job.attempt + 1}
            large["body"] = text_of(body)
        case Accepted():
            small |= {
                "request_id": event.request_id,
                "status_url": event.status_url,
                "response_url": event.response_url,
                "cancel_url": event.cancel_url,
                "queue_position": event.queue_position,
                "progress_note": None,
                "accepted_ms": now_ms,
            }
        case LostTrack(reason=reason):
            small["progress_note"] = reason
        case Progressed(running=running, queue_position=position, note=note):
            small |= {"queue_position": position, "progress_note": note}
            if running and job.started_ms is None:
                small["started_ms"] = now_ms
        case Finished(result=result):
            small["queue_position"] = None
            large["result"] = text_of(result)
        case (
            NotSent(fault=fault)
            | Withdrawn(fault=fault)
            | Failed(fault=fault)
            | CancelledAtFal(fault=fault)
            | ProvenAbsent(fault=fault)
            | SettledByUser(fault=fault)
        ):
            small["queue_position"] = None
            large["fault"] = _paper_of(fault)
        case _:
            assert_never(event)
    if leads_to.settle_microusd is not None:
        small |= {
            "open": 0,
            "ended_ms": now_ms,
            "cost_u": leads_to.settle_microusd,
            "cost_source": leads_to.cost_source,
        }
        small["busy"] = 1 if leads_to.state == "completed" else 0
    return small, large


def _paper_of(value: Intent | Fault) -> str:
    return text_of({_ON_DISK.get(name, name): member for name, member in asdict(value).items() if name not in _NOTED})


def _read(text: str | None) -> Any:
    return None if text is None else json.loads(text)
