"""
The simulator on a loopback port.

The port exists before the web server is loaded, so a program can tell its
other parts where to connect while uvicorn is still being imported; who connects
early waits in the socket's own queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from anyio import CancelScope

from kling_mcp.simulator.fault_middleware import HANG_UP

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from pathlib import Path

    from starlette.types import Receive, Scope, Send
    from uvicorn.protocols.http.h11_impl import H11Protocol

    from kling_mcp.simulator.app import Simulator

__all__ = ["BaseUrls", "Certificate", "bind", "running_in_thread", "serving", "urls_of"]


@dataclass(frozen=True, slots=True)
class BaseUrls:
    """Where the parts of the simulator are; ``media_host`` is ``host:port``, the others have no trailing slash."""

    queue: str
    rest: str
    api: str
    media: str
    media_host: str

    def environment(self) -> dict[str, str]:
        """The settings that point kling-mcp here."""
        return {
            "KLING_MCP_QUEUE_URL": self.queue,
            "KLING_MCP_REST_URL": self.rest,
            "KLING_MCP_API_URL": self.api,
            "KLING_MCP_MEDIA_HOSTS": self.media_host,
        }


@dataclass(frozen=True, slots=True)
class Certificate:
    """The files of a TLS certificate and its key, for clients that speak only https."""

    certificate: Path
    key: Path


def bind(port: int = 0) -> socket.socket:
    """A listening socket on 127.0.0.1, on a free port when *port* is 0."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(512)
    except OSError:
        listener.close()
        raise
    return listener


def urls_of(listener: socket.socket, *, scheme: str = "http") -> BaseUrls:
    """The base URLs behind *listener*."""
    host = f"127.0.0.1:{listener.getsockname()[1]}"
    root = f"{scheme}://{host}"
    return BaseUrls(f"{root}/queue", f"{root}/rest", f"{root}/api/v1", f"{root}/media", host)


@asynccontextmanager
async def serving(
    simulator: Simulator,
    port: int = 0,
    *,
    listener: socket.socket | None = None,
    tls: Certificate | None = None,
) -> AsyncGenerator[BaseUrls]:
    """
    Serve *simulator* in the running event loop until the block ends.

    No signal handler is installed. At the end every connection is cut, also
    one on which a fault is still holding its answer back.

    Args:
        simulator: What to serve.
        port: Where, on 127.0.0.1; any free port when 0.
        listener: A socket from `bind` instead of a port; it is closed at the end.
        tls: Speak https with this certificate.
    """
    listener = listener or bind(port)
    server = _Server(simulator, listener, tls)
    # A task of its own, not of the caller's scope: a cancelled caller must still find its connections closed.
    task = asyncio.create_task(server.run())
    try:
        await server.started.wait()
        yield urls_of(listener, scheme="http" if tls is None else "https")
    finally:
        server.stop()
        with CancelScope(shield=True):
            await task


@contextmanager
def running_in_thread(
    simulator: Simulator, port: int = 0, *, listener: socket.socket | None = None, tls: Certificate | None = None
) -> Generator[BaseUrls]:
    """
    Serve *simulator* in a thread with an event loop of its own, for code that has none.

    The arguments are those of `serving`.
    """
    ready, over = threading.Event(), threading.Event()
    found: list[BaseUrls] = []

    async def serve() -> None:
        try:
            async with serving(simulator, port, listener=listener, tls=tls) as urls:
                found.append(urls)
                ready.set()
                await asyncio.to_thread(over.wait)
        finally:
            ready.set()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="fal-simulator", daemon=True)
    thread.start()
    ready.wait()
    if not found:
        raise RuntimeError("the simulator did not start")
    try:
        yield found[0]
    finally:
        over.set()
        thread.join()


class _Server:
    """uvicorn with this simulator, and with a hand on its connections."""

    def __init__(self, simulator: Simulator, listener: socket.socket, tls: Certificate | None) -> None:
        import uvicorn

        self.started = started = asyncio.Event()
        self._over = over = asyncio.Event()

        class Quiet(uvicorn.Server):
            """A server that leaves the process's signals alone, says when it is there, and goes when told."""

            @contextlib.contextmanager
            def capture_signals(self) -> Generator[None, None, None]:
                yield

            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                started.set()

            async def main_loop(self) -> None:
                # Without uvicorn's ten looks a second: there is nothing to look for here, and a test ends at once.
                await over.wait()

        self._app = simulator.app
        self._listener = listener
        self._uvicorn = Quiet(
            uvicorn.Config(
                self._application,
                # h11 comes with uvicorn everywhere, and its connections are found by their address.
                http="h11",
                interface="asgi3",
                proxy_headers=False,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,
                # The simulator's clock writes the date.
                date_header=False,
                server_header=False,
                timeout_keep_alive=60,
                timeout_graceful_shutdown=5,
                ssl_certfile=None if tls is None else str(tls.certificate),
                ssl_keyfile=None if tls is None else str(tls.key),
            )
        )

    async def run(self) -> None:
        try:
            await self._uvicorn.serve(sockets=[self._listener])
        finally:
            self.started.set()
            self._listener.close()

    def stop(self) -> None:
        self._over.set()
        for transport in self._transports():
            transport.abort()

    async def _application(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lend each call its connection, so that a fault can break it."""

        def hang_up(reset: bool) -> None:
            for transport in self._transports(scope["client"]):
                if not reset:
                    transport.close()
                    continue
                # Closing with nothing left to linger for makes the kernel send a reset.
                transport.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
                transport.abort()

        await self._app({**scope, "extensions": {**scope.get("extensions", {}), HANG_UP: hang_up}}, receive, send)

    def _transports(self, client: tuple[str, int] | None = None) -> list[asyncio.Transport]:
        connections = cast("list[H11Protocol]", list(self._uvicorn.server_state.connections))
        return [one.transport for one in connections if client is None or one.client == client]
