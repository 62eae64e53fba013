"""
How long a recording on the web is, from as little of it as tells that: its price may depend on it.

fal.ai fetches what is behind a link itself, so nothing is downloaded here but the head, and the index where that is at
the end. Whatever goes wrong on the way, the answer is that nobody knows, and the longest is held.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urljoin

from anyio import move_on_after

from kling_mcp.errors import KlingError
from kling_mcp.media import heads
from kling_mcp.media.addresses import check_url
from kling_mcp.media.measured import Unreadable
from kling_mcp.media.recording_probe import HEAD_BYTES, format_of, tag_size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kling_mcp.media.measured import Measured
    from kling_mcp.media.recording_probe import Format

__all__ = ["Excerpts", "Linked", "looked_into"]

_MAX_BYTES: Final = 4 * 1024 * 1024
_MAX_REQUESTS: Final = 12
_MAX_REDIRECTS: Final = 3
_WITHIN_SECONDS: Final = 8.0
_AT_ONCE_BYTES: Final = 64 * 1024
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_RANGE: Final = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18})")
_UNKNOWN_SIZE: Final = 1 << 50
_SIZE_COUNTS: Final = frozenset({"mp3", "wav", "ogg"})


class Excerpt(Protocol):
    """An answer: status, lower-case headers, and the bytes."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, their names in lower case."""
        ...

    @property
    def body(self) -> bytes:
        """The bytes."""
        ...


class Excerpts(Protocol):
    """A client without a key that asks public addresses only, follows nothing, and brings no more than is asked for."""

    async def read(self, url: str, offset: int, count: int, /) -> Excerpt:
        """
        At most *count* bytes of *url* from *offset* on.

        Raises:
            FalUnreachable: It may not be asked, or does not answer.
        """
        ...


@dataclass(frozen=True, slots=True)
class Linked:
    """What is behind a link: its form, its bytes where its server says, and what its head says."""

    form: Format
    size: int | None
    measured: Measured


async def looked_into(
    files: Excerpts,
    url: str,
    *,
    check: Callable[[str], str] = check_url,
    within_seconds: float = _WITHIN_SECONDS,
    max_bytes: int = _MAX_BYTES,
) -> Linked | None:
    """
    What is known of the recording at *url*; None where its length cannot be told.

    Args:
        files: The client.
        url: An address that has been checked.
        check: Judges where a redirect leads: gives the address, or refuses it.
        within_seconds: How long all of it may take.
        max_bytes: How much of the file may be read.
    """
    with move_on_after(within_seconds):
        try:
            return await _Look(files, url, check, max_bytes).run()
        except (KlingError, Unreadable, _Unknown):
            return None
    return None


class _Unknown(Exception):
    """It cannot be told."""


class _Missing(Exception):
    """Bytes that are needed and have not been read."""

    def __init__(self, offset: int, count: int) -> None:
        super().__init__()
        self.offset = offset
        self.count = count


class _Parts:
    """What has been read of the file, as a file."""

    def __init__(self) -> None:
        self.size = _UNKNOWN_SIZE
        self._parts: list[tuple[int, bytes]] = []

    def add(self, offset: int, data: bytes) -> None:
        """Take what stands from *offset* on."""
        self._parts.append((offset, data))

    def read(self, offset: int, count: int) -> bytes:
        """The bytes, if they are there; else `_Missing`."""
        count = min(count, self.size - offset)
        if count <= 0:
            return b""
        for start, data in self._parts:
            if start <= offset and offset + count <= start + len(data):
                return data[offset - start : offset - start + count]
        raise _Missing(offset, count)


class _Look:
    """One look into a file, by as few requests as it takes."""

    def __init__(self, files: Excerpts, url: str, check: Callable[[str], str], max_bytes: int) -> None:
        self._files = files
        self._url = url
        self._check = check
        self._left = max_bytes
        self._redirects = 0
        self._parts = _Parts()
        self._head = b""

    async def run(self) -> Linked:
        await self._fetch(0, _AT_ONCE_BYTES)
        for _ in range(_MAX_REQUESTS):
            try:
                return self._told()
            except _Missing as missing:
                # What is asked for next usually stands right behind it.
                await self._fetch(missing.offset, max(missing.count, _AT_ONCE_BYTES))
        raise _Unknown

    def _told(self) -> Linked:
        parts = self._parts
        head = self._head
        if tag := tag_size(head):
            head = parts.read(tag, 12)
        form = format_of(head)
        if form is None or (parts.size == _UNKNOWN_SIZE and form in _SIZE_COUNTS):
            raise _Unknown
        measured = heads.measure(parts, form)
        if measured is None:
            raise _Unknown
        if form in {"mp4", "mov"} and measured.width is None:
            form = "m4a"
        return Linked(form, None if parts.size == _UNKNOWN_SIZE else parts.size, measured)

    async def _fetch(self, offset: int, count: int) -> None:
        count = min(count, self._parts.size - offset)
        if count > self._left:
            raise _Unknown
        self._left -= count
        answer = await self._files.read(self._url, offset, count)
        while answer.status in _REDIRECTS and self._redirects < _MAX_REDIRECTS:
            self._redirects += 1
            self._url = self._check(urljoin(self._url, answer.headers.get("location", "")))
            answer = await self._files.read(self._url, offset, count)
        if answer.status == 206:
            found = _RANGE.fullmatch(answer.headers.get("content-range", "").strip())
            if found is None or int(found[1]) != offset or not answer.body:
                raise _Unknown
            self._parts.size = int(found[2])
        elif answer.status == 200 and not offset and answer.body:
            # Its server knows no ranges; what came is the beginning all the same.
            length = answer.headers.get("content-length", "")
            self._parts.size = int(length) if length.isdecimal() and len(length) < 16 else _UNKNOWN_SIZE
        else:
            raise _Unknown
        self._head = self._head or answer.body[:HEAD_BYTES]
        self._parts.add(offset, answer.body)
