"""
Videos out: from fal's link to a whole file in the output folder.

A video has been paid for, so a download that breaks is continued and never thrown away without need; and the folder
is somebody's, so nothing in it is overwritten and nothing unfinished is ever seen under a video's name.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from anyio import to_thread

from kling_mcp.errors import InputRefused, KlingError
from kling_mcp.media import disk
from kling_mcp.media.allowed_paths import AllowedFolder
from kling_mcp.media.names import video_name
from kling_mcp.media.partial_file import DownloadError, Reason, UnfinishedFile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

__all__ = [
    "MAX_VIDEO_BYTES",
    "DownloadError",
    "Fetch",
    "Fetched",
    "Reason",
    "save",
    "video_name",
    "write_sidecar",
]

MAX_VIDEO_BYTES: Final = 1 << 30
SPARE_BYTES: Final = 64 * 1024 * 1024
"""What stays free on the disk for other programs."""

_MAX_REQUESTS: Final = 10
_BUFFER_BYTES: Final = 256 * 1024
_SAFE_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._ ()-]{0,119}")
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_STRONG_ETAG: Final = re.compile(r'"[\x21\x23-\x7e]{0,200}"')
_GONE: Final = frozenset({401, 403, 404, 410})


class Fetched(Protocol):
    """An answer whose body has not been read."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, their names in lower case."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """The body; `FalUnreachable` when it breaks off."""
        ...


class Fetch(Protocol):
    """A client without a key that talks to allowed hosts only."""

    def fetch(
        self, url: str, *, offset: int = 0, etag: str | None = None
    ) -> AbstractAsyncContextManager[Fetched, bool | None]:
        """
        Get *url* from the byte *offset* on (``Range``), if it still has *etag* (``If-Range``).

        Raises:
            InputRefused: The host, or one that it redirects to, is not allowed.
            FalUnreachable: The host does not answer.
        """
        ...


async def save(
    fetch: Fetch,
    url: str,
    folder: Path | AllowedFolder,
    name: str,
    *,
    expected_size: int | None = None,
    max_bytes: int = MAX_VIDEO_BYTES,
    free_bytes: Callable[[Path], int | None] = disk.free_bytes,
) -> Path:
    """
    Download the video at *url* into *folder* as *name*, or as ``name (2)`` when that is taken, and return its path.

    A cancelled or broken download leaves a part behind, and the next call continues it.

    Args:
        fetch: The client.
        url: Where the video is.
        folder: The output folder; it is made if it is missing.
        name: A file name from `video_name`.
        expected_size: Bytes, as fal's result gives them: a hint, used for the free space alone.
        max_bytes: The most bytes that a video may have.
        free_bytes: Tells the free space of a folder; None where nobody knows.

    Raises:
        DownloadError: The video is not saved; its ``reason`` says why.
    """
    if not _SAFE_NAME.fullmatch(name):
        msg = f"{name!r} is not a name from video_name()"
        raise ValueError(msg)
    target = AllowedFolder.at(folder)
    part = await to_thread.run_sync(UnfinishedFile.claim, target.real, name)
    try:
        if part.published is None:
            download = _Download(part, fetch, url, target, expected_size, max_bytes, free_bytes)
            await download.run()
        return target.path / (part.published or await to_thread.run_sync(part.publish, name))
    finally:
        part.close()


def write_sidecar(folder: Path | AllowedFolder, video_name: str, data: Mapping[str, object]) -> Path:
    """
    Write *data* as JSON beside the video *video_name*, never over another file, and tell where.

    Raises:
        DownloadError: The disk refuses; the video is not touched.
    """
    target = AllowedFolder.at(folder)
    name = f"{video_name.removesuffix('.mp4')}.json"
    text = json.dumps(dict(data), ensure_ascii=False, indent=2).encode() + b"\n"
    part = UnfinishedFile.claim(target.real, name)
    try:
        if part.published is None:
            part.restart(None, None)
            part.append(text)
        return target.path / (part.published or part.publish(name))
    except DownloadError:
        part.discard()
        raise
    finally:
        part.close()


