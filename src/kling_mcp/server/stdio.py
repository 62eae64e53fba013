"""
Stdio: serves one client over standard input and output, in either protocol era, until it closes them.

Everything that reaches into undocumented modules of the SDK is in this file,
and `tests/server/test_stdio.py` fails loudly when an upgrade moves them.

* The SDK does not answer a line that it cannot read, and stops writing after an
  answer that it cannot encode. So lines are read and written here.
* The SDK locks a connection to the era of its first request. Claude Code and
  Copilot CLI probe with `server/discover` and then `initialize`, which the
  specification allows (2026-07-28, basic/versioning). So probes are answered
  here, before the SDK's loop sees the connection.
* SIGTERM ends a Python process without unwinding, and a blocked read of
  standard input keeps it from unwinding. So on a signal everything but that
  read is unwound here, and the process ends by `os._exit`.
* A thread that waits for a busy disk or a locked ledger cannot be interrupted
  either. So the process exits in time whatever still runs: the ledger has how
  far each job had come.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Self

import anyio
import anyio.to_thread
import mcp_types as t
from mcp.os.win32.utilities import rebind_std_handle_to_fd
from mcp.server.connection import Connection
from mcp.server.runner import serve_dual_era_loop, serve_one
from mcp.shared._context_streams import create_context_streams
from mcp.shared.exceptions import MCPError, NoBackChannelError
from mcp.shared.inbound import InboundLadderRejection, classify_inbound_request
from mcp.shared.message import SessionMessage
from mcp.shared.transport_context import TransportContext

from kling_mcp import logs
from kling_mcp.server.frames import Frame, read_frame, too_long
from kling_mcp.texts import showable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from mcp.server.lowlevel.server import Server
    from mcp.shared._stream_protocols import ReadStream, WriteStream

__all__ = ["serve"]

log = logging.getLogger(__name__)

_PARENT_CHECK_SECONDS: Final = 2.0
_EXIT_WITHIN_SECONDS: Final = 1.5
"""Hosts kill two seconds after they have closed standard input."""

_WAITING: Final = (
    "kling-mcp waits for an MCP client on standard input: an assistant starts it by itself. "
    "Ctrl-C ends it; `kling-mcp demo` shows what it does, `kling-mcp doctor` checks the settings.\n"
)
_LONGEST_LINE_BYTES: Final = 128 * 2**20
_PIECE_BYTES: Final = 2**20


async def serve(server: Server[Any], close: Callable[[], Awaitable[None]]) -> None:
    """
    Serve *server* on standard input and output until the client closes them or a signal arrives.

    Args:
        close: Brings work to an end within two seconds; after a signal, calls are still answered meanwhile.
    """
    with _Exit() as process:
        source = os.fdopen(_own_descriptor(0, os.open(os.devnull, os.O_RDONLY)), "rb")
        sink = _own_descriptor(1, os.dup(2))
        if source.isatty():
            sys.stderr.write(_WAITING)
        out, to_write = create_context_streams[SessionMessage | bytes](0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_write, to_write, sink)
            async with out, server.lifespan(server) as state:
                await _serve_client(server, source, out, state, close, process)
            if process.by_signal:
                logs.flush()
                os._exit(0)


def _own_descriptor(number: int, instead: int) -> int:
    """A private descriptor for a standard stream; other code that reads or writes there gets *instead*."""
    own = os.dup(number)
    os.dup2(instead, number)
    os.close(instead)
    if sys.platform == "win32":
        with contextlib.suppress(OSError):
            rebind_std_handle_to_fd(number)
    return own


async def _serve_client(
    server: Server[Any],
    source: BinaryIO,
    write: WriteStream[Any],
    state: object,
    close: Callable[[], Awaitable[None]],
    process: _Exit,
) -> None:
    send, replay = create_context_streams[SessionMessage | Exception](0)

    async def pump() -> None:
        """Answer probes until the first other request, refuse what cannot be read, pass everything else on."""
        probing = True
        async with send:
            async for message in _messages(source, write):
                if probing and isinstance(message, t.JSONRPCRequest):
                    probing = _is_probe(message)
                    if probing:
                        await write.send(SessionMessage(await _answer(server, message, state)))
                        continue
                await send.send(SessionMessage(message))

    async with anyio.create_task_group() as tasks:

        async def stop() -> None:
            process.exit_soon(by_signal=True)
            with contextlib.suppress(Exception):
                await close()
            tasks.cancel_scope.cancel()

        tasks.start_soon(pump)
        if sys.platform != "win32":
            tasks.start_soon(_when_signalled, stop)
            tasks.start_soon(_when_orphaned, stop)
        await serve_dual_era_loop(
            server,
            replay,
            write,
            lifespan_state=state,
            init_options=server.create_initialization_options(),
        )
        process.exit_soon()
        tasks.cancel_scope.cancel()


class _Exit:
    """Ends the process in time once it is asked to, even where a blocked thread keeps it from unwinding."""

    def __init__(self) -> None:
        self.by_signal = False
        self._deadline = threading.Timer(_EXIT_WITHIN_SECONDS, self._force)
        self._deadline.daemon = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._deadline.cancel()

    def exit_soon(self, *, by_signal: bool = False) -> None:
        """Exit within less than two seconds from now."""
        self.by_signal |= by_signal
        if not self._deadline.is_alive():
            self._deadline.start()

    @staticmethod
    def _force() -> None:
        log.warning("exiting although work is still running")
        logs.flush()
        os._exit(0)


# ---- lines


async def _messages(source: BinaryIO, write: WriteStream[Any]) -> AsyncGenerator[t.JSONRPCMessage]:
    """The messages of the client; lines that are not messages are answered and logged here."""
    # A thread of its own: all others may be waiting for a slow disk.
    reading = anyio.CapacityLimiter(1)
    number = 0
    while (frame := await anyio.to_thread.run_sync(_next, source, abandon_on_cancel=True, limiter=reading)) is not None:
        number += 1
        if frame.remark:
            log.warning("a message holds a bad text", extra={"line": number, "why": frame.remark})
        for fault in frame.faults:
            log.warning("a line was refused", extra={"line": number, "id": (fault.id or "")[:60], "why": fault.why})
            if (answer := fault.line()) is not None:
                await write.send(answer)
        if frame.message is not None:
            yield frame.message


def _next(source: BinaryIO) -> Frame | None:
    """The next line; None at the end."""
    try:
        line = source.readline(_LONGEST_LINE_BYTES)
    except OSError:
        # A terminal that was closed.
        line = b""
    if not line:
        return None
    if line.endswith(b"\n") or len(line) < _LONGEST_LINE_BYTES:
        return read_frame(line)
    start, end = line[:_PIECE_BYTES], line[-_PIECE_BYTES:]
    while not end.endswith(b"\n") and (more := source.readline(_PIECE_BYTES)):
        end = end[-1000:] + more
    return too_long(start, end, _LONGEST_LINE_BYTES)


async def _write(messages: ReadStream[SessionMessage | bytes], sink: int) -> None:
    writing = anyio.CapacityLimiter(1)
    async with messages:
        async for message in messages:
            line = message if isinstance(message, bytes) else _encoded(message.message)
            try:
                await anyio.to_thread.run_sync(_write_whole, sink, line + b"\n", limiter=writing)
            except OSError as error:
                # Jobs go on until standard input ends too.
                log.warning("an answer could not be written", extra={"why": str(error)})


def _encoded(message: t.JSONRPCMessage) -> bytes:
    try:
        return message.model_dump_json(by_alias=True, exclude_unset=True).encode()
    except ValueError:
        # A text in it cannot be encoded. One odd answer is better than no further answers.
        log.warning("an answer held a bad text", exc_info=True)
        whole = message.model_dump(by_alias=True, exclude_unset=True)
        return json.dumps(showable(whole), ensure_ascii=False, default=str).encode()


def _write_whole(sink: int, line: bytes) -> None:
    while line:
        line = line[os.write(sink, line) :]


# ---- probes


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


async def _when_signalled(stop: Callable[[], Awaitable[None]]) -> None:
    # Open until the end: a second signal would kill the process while it handles the first.
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            log.info("exiting on a signal", extra={"signal": signal.Signals(number).name})
            await stop()


async def _when_orphaned(stop: Callable[[], Awaitable[None]]) -> None:
    """Exit when the host is gone but another process still holds our standard input open."""
    parent = os.getppid()
    while True:
        await anyio.sleep(_PARENT_CHECK_SECONDS)
        if os.getppid() != parent:
            log.info("exiting because the host is gone")
            await stop()
