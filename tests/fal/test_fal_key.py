"""Where the key goes, and that it does not come back."""

from __future__ import annotations

import logging
from base64 import b64encode

import anyio
import pytest

from kling_mcp.fal.http import Deadline, Deadlines, FalHttp, TransportError
from kling_mcp.fal.queue import Completed, FalQueue, Finished
from kling_mcp.settings import FalHosts, Secret
from tests.conftest import CANARY_KEY
from tests.fal.rawserver import RawServer, answer, silence
from tests.fal.support import ENDPOINT, client, receipt

pytestmark = pytest.mark.anyio

SECONDS = Deadline(5, 5, 5)


@pytest.mark.parametrize(
    ("path", "authenticated"),
    [
        ("/queue/fal-ai/kling-video", True),
        ("/rest/storage/auth/token?storage_type=fal-cdn-v3", True),
        ("/api/v1/models", True),
        ("/api/v10/models", False),
        ("/api/models", False),
        ("/queue", False),
        ("/", False),
        ("/media/files/upload", False),
        ("/queue/%2e%2e/media", False),
    ],
)
async def test_the_key_is_sent_below_the_three_configured_addresses_only(path: str, authenticated: bool) -> None:
    async with RawServer(default=answer(200, {})) as server, client(server.url) as http:
        await http.request("GET", server.url + path, deadline=SECONDS)

        assert server.received[0].headers.get("authorization") == (f"Key {CANARY_KEY}" if authenticated else None)


async def test_the_key_is_not_sent_to_another_port_of_the_same_host() -> None:
    async with RawServer() as fal, RawServer(default=answer(200, {})) as other, client(fal.url) as http:
        await http.request("GET", f"{other.url}/queue/fal-ai/kling-video", deadline=SECONDS)

        assert "authorization" not in other.received[0].headers


async def test_the_key_is_not_sent_where_a_call_does_not_want_it() -> None:
    async with RawServer(default=answer(200, {})) as server, client(server.url) as http:
        await http.request("GET", f"{server.url}/queue/x", deadline=SECONDS, authenticated=False)

        assert "authorization" not in server.received[0].headers


async def test_the_key_is_not_sent_in_the_clear_even_to_a_configured_address() -> None:
    hosts = FalHosts(queue="http://queue.example", rest="http://queue.example", api="http://queue.example")

    assert FalHttp(hosts, Secret(CANARY_KEY))._authorization("http://queue.example/a") == {}


async def test_a_redirect_is_not_followed_with_the_key_or_without() -> None:
    async with RawServer(default=answer(200, {})) as elsewhere:
        moved = answer(307, b"", {"Location": f"{elsewhere.url}/queue/x"})
        async with RawServer(default=moved) as server, client(server.url) as http:
            found = await http.request("GET", f"{server.url}/queue/x", deadline=SECONDS)

        assert found.status == 307
        assert elsewhere.received == []


async def test_a_cookie_is_not_kept() -> None:
    given = answer(200, {}, {"Set-Cookie": "session=1; Path=/"})
    async with RawServer(default=given) as server, client(server.url) as http:
        for _ in range(2):
            await http.request("GET", f"{server.url}/queue/x", deadline=SECONDS)

        assert [request.headers.get("cookie") for request in server.received] == [None, None]


async def test_a_key_that_is_echoed_is_masked_wherever_it_stands() -> None:
    identity, secret = CANARY_KEY.split(":")
    echoes = f"{CANARY_KEY} {secret} {b64encode(CANARY_KEY.encode()).decode()} {identity}"
    body = {
        "status": "COMPLETED",
        "error": echoes,
        "logs": [{"message": echoes}],
        "video": {"url": "https://v3.fal.media/a.mp4", "file_name": echoes},
    }
    async with RawServer(default=answer(200, body, {"Echo": echoes})) as server, client(server.url) as http:
        raw = await http.request("GET", f"{server.url}/queue/x", deadline=SECONDS)
        status = await FalQueue(http).status(ENDPOINT, receipt(server.url))
        result = await FalQueue(http).result(ENDPOINT, receipt(server.url))

    assert isinstance(status, Completed)
    assert isinstance(result, Finished)
    for shown in (repr(raw), repr(status), repr(result)):
        assert "[key]" in shown
        assert CANARY_KEY not in shown
        assert secret not in shown
        assert b64encode(CANARY_KEY.encode()).decode() not in shown


async def test_a_short_key_is_not_cut_out_of_answers() -> None:
    async with RawServer(default=answer(200, {"a": "kling"})) as server, client(server.url, key="k") as http:
        found = await http.request("GET", f"{server.url}/queue/x", deadline=SECONDS)

    assert found.json() == {"a": "kling"}


async def test_nothing_that_is_logged_or_raised_shows_the_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with RawServer(default=answer(200, {})) as server, client(server.url) as http:
        await http.request("GET", f"{server.url}/queue/x", deadline=SECONDS)
    with pytest.raises(TransportError) as caught:
        async with client(server.url) as http:
            await http.request("GET", f"{server.url}/queue/x", deadline=SECONDS)

    assert CANARY_KEY not in caplog.text
    assert CANARY_KEY not in f"{caught.value!r} {caught.value} {http!r} {vars(http)}"
    assert "HTTP Request" not in caplog.text


async def test_an_address_of_another_protocol_is_not_sent_to() -> None:
    async with client("http://127.0.0.1:1") as http:
        with pytest.raises(TransportError) as caught:
            await http.request("GET", "ftp://127.0.0.1/x", deadline=SECONDS)

    assert (caught.value.may_have_arrived, caught.value.temporary) == (False, False)


def test_each_kind_of_call_has_the_deadline_that_was_measured_for_it() -> None:
    deadlines = Deadlines()

    assert deadlines == Deadlines(
        submit=Deadline(5, 45, 60),
        status=Deadline(5, 15, 20),
        result=Deadline(5, 30, 60),
        cancel=Deadline(5, 10, 15),
        lookup=Deadline(5, 20, 30),
        upload=Deadline(5, 60, 30),
    )
    assert deadlines.upload_of(10_000_000) == Deadline(5, 60, 130)


async def test_a_closed_client_can_be_used_again() -> None:
    async with RawServer(default=answer(200, {})) as server:
        http = client(server.url)
        for _ in range(2):
            await http.request("GET", f"{server.url}/queue/x", deadline=SECONDS)
            await http.aclose()

    assert server.connections == 2


async def test_calls_that_wait_for_a_free_connection_too_long_were_not_sent() -> None:
    hurried = Deadline(0.1, 5, 5)
    interrupted: list[TransportError] = []
    async with RawServer(default=silence) as server, client(server.url) as http:

        async def call() -> None:
            try:
                await http.request("GET", f"{server.url}/queue/x", deadline=hurried)
            except TransportError as error:
                interrupted.append(error)
                tasks.cancel_scope.cancel()

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                for _ in range(17):
                    tasks.start_soon(call)

    assert [(error.may_have_arrived, error.temporary) for error in interrupted] == [(False, True)]
