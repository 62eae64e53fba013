"""Downloads: from allowed hosts only, without a key or a cookie, and bounded."""

from __future__ import annotations

import gzip
import zlib
from base64 import b64encode, encodebytes, urlsafe_b64encode
from datetime import UTC, datetime
from importlib import resources
from typing import TYPE_CHECKING
from urllib.parse import quote

import anyio
import pytest

from kling_mcp import errors
from kling_mcp.fal.http import Deadline
from kling_mcp.fal.media_client import MediaClient
from kling_mcp.media import downloads
from tests.fal.rawserver import RawServer, answer, drip, endless, raw

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.fal.rawserver import Connection

pytestmark = pytest.mark.anyio

VIDEO = b"\x00\x00\x00\x20ftypisom" + b"v" * 200_000
SOON = Deadline(2.0, 0.2, 0.5)


async def read(media: MediaClient, url: str, offset: int = 0, etag: str | None = None) -> tuple[int, bytes]:
    async with media.fetch(url, offset, etag) as fetched:
        return fetched.status, b"".join([chunk async for chunk in fetched.chunks()])


async def test_a_file_is_fetched_with_nothing_that_says_who_asks() -> None:
    whole = answer(200, VIDEO, {"ETag": '"1"', "Set-Cookie": "a=b; Path=/", "Content-Type": "video/mp4"})
    async with RawServer(default=whole) as server, MediaClient([server.host]) as media:
        async with media.fetch(f"{server.url}/a.mp4?sig=1") as fetched:
            chunks = [chunk async for chunk in fetched.chunks()]
            assert (fetched.status, fetched.headers["etag"], fetched.headers["content-type"]) == (
                200,
                '"1"',
                "video/mp4",
            )
        await read(media, f"{server.url}/b.mp4")

        assert b"".join(chunks) == VIDEO
        assert server.received[0].target == "/a.mp4?sig=1"
        for request in server.received:
            assert request.headers.keys() == {"host", "accept", "accept-encoding", "connection", "user-agent"}
            assert request.headers["accept-encoding"] == "identity"


async def test_a_download_goes_on_where_it_stopped_if_the_file_is_the_same() -> None:
    async with RawServer(default=answer(206, b"rest")) as server, MediaClient([server.host]) as media:
        assert await read(media, f"{server.url}/a", 100, '"1"') == (206, b"rest")
        assert await read(media, f"{server.url}/a", 100) == (206, b"rest")

        first, second = server.received
    assert (first.headers["range"], first.headers["if-range"]) == ("bytes=100-", '"1"')
    assert second.headers["range"] == "bytes=100-"
    assert "if-range" not in second.headers


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/a",
        "https://fal.media.evil.example/a",
        "http://fal.media/a",
        "http://169.254.169.254/latest/meta-data",
        "https://user@fal.media/a",
        "file:///etc/passwd",
        "",
        "https://fal.media\\@evil.example/a",
    ],
)
async def test_another_host_is_refused_before_anything_is_sent(url: str) -> None:
    async with MediaClient(["fal.media"]) as media:
        with pytest.raises(errors.InputRefused) as caught:
            await read(media, url)

    assert "KLING_MCP_MEDIA_HOSTS" in caught.value.next_step


async def test_redirects_are_followed_three_times_and_each_must_be_allowed() -> None:
    async with RawServer(default=answer(200, VIDEO)) as server, MediaClient([server.host]) as media:
        hops = [
            answer(302, b"", {"Location": "/b"}),
            answer(307, b"", {"Location": f"{server.url}/c"}),
            answer(308, b"", {"Location": "d"}),
        ]
        server.plan = [*hops]
        assert await read(media, f"{server.url}/a") == (200, VIDEO)
        assert [request.target for request in server.received] == ["/a", "/b", "/c", "/d"]

        server.plan = [*hops, hops[0]]
        with pytest.raises(errors.FalUnreachable, match="more than 3 redirects"):
            await read(media, f"{server.url}/a")


@pytest.mark.parametrize("location", ["http://127.0.0.1:1/x", "https://evil.example/", "", "http://[::1", "\\\\evil"])
async def test_a_redirect_elsewhere_is_refused(location: str) -> None:
    moved = answer(302, b"", {"Location": location})
    async with RawServer(default=moved) as server, MediaClient([server.host]) as media:
        with pytest.raises((errors.InputRefused, errors.FalUnreachable)):
            await read(media, f"{server.url}/a")


INLINE = {
    "base64": b"data:video/mp4;base64," + b64encode(VIDEO),
    "base64 for addresses, without padding": b"DATA:video/mp4;base64,"
    + urlsafe_b64encode(VIDEO + b"\xff\xfe").rstrip(b"="),
    "base64 with line breaks": b"data:;base64," + encodebytes(VIDEO),
    "base64 with escapes": b"data:video/mp4;base64," + quote(b64encode(VIDEO)).encode(),
    "escapes": b"data:video/mp4," + quote(VIDEO).encode(),
}


