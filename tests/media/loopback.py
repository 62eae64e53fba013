"""
A host of videos on loopback that misbehaves on request, the client for it, and a process that can be killed.

The client speaks just enough HTTP/1.1 to be a `Fetch`, so that a child process starts in no time.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from kling_mcp.errors import FalUnreachable, InputRefused
from kling_mcp.media.downloads import save

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

__all__ = ["Answer", "DownloadProcesses", "LoopbackFetch", "VideoHost", "a_video", "killable_downloads", "until"]


def a_video(size: int, seed: int = 0) -> bytes:
    """The boxes of an MP4 with noise for pictures, the same for the same *seed*."""
    import random

    noise = random.Random(seed).randbytes(size - 40)
    return b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + b"\0\0\0\x08moov" + (size - 32).to_bytes(4) + b"mdat" + noise


@dataclass(frozen=True)
class Answer:
    """
    How the host answers one request; what is not said is as it should be.

    ``stop_at`` breaks the connection and ``stall_at`` goes silent after so many bytes of the body. ``etag`` and
    ``content_range`` replace the headers; an empty text leaves them out.
    """

    status: int | None = None
    body: bytes | None = None
    etag: str | None = None
    content_range: str | None = None
    length: bool = True
    stop_at: int | None = None
    stall_at: int | None = None


@dataclass
class VideoHost:
    """Serves *body* on loopback, and takes its manners for each request from *answers*."""

    body: bytes
    etag: str = '"one"'
    answers: list[Answer] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)
    """The Range header of every request so far."""
    stalled: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[VideoHost]:
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/video.mp4"
        async with server:
            yield self

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await self._answer(reader, writer)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        asked = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
        self.ranges.append(asked.get("range"))
        answer = self.answers.pop(0) if self.answers else Answer()
        body = self.body if answer.body is None else answer.body
        start = int(asked["range"][6:-1]) if asked.get("range") and asked.get("if-range") == self.etag else 0
        status = answer.status or (206 if start else 200)
        headers = [f"HTTP/1.1 {status} whatever", "Connection: close"]
        etag = self.etag if answer.etag is None else answer.etag
        headers += [f"ETag: {etag}"] if etag else []
        if status == 206:
            right = f"bytes {start}-{len(body) - 1}/{len(body)}"
            headers += [f"Content-Range: {right if answer.content_range is None else answer.content_range}"]
        payload = body[start:] if status == 206 else body
        headers += [f"Content-Length: {len(payload)}"] if answer.length else []
        writer.write("\r\n".join([*headers, "", ""]).encode())
        end = min((at for at in (answer.stop_at, answer.stall_at) if at is not None), default=len(payload))
        writer.write(payload[:end])
        await writer.drain()
        if answer.stall_at is not None:
            self.stalled.set()
            await reader.read()


class _Fetched:
    def __init__(self, status: int, headers: dict[str, str], reader: asyncio.StreamReader) -> None:
        self.status = status
        self.headers = headers
        self._reader = reader

    async def chunks(self) -> AsyncIterator[bytes]:
        missing = int(self.headers.get("content-length", -1))
        try:
            while missing and (chunk := await self._reader.read(65536 if missing < 0 else min(65536, missing))):
                missing -= len(chunk)
                yield chunk
        except OSError:
            raise _unreachable() from None
        if missing > 0:
            raise _unreachable()


class LoopbackFetch:
    """A client that talks to this machine only."""

    @asynccontextmanager
    async def fetch(self, url: str, *, offset: int = 0, etag: str | None = None) -> AsyncIterator[_Fetched]:
        where = urlsplit(url)
        if where.hostname != "127.0.0.1":
            raise InputRefused("The host is not allowed.", "Use another.")
        lines = [f"GET {where.path} HTTP/1.1", f"Host: {where.netloc}"]
        if offset:
            lines += [f"Range: bytes={offset}-", f"If-Range: {etag}"]
        try:
            reader, writer = await asyncio.open_connection(where.hostname, where.port)
            writer.write("\r\n".join([*lines, "", ""]).encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        except (OSError, EOFError):
            raise _unreachable() from None
        try:
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
            yield _Fetched(int(head[0].split()[1]), headers, reader)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def _unreachable() -> FalUnreachable:
    return FalUnreachable("The connection broke.", "Ask again.")


@contextlib.contextmanager
def killable_downloads() -> Iterator[DownloadProcesses]:
    """A process that starts downloads as its children."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.media.loopback"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        try:
            yield DownloadProcesses(process)
        finally:
            process.kill()


@dataclass
class DownloadProcesses:
    """Starts downloads in processes of their own, and kills them."""

    process: subprocess.Popen[str]

    def start(self, url: str, folder: Path, name: str) -> int:
        """Begin a download; its process id."""
        print(json.dumps([url, str(folder), name]), file=self.process.stdin, flush=True)
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    async def kill(self, pid: int) -> None:
        """Kill a download where it stands, and wait until it is gone."""
        os.kill(pid, signal.SIGKILL)
        await self.gone(pid)

    async def gone(self, pid: int) -> None:
        """Wait until a download has ended."""
        await until(lambda: not _runs(pid))


async def until(is_so: Callable[[], bool]) -> None:
    """Look again and again, for what only the file system or the process table tells."""
    for _ in itertools.count():
        if is_so():
            return
        await asyncio.sleep(0.001)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _bear() -> None:
    # Children that end are forgotten at once, so that their ids mean nothing any more.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            url, folder, name = json.loads(line)
            try:
                asyncio.run(save(LoopbackFetch(), url, Path(folder), name))
            finally:
                os._exit(0)
        print(child, flush=True)


if __name__ == "__main__":
    _bear()
