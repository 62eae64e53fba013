"""Uploads by token, by signed address, and not at all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from kling_mcp import errors
from kling_mcp.fal.storage import FalStorage
from tests.conftest import CANARY_KEY
from tests.fal.rawserver import RawServer, answer, raw
from tests.fal.support import NOW_SECONDS, a_file, client

if TYPE_CHECKING:
    from kling_mcp.fal.http import FalHttp

pytestmark = pytest.mark.anyio

PNG = b"\x89PNG\r\n\x1a\n" + b"\x00" * 5000
TOKEN_PATH = "/rest/storage/auth/token?storage_type=fal-cdn-v3"
INITIATE_PATH = "/rest/storage/upload/initiate?storage_type=gcs"


def token(server: RawServer, **changes: object) -> dict[str, object]:
    return {
        "token": "upload-token",
        "token_type": "Bearer",
        "base_url": f"{server.url}/media",
        "expires_at": "2026-11-21T11:00:00Z",
        **changes,
    }


def stored(server: RawServer) -> dict[str, object]:
    return {"access_url": f"{server.url}/media/files/a/frame.png"}


def initiated(server: RawServer) -> dict[str, object]:
    return {"upload_url": f"{server.url}/media/put/1?sig=s", "file_url": f"{server.url}/media/files/b/frame.png"}


def storage(http: FalHttp, server: RawServer) -> FalStorage:
    return FalStorage(http, (server.host,), now=lambda: NOW_SECONDS)


def targets(server: RawServer) -> list[str]:
    return [f"{request.method} {request.target}" for request in server.received]


async def test_bytes_go_up_with_the_token_and_never_with_the_key() -> None:
    async with RawServer() as server, client(server.url) as http:
        server.plan = [answer(200, token(server)), answer(200, stored(server)), answer(200, stored(server))]
        uploads = storage(http, server)
        first = await uploads.upload(a_file(PNG, "image/png", "frame.png"), lifetime_seconds=3600)
        second = await uploads.upload(a_file(PNG, "image/png", "frame.png"))
        asked, sent, again = server.received

    assert first == second == stored(server)["access_url"]
    assert (asked.method, asked.target, asked.json()) == ("POST", TOKEN_PATH, {})
    assert asked.headers["authorization"] == f"Key {CANARY_KEY}"
    assert (sent.method, sent.target, sent.body) == ("POST", "/media/files/upload", PNG)
    assert sent.headers["authorization"] == "Bearer upload-token"
    assert sent.headers["content-type"] == "image/png"
    assert sent.headers["x-fal-file-name"] == "frame.png"
    for name in ("x-fal-object-lifecycle", "x-fal-object-lifecycle-preference"):
        assert json.loads(sent.headers[name]) == {"expiration_duration_seconds": 3600}
        assert json.loads(again.headers[name]) == {"expiration_duration_seconds": 604800}


async def test_the_key_stays_away_from_an_upload_address_below_a_configured_one() -> None:
    async with RawServer() as server, client(server.url) as http:
        below = f"{server.url}/rest/cdn"
        server.plan = [
            answer(200, token(server, base_url=below)),
            answer(404, b""),
            answer(200, {"upload_url": f"{below}/put", "file_url": f"{below}/file"}),
            answer(200),
        ]
        await storage(http, server).upload(a_file(PNG, "image/png", "frame.png"))

        keys = [request.headers.get("authorization") for request in server.received]
    assert keys == [f"Key {CANARY_KEY}", "Bearer upload-token", f"Key {CANARY_KEY}", None]


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("Grüße aus Łódź.png", "Gr_e_aus_d_.png"),
        ("../../etc/passwd", "etc_passwd"),
        ("a\r\nX-Evil: 1", "a_X-Evil_1"),
        ("漢字", "file"),
        ("x" * 200 + ".jpg", "x" * 76 + ".jpg"),
    ],
)
async def test_a_file_name_is_made_fit_for_a_header(given: str, sent: str) -> None:
    async with RawServer() as server, client(server.url) as http:
        server.plan = [answer(200, token(server)), answer(200, stored(server))]
        await storage(http, server).upload(a_file(PNG, "image/png\r\nX-Evil: 1", given))

        assert server.received[1].headers["x-fal-file-name"] == sent
        assert server.received[1].headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize("expires_at", ["2026-11-21T10:00:30Z", "2026-11-21T10:00:30", "soon", None])
async def test_a_token_that_is_about_to_end_is_used_once(expires_at: str | None) -> None:
    async with RawServer() as server, client(server.url) as http:
        once = [answer(200, token(server, expires_at=expires_at)), answer(200, stored(server))]
        server.plan = once + once
        uploads = storage(http, server)
        for _ in range(2):
            await uploads.upload(a_file(PNG, "image/png", "frame.png"))

        assert targets(server) == [f"POST {TOKEN_PATH}", "POST /media/files/upload"] * 2


async def test_trouble_on_the_way_is_overcome_by_repeating() -> None:
    pauses: list[float] = []
    async with RawServer() as server, client(server.url, pauses) as http:
        server.plan = [
            answer(503, b"nginx"),
            raw(b"", reset=True),
            answer(200, token(server)),
            answer(429, b"", {"Retry-After": "9"}),
            raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{"),
            answer(200, stored(server)),
        ]
        assert await storage(http, server).upload(a_file(PNG, "image/png", "frame.png")) == stored(server)["access_url"]

    assert pauses == [1.0, 2.0, 9.0, 2.0]


BAD_TOKENS: dict[str, dict[str, object]] = {
    "a foreign host": {"base_url": "https://evil.example"},
    "a host that ends alike": {"base_url": "https://evilfal.media"},
    "no host": {"base_url": None},
    "plain http": {"base_url": "http://v3.fal.media"},
    "a token with a line break": {"token": "a\r\nX: 1"},
    "no token": {"token": ""},
    "a kind with a space in it": {"token_type": "Bearer x"},
}


@pytest.mark.parametrize("name", BAD_TOKENS)
async def test_a_token_answer_that_is_not_in_order_leads_to_the_other_way(name: str) -> None:
    async with RawServer() as server, client(server.url) as http:
        server.plan = [
            answer(200, token(server, **BAD_TOKENS[name])),
            answer(200, initiated(server)),
            answer(200),
        ]
        assert (
            await storage(http, server).upload(a_file(PNG, "image/png", "frame.png")) == initiated(server)["file_url"]
        )

        _, asked, sent = server.received
    assert (asked.method, asked.target) == ("POST", INITIATE_PATH)
    assert asked.json() == {"file_name": "frame.png", "content_type": "image/png"}
    assert asked.headers["authorization"] == f"Key {CANARY_KEY}"
    assert "x-fal-object-lifecycle-preference" in asked.headers
    assert (sent.method, sent.target, sent.body) == ("PUT", "/media/put/1?sig=s", PNG)
    assert "authorization" not in sent.headers
    assert sent.headers["content-type"] == "image/png"


@pytest.mark.parametrize("status", [400, 401, 404, 413, 500])
async def test_an_upload_host_that_refuses_leads_to_the_other_way_and_to_a_new_token(status: int) -> None:
    refusals = 3 if status == 500 else 1
    async with RawServer() as server, client(server.url, []) as http:
        way = [answer(200, token(server)), *[answer(status, b"")] * refusals, answer(200, initiated(server)), answer()]
        server.plan = [*way, *way]
        uploads = storage(http, server)
        for _ in range(2):
            assert await uploads.upload(a_file(PNG, "image/png", "frame.png")) == initiated(server)["file_url"]

        assert targets(server).count(f"POST {TOKEN_PATH}") == 2


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, {"detail": "?"}, errors.FalRejected),
        (403, {"detail": "User is locked. Reason: Exhausted balance"}, errors.AccountLocked),
    ],
)
async def test_a_refused_key_ends_it_at_once(status: int, body: object, kind: type[errors.KlingError]) -> None:
    async with RawServer(default=answer(status, body)) as server, client(server.url, []) as http:
        with pytest.raises(kind) as caught:
            await storage(http, server).upload(a_file(PNG, "image/png", "frame.png"))

        assert targets(server) == [f"POST {TOKEN_PATH}"]
    assert caught.value.billed == "no"


async def test_a_key_that_is_refused_only_by_the_second_way_is_told_as_refused() -> None:
    async with RawServer() as server, client(server.url, []) as http:
        server.plan = [answer(200, b"<html>"), answer(401, {"detail": "?"})]
        with pytest.raises(errors.FalRejected):
            await storage(http, server).upload(a_file(PNG, "image/png", "frame.png"))


@pytest.mark.parametrize(
    "body",
    [
        {"upload_url": "https://evil.example/put", "file_url": "https://v3.fal.media/a"},
        {"upload_url": "https://v3.fal.media/put", "file_url": "https://evil.example/a"},
        {},
        [],
        "words",
    ],
    ids=["foreign upload", "foreign file", "empty", "a list", "words"],
)
async def test_bytes_never_go_to_a_host_that_is_not_fals(body: object) -> None:
    async with RawServer() as server, client(server.url, []) as http:
        server.plan = [answer(404, b""), answer(200, body)]
        with pytest.raises(errors.FalUnreachable) as caught:
            await storage(http, server).upload(a_file(PNG, "image/png", "frame.png"))

        assert len(server.received) == 2
    assert caught.value.billed == "no"


BAD_BEGINNINGS: dict[str, dict[str, object]] = {
    "no upload id": {"uploadId": None},
    "an upload id that leads elsewhere": {"uploadId": "../../../other"},
    "a foreign host": {"access_url": "https://evil.example/a"},
}


@pytest.mark.parametrize("name", BAD_BEGINNINGS)
async def test_parts_never_go_where_they_were_not_meant_to(name: str) -> None:
    async with RawServer() as server, client(server.url, []) as http:
        begun = {**stored(server), "uploadId": "u1", **BAD_BEGINNINGS[name]}
        server.plan = [
            answer(200, token(server)),
            answer(200, begun),
            answer(200, initiated(server)),
            answer(200, b"", {"ETag": '"1"'}),
            answer(200),
        ]
        uploads = FalStorage(http, (server.host,), now=lambda: NOW_SECONDS, in_parts_above=10)
        assert await uploads.upload(a_file(PNG, "image/png", "a.png")) == initiated(server)["file_url"]

        _, begin, asked, part, complete = server.received
    assert (begin.target, begin.body) == ("/media/files/upload/multipart", b"")
    assert asked.target == "/rest/storage/upload/initiate-multipart?storage_type=fal-cdn-v3"
    assert (part.method, part.target, part.body) == ("PUT", "/media/put/1/1?sig=s", PNG)
    assert (complete.method, complete.target) == ("POST", "/media/put/1/complete?sig=s")
    assert complete.json() == {"parts": [{"partNumber": 1, "etag": '"1"'}]}
    assert "authorization" not in {*part.headers, *complete.headers}


async def test_when_nothing_answers_the_picture_is_said_not_to_be_uploaded() -> None:
    async with RawServer() as server:
        pass
    async with client(server.url, []) as http:
        with pytest.raises(errors.FalUnreachable, match="could not be uploaded"):
            await storage(http, server).upload(a_file(PNG, "image/png", "frame.png"))


async def test_a_setting_that_is_in_the_way_of_every_connection_is_told_without_a_way_around(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with RawServer() as server, client(server.url, []) as http:
        await http.aclose()
        monkeypatch.setenv("SSL_CERT_FILE", "/no/such/file.pem")
        with pytest.raises(errors.FalUnreachable) as told:
            await storage(http, server).upload(a_file(b"picture", "image/png", "picture.png"))

    assert "SSL_CERT_FILE" in told.value.what
    assert told.value.next_step == "Once that is put right, the same call works."
