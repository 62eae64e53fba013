"""Sixteen hundred answers that fal never gave: each ends as one of the outcomes, and never as a crash."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Final

import anyio
import pytest

from kling_mcp import errors
from kling_mcp.fal.queue import (
    Accepted,
    Completed,
    Failed,
    FalQueue,
    Finished,
    NotReady,
    QueueStatus,
    Rejected,
    Unknown,
)
from tests.conftest import CANARY_KEY
from tests.fal.rawserver import RawServer, raw
from tests.fal.support import ENDPOINT, REQUEST_ID, SOON, client, receipt

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kling_mcp.fal.queue import Receipt

pytestmark = pytest.mark.anyio

CASES_PER_CALL: Final = 400

CALLS: dict[str, tuple[Callable[[FalQueue, Receipt], Awaitable[object]], tuple[type, ...]]] = {
    "submit": (
        lambda queue, _: queue.submit(ENDPOINT, {"prompt": "x"}, job_id="kj_1"),
        (Accepted, Rejected, Unknown),
    ),
    "status": (lambda queue, given: queue.status(ENDPOINT, given), (QueueStatus, Completed)),
    "result": (lambda queue, given: queue.result(ENDPOINT, given), (Finished, Failed, NotReady)),
    "cancel": (lambda queue, given: queue.cancel(ENDPOINT, given), (str,)),
}


@pytest.mark.parametrize("call", CALLS)
async def test_every_malformed_answer_is_a_typed_outcome(call: str) -> None:
    ask, outcomes = CALLS[call]
    chance = random.Random(f"{call} 2026-11-21")
    seen: set[str] = set()
    async with RawServer() as server, client(server.url, [], deadlines=SOON) as http:
        queue = FalQueue(http)
        for number in range(CASES_PER_CALL):
            wire = malformed_answer(chance, call)
            server.default = raw(wire, reset=chance.random() < 0.05)
            before = len(server.complete)
            try:
                with anyio.fail_after(10):
                    outcome = await ask(queue, receipt(server.url))
            except errors.KlingError as error:
                assert call != "submit", f"case {number}: {wire[:500]!r}"
                outcome = error
            assert isinstance(outcome, (*outcomes, errors.KlingError)), f"case {number}: {wire[:500]!r}"
            assert call != "submit" or len(server.complete) - before <= (3 if b" 429 " in wire[:20] else 1)
            shown = f"{outcome!r} {outcome}"
            assert CANARY_KEY not in shown, f"case {number}: {wire[:500]!r}"
            assert not any(word in shown for word in ("httpx", "h11", "JSONDecode", "Traceback")), shown[:500]
            seen.add(type(outcome).__name__)

    assert len(seen) >= 2, f"the answers were too much alike: {seen}"


def malformed_answer(chance: random.Random, call: str) -> bytes:
    """The bytes of one answer: a head that may be wrong in places around a body that probably is."""
    body = _body(chance, call)
    status = chance.choice([200, 200, 200, 202, 202, 204, 301, 400, 401, 403, 404, 409, 422, 422, 429, 499, 500, 504])
    head = [
        f"HTTP/1.1 {status} {chance.choice(['OK', '', 'Key ' + CANARY_KEY, chr(0xE4) * 40])}".encode("latin-1"),
        b"Content-Type: " + chance.choice([b"application/json", b"text/html", b"", b"application/json; charset=utf-7"]),
    ]
    if chance.random() < 0.9:
        head.append(b"Content-Length: %d" % (len(body) + chance.choice([0] * 20 + [1, -1, 10**9])))
    head += chance.sample(_HEADERS, chance.randrange(3))
    if chance.random() < 0.1:
        head.append(chance.choice(_FRAMING))
    wire = b"\r\n".join(head) + b"\r\n\r\n" + body
    match chance.randrange(12):
        case 0:
            return wire[: chance.randrange(len(wire))]
        case 1:
            at = chance.randrange(len(wire))
            return wire[:at] + bytes([chance.randrange(256)]) + wire[at + 1 :]
        case 2:
            return chance.randbytes(chance.randrange(200))
        case _:
            return wire


def _body(chance: random.Random, call: str) -> bytes:
    match chance.randrange(10):
        case 0:
            return b""
        case 1:
            return chance.choice(_BODIES)
        case 2:
            text = json.dumps(_answer(chance, call)).encode()
            return text[: chance.randrange(len(text) + 1)]
        case _:
            text = json.dumps(_answer(chance, call), ensure_ascii=chance.random() < 0.5)
            return text.encode("utf-8", "surrogatepass")


def _answer(chance: random.Random, call: str) -> object:
    """Mostly an object, mostly with what the call looks for, and with other words where they do not belong."""
    if chance.random() < 0.1:
        return _document(chance, 1)
    names = [*chance.sample(_KEYS[call], len(_KEYS[call])), *chance.sample(_NAMES, chance.randrange(4))]
    return {name: _usual(chance, name) if chance.random() < 0.7 else _document(chance, 1) for name in names}


def _document(chance: random.Random, depth: int) -> object:
    """Any value."""
    match chance.randrange(9 if depth < 4 else 7):
        case 0:
            return chance.choice([None, True, False])
        case 1:
            return chance.choice([0, -1, 1.5, 10**30, -(10**300), float("nan"), float("inf"), 1e308])
        case 7:
            return [_document(chance, depth + 1) for _ in range(chance.randrange(4))]
        case 8:
            return {name: _document(chance, depth + 1) for name in chance.sample(_NAMES, chance.randrange(4))}
        case _:
            return chance.choice(_TEXTS)


def _usual(chance: random.Random, name: str) -> object:
    """What usually stands there, so that a case gets beyond the first check."""
    usual = {
        "status": chance.choice(["IN_QUEUE", "IN_PROGRESS", "COMPLETED", "OK", "ALREADY_COMPLETED", "FAILED"]),
        "request_id": REQUEST_ID,
        "video": {"url": chance.choice(["https://v3.fal.media/a.mp4", *_TEXTS]), "file_size": _document(chance, 3)},
        "detail": chance.choice([_details(chance), [_document(chance, 2)], chance.choice(_TEXTS)]),
        "error_type": chance.choice(_TYPES),
        "logs": [{"message": chance.choice(_TEXTS), "timestamp": _document(chance, 3)}],
        "metrics": {"inference_time": _document(chance, 3)},
    }
    return usual.get(name, _document(chance, 2))


def _details(chance: random.Random) -> list[object]:
    return [{"type": chance.choice(_TYPES), "loc": _document(chance, 3), "ctx": {"min_width": _document(chance, 3)}}]


_KEYS: Final = {
    "submit": ["request_id", "status_url"],
    "status": ["status", "logs"],
    "result": ["video", "detail"],
    "cancel": ["status", "success"],
}
_NAMES: Final = [
    "status", "request_id", "video", "detail", "error_type", "logs", "metrics", "queue_position", "status_url",
    "response_url", "cancel_url", "error", "success", "message", "url", "type", "loc", "msg", "ctx", "",
]  # fmt: skip
_TYPES: Final = ["image_too_small", "value_error.missing", "generation_timeout", "", "ignore_previous", "a" * 300]
_TEXTS: Final = [
    "", "COMPLETED", "x" * 2000, "\x00\x1b[31m\u202e\u200b\U000e0041", "\ud800", "{min_width}", "https://evil.example/?k=",
    "http://127.0.0.1:1/queue/x", "../../..", CANARY_KEY, f"Key {CANARY_KEY}", "null", "\u2028\u2029", "%s%n{0}",
]  # fmt: skip
_HEADERS: Final = [
    b"Content-Encoding: identity",
    b"Retry-After: 99999999999999999999",
    b"Retry-After: \xb2",
    b"Retry-After: Sat, 99 Nov 20260 10:00:00 GMT",
    b"X-Fal-Billable-Units: sNaN",
    b"X-Fal-Billable-Units: 1e999999999",
    b"X-Fal-Error-Type: \xff\xfe",
    b"Location: http://[::1",
    b"Set-Cookie: a=b; Max-Age=99999999999999999999",
    b"Echo: Key " + CANARY_KEY.encode(),
    b"X-Long: " + b"a" * 3000,
]
_FRAMING: Final = [b"Content-Encoding: gzip", b"Transfer-Encoding: chunked", b"no colon here", b"Content-Length: 1"]
_BODIES: Final = [
    b"[" * 100_000,
    b'{"request_id": ' + b"9" * 50_000 + b"}",
    b'{"request_id": "a", "request_id": "a"}',
    b"<html><title>502 Bad Gateway</title></html>",
    b"\xff\xfe{\x00}\x00",
    b'\xef\xbb\xbf{"status": "COMPLETED"}',
    b"NaN",
    b'{"status": 1e999}',
    b"{" * 1000 + b"}" * 1000,
    b'{"detail": ' + b'[{"detail": ' * 300 + b"1" + b"}]" * 300 + b"}",
]
