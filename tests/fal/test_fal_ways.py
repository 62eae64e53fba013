"""Everything that goes wrong before the first byte of a request means that nothing was sent, and is told apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from kling_mcp.fal.http import Deadline, Deadlines
from kling_mcp.fal.queue import Accepted, FalQueue, NotSent, Unknown
from tests.fal.rawserver import RawServer, answer, raw, silence
from tests.fal.support import ENDPOINT, SOON, client

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from kling_mcp.fal.queue import SubmitOutcome
    from tests.fal.rawserver import Connection

pytestmark = pytest.mark.anyio

BODY = {"prompt": "a fox"}
ACCEPTED = {"request_id": "7d1f7f9e"}
TUNNEL = b"HTTP/1.1 200 Connection established\r\n\r\n"
PATIENT = Deadlines(submit=Deadline(0.1, 30, 60))
"""Time for an answer, and little for a connection."""


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


async def submit(url: str, deadlines: Deadlines | None = None) -> SubmitOutcome:
    async with client(url, [], deadlines=deadlines) as http:
        return await FalQueue(http).submit(ENDPOINT, BODY, job_id="kj_1")


def socks(*steps: tuple[int, bytes], then: Callable[[Connection], Awaitable[None]] | None = None):
    """A SOCKS proxy that reads so many bytes and answers, step by step, and goes on as *then*."""

    async def script(connection: Connection) -> None:
        greeting, connection.peeked = connection.peeked, b""
        for count, reply in steps:
            await connection.reader.readexactly(count - len(greeting))
            greeting = b""
            await connection.write(reply)
        if then is None:
            connection.close()
        else:
            await then(connection)

    return script


GREETED = (3, b"\x05\x00")
ASKED = len(b"\x05\x01\x00\x03\x0dqueue.example\x00\x50")

PROXIES = {
    "closes": (raw(b""), "gave no answer"),
    "resets": (raw(b"", reset=True), "gave no answer"),
    "breaks off": (raw(b"HTTP/1.1 200 Conn"), "gave no answer"),
    "garbles": (raw(b"SSH-2.0-OpenSSH_9.6\r\n"), "gave no answer"),
    "refuses": (answer(403, b"<html>"), "it answered with HTTP status 403"),
    "has no way there": (answer(502), "it answered with HTTP status 502"),
    "wants a password": (answer(407), "it wants a user name and a password"),
    "stalls": (silence, "did not answer in time"),
    "speaks no TLS behind the tunnel": (raw(TUNNEL + b"HTTP/1.1 400 Bad Request\r\n\r\n"), "TLS"),
    "closes behind the tunnel": (raw(TUNNEL), "TLS"),
}


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "all_proxy"])
@pytest.mark.parametrize("name", PROXIES)
async def test_a_proxy_that_makes_no_tunnel_means_not_sent(
    name: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, says = PROXIES[name]
    async with RawServer(default=script) as proxy:
        monkeypatch.setenv(variable, proxy.url)
        with anyio.fail_after(20):
            outcome = await submit("https://queue.example", PATIENT if name == "stalls" else None)

        assert {request.method for request in proxy.received} == {"CONNECT"}
        assert all("authorization" not in request.headers for request in proxy.received)
    assert isinstance(outcome, NotSent)
    assert says in outcome.reason


SOCKS = {
    "closes": socks(),
    "speaks something else": socks((3, b"HTTP/1.1 400 Bad Request\r\n\r\n")),
    "wants a password": socks((3, b"\x05\xff")),
    "cannot reach the host": socks(GREETED, (ASKED, b"\x05\x04\x00\x01\x00\x00\x00\x00\x00\x00")),
    "closes when asked": socks(GREETED, (ASKED, b"")),
    "stalls": socks(GREETED, then=silence),
}


@pytest.mark.parametrize("name", SOCKS)
async def test_a_socks_proxy_that_makes_no_connection_means_not_sent(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with RawServer(default=SOCKS[name]) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"socks5://{proxy.host}")
        with anyio.fail_after(20):
            outcome = await submit("http://queue.example", PATIENT if name == "stalls" else None)

        assert proxy.received == []
        assert proxy.connections
    assert isinstance(outcome, NotSent)
    assert "proxy" in outcome.reason


async def test_a_socks_proxy_that_works_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    connected = (ASKED, b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50")
    async with RawServer(default=socks(GREETED, connected, then=answer(200, ACCEPTED))) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"socks5h://{proxy.host}")
        outcome = await submit("http://queue.example")

        assert [request.json() for request in proxy.complete] == [BODY]
    assert isinstance(outcome, Accepted)


SETTINGS = {
    "no such certificates": ("SSL_CERT_FILE", "{folder}/none.pem", "the certificates that SSL_CERT_FILE names"),
    "broken certificates": ("SSL_CERT_FILE", "{folder}/broken.pem", "the certificates that SSL_CERT_FILE names"),
    "empty certificates": ("SSL_CERT_FILE", "{folder}/empty.pem", "the certificates that SSL_CERT_FILE names"),
    "a folder of certificates": ("SSL_CERT_FILE", "{folder}", "the certificates that SSL_CERT_FILE names"),
    "an unknown kind of proxy": ("ALL_PROXY", "socks4://127.0.0.1:1", "ALL_PROXY names no proxy"),
    "a proxy that is no address": ("HTTPS_PROXY", "http://[::1", "HTTPS_PROXY names no proxy"),
    "a port that is not a number": ("https_proxy", "http://proxy:port", "https_proxy names no proxy"),
    "networks that are not proxied": ("NO_PROXY", "::1,fe80::/10,10.0.0.0/8", "NO_PROXY has a part"),
    "a log of keys that cannot be written": ("SSLKEYLOGFILE", "{folder}/none/keys", "SSLKEYLOGFILE names"),
}


@pytest.mark.parametrize("name", SETTINGS)
async def test_a_setting_that_no_connection_can_be_made_with_means_not_sent_until_it_is_right(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable, value, says = SETTINGS[name]
    (tmp_path / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    (tmp_path / "empty.pem").touch()
    async with RawServer(default=answer(200, ACCEPTED)) as server, client(server.url, []) as http:
        await http.aclose()
        queue = FalQueue(http)
        monkeypatch.setenv(variable, value.format(folder=tmp_path))
        refused = await queue.submit(ENDPOINT, BODY, job_id="kj_1")
        monkeypatch.delenv(variable)
        accepted = await queue.submit(ENDPOINT, BODY, job_id="kj_1")

        assert len(server.received) == 1
    assert isinstance(refused, NotSent)
    assert says in refused.reason
    assert isinstance(accepted, Accepted)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("https://no-such-host.invalid", "the name of no-such-host.invalid:443 was not found (DNS)"),
        ("http://127.0.0.1:1", "127.0.0.1:1 refused it"),
    ],
)
async def test_no_connection_is_told_with_its_cause(url: str, says: str) -> None:
    assert await submit(url) == NotSent(f"no connection could be made: {says}")


async def test_a_proxy_without_a_name_or_a_listener_is_told_as_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[SubmitOutcome] = []
    for proxy in ("http://no-such-proxy.invalid:3128", "http://127.0.0.1:1", "socks5://127.0.0.1:1"):
        monkeypatch.setenv("ALL_PROXY", proxy)
        told.append(await submit("https://queue.example"))

    assert told == [
        NotSent("no connection could be made: the name of the proxy at no-such-proxy.invalid:3128 was not found (DNS)"),
        NotSent("no connection could be made: the proxy at 127.0.0.1:1 refused it"),
        NotSent("no connection could be made: the proxy at 127.0.0.1:1 refused it"),
    ]


async def test_a_proxy_that_is_itself_asked_over_tls_and_speaks_none_is_told_as_the_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with RawServer(default=raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("http:", "https:"))
        outcome = await submit("https://queue.example")

    assert outcome == NotSent(
        f"no connection could be made: the encryption (TLS) of the one to the proxy at {proxy.host} failed"
    )


async def test_a_host_that_speaks_no_tls_means_not_sent() -> None:
    async with RawServer(default=raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server:
        outcome = await submit(server.url.replace("http:", "https:"))

    assert isinstance(outcome, NotSent)


FORWARDED = {
    "closes": raw(b""),
    "garbles": raw(b"no\r\n"),
    "stalls": silence,
    "answers for fal": answer(502, b"<html>"),
}


@pytest.mark.parametrize("name", FORWARDED)
async def test_a_proxy_that_was_given_the_request_itself_may_have_passed_it_on(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with RawServer(default=FORWARDED[name]) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        outcome = await submit("http://queue.example", SOON if name == "stalls" else None)

        assert len(proxy.complete) == 1
    assert isinstance(outcome, Unknown)
