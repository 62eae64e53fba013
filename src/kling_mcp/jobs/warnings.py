"""What has to be said of a job beside its state: worked out from its row and the time, whenever it is shown."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from kling_mcp.money import microusd_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kling_mcp.jobs.job import Job

__all__ = ["CANCELLED_TOO_LATE", "place_in_line", "trouble_words", "warnings_of"]

CANCELLED_TOO_LATE: Final = (
    "Cancelling was asked for, but it is already running at fal.ai: it may still finish, and may still be billed."
)

_TIMES_EXPECTED: Final = 10
_LONG_MS: Final = 3_600_000
"""When a job takes remarkably long of which nobody knows how long it should take."""


def warnings_of(job: Job, now_ms: int) -> list[str]:
    """What the user of *job* should know, the oldest first."""
    return [*job.warnings, *_of_its_course(job, now_ms), *([job.save_trouble] if job.save_trouble else [])]


def place_in_line(job: Job) -> int | None:
    """How many requests fal starts before *job*; None where it does not wait, or what is known is out of date."""
    return job.queue_position if job.state == "queued" and job.trouble is None else None


def trouble_words(job: Job) -> str | None:
    """Since when fal has not said how *job* is, and why; None where it has, or where nothing is left to be said."""
    if job.trouble is None or job.state not in {"queued", "running"}:
        return None
    since = datetime.fromtimestamp(job.trouble.since_ms / 1000, UTC)
    return f"Since {since:%Y-%m-%d %H:%M} UTC fal.ai has not said how this job is. {job.trouble.message}"


def _of_its_course(job: Job, now_ms: int) -> Iterator[str]:
    if words := trouble_words(job):
        yield words
    if job.cancel_requested and job.open:
        yield _CANCELLING.get(job.state, CANCELLED_TOO_LATE)
    if words := _taking_long(job, now_ms):
        yield words
    if (
        job.cost_source == "billed"
        and job.cost_microusd is not None
        and job.cost_microusd > job.intent.ceiling_microusd
    ):
        yield (
            f"fal.ai billed {microusd_text(job.cost_microusd)}, more than the "
            f"{microusd_text(job.intent.ceiling_microusd)} that this "
            f"job was expected to cost at most. The user can see request {job.request_id} at "
            "https://fal.ai/dashboard/requests; kling-mcp catalog check compares the prices."
        )


_CANCELLING: Final = {
    "queued": "Cancelling was asked for. If fal.ai starts the job before it drops it, it may still be billed.",
    "submitting": "Cancelling was asked for, and is passed on once fal.ai has confirmed the request: it may still run "
    "and be billed.",
}
_CANCELLING["unknown"] = _CANCELLING["submitting"]


def _taking_long(job: Job, now_ms: int) -> str | None:
    if job.state not in {"queued", "running"}:
        return None
    running = job.state == "running"
    expected = job.intent.expected_seconds
    lasts_ms = now_ms - ((job.started_ms if running else None) or job.accepted_ms or job.created_ms)
    if lasts_ms < (_LONG_MS if expected is None else 1000 * _TIMES_EXPECTED * expected):
        return None
    usual = "" if expected is None else f" A video like this is expected to take {_span(expected)}."
    where = f"The user can look at request {job.request_id} at https://fal.ai/dashboard/requests."
    if running:
        return (
            f"It has been running for {_span(lasts_ms // 1000)}.{usual} Usually fal.ai ends such a request itself, as "
            f"a failure that it does not bill. cancel_job may end it earlier, and it may still be billed then. {where}"
        )
    return (
        f"It has been waiting in fal.ai's queue for {_span(lasts_ms // 1000)}.{usual} Usually it starts once other "
        "jobs of the account have ended, and fal.ai drops it unbilled if it never starts. cancel_job takes it out of "
        f"the queue; only if it starts before that may it still be billed. {where}"
    )


def _span(seconds: int) -> str:
    minutes, rest = divmod(seconds, 60)
    if minutes < 5:
        return f"{seconds} s"
    hours, minutes = divmod(minutes + (rest >= 30), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
