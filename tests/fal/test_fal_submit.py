"""What is known after a submit, against a server that knows what it had received."""

from __future__ import annotations

import datetime
import gzip
import json
from dataclasses import dataclass
from email.utils import format_datetime
from typing import TYPE_CHECKING

import anyio
import pytest

from kling_mcp.fal.queue import START_TIMEOUT_SECONDS, Accepted, FalQueue, NotSent, Receipt, Rejected, Unknown
from tests.conftest import CANARY_KEY
from tests.fal.rawserver import RawServer, answer, drip, endless, raw, reset_before_body, silence
from tests.fal.support import ENDPOINT, NOW_SECONDS, REQUEST_ID, SOON, client, own_certificate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.fal.rawserver import Connection

pytestmark = pytest.mark.anyio

BODY = {"image_url": "https://example.com/a.png", "prompt": "The camera pans left, très slowly.", "cfg_scale": 0.5}
ACCEPTED = {"request_id": REQUEST_ID, "queue_position": 2}
OK = b"HTTP/1.1 200 OK\r\n"


@dataclass(frozen=True)
class Case:
    script: Callable[[Connection], Awaitable[None]]
    outcome: type
    arrivals: int = 1


CASES = {
    "reset after the whole request": Case(raw(b"", reset=True), Unknown),
    "reset before the body": Case(reset_before_body, Unknown, arrivals=0),
    "closed without an answer": Case(raw(b""), Unknown),
    "closed in the middle of the head": Case(raw(b"HTTP/1.1 200 O"), Unknown),
    "closed in the middle of the body": Case(raw(OK + b'Content-Length: 99\r\n\r\n{"request_id": "7d1f'), Unknown),
    "reset in the middle of the body": Case(raw(OK + b"Content-Length: 99\r\n\r\n{", reset=True), Unknown),
    "not HTTP": Case(raw(b"SSH-2.0-OpenSSH_9.6\r\n"), Unknown),
    "a length that is no number": Case(raw(OK + b"Content-Length: many\r\n\r\n{}"), Unknown),
    "two different lengths": Case(raw(OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"), Unknown),
    "a chunk that is no chunk": Case(raw(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"), Unknown),
    "200 kB of headers": Case(raw(OK + b"X-A: " + b"a" * 200_000 + b"\r\n\r\n{}"), Unknown),
    "silence": Case(silence, Unknown),
    "one byte at a time for ever": Case(drip(b" "), Unknown),
    "a body without end": Case(endless(OK + b"\r\n", b" " * 65536), Unknown),
    "a hundred continues a second": Case(endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), Unknown),
    "compressed": Case(
        answer(200, gzip.compress(json.dumps(ACCEPTED).encode()), {"Content-Encoding": "gzip"}), Accepted
    ),
    "compressed in another way": Case(answer(200, ACCEPTED, {"Content-Encoding": "br"}), Unknown),
    "an id after a byte order mark": Case(answer(200, b"\xef\xbb\xbf" + json.dumps(ACCEPTED).encode()), Accepted),
    "an id beside half an emoji": Case(answer(200, b'{"request_id": "a", "logs": ["\\ud83d"]}'), Accepted),
    "an id beside not a number": Case(answer(200, b'{"request_id": "a", "metrics": {"x": NaN}}'), Accepted),
    "an id behind a long log": Case(answer(200, {"logs": "x" * 2_000_000, **ACCEPTED}), Accepted),
    "the same id twice": Case(answer(200, b'{"request_id": "a", "request_id": "a"}'), Accepted),
    "an id in a page by its type": Case(answer(200, ACCEPTED, {"Content-Type": "text/html"}), Accepted),
    "an id that is all": Case(answer(200, {"request_id": REQUEST_ID}), Accepted),
    "a login page": Case(answer(200, b"<html>"), Unknown),
    "a proxy that wants a password": Case(answer(407), Rejected),
    "a firewall": Case(answer(403, b"<html>"), Rejected),
    "an id that breaks off": Case(answer(200, b'{"request_id": "7d1f'), Unknown),
    "an id twice": Case(answer(200, b'{"request_id": "a", "request_id": "b"}'), Unknown),
    "an id that is a number": Case(answer(200, {"request_id": 7}), Unknown),
    "an id that is a path": Case(answer(200, {"request_id": "../../models"}), Unknown),
    "an id that is empty": Case(answer(200, {"request_id": ""}), Unknown),
    "no id": Case(answer(200, {"status": "IN_QUEUE"}), Unknown),
    "a list": Case(answer(200, [ACCEPTED]), Unknown),
    "an empty body": Case(answer(202), Unknown),
    **{f"status {status}": Case(answer(status, {"detail": "?"}), Unknown) for status in (
        301, 302, 304, 307, 308, 406, 408, 409, 410, 418, 425, 451, 499, 500, 501, 502, 503, 504, 520, 599)},
    **{f"status {status}": Case(answer(status, {"detail": "?"}), Rejected) for status in (
        400, 401, 402, 403, 404, 405, 413, 415, 422)},
    "429 all the time": Case(answer(429, {"detail": "?"}), Rejected, arrivals=3),
    "429 that asks for an hour": Case(answer(429, {"detail": "?"}, {"Retry-After": "3600"}), Rejected),
    **{f"status {status} with an id": Case(answer(status, ACCEPTED), Accepted) for status in (200, 201, 202, 204 + 2)},
}  # fmt: skip


NEVER_ENDING = {"silence", "one byte at a time for ever", "a hundred continues a second", "a body without end"}


@pytest.mark.parametrize("name", CASES)
async def test_each_kind_of_answer_has_one_outcome_and_is_sent_no_more_often_than_is_certain(name: str) -> None:
    case = CASES[name]
    # Only what would never end is cut short: another answer may take its time on a busy machine.
    deadlines = SOON if name in NEVER_ENDING else None
    async with RawServer(default=case.script) as server, client(server.url, [], deadlines=deadlines) as http:
        with anyio.fail_after(10):
            outcome = await FalQueue(http).submit(ENDPOINT, BODY, job_id="kj_1")

        assert type(outcome) is case.outcome
        assert len(server.complete) == case.arrivals
        assert CANARY_KEY not in repr(outcome)


async def test_a_body_is_read_neither_unpacked_nor_as_it_is_without_end_however_much_time_there_is() -> None:
    encoded = answer(200, gzip.compress(b" " * 50_000_000), {"Content-Encoding": "gzip"})
    without_end = endless(OK + b"\r\n", b" " * 65536)
    async with RawServer(plan=[encoded, without_end]) as server, client(server.url) as http:
        with anyio.fail_after(10):
            outcomes = [await FalQueue(http).submit(ENDPOINT, BODY, job_id="kj_1") for _ in range(2)]

    assert outcomes == [
        Unknown("the answer is larger than 4194304 bytes"),
        Unknown("the answer is larger than 4194304 bytes"),
    ]


async def test_an_accepted_request_has_a_receipt_with_addresses_below_the_configured_queue() -> None:
    async with RawServer() as server, client(server.url) as http:
        base = f"{server.url}/queue/fal-ai/kling-video/requests/{REQUEST_ID}"
        full = {"status_url": f"{base}/status", "response_url": base, "cancel_url": f"{base}/cancel"}
        foreign = {name: url.replace("127.0.0.1", "evil.example") for name, url in full.items()}
        server.plan = [
            answer(200, {**ACCEPTED, **full}),
            answer(200, {**ACCEPTED, **foreign, "queue_position": -1}),
            answer(200, {"request_id": REQUEST_ID, "queue_position": True}),
        ]
        outcomes = [await FalQueue(http).submit(ENDPOINT, BODY, job_id="kj_1") for _ in server.plan[:]]

    expected = Receipt(REQUEST_ID, f"{base}/status", base, f"{base}/cancel", 2)
    without_position = Receipt(REQUEST_ID, f"{base}/status", base, f"{base}/cancel", None)
    assert outcomes == [Accepted(expected), Accepted(without_position), Accepted(without_position)]


async def test_the_request_carries_the_key_the_intent_and_a_bound_and_the_body_as_it_is() -> None:
    async with RawServer(default=answer(200, ACCEPTED)) as server, client(server.url) as http:
        await FalQueue(http).submit(ENDPOINT, BODY, job_id="kj_1")
        [request] = server.received

    assert (request.method, request.target) == ("POST", f"/queue/{ENDPOINT}")
    assert request.json() == BODY
    headers = dict(request.headers)
    assert headers.pop("user-agent").startswith("kling-mcp/")
    assert headers.pop("content-length") == str(len(request.body))
    assert headers.pop("host") == server.host
    assert headers == {
        "accept": "application/json",
        "accept-encoding": "identity",
        "authorization": f"Key {CANARY_KEY}",
        "connection": "close",
        "content-type": "application/json",
        "x-fal-request-start-timeout": str(START_TIMEOUT_SECONDS),
        "x-fal-store-io": "1",
        "x-fal-tags": "kling_intent=kj_1",
    }


async def test_every_submit_has_a_connection_of_its_own() -> None:
    async with RawServer(default=answer(200, ACCEPTED)) as server, client(server.url) as http:
        for _ in range(5):
            await FalQueue(http).submit(ENDPOINT, BODY, job_id="kj_1")

        assert server.connections == 5


async def test_a_server_that_nobody_listens_at_is_tried_four_times_and_never_reached() -> None:
    pauses: list[float] = []
    async with RawServer() as server:
        pass
    async with client(server.url, pauses) as http:
        outcome = await FalQueue(http).submit(ENDPOINT, BODY, job_id="kj_1")

    assert outcome == NotSent(f"no connection could be made: {server.host} refused it")
    assert pauses == [1.0, 2.0, 4.0]


async def test_a_request_that_was_not_sent_is_sent_once_when_the_server_is_there() -> None:
    async with RawServer(default=answer(200, ACCEPTED)) as gone:
        pass
    server = RawServer(default=answer(200, ACCEPTED), port=gone.port)
    pauses: list[float] = []

    async def start_at_the_second_pause() -> None:
        if len(pauses) == 2:
            await server.__aenter__()

    async with client(gone.url, pauses, while_pausing=start_at_the_second_pause) as http:
        outcome = await FalQueue(http).submit(ENDPOINT, BODY, job_id="kj_1")
    await server.__aexit__()

    assert isinstance(outcome, Accepted)
    assert len(server.received) == 1


async def test_a_certificate_that_nobody_vouches_for_means_not_sent(tmp_path: Path) -> None:
    async with RawServer(default=answer(200, ACCEPTED), tls=own_certificate(tmp_path)) as server:
        async with client(server.url, []) as http:
            outcome = await FalQueue(http).submit(ENDPOINT, BODY, job_id="kj_1")

        assert isinstance(outcome, NotSent)
        assert server.received == []


async def test_a_certificate_is_checked_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = own_certificate(tmp_path)
    for name in ("PYTHONHTTPSVERIFY", "HTTPX_VERIFY", "SSL_VERIFY", "NODE_TLS_REJECT_UNAUTHORIZED"):
        monkeypatch.setenv(name, "0")
    async with RawServer(default=answer(200, ACCEPTED), tls=tls) as server, client(server.url, []) as http:
        refused = await FalQueue(http).submit(ENDPOINT, BODY, job_id="kj_1")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        async with client(server.url, []) as trusting:
            accepted = await FalQueue(trusting).submit(ENDPOINT, BODY, job_id="kj_1")

    assert isinstance(refused, NotSent)
    assert isinstance(accepted, Accepted)


async def test_a_proxy_of_the_environment_is_not_used_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    async with RawServer(default=answer(500)) as proxy, RawServer(default=answer(200, ACCEPTED)) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        async with client(server.url) as http:
            outcome = await FalQueue(http).submit(ENDPOINT, BODY, job_id="kj_1")

    assert isinstance(outcome, Accepted)
    assert proxy.received == []


async def test_a_proxy_that_makes_no_tunnel_means_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async with RawServer(default=answer(407)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        async with client("https://queue.example", []) as http:
            outcome = await FalQueue(http).submit(ENDPOINT, BODY, job_id="kj_1")
        asked = {(request.method, request.headers.get("authorization")) for request in proxy.received}

    assert outcome == NotSent(
        "the proxy made no connection: it answered with HTTP status 407, so it wants a user name and a password"
    )
    assert asked == {("CONNECT", None)}


@pytest.mark.parametrize(
    ("endpoint_id", "body", "job_id"),
    [
        (ENDPOINT, {"prompt": "half a \ud83d surrogate"}, "kj_1"),
        (ENDPOINT, {"cfg_scale": float("nan")}, "kj_1"),
        (ENDPOINT, {"elements": {1, 2}}, "kj_1"),
        (ENDPOINT, BODY, "kj_1\r\nX-Fal-No-Retry: 1"),
        ("fal-ai", BODY, "kj_1"),
        ("fal-ai/../models", BODY, "kj_1"),
        ("fal-ai/kling-video?fal_webhook=https://evil.example", BODY, "kj_1"),
    ],
)
async def test_what_cannot_be_written_is_not_sent(endpoint_id: str, body: dict[str, object], job_id: str) -> None:
    pauses: list[float] = []
    async with RawServer(default=answer(200, ACCEPTED)) as server, client(server.url, pauses) as http:
        outcome = await FalQueue(http).submit(endpoint_id, body, job_id=job_id)

    assert isinstance(outcome, NotSent)
    assert (server.received, pauses) == ([], [])


@pytest.mark.parametrize(
    ("retry_after", "pause_seconds"),
    [
        ("7", 7.0),
        (format_datetime(datetime.datetime.fromtimestamp(NOW_SECONDS + 12, datetime.UTC), usegmt=True), 12.0),
        (format_datetime(datetime.datetime.fromtimestamp(NOW_SECONDS - 12, datetime.UTC), usegmt=True), 1.0),
        ("0", 1.0),
        ("soon", 1.0),
        ("-5", 1.0),
        (None, 1.0),
    ],
)
async def test_a_busy_fal_is_asked_again_when_it_says(retry_after: str | None, pause_seconds: float) -> None:
    pauses: list[float] = []
    busy = answer(429, {"detail": "?"}, {} if retry_after is None else {"Retry-After": retry_after})
    async with RawServer(plan=[busy, answer(200, ACCEPTED)]) as server, client(server.url, pauses) as http:
        outcome = await FalQueue(http).submit(ENDPOINT, BODY, job_id="kj_1")

    assert isinstance(outcome, Accepted)
    assert pauses == [pause_seconds]


async def test_cancelling_a_submit_closes_its_connection_and_raises_nothing_else() -> None:
    arrived, left = anyio.Event(), anyio.Event()

    async def note(connection: Connection) -> None:
        await connection.request()
        arrived.set()
        await connection.reader.read()
        left.set()

    async with RawServer(default=note) as server, client(server.url) as http:
        queue = FalQueue(http)

        async def submit() -> None:
            await queue.submit(ENDPOINT, BODY, job_id="kj_1")

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(submit)
                await arrived.wait()
                tasks.cancel_scope.cancel()
            await left.wait()

        assert len(server.complete) == 1
