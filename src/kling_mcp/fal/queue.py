"""
fal's queue: submit a request, ask for it or listen to it, fetch its result, cancel it.

Submitting costs money and has no idempotency key, so it answers with one of
four outcomes instead of raising, and is repeated only where it is certain that
fal has no request. The other calls are free and are repeated as needed.

fal tells callers to use the URLs that it returns. They are text from the
network, so they are used only where they are below the configured queue and
name our own request; else they are built. Only the first two segments of an
endpoint id belong in them: below the full id, the status of a Kling job is an
empty body and a cancel is a 405.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from kling_mcp.errors import FalUnreachable, KlingError
from kling_mcp.fal.error_catalog import UNKNOWN_FAILURE
from kling_mcp.fal.failures import (
    Failure,
    error_for,
    explain,
    explain_completed,
    explain_inside,
    is_foreign,
    is_verdict,
)
from kling_mcp.fal.http import FREE_TRIES, JSON_BYTES, Response, TooLarge, TransportError
from kling_mcp.fal.tolerant_json import members
from kling_mcp.fal.urls import Address
from kling_mcp.fal.wire import RequestStatus, SubmitAnswer, Video, json_of, standard_result, video_of_body
from kling_mcp.json_types import is_list, is_object

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping

    from kling_mcp.fal.failures import Stage
    from kling_mcp.fal.http import Deadline, FalHttp

__all__ = [
    "START_TIMEOUT_SECONDS",
    "Accepted",
    "CancelOutcome",
    "Completed",
    "Failed",
    "FalQueue",
    "Finished",
    "NotReady",
    "NotSent",
    "QueueStatus",
    "Receipt",
    "Rejected",
    "ResultOutcome",
    "SubmitOutcome",
    "Unknown",
    "Video",
    "stated_end",
    "video_of_body",
]

START_TIMEOUT_SECONDS: Final = 86_400
"""
fal drops a request that has not started by then.

Longer than the line of an account that may run one job at a time, which is
hours, and a bound for how long a request whose answer was lost can still turn up.
"""

_SUBMIT_BYTES: Final = 4 * 1024 * 1024
"""The id of a job that is paid may stand behind a long log."""
_RESULT_BYTES: Final = 64 * 1024 * 1024
"""A result may hold the video itself."""

_RETRIES_UNSENT: Final = 3
_RETRIES_LIMITED: Final = 2
_LONGEST_LIMITED_SECONDS: Final = 30.0
"""A submit that is asked to wait longer is given up, and the caller is told."""

_REJECTED_AT_THE_DOOR: Final = frozenset({400, 401, 402, 403, 404, 405, 407, 413, 415, 422, 429, 511})
_REFUSALS: Final = frozenset({401, 402, 403, 404, 405, 429})
"""Answers by which fal refuses a question; they say nothing about how the job ends."""

_PASSING: Final = frozenset({408, 409, 425})
"""Answers by which anything between here and fal asks for another time."""

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_ENDPOINT_ID: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+")
_REQUEST_PATH: Final = re.compile(
    r"/(?P<owner>[^/]+)/(?P<app>[^/]+)(/[A-Za-z0-9._-]+){0,8}/requests/(?P<id>[^/]+)(?P<tail>(/[a-z]+)?)"
)
"""What comes after the base in the address of a request; every part is compared with what it should be."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What fal gave for an accepted request; the URLs are checked again whenever they are used."""

    request_id: str
    status_url: str | None = None
    response_url: str | None = None
    cancel_url: str | None = None
    queue_position: int | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """fal has the request."""

    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Rejected:
    """fal has refused the request and charges nothing for it."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class NotSent:
    """It is certain that fal has no request; *reason* is a plain phrase."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """fal may have the request, so it must not be sent again; *reason* is a plain phrase."""

    reason: str


SubmitOutcome: TypeAlias = Accepted | Rejected | NotSent | Unknown


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """A request that waits or runs, and the newest line of its log."""

    running: bool
    queue_position: int | None
    last_log: str | None = None


@dataclass(frozen=True, slots=True)
class Completed:
    """A request that has ended, well or not; only the result tells for certain."""

    failure: Failure | None


@dataclass(frozen=True, slots=True)
class Finished:
    """The result of a job that went well; `video_of_body` says whether it names a video that can be fetched."""

    body: Mapping[str, object]
    billable_units: Decimal | None


@dataclass(frozen=True, slots=True)
class Failed:
    """The job ended with an error."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class NotReady:
    """There is no result yet."""


ResultOutcome: TypeAlias = Finished | Failed | NotReady

CancelOutcome: TypeAlias = Literal["removed", "requested", "too_late", "not_found"]
"""
What fal said to a cancel.

``removed`` was waiting and will not run; ``requested`` may still finish and be
billed; ``too_late`` had ended; ``not_found`` is not known to fal.
"""


