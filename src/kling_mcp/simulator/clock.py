"""
The simulator's time is an argument.

A request's state is computed from the clock at the moment somebody asks, so a
test can jump over an hour of rendering, and a demo can shrink it.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol

__all__ = ["Clock", "ManualClock", "ScaledClock", "iso"]


class Clock(Protocol):
    """Where the simulator reads the time."""

    def now(self) -> float:
        """Seconds since 1970, never less than the last answer."""
        ...


class ScaledClock:
    """
    The real time, running *speed* times as fast from the moment it was made.

    Everything is scaled, also lifetimes, timeouts and the ``Date`` header, so
    after a while its dates are ahead of the machine's. To shorten only the
    rendering, keep the speed at 1 and give the simulator a ``speed`` instead.
    """

    def __init__(self, speed: float = 1.0) -> None:
        self.speed = speed
        self._wall = time.time()
        self._origin = time.monotonic()

    def now(self) -> float:
        """Seconds since 1970 on the scaled clock."""
        return self._wall + (time.monotonic() - self._origin) * self.speed


class ManualClock:
    """A clock that moves only when a test moves it."""

    def __init__(self, start: float = 1_767_225_600.0) -> None:
        self._now = start

    def now(self) -> float:
        """Seconds since 1970, as the test has set them."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move the clock forward by *seconds*."""
        self._now += seconds


def iso(seconds: float) -> str:
    """*seconds* since 1970 as fal writes a time: UTC with microseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
