"""
Matches fal's request history with requests whose answer was lost. Pure: no I/O.

History begins somewhere and lags, so absence counts only where it lists an
earlier request of ours, and later ones as ended when this one could not be
waiting or running any more.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from kling_mcp.fal.queue import START_TIMEOUT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from kling_mcp.fal.platform import PastRequest
    from kling_mcp.jobs.job import Job
    from kling_mcp.jobs.ledger import KnownRequest

__all__ = ["OVER_AFTER_MS", "Judge", "Verdict", "judge", "since_ms"]

OVER_AFTER_MS: Final = 1000 * (START_TIMEOUT_SECONDS + 2 * 3600)
"""After this long a request has ended: fal drops one that has not started in time, and no video takes two hours."""

_DAY_MS: Final = 86_400_000
_FARTHEST_MS: Final = 30 * _DAY_MS
"""How far back the history is read at the most for a request that was there before."""

_NEAR_MS: Final = 600_000
"""How far fal's time of a request may be from ours."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is certain about an unknown job: its request id, or None for proof that fal.ai never got it."""

    job_id: str
    request_id: str | None


Judge: TypeAlias = (
    "Callable[[Sequence[Job], Sequence[PastRequest], Mapping[str, KnownRequest | None]], Sequence[Verdict]]"
)


def judge(
    waiting: Sequence[Job], history: Sequence[PastRequest], known: Mapping[str, KnownRequest | None]
) -> Sequence[Verdict]:
    """
    What *history* proves about the unknown ones among *waiting* (jobs of one endpoint); pure.

    Requests with the same payload can stand for each other, so any of them may
    be given to any of the jobs. While a twin is still being sent nothing is
    decided, because the request in the history may be the twin's; nor is it
    where there are more such requests than jobs, because one is then somebody
    else's.

    Args:
        waiting: The jobs of the endpoint that are unknown or being sent.
        known: Every request id in the ledger, with the times of those that were answered.
    """
    skew_ms = _skew_ms(history, known, since_ms=min(map(_sent_ms, waiting), default=0) - 2 * _DAY_MS)
    strangers = [request for request in history if request.request_id not in known]
    return [
        verdict
        for twins in _twins(waiting)
        if skew_ms is not None and all(job.state == "unknown" for job in twins)
        for verdict in _verdicts(twins, strangers, history, known, skew_ms)
    ]


def _verdicts(
    twins: Sequence[Job],
    strangers: Sequence[PastRequest],
    history: Sequence[PastRequest],
    known: Mapping[str, KnownRequest | None],
    skew_ms: int,
) -> Iterator[Verdict]:
    free = [request for request in strangers if any(_could_be(request, job, skew_ms) for job in twins)]
    if len(free) > len(twins):
        return
    # Both in the order of time, with a window of the same length for each: the first that fits is the best choice.
    free.sort(key=lambda request: request.sent_ms or 0)
    unmatched: list[Job] = []
    for job in twins:
        match = next((request for request in free if _could_be(request, job, skew_ms)), None)
        if match is None:
            unmatched.append(job)
        else:
            free.remove(match)
            strangers = [request for request in strangers if request is not match]
            yield Verdict(job.job_id, match.request_id)
    for job in unmatched:
        hidden = any(_may_be_disguised(request, job) for request in strangers)
        if not hidden and _begun(job, history, known) and _over(job, history, known):
            yield Verdict(job.job_id, None)


def _twins(waiting: Sequence[Job]) -> Sequence[Sequence[Job]]:
    """The jobs in groups of the same payload, each in the order of sending."""
    groups: dict[str, list[Job]] = {}
    for job in sorted(waiting, key=_sent_ms):
        groups.setdefault(json.dumps(job.body, sort_keys=True), []).append(job)
    return list(groups.values())


def _sent_ms(job: Job) -> int:
    return job.sent_ms or job.created_ms


