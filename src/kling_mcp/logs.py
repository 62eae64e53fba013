"""
Logs for people who look for a cause: one JSON line per record on standard error, without secrets.

Hosts that never read the standard error of a server exist, and a pipe holds
64 KiB (4 KiB on Windows). So nobody who logs, warns or prints ever writes to
it: a thread of its own does, from a bounded queue, and may wait as it likes.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import re
import threading
import time
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kling_mcp.settings import Settings

__all__ = ["LogWriter", "Repetitions", "configure", "flush"]

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_NOISY: Final = ("httpx", "httpcore", "httpx2", "httpcore2", "hpack", "uvicorn", "asyncio", "mcp")

_QUEUE_BYTES: Final = 256 * 1024
_LONGEST_LINE_BYTES: Final = 64 * 1024
_FLUSH_SECONDS: Final = 0.3
"""What the end of the process waits for the log at most: a host kills two seconds after it has closed the pipe."""

_REPEAT_AFTER_SECONDS: Final = 60.0
_REPEAT_AT_LEAST_EVERY_SECONDS: Final = 3600.0
_KINDS_REMEMBERED: Final = 500

_writer: LogWriter | None = None


def configure(settings: Settings) -> None:
    """Send every record, and everything else that comes to standard error, there from a thread of its own."""
    global _writer
    key = settings.fal_key.reveal() if settings.fal_key else None
    _writer = LogWriter(_own_standard_error(), _secrets(key))
    _writer.take_over(2)
    atexit.register(flush)
    handler = _Handler(_writer)
    handler.setFormatter(_JsonLines())
    handler.addFilter(Repetitions())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    for name in _NOISY:
        # Their debug records hold headers, and the key is one.
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)


def flush() -> None:
    """Give what is logged a moment to get out, before the process ends."""
    if _writer is not None:
        _writer.flush(_FLUSH_SECONDS)


def _own_standard_error() -> int:
    try:
        return os.dup(2)
    except OSError:
        # Started without one. The next file to be opened would get its number, and every stray text.
        null = os.open(os.devnull, os.O_WRONLY)
        if null != 2:
            os.dup2(null, 2)
        return os.dup(2)


def _secrets(key: str | None) -> list[bytes]:
    if key is None:
        return []
    return sorted({key.encode(), *(half.encode() for half in key.split(":") if len(half) >= 16)}, key=len, reverse=True)


class LogWriter:
    """
    Writes lines to a descriptor from a thread of its own; what does not fit in its queue is counted and dropped.

    Args:
        descriptor: Where to write; it may block for ever.
        secrets: What is masked wherever it turns up, the longest first.
    """

    def __init__(self, descriptor: int, secrets: Iterable[bytes] = (), queue_bytes: int = _QUEUE_BYTES) -> None:
        self._descriptor = descriptor
        self._secrets = [*secrets]
        self._room = queue_bytes
        self._lines: deque[bytes] = deque()
        self._dropped = 0
        self._changed = threading.Condition()
        self._mark = b"\0end of %x\0" % id(self)
        self._marked = threading.Event()
        self._taken_over: int | None = None
        threading.Thread(target=self._write_all, name="log", daemon=True).start()

    def put(self, line: bytes) -> None:
        """Have *line* written, or dropped; returns at once."""
        if len(line) > _LONGEST_LINE_BYTES:
            line = line[:_LONGEST_LINE_BYTES] + b"\xe2\x80\xa6"
        for secret in self._secrets:
            line = line.replace(secret, b"***")
        line += b"\n"
        with self._changed:
            if len(line) > self._room:
                self._dropped += 1
                return
            self._room -= len(line)
            self._lines.append(line)
            self._changed.notify_all()

    def take_over(self, descriptor: int) -> None:
        """Write also what anybody writes to *descriptor* from now on: warnings, tracebacks, libraries in C."""
        reading, writing = os.pipe()
        os.dup2(writing, descriptor)
        os.close(writing)
        self._taken_over = descriptor
        threading.Thread(target=self._read_all, args=(reading,), name="standard error", daemon=True).start()

    def flush(self, within_seconds: float) -> None:
        """Wait until everything is written, but no longer than *within_seconds*."""
        until = time.monotonic() + within_seconds
        if self._taken_over is not None:
            with contextlib.suppress(OSError):
                os.write(self._taken_over, self._mark)
                self._marked.wait(within_seconds)
        with self._changed:
            self._changed.wait_for(lambda: not self._lines, max(until - time.monotonic(), 0))

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines)
                line = self._lines[0]
            written = self._write(line)
            with self._changed:
                self._lines.popleft()
                self._room += len(line)
                self._dropped += not written
                dropped = self._dropped if written else 0
                self._dropped -= dropped
                self._changed.notify_all()
            if dropped:
                self._write(_line_of_dropped(dropped))

    def _write(self, line: bytes) -> bool:
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
        except OSError:
            return False
        return True

    def _read_all(self, reading: int) -> None:
        rest = b""
        while more := os.read(reading, _LONGEST_LINE_BYTES):
            rest += more
            marked = self._mark in rest
            *lines, rest = rest.replace(self._mark, b"\n" if rest.partition(self._mark)[0] else b"").split(b"\n")
            if len(rest) > _LONGEST_LINE_BYTES:
                lines.append(rest)
                rest = b""
            for line in lines:
                if line:
                    self.put(line)
            if marked:
                self._marked.set()


def _line_of_dropped(count: int) -> bytes:
    record = logging.makeLogRecord(
        {
            "name": __name__,
            "levelname": "WARNING",
            "msg": "lines of the log were dropped because nobody read standard error fast enough",
            "lines": count,
        }
    )
    return _JsonLines().format(record).encode() + b"\n"


class _Handler(logging.Handler):
    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
        else:
            self._writer.put(line.encode())


class Repetitions(logging.Filter):
    """
    Lets trouble that repeats itself through once, and then at growing distance, with how often it was.

    The time is that of the records.
    """

    def __init__(self) -> None:
        super().__init__()
        self._known: OrderedDict[tuple[object, ...], tuple[float, float, int]] = OrderedDict()
        """By kind of trouble: when it was let through last, for how long it is held back, how often it was."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether *record* is let through."""
        if record.levelno < logging.WARNING:
            return True
        details = {name: str(value) for name, value in vars(record).items() if name not in _STANDARD}
        if "why" in details:
            # "after 17 s" and "after 18 s" are one trouble.
            details["why"] = re.sub(r"\d+", "#", details["why"])
        kind = (record.name, str(record.msg), str(record.args), *sorted(details.items()))
        last, pause, held_back = self._known.pop(kind, (float("-inf"), 0.0, 0))
        silent_seconds = record.created - last
        if silent_seconds < pause:
            self._known[kind] = (last, pause, held_back + 1)
            return False
        pause = _REPEAT_AFTER_SECONDS if silent_seconds > 2 * pause else min(2 * pause, _REPEAT_AT_LEAST_EVERY_SECONDS)
        self._known[kind] = (record.created, pause, 0)
        while len(self._known) > _KINDS_REMEMBERED:
            self._known.popitem(last=False)
        if held_back:
            record.repeated = held_back
        return True


class _JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True, default=str)
