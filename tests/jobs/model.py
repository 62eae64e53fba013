"""
fal as a model: what it has accepted and charged is the truth that histories are judged by.

It has the face of `Fal` as far as jobs need it, no network, and a clock of its
own. `Machine time` is fal's time plus an offset, because a user's clock may be
wrong and may be set.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from kling_mcp.errors import FalUnreachable
from kling_mcp.fal.failures import Failure
from kling_mcp.fal.platform import PastRequest
from kling_mcp.fal.queue import (
    START_TIMEOUT_SECONDS,
    Accepted,
    Completed,
    Failed,
    Finished,
    NotSent,
    QueueStatus,
    Receipt,
    Rejected,
    Unknown,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from kling_mcp.errors import KlingError
    from kling_mcp.fal.queue import CancelOutcome, ResultOutcome, SubmitOutcome

START_MS = 1_767_225_600_000
"""2026-01-01T00:00:00Z."""

Answer = Literal["accepted", "rejected", "not sent", "lost on the way", "answer lost", "silent"]
End = Literal["video", "free failure", "charged failure", "cancelled", "dropped"]
"""``dropped`` is what fal has not started in time: it never ran, and costs nothing."""

_CHARGE = Decimal("0.42")
_LONGEST_RUN_MS = 2 * 3_600_000


@dataclass(slots=True)
class Request:
    """One request that fal has accepted; `job_id` is the tag it came with."""

    request_id: str
    job_id: str
    endpoint_id: str
    body: Mapping[str, object]
    sent_ms: int
    started_ms: int | None = None
    ended_ms: int | None = None
    end: End | None = None

    @property
    def charged(self) -> bool:
        return self.end in {"video", "charged failure"}


@dataclass(slots=True)
class Post:
    """A submit that fal has not answered yet."""

    job_id: str
    answer: asyncio.Future[SubmitOutcome]
    outcome: SubmitOutcome


@dataclass(slots=True)
class ModelFal:
    """fal for one history."""

    now_ms: int = START_MS
    lag_ms: int = 0
    payloads_kept: bool = True
    answer: Answer = "accepted"
    reachable: bool = True
    trouble: KlingError | None = None
    requests: list[Request] = field(default_factory=list)
    posts: list[str] = field(default_factory=list)
    waiting: list[Post] = field(default_factory=list)
    on_post: Callable[[str, Mapping[str, object]], None] = lambda _job, _body: None
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    # ---- the face of `Fal`

    @property
    def queue(self) -> ModelFal:
        return self

    @property
    def platform(self) -> ModelFal:
        return self

    async def aclose(self) -> None:
        pass

    async def submit(self, endpoint_id: str, body: Mapping[str, object], *, job_id: str) -> SubmitOutcome:
        self.posts.append(job_id)
        self.on_post(job_id, body)
        match self.answer:
            case "rejected":
                return Rejected(_failure("bad_request", "no"))
            case "not sent":
                return NotSent("the connection was refused")
            case "lost on the way":
                return Unknown("the connection broke")
            case "answer lost":
                self._accept(endpoint_id, body, job_id)
                return Unknown("the connection broke")
            case "accepted":
                return Accepted(_receipt(self._accept(endpoint_id, body, job_id)))
            case "silent":
                outcome = Accepted(_receipt(self._accept(endpoint_id, body, job_id)))
                post = Post(job_id, asyncio.get_running_loop().create_future(), outcome)
                self.waiting.append(post)
                self.arrived.set()
                try:
                    return await post.answer
                finally:
                    self.waiting.remove(post)

    async def status(self, endpoint_id: str, receipt: Receipt) -> QueueStatus | Completed:
        request = self._asked(receipt)
        if request.end is not None:
            return Completed(None)
        return QueueStatus(request.started_ms is not None, None if request.started_ms else 0)

    async def result(self, endpoint_id: str, receipt: Receipt) -> ResultOutcome:
        request = self._asked(receipt)
        match request.end:
            case "video":
                return Finished(_video(request), _CHARGE)
            case "cancelled":
                return Failed(_failure("client_cancelled", "no"))
            case "dropped":
                return Failed(_failure("request_timeout", "no"))
            case "charged failure":
                return Failed(_failure("content_policy_violation", "maybe"))
            case _:
                return Failed(_failure("internal_server_error", "no"))

    async def cancel(self, endpoint_id: str, receipt: Receipt) -> CancelOutcome:
        request = self._asked(receipt)
        if request.end is not None:
            return "too_late"
        if request.started_ms is not None:
            return "requested"
        self.finish(request, "cancelled")
        return "removed"

    async def history(
        self, endpoint_id: str, *, start_ms: int, end_ms: int | None = None
    ) -> AsyncGenerator[PastRequest, None]:
        if not self.reachable:
            raise _unreachable()
        for request in sorted(self.requests, key=lambda one: -(one.ended_ms or 0)):
            if request.ended_ms is not None and start_ms <= request.ended_ms <= self.now_ms - self.lag_ms:
                yield PastRequest(
                    request.request_id,
                    request.endpoint_id,
                    request.sent_ms,
                    request.ended_ms,
                    200 if request.end == "video" else 422,
                    # fal fills in what the sender left out.
                    {**request.body, "cfg_scale": 0.5} if self.payloads_kept else None,
                    _video(request) if request.end == "video" else {"detail": "failed"},
                )

    async def cost_usd(self, endpoint_id: str, units: Decimal) -> Decimal | None:
        return units

    # ---- what happens at fal

    def advance(self, milliseconds: int) -> None:
        """Let time pass; nothing waits or runs for longer than fal lets it."""
        self.now_ms += milliseconds
        for request in self.requests:
            if request.end is None and request.started_ms is None:
                start_by = request.sent_ms + START_TIMEOUT_SECONDS * 1000
                if start_by <= self.now_ms:
                    request.end, request.ended_ms = "dropped", start_by
            elif request.end is None and (request.started_ms or 0) + _LONGEST_RUN_MS <= self.now_ms:
                request.end, request.ended_ms = "video", (request.started_ms or 0) + _LONGEST_RUN_MS

    def start(self, request: Request) -> None:
        request.started_ms = self.now_ms

    def finish(self, request: Request, end: End) -> None:
        request.end, request.ended_ms = end, self.now_ms

    def unfinished(self) -> list[Request]:
        return [request for request in self.requests if request.end is None]

    def strange(self, endpoint_id: str, body: Mapping[str, object]) -> None:
        """Somebody else uses the same account."""
        request = self._accept(endpoint_id, body, "")
        self.start(request)
        self.finish(request, "video")

    def _accept(self, endpoint_id: str, body: Mapping[str, object], job_id: str) -> Request:
        request = Request(f"req-{len(self.requests)}", job_id, endpoint_id, body, self.now_ms)
        self.requests.append(request)
        return request

    def _asked(self, receipt: Receipt) -> Request:
        if self.trouble is not None:
            raise self.trouble
        if not self.reachable:
            raise _unreachable()
        return next(request for request in self.requests if request.request_id == receipt.request_id)


def _receipt(request: Request) -> Receipt:
    address = f"https://queue.example/requests/{request.request_id}"
    return Receipt(request.request_id, f"{address}/status", address, f"{address}/cancel", 0)


def _video(request: Request) -> dict[str, object]:
    return {"video": {"url": f"https://v3.fal.media/files/{request.request_id}.mp4"}}


def _failure(kind: str, billed: Literal["no", "maybe"]) -> Failure:
    return Failure(kind, "It failed.", "Look at the prompt.", None, False, billed, None, "fal_rejected")


def _unreachable() -> FalUnreachable:
    return FalUnreachable("fal.ai could not be asked.", "It can be asked again.", billed="maybe")
