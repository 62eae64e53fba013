"""
The door of the simulator: every call is written down here, and here it goes wrong.

The whole request is read before anything happens to it, so that the request
log and the list of accepted requests are the ground truth of a test: what fal
had received when the connection broke.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import parse_qsl

import anyio
import anyio.lowlevel

from kling_mcp.simulator.faults import DropBeforeAccept, Reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, MutableMapping
    from typing import Any

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from kling_mcp.simulator.clock import Clock
    from kling_mcp.simulator.faults import CallKind, Script

__all__ = ["HANG_UP", "FaultMiddleware", "Recorded", "call_kind"]

HANG_UP: Final = "kling_mcp.hang_up"
"""The ASGI extension by which the server lends a call its connection: a function of ``reset``."""

_KEPT_BYTES: Final = 1_048_576


@dataclass(frozen=True, slots=True)
class Recorded:
    """
    One call as it arrived; ``at`` is in seconds since 1970, header names are in lower case.

    The body of an upload larger than 1 MiB is left out: the file itself is in storage.
    """

    kind: CallKind
    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    at: float


class FaultMiddleware:
    """
    The outermost application.

    Args:
        app: What answers when nothing goes wrong.
        script: What goes wrong.
        requests: Where calls are written down.
        clock: The time, also of the ``Date`` header.
        new_id: Makes the ``x-fal-request-id`` of calls that are about no request.
    """

    def __init__(
        self, app: ASGIApp, script: Script, requests: list[Recorded], clock: Clock, new_id: Callable[[], str]
    ) -> None:
        self._app = app
        self._script = script
        self._requests = requests
        self._clock = clock
        self._new_id = new_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call, well or badly."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        kind = call_kind(scope["method"], scope["path"])
        fault = self._script.next_for(kind)
        if isinstance(fault, DropBeforeAccept):
            await fault.apply(_Call(self._app, scope, receive, send, b""))
            return
        body = await _whole_body(receive)
        if body is None:
            return
        self._requests.append(_recorded(kind, scope, body, self._clock.now()))
        signed = self._signed(send)
        if fault is None:
            await self._app(scope, _replayed(body, receive), signed)
        else:
            await fault.apply(_Call(self._app, scope, receive, signed, body))

    def _signed(self, send: Send) -> Send:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.setdefault("headers", [])
                present = {bytes(name).lower() for name, _ in headers}
                if b"date" not in present:
                    headers.append((b"date", formatdate(self._clock.now(), usegmt=True).encode()))
                # What a proxy in front of fal answers has no request id; its page is the only HTML here.
                html = (b"content-type", b"text/html") in headers
                if b"x-fal-request-id" not in present and not html:
                    headers.append((b"x-fal-request-id", self._new_id().encode()))
            await send(message)

        return with_headers


_KINDS: Final[tuple[tuple[str, str, CallKind], ...]] = (
    ("GET", r"/queue/.+/requests/[^/]+/status/stream", "stream"),
    ("GET", r"/queue/.+/requests/[^/]+/status", "status"),
    ("PUT", r"/queue/.+/requests/[^/]+/cancel", "cancel"),
    ("GET", r"/queue/.+/requests/[^/]+(/response)?", "result"),
    ("POST", r"/queue/.+", "submit"),
    ("POST", r"/rest/storage/auth/token", "token"),
    ("POST", r"/rest/storage/upload/initiate(-multipart)?", "initiate"),
    ("POST", r"/media/.+", "upload"),
    ("PUT", r"/media/.+", "put"),
    ("(GET|HEAD)", r"/media/.+", "download"),
    ("GET", r"/api/v1/models", "models"),
    ("GET", r"/api/v1/models/pricing", "pricing"),
    ("GET", r"/api/v1/models/requests/by-endpoint", "history"),
    ("GET", r"/api/v1/account/.+", "account"),
    ("GET", r"/api/v1/meta", "meta"),
)


def call_kind(method: str, path: str) -> CallKind:
    """Which of fal's calls this is."""
    for methods, pattern, kind in _KINDS:
        if re.fullmatch(methods, method) and re.fullmatch(pattern, path):
            return kind
    return "other"


class _Call:
    """An exchange over ASGI; hanging up needs the server's help."""

    def __init__(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send, body: bytes) -> None:
        self._app = app
        self._scope = scope
        self._receive = receive
        self._send = send
        self._body = body

    async def accept(self) -> Reply:
        status, headers, chunks = 500, list[tuple[bytes, bytes]](), list[bytes]()

        async def collect(message: Message) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status, headers = message["status"], list(message.get("headers", []))
            else:
                chunks.append(message.get("body", b""))

        await self._app(self._scope, _replayed(self._body, self._receive), collect)
        return Reply(status, headers, b"".join(chunks))

    async def send(self, reply: Reply) -> None:
        await self._send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
        await self._send({"type": "http.response.body", "body": reply.body})

    async def send_in_pieces(self, reply: Reply, pieces: AsyncIterator[bytes]) -> None:
        async with anyio.create_task_group() as tasks:

            async def until_gone() -> None:
                await self.gone()
                tasks.cancel_scope.cancel()

            tasks.start_soon(until_gone)
            await self._send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
            length, sent = int(dict(reply.headers).get(b"content-length", b"-1")), 0
            async for piece in pieces:
                sent += len(piece)
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
                # A send to somebody who has gone returns at once, and an endless body would never let go.
                await anyio.lowlevel.checkpoint()
            if sent == length:
                await self._send({"type": "http.response.body", "body": b""})
            tasks.cancel_scope.cancel()

    async def gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def hang_up(self, *, reset: bool) -> None:
        extensions = cast("MutableMapping[str, Any]", self._scope.get("extensions") or {})
        lent = cast("Callable[[bool], None] | None", extensions.get(HANG_UP))
        if lent is None:
            raise RuntimeError("connections can be dropped only when kling_mcp.simulator.serve runs the simulator")
        lent(reset)
        await self.gone()


async def _whole_body(receive: Receive) -> bytes | None:
    """The body, or None when the caller went away before its end: such a request is not accepted."""
    chunks: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(chunks)


def _replayed(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _recorded(kind: CallKind, scope: Scope, body: bytes, at: float) -> Recorded:
    headers = {bytes(name).decode("latin-1"): bytes(value).decode("latin-1") for name, value in scope["headers"]}
    query = tuple(parse_qsl(bytes(scope["query_string"]).decode("latin-1"), keep_blank_values=True))
    kept = body if kind not in {"upload", "put"} or len(body) <= _KEPT_BYTES else b""
    return Recorded(kind, scope["method"], scope["path"], query, headers, kept, at)
