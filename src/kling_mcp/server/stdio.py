"""
Standard input and output, in whichever protocol era the client speaks, until it leaves.

Everything that reaches into undocumented modules of the SDK is in this file,
and `tests/server/test_stdio.py` fails loudly when an upgrade moves them.

* The SDK locks a connection to the era of its first request. Claude Code and
  Copilot CLI probe with `server/discover` and then `initialize`, which the
  specification allows (2026-07-28, basic/versioning). So probes are answered
  here, before the SDK's loop sees the connection.
* SIGTERM ends a Python process without unwinding, and a blocked read of
  standard input keeps it from unwinding. So on a signal everything but that
  read is unwound here, and the process ends by `os._exit`.
* A thread that waits for a busy disk or a locked ledger cannot be interrupted
  either. So a process that is to leave is gone in time whatever still runs:
  the ledger says how far each job had come.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, Self

import anyio
import mcp_types as t
from mcp.server.connection import Connection
from mcp.server.runner import serve_dual_era_loop, serve_one
from mcp.server.stdio import stdio_server
from mcp.shared._context_streams import create_context_streams
from mcp.shared.exceptions import MCPError, NoBackChannelError
from mcp.shared.inbound import InboundLadderRejection, classify_inbound_request
from mcp.shared.message import SessionMessage
from mcp.shared.transport_context import TransportContext

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from mcp.server.lowlevel.server import Server
    from mcp.shared._stream_protocols import ReadStream, WriteStream

__all__ = ["serve"]

log = logging.getLogger(__name__)

_PARENT_CHECK_SECONDS: Final = 2.0
_LEAVE_WITHIN_SECONDS: Final = 1.8
"""Hosts kill two seconds after they have closed standard input."""


async def serve(server: Server[Any], close: Callable[[], Awaitable[None]]) -> None:
    """
    Serve *server* on standard input and output until the client closes them or a signal arrives.

    Args:
        close: Brings work to an end within two seconds; after a signal, calls are still answered meanwhile.
    """
    with _Leaving() as leaving:
        async with stdio_server() as (read, write):
            async with server.lifespan(server) as state:
                await _converse(server, read, write, state, close, leaving)
            if leaving.by_signal:
                sys.stderr.flush()
                os._exit(0)


async def _converse(
    server: Server[Any],
    read: ReadStream[SessionMessage | Exception],
    write: WriteStream[SessionMessage],
    state: object,
    close: Callable[[], Awaitable[None]],
    leaving: _Leaving,
) -> None:
    send, replay = create_context_streams[SessionMessage | Exception](0)

    async def pump() -> None:
        """Answer probes until the first request that is none, and pass everything else on."""
        probing = True
        async with send:
            async for item in read:
                request = item.message if isinstance(item, SessionMessage) else None
                if probing and isinstance(request, t.JSONRPCRequest):
                    probing = _is_probe(request)
                    if probing:
                        await write.send(SessionMessage(await _answer(server, request, state)))
                        continue
                await send.send(item)

    async with anyio.create_task_group() as tasks:

        async def leave() -> None:
            leaving.now(by_signal=True)
            with contextlib.suppress(Exception):
                await close()
            tasks.cancel_scope.cancel()

        tasks.start_soon(pump)
        if sys.platform != "win32":
            tasks.start_soon(_when_signalled, leave)
            tasks.start_soon(_when_orphaned, leave)
        await serve_dual_era_loop(
            server,
            replay,
            write,
            lifespan_state=state,
            init_options=server.create_initialization_options(),
        )
        leaving.now()
        tasks.cancel_scope.cancel()


class _Leaving:
    """Sees to it that a process that is to leave does, also where a thread keeps it from unwinding."""

    def __init__(self) -> None:
        self.by_signal = False
        self._deadline = threading.Timer(_LEAVE_WITHIN_SECONDS, self._give_up)
        self._deadline.daemon = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._deadline.cancel()

    def now(self, *, by_signal: bool = False) -> None:
        """From now on there are less than two seconds."""
        self.by_signal |= by_signal
        if not self._deadline.is_alive():
            self._deadline.start()

    @staticmethod
    def _give_up() -> None:
        log.warning("leaving although something is still under way")
        sys.stderr.flush()
        os._exit(0)


def _is_probe(request: t.JSONRPCRequest) -> bool:
    meta = (request.params or {}).get("_meta")
    return request.method == "server/discover" and isinstance(meta, dict) and t.PROTOCOL_VERSION_META_KEY in meta


async def _answer(server: Server[Any], request: t.JSONRPCRequest, state: object) -> t.JSONRPCResponse | t.JSONRPCError:
    route = classify_inbound_request({"method": request.method, "params": request.params})
    if isinstance(route, InboundLadderRejection):
        error = t.ErrorData(code=route.code, message=route.message, data=route.data)
        return t.JSONRPCError(jsonrpc="2.0", id=request.id, error=error)
    connection = Connection.from_envelope(route.protocol_version, route.client_info, route.client_capabilities)
    try:
        result = await serve_one(
            server, _Probe(request.id), request.method, request.params, connection=connection, lifespan_state=state
        )
    except MCPError as refusal:
        return t.JSONRPCError(jsonrpc="2.0", id=request.id, error=refusal.error)
    return t.JSONRPCResponse(jsonrpc="2.0", id=request.id, result=result)


class _Probe:
    """The context of a probe: nothing can be asked or told during it."""

    message_metadata = None
    can_send_request = False

    def __init__(self, request_id: t.RequestId) -> None:
        self.request_id = request_id
        self.transport = TransportContext(kind="stdio", can_send_request=False)
        self.cancel_requested = anyio.Event()

    async def send_raw_request(self, method: str, params: Mapping[str, Any] | None, opts: Any = None) -> dict[str, Any]:
        raise NoBackChannelError(method)

    async def notify(self, method: str, params: Mapping[str, Any] | None, opts: Any = None) -> None:
        return None

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        return None


async def _when_signalled(leave: Callable[[], Awaitable[None]]) -> None:
    # Open until the end: a second signal would kill while the first is being obeyed.
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            log.info("leaving on a signal", extra={"signal": signal.Signals(number).name})
            await leave()


async def _when_orphaned(leave: Callable[[], Awaitable[None]]) -> None:
    """Leave when the host is gone but somebody else still holds our standard input open."""
    parent = os.getppid()
    while True:
        await anyio.sleep(_PARENT_CHECK_SECONDS)
        if os.getppid() != parent:
            log.info("leaving because the host is gone")
            await leave()
