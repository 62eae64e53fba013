"""Logs for people who look for a cause: one JSON line per record on standard error, without secrets."""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kling_mcp.settings import Settings

__all__ = ["configure"]

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_NOISY: Final = ("httpx", "httpcore", "httpx2", "httpcore2", "hpack", "uvicorn", "asyncio", "mcp")


def configure(settings: Settings) -> None:
    """Send every record to standard error from the level that *settings* name."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines(settings.fal_key.reveal() if settings.fal_key else None))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    for name in _NOISY:
        # Their debug records hold headers, and the key is one.
        logging.getLogger(name).setLevel(logging.WARNING)


class _JsonLines(logging.Formatter):
    """A record as one line of JSON, with the key and its halves masked wherever they turn up."""

    def __init__(self, key: str | None) -> None:
        super().__init__()
        self._masked = (
            [] if key is None else sorted({key, *(half for half in key.split(":") if len(half) >= 16)}, key=len)
        )

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
        text = json.dumps(line, ensure_ascii=True, default=str)
        for secret in reversed(self._masked):
            text = text.replace(secret, "***")
        return text
