"""Places where a job is stopped until the test lets it go on: in the server, and on the wire."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from kling_mcp.simulator.faults import CallKind, Exchange, Reply

__all__ = ["Gate", "InServer", "OnWire", "StopPoint"]


@dataclass(frozen=True)
class StopPoint:
    """
    Where a job is stopped: at a point of the server, or in a call to fal.

    `sent` says how much of the answer has gone out: None when fal has not even
    taken the request, 0 to 1 when it has.
    """

    point: str | None = None
    call: CallKind | None = None
    sent: float | None = None

    def __str__(self) -> str:
        if self.call is None:
            return self.point or ""
        return f"{self.call}, not taken" if self.sent is None else f"{self.call}, {self.sent:.0%} of the answer sent"


class Gate(Protocol):
    """A closed gate."""

    async def reached(self) -> None:
        """Wait until the job stands before it."""
        ...

    def open(self) -> None:
        """Let the job go on."""
        ...


@dataclass
class OnWire:
    """A fault of the simulator that stops one call at a place."""

    sent: float | None
    _reached: anyio.Event = field(default_factory=anyio.Event)
    _open: anyio.Event = field(default_factory=anyio.Event)

    async def reached(self) -> None:
        await self._reached.wait()

    def open(self) -> None:
        self._open.set()

    async def apply(self, exchange: Exchange) -> None:
        """Hold one call."""
        if self.sent is None and not await self._stop(exchange):
            return
        reply = await exchange.accept()
        if self.sent is None:
            await exchange.send(reply)
        elif self.sent == 0:
            if await self._stop(exchange):
                await exchange.send(reply)
        else:
            await exchange.send_in_pieces(reply, self._pieces(reply, int(self.sent * len(reply.body))))

    async def _pieces(self, reply: Reply, first: int) -> AsyncIterator[bytes]:
        yield reply.body[:first]
        self._reached.set()
        await self._open.wait()
        yield reply.body[first:]

    async def _stop(self, exchange: Exchange) -> bool:
        """Whether the caller is still there when the gate opens."""
        self._reached.set()
        async with anyio.create_task_group() as tasks:

            async def until_gone() -> None:
                await exchange.gone()
                tasks.cancel_scope.cancel()

            tasks.start_soon(until_gone)
            await self._open.wait()
            tasks.cancel_scope.cancel()
        return self._open.is_set()


class InServer:
    """Two fifos by which a server says that it stands at a point, and is told to go on."""

    def __init__(self, folder: Path, point: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        told, released = folder / "told", folder / "released"
        for fifo in (told, released):
            os.mkfifo(fifo)
        # Open for both, so that neither side waits for the other.
        self._told, self._released = (os.open(fifo, os.O_RDWR | os.O_NONBLOCK) for fifo in (told, released))
        self.options: dict[str, Any] = {"point": point, "then": "hold", "told": str(told), "released": str(released)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._told)
        os.close(self._released)

    async def reached(self) -> None:
        await anyio.wait_readable(self._told)

    def open(self) -> None:
        os.write(self._released, b"!")
