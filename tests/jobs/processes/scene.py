"""What the process tests have in common: a fal of their own, a ledger to look into, a call to make."""

from __future__ import annotations

import base64
import sqlite3
import struct
import zlib
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kling_mcp.simulator.app import Simulator, Switches
from kling_mcp.simulator.render import sample_video
from kling_mcp.simulator.serve import serving
from tests.jobs.processes.programs import open_ledger

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

    from kling_mcp.jobs.job import Job
    from kling_mcp.simulator.app import Accepted
    from kling_mcp.simulator.serve import BaseUrls

__all__ = ["PICTURE", "Home", "call", "instant_fal"]


def _png(side: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + b"\x20\x60\xa0" * side) * side
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


PICTURE = "data:image/png;base64," + base64.b64encode(_png(320)).decode()
"""A picture that is uploaded, so that a job has all its steps."""


def call(prompt: str, *, upload: bool = True) -> dict[str, object]:
    """The arguments of one call of image_to_video."""
    return {"image": PICTURE if upload else "https://example.com/a.png", "prompt": prompt, "duration": 5}


@asynccontextmanager
async def instant_fal(*, history: bool = True) -> AsyncGenerator[tuple[Simulator, BaseUrls]]:
    """
    A fal that has a video ready by the time anybody can ask.

    Args:
        history: Whether a request can be found again without its id.
    """
    switches = Switches(dispatch_seconds=0, history_lag_seconds=0 if history else 1e9)
    simulator = Simulator(speed=1e9, switches=switches, renderer=sample_video, concurrency=1000)
    async with serving(simulator) as urls:
        yield simulator, urls


@dataclass(frozen=True)
class Home:
    """
    The folders and the key of one user.

    fal knows an account by its key, so each user has a history of their own.
    """

    folder: Path
    key: str
    urls: BaseUrls

    def environment(self, **more: str) -> dict[str, str]:
        """The settings of a server of this user."""
        return {
            "FAL_KEY": self.key,
            "KLING_MCP_DATA_DIR": str(self.folder / "state"),
            "KLING_MCP_OUTPUT_DIR": str(self.folder / "videos"),
            "KLING_MCP_POLL_SECONDS": "0.01",
            "KLING_MCP_DAILY_BUDGET_USD": "100000",
            **self.urls.environment(),
            **more,
        }

    def accepted(self, simulator: Simulator) -> list[Accepted]:
        """What fal has accepted of this user: the truth."""
        return [one for one in simulator.accepted if one.headers["authorization"] == f"Key {self.key}"]

    def jobs(self) -> Sequence[Job]:
        """The ledger's jobs, oldest first, once the ledger has been found sound and its sums right."""
        ledger = open_ledger(self.folder / "state")
        try:
            assert ledger.trouble is None
            assert ledger.check() is None  # type: ignore[attr-defined]  # the SQLite engine has it
            return list(reversed(ledger.page(limit=10_000)))
        finally:
            ledger.close()

    def request_ids(self) -> set[str]:
        """Every request id that the ledger knows."""
        with closing(sqlite3.connect(self.folder / "state" / "ledger.sqlite3")) as db:
            rows = db.execute("SELECT request_id FROM job WHERE request_id IS NOT NULL").fetchall()
            return {row[0] for row in rows}
