"""
A server that answers as badly as it is told, byte by byte, and knows what it had received.

Each request on a connection takes the next script; a script reads as much of
the request as it wants to and then writes, closes, resets or keeps silent.
What stands in `RawServer.received` is the truth of a test.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Mapping

__all__ = [
    "Connection",
    "RawServer",
    "Received",
    "answer",
    "drip",
    "endless",
    "raw",
    "reset_before_body",
    "silence",
]


@dataclass(frozen=True)
class Received:
    """A request as far as it was read; `complete` when head and body were."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    complete: bool

    def json(self) -> object:
        return json.loads(self.body)


@dataclass
class Connection:
    """One connection, as a script sees it."""

    server: RawServer
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    peeked: bytes = b""
    open: bool = True

    async def request(self, *, body: bool = True) -> Received:
        """Read a request, whole or its head only, and write it down."""
        head = self.peeked + await self.reader.readuntil(b"\r\n\r\n")
        self.peeked = b""
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:-2])}
        content = await self.reader.readexactly(int(headers.get("content-length", "0"))) if body else b""
        received = Received(method, target, headers, content, complete=body)
        self.server.received.append(received)
        return received

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def close(self) -> None:
        self.open = False
        self.writer.close()

    def reset(self) -> None:
        """Close so that the other side gets an RST, as a crashed server or a middlebox does."""
        self.open = False
        raw_socket: socket.socket = self.writer.get_extra_info("socket")
        raw_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@dataclass
class RawServer:
    """
    Listens on loopback while it is entered.

    Args:
        default: What answers a request for which no script is planned.
        tls: Speaks TLS with this context.
    """

    default: Callable[[Connection], Awaitable[None]] | None = None
    tls: ssl.SSLContext | None = None
    plan: list[Callable[[Connection], Awaitable[None]]] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}"

    @property
    def complete(self) -> list[Received]:
        """The requests that arrived whole."""
        return [received for received in self.received if received.complete]

    async def __aenter__(self) -> Self:
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.tls, limit=2**22)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        # A connection that was just accepted gets its task in this turn of the loop.
        await asyncio.sleep(0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        # A closed transport that still has bytes to send outlives the loop; an aborted one is gone in the next turn.
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.append(writer)
        self.connections += 1
        connection = Connection(self, reader, writer)
        try:
            while connection.open:
                script = self.plan.pop(0) if self.plan else self.default
                assert script is not None, "a request came that no script was planned for"
                await script(connection)
                if connection.open:
                    connection.peeked = await reader.read(1)
                    connection.open = bool(connection.peeked)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            with contextlib.suppress(ConnectionError):
                writer.close()


def answer(
    status: int = 200, body: object = None, headers: Mapping[str, str] | None = None
) -> Callable[[Connection], Awaitable[None]]:
    """A proper answer; *body* is bytes as they are, or anything as JSON. The connection stays open."""
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(content)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + content)

    return script


def raw(data: bytes, *, reset: bool = False) -> Callable[[Connection], Awaitable[None]]:
    """Read the whole request, send *data* as it is, and close or reset."""

    async def script(connection: Connection) -> None:
        await connection.request()
        if data:
            await connection.write(data)
        if reset:
            connection.reset()
        else:
            connection.close()

    return script


async def reset_before_body(connection: Connection) -> None:
    """Read the head only, then reset."""
    await connection.request(body=False)
    connection.reset()


async def silence(connection: Connection) -> None:
    """Read the whole request and never answer."""
    await connection.request()
    await connection.reader.read()


def drip(data: bytes) -> Callable[[Connection], Awaitable[None]]:
    """Send *data* a byte at a time, over and over, so that no single read ever takes long."""

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            for byte in data:
                await connection.write(b"1\r\n%c\r\n" % byte)
                await asyncio.sleep(0.002)

    return script


def endless(head: bytes, piece: bytes) -> Callable[[Connection], Awaitable[None]]:
    """Send *head*, then *piece* without end."""

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.write(head)
        while True:
            await connection.write(piece)
            await asyncio.sleep(0)

    return script