class FalQueue:
    """The queue at the configured address."""

    def __init__(self, http: FalHttp) -> None:
        self._http = http
        self._without_logs: set[str] = set()

    async def submit(self, endpoint_id: str, body: Mapping[str, object], *, job_id: str) -> SubmitOutcome:
        """
        Send one request, at most once to fal.

        Raises nothing but cancellation; after a cancellation fal may have the request.

        Args:
            endpoint_id: The full id.
            body: fal's own body for the endpoint.
            job_id: Sent along as a tag, by which a request of which only the intent is known can be found again.
        """
        try:
            content = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        except (TypeError, ValueError, RecursionError):
            return NotSent("the request could not be written as JSON")
        if not _ENDPOINT_ID.fullmatch(endpoint_id):
            return NotSent("the endpoint id is not one")
        unsent = limited = 0
        while True:
            try:
                answer = await self._http.request(
                    "POST",
                    f"{self._http.hosts.queue}/{endpoint_id}",
                    deadline=self._http.deadlines.submit,
                    headers=_submit_headers(job_id),
                    content=content,
                    pool="submit",
                    max_bytes=_SUBMIT_BYTES,
                )
            except TransportError as interrupted:
                if interrupted.may_have_arrived:
                    return Unknown(interrupted.reason)
                unsent += 1
                if not interrupted.temporary or unsent > _RETRIES_UNSENT:
                    return NotSent(interrupted.reason)
                await self._http.sleep(self._http.pause_seconds(unsent))
                continue
            if answer.status == 429 and limited < _RETRIES_LIMITED:
                asked_seconds = self._http.asked_seconds(answer) or 0.0
                if asked_seconds <= _LONGEST_LIMITED_SECONDS:
                    limited += 1
                    await self._http.sleep(self._http.pause_seconds(limited, answer))
                    continue
            return self._submitted(answer, endpoint_id)

    async def status(self, endpoint_id: str, receipt: Receipt) -> QueueStatus | Completed:
        """
        Where the request is.

        Raises:
            RequestNotFound: fal does not know the request.
            FalRejected, AccountLocked, RateLimited, NoApiKey: fal refuses the question.
            FalUnreachable: No answer, or none that fal gives.
        """
        logs = "?logs=0" if receipt.request_id in self._without_logs else "?logs=1"
        try:
            answer = await self._ask("GET", endpoint_id, receipt, "status", self._http.deadlines.status, query=logs)
        except _LogsTooLarge:
            self._without_logs.add(receipt.request_id)
            answer = await self._ask(
                "GET", endpoint_id, receipt, "status", self._http.deadlines.status, query="?logs=0"
            )
        if answer.status not in {200, 202}:
            raise self._refusal(answer, "status")
        return _parse_status(self._read(answer, "status"))

    async def status_stream(self, endpoint_id: str, receipt: Receipt) -> AsyncGenerator[QueueStatus | Completed]:
        """
        Where the request is, as often as fal has news of it.

        The stream may end or fail at any time. That says nothing about the request;
        `status` does. Close it (`contextlib.aclosing`) when it is no longer wanted.

        Raises:
            FalUnreachable: There is no stream, it broke, or it holds something else.
        """
        if not _ENDPOINT_ID.fullmatch(endpoint_id) or not _REQUEST_ID.fullmatch(receipt.request_id):
            raise _unreachable("the id of the request is not one")
        url = self._url(receipt.status_url, endpoint_id, receipt.request_id, "status")
        try:
            async with self._http.listen(f"{url}/stream?logs=1", deadline=self._http.deadlines.stream) as (head, lines):
                if head.status != 200 or not head.headers.get("content-type", "").startswith("text/event-stream"):
                    raise _unreachable("it has no stream for this request")
                async for data in _events(lines):
                    yield _parse_status(json_of(Response(head.status, head.headers, data)))
        except TransportError as interrupted:
            raise _unreachable(interrupted.reason) from None

    async def result(self, endpoint_id: str, receipt: Receipt) -> ResultOutcome:
        """
        How the job ended.

        Raises:
            RequestNotFound: fal does not know the request, or no longer.
            FalRejected, AccountLocked, RateLimited, NoApiKey: fal refuses the question; the job is as it was.
            FalUnreachable: No answer, or none that says how the job ended. A gateway's 5xx is no such answer.
        """
        deadline = self._http.deadlines.result
        return self._ended(await self._ask("GET", endpoint_id, receipt, "response", deadline, max_bytes=_RESULT_BYTES))

    def _ended(self, answer: Response) -> ResultOutcome:
        if _says_not_ready(answer):
            return NotReady()
        if 200 <= answer.status < 300:
            body, video = standard_result(self._read(answer, "result"))
            failure = explain_inside(body) if video is None else None
            return Finished(body, _units(answer)) if failure is None else Failed(failure)
        if answer.status not in _PASSING and is_verdict(answer, refusal=answer.status in _REFUSALS):
            return Failed(explain(answer, "result"))
        raise self._refusal(answer, "result")

    async def cancel(self, endpoint_id: str, receipt: Receipt) -> CancelOutcome:
        """
        Ask fal to drop the request.

        Raises:
            FalRejected, AccountLocked, RateLimited, NoApiKey: fal refuses.
            FalUnreachable: No answer, or none that fal gives; the request may have been dropped.
        """
        answer = await self._ask("PUT", endpoint_id, receipt, "cancel", self._http.deadlines.cancel)
        if is_foreign(answer):
            raise self._refusal(answer, "cancel")
        said = RequestStatus.read(json_of(answer))
        if answer.status == 404:
            return "not_found"
        if said.status == "ALREADY_COMPLETED" or said.success is False:
            return "too_late"
        if answer.status == 200 and said.status == "OK":
            return "removed"
        if answer.status in {200, 202}:
            return "requested"
        raise self._refusal(answer, "cancel")

    async def _ask(
        self,
        method: str,
        endpoint_id: str,
        receipt: Receipt,
        what: _Question,
        deadline: Deadline,
        query: str = "",
        max_bytes: int = JSON_BYTES,
    ) -> Response:
        """One question about a request, at fal's own URL where that is in order and useful, else at ours."""
        if not _ENDPOINT_ID.fullmatch(endpoint_id) or not _REQUEST_ID.fullmatch(receipt.request_id):
            raise _unreachable("the id of the request is not one")
        short = _built_url(self._http.hosts.queue, endpoint_id, receipt.request_id, what)
        returned = {"status": receipt.status_url, "response": receipt.response_url, "cancel": receipt.cancel_url}[what]
        url = self._url(returned, endpoint_id, receipt.request_id, what)
        try:
            answer = await self._http.request(
                method, url + query, deadline=deadline, max_bytes=max_bytes, tries=FREE_TRIES
            )
            if url != short and _is_dead_end(answer):
                answer = await self._http.request(
                    method, short + query, deadline=deadline, max_bytes=max_bytes, tries=FREE_TRIES
                )
        except TooLarge as large:
            raise _LogsTooLarge(*_unreachable_words(large.reason), billed="maybe") from None
        except TransportError as interrupted:
            raise _unreachable(interrupted.reason) from None
        return answer

    def _submitted(self, answer: Response, endpoint_id: str) -> SubmitOutcome:
        if answer.status in _REJECTED_AT_THE_DOOR:
            return Rejected(explain(answer, "submit", authenticated=self._http.has_key))
        if is_foreign(answer):
            return Unknown(f"something between this machine and fal.ai answered, with HTTP status {answer.status}")
        if not 200 <= answer.status < 300:
            return Unknown(f"fal.ai answered with HTTP status {answer.status}")
        body = members(json_of(answer))
        if not body:
            return Unknown("fal.ai's answer to the request could not be read")
        said = SubmitAnswer.read(body)
        request_id = said.request_id
        if not _REQUEST_ID.fullmatch(request_id):
            return Unknown("fal.ai's answer has no request id")
        return Accepted(
            Receipt(
                request_id,
                self._url(said.status_url, endpoint_id, request_id, "status"),
                self._url(said.response_url, endpoint_id, request_id, "response"),
                self._url(said.cancel_url, endpoint_id, request_id, "cancel"),
                said.queue_position,
            )
        )

    def _read(self, answer: Response, stage: Stage) -> object:
        """What the body of a good answer says."""
        value = json_of(answer)
        # An empty result is the whole answer about a job that is paid for: waiting longer would bring no more.
        if not value and not (stage == "result" and (is_object(value) or is_list(value))):
            raise self._refusal(answer, stage) if is_foreign(answer) else _unreachable("its answer could not be read")
        return value

    def _url(self, returned: object, endpoint_id: str, request_id: str, what: _Question) -> str:
        base = self._http.hosts.queue
        return _checked_url(returned, base, endpoint_id, request_id, what) or _built_url(
            base, endpoint_id, request_id, what
        )

    def _refusal(self, answer: Response, stage: Stage) -> Exception:
        if answer.status in _REFUSALS or is_foreign(answer):
            return error_for(explain(answer, stage, authenticated=self._http.has_key))
        if answer.status == 500:
            return _InternalError(*_unreachable_words("it answered with HTTP status 500"), billed="maybe")
        return _unreachable(f"it answered with HTTP status {answer.status}")