@dataclass(frozen=True, slots=True)
class _Download:
    """One video on its way; its requests are made one after the other."""

    part: UnfinishedFile
    fetch: Fetch
    url: str
    folder: AllowedFolder
    expected_size: int | None
    max_bytes: int
    free_bytes: Callable[[Path], int | None]

    async def run(self) -> None:
        """Ask until the part is whole, as long as every request brings something."""
        for _ in range(_MAX_REQUESTS):
            before = self.part.size
            try:
                if self._is_whole() or await self._request():
                    await to_thread.run_sync(self._verify)
                    return
            except _Lost:
                if self.part.size <= before:
                    break
        raise DownloadError(Reason.INTERRUPTED, "the connection broke off")

    def _is_whole(self) -> bool:
        """Whether an earlier process was killed when only the name was missing."""
        return self.part.etag is not None and self.part.size == self.part.total

    async def _request(self) -> bool:
        """One request and its body; false when the server's answer makes it necessary to start over."""
        etag = self.part.etag
        offset = self.part.size if etag else 0
        try:
            async with self.fetch.fetch(self.url, offset=offset, etag=etag if offset else None) as answer:
                if answer.status == 206 and offset and _continues(answer, offset, etag, self.part.total):
                    await self._receive(answer)
                    return True
                if answer.status == 200:
                    length = answer.headers.get("content-length", "")
                    total = int(length) if length.isdecimal() else None
                    await to_thread.run_sync(self.part.restart, _strong_etag(answer), total)
                    await self._receive(answer)
                    return True
                if answer.status in {206, 416} and offset:
                    await to_thread.run_sync(self.part.restart, None, None)
                    return False
                raise _failure(answer.status)
        except InputRefused as refused:
            # Names the host, which may be one that the address led to.
            what = refused.what.rstrip(".").replace("The file", "the file", 1)
            raise DownloadError(Reason.REFUSED_HOST, what) from None
        except KlingError:
            raise _Lost from None

    async def _receive(self, answer: Fetched) -> None:
        part, total = self.part, self.part.total
        if total is not None and total > self.max_bytes:
            part.discard()
            raise DownloadError(Reason.DAMAGED, f"it has {total:,} bytes, and at most {self.max_bytes:,} are taken")
        missing = (total if total is not None else self.expected_size or 0) - part.size
        free = self.free_bytes(self.folder.real)
        if free is not None and free < missing + SPARE_BYTES:
            raise DownloadError(Reason.DISK_FULL, f"it needs {missing:,} bytes and the disk is nearly full")
        most = self.max_bytes if total is None else total
        size, buffer, lost = part.size, bytearray(), False
        try:
            async for chunk in answer.chunks():
                size += len(chunk)
                if size > most:
                    part.discard()
                    raise DownloadError(Reason.DAMAGED, f"more than {most:,} bytes came")
                buffer += chunk
                if len(buffer) >= _BUFFER_BYTES:
                    await to_thread.run_sync(part.append, bytes(buffer))
                    buffer.clear()
        except KlingError:
            lost = True
        await to_thread.run_sync(part.append, bytes(buffer))
        if lost or (total is not None and size < total):
            raise _Lost

    def _verify(self) -> None:
        whole = self.part.is_whole_mp4()
        if not whole:
            self.part.discard()
            what = (
                "what came is no MP4 video" if whole is None else f"only a part of it came ({self.part.size:,} bytes)"
            )
            raise DownloadError(Reason.DAMAGED, what)


class _Lost(Exception):
    """The connection broke; what came is in the part."""


def _continues(answer: Fetched, offset: int, etag: str | None, total: int | None) -> bool:
    """Whether a 206 is the rest of the same file (RFC 9110, sections 14.4 and 15.3.7)."""
    found = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", "").strip())
    if found is None or answer.headers.get("etag", etag) != etag:
        return False
    first, last, whole = (int(number) for number in found.groups())
    return first == offset and last == whole - 1 and whole == total


def _strong_etag(answer: Fetched) -> str | None:
    etag = answer.headers.get("etag", "").strip()
    return etag if _STRONG_ETAG.fullmatch(etag) else None


def _failure(status: int) -> DownloadError:
    if status in _GONE:
        return DownloadError(Reason.EXPIRED, f"the link is no longer good (HTTP {status})")
    if 300 <= status < 400:
        return DownloadError(Reason.REFUSED_HOST, f"the link leads elsewhere (HTTP {status})")
    return DownloadError(Reason.INTERRUPTED, f"the host answered HTTP {status}")
