"""
From an error answer of fal.ai to what it means for the job and the money.

fal answers with three shapes: a model's errors (a list under ``detail``), its
queue's errors (``detail`` and ``error_type``), and the platform's (an object
under ``error``); whatever is like them is read as well. What is a page, and no
answer of an API, was written by something between here and fal. The words in
them come from outside and may be anything, so they decide nothing: a type that
is known picks a fixed sentence, and the words themselves are kept, cleaned and
marked, in one field.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from string import Formatter
from typing import TYPE_CHECKING, Final, Literal

from kling_mcp.errors import AccountLocked, FalRejected, FalUnreachable, KlingError, NoApiKey, RateLimited
from kling_mcp.fal import error_catalog
from kling_mcp.fal.sanitize import upstream_detail
from kling_mcp.fal.tolerant_json import items
from kling_mcp.fal.wire import Complaint, error_inside, has_typed_errors, json_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kling_mcp.errors import Billed
    from kling_mcp.fal.error_catalog import Code, Meaning
    from kling_mcp.fal.http import Response

__all__ = [
    "Failure",
    "Intercepted",
    "RequestNotFound",
    "Stage",
    "error_for",
    "explain",
    "explain_completed",
    "explain_inside",
    "is_foreign",
    "is_verdict",
]

Stage = Literal["submit", "status", "result", "cancel", "free"]
"""What was being done; ``free`` is what fal never charges for, such as uploads and lookups."""

_ABOUT_THE_CALL: Final = frozenset({403, 404, 405})
"""With these the status says what it is about, whatever type the body names."""


@dataclass(frozen=True, slots=True)
class Failure:
    """
    A refusal or failure that fal.ai has stated.

    Args:
        type: fal's name for it where this program knows it, else ``unknown_error``.
        sentence: What happened.
        next_step: What would work.
        field: The field of the request's body that it is about, such as ``elements[0].frontal_image_url``.
        retryable: Whether fal may do the same request better at another time.
        billed: Whether money moved.
        upstream_detail: fal's own words, cleaned and marked.
        code: The code that a caller of this program sees.
    """

    type: str
    sentence: str
    next_step: str
    field: str | None
    retryable: bool
    billed: Billed
    upstream_detail: str | None
    code: Code = "fal_rejected"


class RequestNotFound(FalRejected):
    """fal.ai does not know a request of that id, or no longer."""


class Intercepted(FalUnreachable):
    """Something between this machine and fal.ai answered in its place."""


def explain(answer: Response, stage: Stage, *, authenticated: bool = True) -> Failure:
    """
    What an answer that is not a success means.

    Args:
        answer: The answer, of any shape.
        stage: What was being done, which decides whether money may have moved.
        authenticated: Whether a key was sent along.
    """
    if is_foreign(answer):
        return _failure(error_catalog.intercepted(answer.status), Complaint(), _billed(0, stage))
    complaint = Complaint.of_answer(answer)
    ended = stage == "result" and is_verdict(answer, refusal=True)
    meaning = (
        (error_catalog.of_type(complaint.type) if ended else None)
        or error_catalog.of_account(answer.status, complaint.type, complaint.text, authenticated=authenticated)
        or (None if answer.status in _ABOUT_THE_CALL else error_catalog.of_type(complaint.type))
        or error_catalog.of_status(answer.status, about_a_request=stage in {"status", "result", "cancel"})
    )
    return _failure(meaning, complaint, _billed(answer.status, stage))


def explain_completed(error: object, error_type: object) -> Failure | None:
    """What the ``error`` and ``error_type`` of a COMPLETED status mean; None where there is no error."""
    return explain_inside({"detail": error, "error_type": error_type})


def explain_inside(body: Mapping[str, object]) -> Failure | None:
    """What an error in an answer means whose status says that all is well; None for an answer without an error."""
    complaint = error_inside(body)
    if complaint is None:
        return None
    meaning = error_catalog.of_type(complaint.type) or error_catalog.UNKNOWN_FAILURE
    return _failure(meaning, complaint, meaning.billed_at_the_end)


def is_foreign(answer: Response) -> bool:
    """
    Whether something between here and fal wrote *answer*: a login page, a firewall, a proxy.

    fal's API answers in JSON, and does not redirect. A page with a 5xx is what
    fal's own gateway gives, too, and so is one with a 413.
    """
    if answer.status in {407, 511} or 300 <= answer.status < 400 or "proxy-authenticate" in answer.headers:
        return True
    if (
        answer.status == 413
        or answer.status >= 500
        or "x-fal-error-type" in answer.headers
        or isinstance(json_of(answer), (dict, list, str))
    ):
        return False
    page = answer.body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")
    words = answer.status in {401, 402, 403} and bool(answer.body.strip())
    return page or words or "html" in answer.headers.get("content-type", "")


def is_verdict(answer: Response, *, refusal: bool = False) -> bool:
    """
    Whether an error answer to a result request is the last word about the job.

    A gateway's 504 says nothing about a finished job, and jobs have been lost by
    believing it: a 5xx counts only with a list of typed errors, which the model
    itself writes, or where it is the time limit that came with the request; any
    other answer of fal does, unless it is a *refusal* of the question.
    """
    if answer.status >= 500 and answer.headers.get("x-fal-request-timeout-type") == "user":
        return True
    if answer.status >= 500 or refusal:
        return has_typed_errors(answer)
    return not is_foreign(answer)


def error_for(failure: Failure, *, job_id: str | None = None) -> KlingError:
    """The exception for *failure*, to be raised where a value will not do."""
    if failure.code == "no_api_key":
        return NoApiKey()
    kind = _TYPES.get(failure.type) or _ERRORS[failure.code]
    return kind(failure.sentence, failure.next_step, field=failure.field, billed=failure.billed, job_id=job_id)


def _failure(meaning: Meaning, complaint: Complaint, billed: Billed) -> Failure:
    unknown_type = "" if meaning.type == complaint.type else complaint.type
    return Failure(
        type=meaning.type,
        sentence=f"{meaning.sentence} {_filled(meaning.numbers, complaint.numbers)}".rstrip(),
        next_step=meaning.next_step,
        field=_path(complaint.location),
        retryable=meaning.retryable,
        billed=billed,
        upstream_detail=upstream_detail(": ".join(part for part in (unknown_type, complaint.text) if part)),
        code=meaning.code,
    )


def _billed(status: int, stage: Stage) -> Billed:
    """fal charges for results; a 5xx is free, a 4xx at the end may have used a runner (fal's billing page)."""
    if stage in {"submit", "free"} or (stage == "result" and status >= 500):
        return "no"
    return "maybe"


def _filled(templates: Sequence[str], numbers: Mapping[str, object]) -> str:
    """The first of *templates* for which all numbers came along, or nothing."""
    for template in templates:
        names = [name for _, name, _, _ in Formatter().parse(template) if name]
        values = {name: _plain(numbers.get(name)) for name in names}
        if None not in values.values():
            return template.format(**values)
    return ""


def _plain(value: object) -> str | None:
    """A number or a few short words from outside, fit to stand in a sentence; else None."""
    if entries := items(value):
        words = [_plain(item) for item in entries[:12]]
        return ", ".join(word for word in words if word is not None) if words and None not in words else None
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool) and abs(value) < 10**15:
        return f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_.:/+-]{1,24}", value):
        return value
    return None


def _path(location: Sequence[object]) -> str | None:
    """``["body", "elements", 0, "image_url"]`` as ``elements[0].image_url``; None where it is not like that."""
    parts: list[str] = []
    for part in location[:12]:
        if isinstance(part, int) and not isinstance(part, bool) and 0 <= part < 1000:
            parts.append(f"[{part}]")
        elif isinstance(part, str) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", part):
            parts.append(f".{part}")
        else:
            return None
    return "".join(parts[1:] if parts[:1] == [".body"] else parts).removeprefix(".") or None


_ERRORS: Final[Mapping[Code, type[KlingError]]] = {
    "fal_rejected": FalRejected,
    "fal_unreachable": FalUnreachable,
    "account_locked": AccountLocked,
    "rate_limited": RateLimited,
}
_TYPES: Final[Mapping[str, type[KlingError]]] = {"not_found": RequestNotFound, "intercepted": Intercepted}