def stated_end(stated: Failure, answered: ResultOutcome | KlingError) -> ResultOutcome:
    """
    The end of a job that failed by its status.

    What the result *answered* counts where it says more: that there is a video
    all the same, which field it is about, whether it is billed.
    """
    if isinstance(answered, Finished) and video_of_body(answered.body) is not None:
        return answered
    if isinstance(answered, Failed) and answered.failure.type != UNKNOWN_FAILURE.type:
        return answered
    # fal charges nothing for its own failures, and what came instead of a result shows that it was one.
    free = isinstance(answered, _InternalError) and stated.type == UNKNOWN_FAILURE.type
    return Failed(replace(stated, billed="no") if free else stated)


_Question: TypeAlias = Literal["status", "response", "cancel"]
_TAILS: Final[Mapping[_Question, str]] = {"status": "/status", "response": "", "cancel": "/cancel"}


def _submit_headers(job_id: str) -> dict[str, str]:
    return {
        "Content-Type": "application/json",
        "X-Fal-Tags": f"kling_intent={job_id}",
        "X-Fal-Request-Start-Timeout": str(START_TIMEOUT_SECONDS),
        # Keeps the request in the account's history, where a lost one can be found.
        "X-Fal-Store-IO": "1",
    }


def _built_url(base: str, endpoint_id: str, request_id: str, what: _Question) -> str:
    """The address by fal's rule: owner and app, not the rest of the endpoint id."""
    owner, app = endpoint_id.split("/")[:2]
    return f"{base}/{owner}/{app}/requests/{request_id}{_TAILS[what]}"


