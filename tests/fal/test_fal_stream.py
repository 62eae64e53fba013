"""Listening to a request: what a stream may hold, and that a bad one is only a stream that failed."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import TYPE_CHECKING

import anyio
import pytest

from kling_mcp import errors
from kling_mcp.fal.queue import Completed, FalQueue, QueueStatus, Receipt
from kling_mcp.fal.storage import FalStorage
from kling_mcp.simulator.app import Simulator
from kling_mcp.simulator.render import sample_picture, sample_video
from kling_mcp.simulator.serve import running_in_thread
from tests.conftest import CANARY_KEY
from tests.fal.rawserver import RawServer, answer, raw, silence
from tests.fal.support import ENDPOINT, REQUEST_ID, SOON, a_file, client, receipt

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.fal.rawserver import Connection

pytestmark = pytest.mark.anyio

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nConnection: close\r\n\r\n"


def event(body: object) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"


WAITING = event({"status": "IN_QUEUE", "queue_position": 2})
RUNNING = event({"status": "IN_PROGRESS", "logs": None})
ENDED = event({"status": "COMPLETED", "logs": []})

STREAMS: dict[str, tuple[bytes, list[QueueStatus | Completed]]] = {
    "one after another": (
        WAITING + RUNNING + ENDED,
        [QueueStatus(False, 2), QueueStatus(True, None), Completed(None)],
    ),
    "with comments, names and carriage returns": (
        b": ping\r\n\r\nevent: status\r\nid: 1\r\ndata:" + b'{"status": "IN_PROGRESS"}\r\n\r\n',
        [QueueStatus(True, None)],
    ),
    "over two lines": (b'data: {"status":\ndata: "IN_PROGRESS"}\n\n', [QueueStatus(True, None)]),
    "cut before the end of an event": (WAITING + RUNNING[:-1], [QueueStatus(False, 2)]),
    "empty": (b"", []),
}


async def heard(queue: FalQueue, of: Receipt) -> list[QueueStatus | Completed]:
    async with aclosing(queue.status_stream(ENDPOINT, of)) as stream:
        return [status async for status in stream]


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_is_read_event_by_event(name: str) -> None:
    sent, expected = STREAMS[name]
    async with RawServer(default=raw(HEAD + sent)) as server, client(server.url) as http:
        assert await heard(FalQueue(http), receipt(server.url)) == expected

        (request,) = server.received
        assert request.target == f"/queue/fal-ai/kling-video/requests/{REQUEST_ID}/status/stream?logs=1"
        assert request.headers["accept"] == "text/event-stream"
        assert request.headers["authorization"] == f"Key {CANARY_KEY}"


BAD: dict[str, Callable[[Connection], Awaitable[None]]] = {
    "none there": answer(404, {"status": "NOT_FOUND"}),
    "a page": raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi"),
    "something else in it": raw(HEAD + b"data: hello\n\n"),
    "a state that fal does not have": raw(HEAD + event({"status": "FAILED"})),
    "too much": raw(HEAD + b": " + bytes(1_100_000) + b"\n"),
    "compressed": raw(HEAD.replace(b"Connection", b"Content-Encoding: gzip\r\nConnection") + ENDED),
    "silence": silence,
    "a reset": raw(b"", reset=True),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_stream_that_is_none_fails_as_fal_unreachable(name: str) -> None:
    async with RawServer(default=BAD[name]) as server, client(server.url, deadlines=SOON) as http:
        with anyio.fail_after(5), pytest.raises(errors.FalUnreachable) as failure:
            await heard(FalQueue(http), receipt(server.url))

    assert CANARY_KEY not in str(failure.value)


async def test_the_key_does_not_come_back_in_a_stream() -> None:
    line = event({"status": "IN_PROGRESS", "logs": [{"message": f"key {CANARY_KEY}"}]})
    async with RawServer(default=raw(HEAD + line)) as server, client(server.url) as http:
        (status,) = await heard(FalQueue(http), receipt(server.url))

    assert isinstance(status, QueueStatus)
    assert status.last_log == "key [key]"


async def test_the_simulator_streams_a_job_to_its_end() -> None:
    simulator = Simulator(speed=200, renderer=sample_video)
    with running_in_thread(simulator) as urls, anyio.fail_after(20):
        async with client(urls.queue.removesuffix("/queue")) as http:
            picture = await FalStorage(http, (urls.media_host,)).upload(
                a_file(sample_picture(), "image/jpeg", "a.jpg"), lifetime_seconds=60
            )
            queue = FalQueue(http)
            outcome = await queue.submit(ENDPOINT, {"image_url": picture, "prompt": "A boat."}, job_id="kj_1")
            seen = await heard(queue, outcome.receipt)  # type: ignore[union-attr]

    assert [type(status) for status in seen[-2:]] == [QueueStatus, Completed]
    assert [request.kind for request in simulator.requests][-2:] == ["submit", "stream"]
