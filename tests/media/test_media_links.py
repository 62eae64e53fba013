"""Recordings behind links: their length from as little of them as tells it, and nothing where it cannot be told."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from kling_mcp.errors import FalUnreachable, InputRefused
from kling_mcp.fal.public_files import Excerpt
from kling_mcp.media.limits import MediaLimits
from kling_mcp.media.links import Linked, looked_into
from kling_mcp.media.recordings import check_link
from tests.media.recorded import Clip, made
from tests.media.videos import Video, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio

URL = "https://example.com/clip"


@dataclass
class Web:
    """Files by their address, as servers give them in part; `read_bytes` is all that was read."""

    files: dict[str, bytes]
    ranges: bool = True
    read_bytes: int = 0
    asked: list[tuple[str, int, int]] = field(default_factory=list)

    async def read(self, url: str, offset: int, count: int) -> Excerpt:
        self.asked.append((url, offset, count))
        data = self.files.get(url)
        if data is None:
            raise FalUnreachable("It does not answer.", "Ask again.")
        if data.startswith(b"moved to "):
            return Excerpt(302, {"location": data[9:].decode()}, b"")
        if not self.ranges:
            return Excerpt(200, {"content-length": str(len(data))}, data[:count])
        body = data[offset : offset + count]
        self.read_bytes += len(body)
        where = f"bytes {offset}-{offset + len(body) - 1}/{len(data)}"
        return Excerpt(206, {"content-range": where}, body)


async def linked(data: bytes, web: Web | None = None, max_bytes: int = 1 << 22) -> Linked | None:
    return await looked_into(web or Web({URL: data}), URL, max_bytes=max_bytes)


def padded(data: bytes, size: int = 3_000_000) -> bytes:
    """An MP4 whose samples are followed by as much more before its index."""
    at = data.index(b"mdat") - 4
    end = at + int.from_bytes(data[at : at + 4])
    return data[:at] + (end - at + size).to_bytes(4) + data[at + 4 : end] + bytes(size) + data[end:]


@pytest.mark.parametrize("kind", ["mp4", "mov", "webm", "mkv", "mp3", "wav", "m4a", "ogg", "flac"])
async def test_the_head_of_every_kind_tells_its_length(kind: str) -> None:
    title = {"title": "x" * 3000} if kind in {"mp3", "flac"} else {}
    found = await linked(made(Clip(kind, seconds=6, metadata=title)))

    assert found is not None
    assert found.form == kind
    assert abs(found.measured.seconds - 6) < Decimal("0.1")
    if kind in {"mp4", "mov", "webm", "mkv"}:
        assert (found.measured.width, found.measured.height) == (64, 48)


async def test_an_index_at_the_end_is_found_without_what_lies_before_it() -> None:
    data = padded(made(Clip("mp4", seconds=6)))
    web = Web({URL: data})
    found = await linked(data, web)

    assert data.index(b"moov") > 3_000_000
    assert found is not None
    assert found.measured.seconds == 6
    assert found.size == len(data)
    assert web.read_bytes < 200_000
    assert len(web.asked) <= 3


UNKNOWN: dict[str, Callable[[], tuple[bytes, Web | None]]] = {
    "a page": lambda: (b"<!doctype html>" + bytes(99), None),
    "nothing": lambda: (b"", None),
    "no answer": lambda: (b"", Web({})),
    "AAC that says no length": lambda: (made(Clip("aac")), None),
    "an index at the end of what is not given in part": lambda: (
        b"",
        Web({URL: padded(made(Clip("mp4")))}, ranges=False),
    ),
    "fragments": lambda: (made(Clip("mp4", options={"movflags": "frag_keyframe+empty_moov"})), None),
    "half a head": lambda: (made(Clip("mp4"))[:60], None),
}


@pytest.mark.parametrize("name", UNKNOWN)
async def test_where_it_cannot_be_told_nobody_guesses(name: str) -> None:
    data, web = UNKNOWN[name]()

    assert await linked(data, web) is None


async def test_a_server_without_ranges_gives_the_head_all_the_same(tmp_path: Path) -> None:
    data = padded(write(Video(), tmp_path).read_bytes())
    found = await linked(data, Web({URL: data}, ranges=False))

    assert found is not None
    assert found.measured.seconds == 2


async def test_no_more_is_read_than_is_allowed() -> None:
    data = padded(made(Clip("mp4")))
    web = Web({URL: data})

    assert await linked(data, web, max_bytes=66_000) is None
    assert web.read_bytes <= 66_000


async def test_redirects_are_followed_to_public_addresses_only() -> None:
    data = made(Clip("mp4"))
    hops = {
        URL: b"moved to /b",
        "https://example.com/b": b"moved to https://cdn.example.org/c",
        "https://cdn.example.org/c": data,
    }
    found = await linked(b"", Web(hops))
    assert found is not None

    for place in (
        "http://example.com/a",
        "https://localhost/a",
        "https://127.0.0.1/a",
        "https://db.internal/a",
        "",
        URL,
    ):
        web = Web(
            {URL: b"moved to " + place.encode(), place: data}
            | ({} if place != URL else {URL: b"moved to " + URL.encode()})
        )
        assert await linked(b"", web) is None
        assert {url for url, *_ in web.asked} == {URL}
        assert len(web.asked) <= 4


async def test_a_damaged_head_is_no_more_than_unknown() -> None:
    chance = random.Random(3)
    for kind in ("mp4", "webm", "mp3", "wav", "ogg", "flac"):
        data = made(Clip(kind, seconds=0.3))
        for _ in range(80):
            damaged = bytearray(data)
            for _ in range(chance.randint(1, 4)):
                near = chance.choice([chance.randrange(200), -1 - chance.randrange(900)])
                damaged[near % len(data)] = chance.choice([0, 1, 0x7F, 0xFF, chance.randrange(256)])
            await linked(bytes(damaged))


async def test_what_is_behind_a_link_is_compared_with_what_the_model_takes() -> None:
    found = await linked(made(Clip("webm", seconds=2)))
    assert found is not None
    limits = MediaLimits(formats=("mp4", "mov"), min_seconds=Decimal(3), min_width=720)

    with pytest.raises(InputRefused) as refused:
        check_link(found, argument="video", kind="video", limits=limits, field="video")
    assert len(refused.value.faults) == 3
    assert "What is at the address in video is webm" in refused.value.what
