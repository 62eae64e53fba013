"""Time and chance as arguments, so that a test can hold both."""

from __future__ import annotations

import random
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Runtime"]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _new_job_id() -> str:
    # 128 random bits: a job id is also a task handle, which must not be guessable.
    return f"kj_{secrets.token_urlsafe(16)}"


def _nothing(_: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Runtime:
    """
    Clock, pauses, ids and chance.

    Args:
        now_ms: UTC milliseconds since 1970.
        sleep: Pauses for a number of seconds.
        new_id: Makes a job id.
        chance: A number from 0 to 1, for jitter.
        checkpoint: Told the name of every point that a job passes on its way; a test can stop the world there.
    """

    now_ms: Callable[[], int] = _now_ms
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep
    new_id: Callable[[], str] = _new_job_id
    chance: Callable[[], float] = random.random
    checkpoint: Callable[[str], None] = _nothing
