"""How often each thing is done: enough for a figure, or just enough to see that it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["FULL", "TINY", "Counts"]


@dataclass(frozen=True, slots=True)
class Counts:
    """
    How often and how many.

    Args:
        starts: Cold starts of each server.
        calls: Paid calls.
        reads: Reads of each kind.
        crowds: Numbers of jobs that run at once.
        job_seconds: How long a job of a crowd takes.
        rows: Jobs in a large ledger.
        peers: Whether the servers of others are installed and measured too.
    """

    starts: int
    calls: int
    reads: int
    crowds: tuple[int, ...]
    job_seconds: float
    rows: int
    peers: bool


FULL: Final = Counts(starts=31, calls=30, reads=400, crowds=(1, 10, 100, 1000), job_seconds=30, rows=10_000, peers=True)
TINY: Final = Counts(starts=1, calls=1, reads=2, crowds=(1,), job_seconds=1, rows=20, peers=False)