@pytest.mark.parametrize("name", INLINE)
async def test_a_file_that_is_its_own_address_is_given_without_asking_anybody(name: str) -> None:
    async with MediaClient([]) as media, media.fetch(INLINE[name].decode(), 100, '"1"') as fetched:
        body = b"".join([chunk async for chunk in fetched.chunks()])

    assert body.removesuffix(b"\xff\xfe") == VIDEO
    assert (fetched.status, fetched.headers) == (200, {"content-length": str(len(body))})


async def test_a_file_in_an_address_that_cannot_be_decoded_is_told() -> None:
    async with MediaClient([]) as media:
        with pytest.raises(errors.FalUnreachable, match="cannot be decoded"):
            await read(media, "data:video/mp4;base64,!!!")


PACKED = {
    "gzip": answer(200, gzip.compress(VIDEO), {"Content-Encoding": "gzip", "ETag": '"1"'}),
    "deflate": answer(200, zlib.compress(VIDEO), {"Content-Encoding": "deflate"}),
    "gzip by its name only": answer(200, VIDEO, {"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("name", PACKED)
async def test_a_file_is_unpacked_although_that_was_declined_and_has_no_length_or_tag_then(name: str) -> None:
    async with (
        RawServer(default=PACKED[name]) as server,
        MediaClient([server.host]) as media,
        media.fetch(f"{server.url}/a") as fetched,
    ):
        assert b"".join([chunk async for chunk in fetched.chunks()]) == VIDEO
        assert not {"content-length", "etag", "content-encoding"} & set(fetched.headers)


BROKEN: dict[str, Callable[[Connection], Awaitable[None]]] = {
    "cut short": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"),
    "reset": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc", reset=True),
    "closed": raw(b""),
    "not HTTP": raw(b"hello\r\n\r\n"),
    "compressed": answer(200, b"x", {"Content-Encoding": "br"}),
    "gzip that breaks off": answer(200, gzip.compress(VIDEO)[:-20], {"Content-Encoding": "gzip"}),
    "gzip that is not gzip": answer(200, b"\x1f\x8b" + VIDEO, {"Content-Encoding": "gzip"}),
    "gzip without end": answer(200, gzip.compress(bytes(5_000_000)), {"Content-Encoding": "gzip"}),
    "gzip in a part": answer(206, gzip.compress(VIDEO), {"Content-Encoding": "gzip"}),
    "drops": drip(b"v"),
    "no end": endless(b"HTTP/1.1 200 OK\r\n\r\n", b"v" * 65536),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_download_that_breaks_is_told_as_unreachable_and_paid_for(name: str) -> None:
    async with (
        RawServer(default=BROKEN[name]) as server,
        MediaClient([server.host], deadline=SOON, max_bytes=1_000_000) as media,
    ):
        with anyio.fail_after(10), pytest.raises(errors.FalUnreachable) as caught:
            await read(media, f"{server.url}/a")

    assert caught.value.billed == "yes"


async def test_a_host_that_is_not_there_is_unreachable() -> None:
    async with RawServer() as server:
        pass
    async with MediaClient([server.host]) as media:
        with pytest.raises(errors.FalUnreachable, match="no connection could be made"):
            await read(media, f"{server.url}/a")


async def test_what_the_reader_raises_is_not_mistaken_for_a_broken_download() -> None:
    async with RawServer(default=answer(200, VIDEO)) as server, MediaClient([server.host]) as media:
        with pytest.raises(TimeoutError, match="the disk is slow"):
            async with media.fetch(f"{server.url}/a"):
                raise TimeoutError("the disk is slow")


async def test_a_download_that_is_read_after_its_end_is_told_as_unreachable() -> None:
    async with RawServer(default=answer(200, VIDEO)) as server, MediaClient([server.host]) as media:
        async with media.fetch(f"{server.url}/a") as fetched:
            pass
        with pytest.raises(errors.FalUnreachable, match="could not be read"):
            _ = [chunk async for chunk in fetched.chunks()]


async def test_a_video_in_the_place_of_its_address_is_saved_as_a_file(tmp_path: Path) -> None:
    video = resources.files("kling_mcp.simulator").joinpath("sample.mp4").read_bytes()
    url = f"data:video/mp4;base64,{b64encode(video).decode()}"
    name = downloads.video_name(datetime(2026, 11, 25, tzinfo=UTC), "o3-standard", "a fox", "kj_1")
    async with MediaClient([]) as media:
        saved = await downloads.save(media, url, tmp_path, name)

    assert saved.read_bytes() == video
