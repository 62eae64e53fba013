"""A server on a loopback port, through the SDK's own Streamable HTTP application."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from anyio import CancelScope

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from kling_mcp.server.app import KlingServer


@asynccontextmanager
async def http(server: KlingServer, **options: Any) -> AsyncGenerator[str]:
    """Serve *server* until the block ends, and give its URL; *options* are those of `streamable_http_app`."""
    import uvicorn

    started, over = asyncio.Event(), asyncio.Event()

    class Quiet(uvicorn.Server):
        """Leaves the process's signals alone, says when it is there, and goes when told."""

        @contextlib.contextmanager
        def capture_signals(self) -> Generator[None]:
            yield

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            started.set()

        async def main_loop(self) -> None:
            await over.wait()

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    config = uvicorn.Config(
        server.streamable_http_app(**options),
        log_config=None,
        log_level="error",
        access_log=False,
        ws="none",
        timeout_graceful_shutdown=1,
    )
    running = Quiet(config)
    task = asyncio.create_task(running.serve(sockets=[listener]))
    try:
        await started.wait()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
    finally:
        over.set()
        for connection in list(running.server_state.connections):
            connection.transport.abort()
        with CancelScope(shield=True):
            await task
        listener.close()