def _checked_url(url: object, base: str, endpoint_id: str, request_id: str, what: _Question) -> str | None:
    """
    *url* if it is below *base* and about this request, else None.

    What is returned is put together from the configured base and the checked
    path, so that no other reading of the same text can lead elsewhere.
    """
    address = Address.read(url)
    path = None if address is None or address.query else address.path_under(base)
    match = None if path is None else _REQUEST_PATH.fullmatch(path)
    if match is None or [match["owner"], match["app"], match["id"]] != [*endpoint_id.split("/")[:2], request_id]:
        return None
    tails = {"", "/response"} if what == "response" else {_TAILS[what]}
    return base + match[0] if match["tail"] in tails else None


def _parse_status(value: object) -> QueueStatus | Completed:
    """What fal says about a request that it knows."""
    said = RequestStatus.read(value)
    if said.status in {"IN_QUEUE", "IN_PROGRESS"}:
        return QueueStatus(said.status == "IN_PROGRESS", said.queue_position, said.last_log)
    if said.status == "COMPLETED":
        return Completed(explain_completed(said.error or said.errors or said.detail, said.error_type))
    raise _unreachable("it gave a state of the request that fal.ai does not have")


async def _events(lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The data of each event of a stream (HTML standard, 9.2.6); comments and other fields are passed over."""
    data: list[bytes] = []
    async for line in lines:
        if line.startswith(b"data:"):
            data.append(line.removeprefix(b"data:").removeprefix(b" "))
        elif not line and data:
            yield b"\n".join(data)
            data.clear()


def _is_dead_end(answer: Response) -> bool:
    """Whether fal answered as it does to the full-path form of its URLs."""
    return answer.status in {404, 405} or (200 <= answer.status < 300 and not answer.body.strip())


def _says_not_ready(answer: Response) -> bool:
    """An early question is answered with 202, with a status, or (seen once, undocumented) with a 400 in words."""
    if answer.status == 202:
        return True
    if answer.status not in {200, 400}:
        return False
    said = RequestStatus.read(json_of(answer))
    in_words = answer.status == 400 and isinstance(said.detail, str) and "in progress" in said.detail.lower()
    return said.status in {"IN_QUEUE", "IN_PROGRESS"} or in_words


def _units(answer: Response) -> Decimal | None:
    """What fal bills, where the header is a plain number and not nothing: a video that is there was not free."""
    units = answer.headers.get("x-fal-billable-units", "").strip()
    return Decimal(units) if _PLAIN_NUMBER.fullmatch(units) and Decimal(units) else None


_PLAIN_NUMBER: Final = re.compile(r"[0-9]{1,6}(\.[0-9]{1,9})?")


class _LogsTooLarge(FalUnreachable):
    """There is an answer, and too much of it."""


class _InternalError(FalUnreachable):
    """fal answered that it failed."""


def _unreachable(why: str) -> FalUnreachable:
    return FalUnreachable(*_unreachable_words(why), billed="maybe")


def _unreachable_words(why: str) -> tuple[str, str]:
    return (
        f"fal.ai could not be asked about the request: {why}.",
        "The request goes on at fal.ai meanwhile; get_job asks again.",
    )