def _skew_ms(history: Sequence[PastRequest], known: Mapping[str, KnownRequest | None], *, since_ms: int) -> int | None:
    """How far fal's clock is ahead of ours, by the requests that both know of; None if that is not one number."""
    apart_ms = [
        request.sent_ms - ours.sent_ms
        for request in history
        if request.sent_ms is not None
        and (ours := known.get(request.request_id)) is not None
        and ours.sent_ms >= since_ms
    ]
    if not apart_ms:
        return 0
    # A clock that was set in between makes every comparison of times a guess.
    return (min(apart_ms) + max(apart_ms)) // 2 if max(apart_ms) - min(apart_ms) <= _NEAR_MS else None


def _could_be(request: PastRequest, job: Job, skew_ms: int) -> bool:
    near = request.sent_ms is None or abs(request.sent_ms - _sent_ms(job) - skew_ms) <= _NEAR_MS
    return near and request.input is not None and _contains(request.input, job.body or {})


def _contains(whole: Mapping[str, object], part: Mapping[str, object]) -> bool:
    """Whether fal's record has all that was sent; it may have filled in defaults."""
    return all(name in whole and whole[name] == value for name, value in part.items())


def _may_be_disguised(request: PastRequest, job: Job) -> bool:
    """
    Whether *request* could be *job* after all, at whatever time and however fal has rewritten it.

    A payload that fal does not show could be anything. One that it shows may have
    other numbers and addresses than were sent, but not other words.
    """
    return request.input is None or set(_words(job.body)) <= set(_words(request.input))


def _words(value: object) -> Iterator[str]:
    if isinstance(value, str):
        if any(letter.isalpha() for letter in value) and "://" not in value:
            yield value
    elif isinstance(value, dict):
        for member in cast("Mapping[str, object]", value).values():
            yield from _words(member)
    elif isinstance(value, (list, tuple)):
        for item in cast("Sequence[object]", value):
            yield from _words(item)


def since_ms(waiting: Sequence[Job], known: Mapping[str, KnownRequest | None]) -> tuple[int, int]:
    """A time well before the oldest of *waiting* and the last request of ours that had ended before it."""
    oldest_ms = min(map(_sent_ms, waiting))
    ended_ms = [
        ours.ended_ms
        for ours in known.values()
        if ours is not None and ours.ended_ms is not None and 0 < oldest_ms - ours.ended_ms <= _FARTHEST_MS
    ]
    return oldest_ms - 2 * _DAY_MS, max(ended_ms, default=oldest_ms) - 2 * _DAY_MS


def _begun(job: Job, history: Sequence[PastRequest], known: Mapping[str, KnownRequest | None]) -> bool:
    """
    Whether the history begins before the end of *job*, had fal had it.

    It is read from a moment on that our clock tells, which may be wrong, fal keeps
    nothing for ever, and it may be that of another account; but where it lists a
    request of the same key that had ended before *job* was sent, it lists all that
    ended later. The record's clock may stop, so the same moment is not before.
    """
    return any(
        (ours := known.get(request.request_id)) is not None
        and ours.ended_ms is not None
        and ours.ended_ms < _sent_ms(job)
        and ours.account == job.intent.account
        for request in history
    )


def _over(job: Job, history: Sequence[PastRequest], known: Mapping[str, KnownRequest | None]) -> bool:
    """
    Whether the history has got past the moment by which *job* would have ended, had fal had it.

    By fal's own clock throughout: a request of ours that was made after *job* was
    lost tells how late fal can have got it, and another one that ended long
    after that tells how far the history has come.
    """
    later_ms = [
        request.sent_ms
        for request in history
        if request.sent_ms is not None
        and (ours := known.get(request.request_id)) is not None
        and ours.created_ms > job.updated_ms
    ]
    shown_ms = [request.ended_ms for request in history if request.ended_ms is not None and request.request_id in known]
    return bool(later_ms and shown_ms) and max(shown_ms) > min(later_ms) + OVER_AFTER_MS
