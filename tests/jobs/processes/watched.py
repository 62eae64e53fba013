"""A ledger and a world that tell each step of a job, and what a test lets happen there."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from kling_mcp.errors import LedgerUnavailable
from kling_mcp.fal.client import Fal
from kling_mcp.fal.http import Deadline, Deadlines, FalHttp
from kling_mcp.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kling_mcp.jobs.ledger import Ledger
    from kling_mcp.settings import Settings

__all__ = ["LEDGER_STEPS", "MILESTONES", "POINTS", "SwiftFal", "WatchedLedger", "at_point", "swift_runtime"]

MILESTONES = (
    "reserved",
    "uploading",
    "uploaded",
    "before sending is recorded",
    "sending recorded",
    "answered",
    "answer recorded",
    "polled",
    "result fetched",
    "end recorded",
    "saving",
    "saved",
    "file recorded",
)
"""What `Runtime.checkpoint` is told on the way from intent to saved video, in this order."""

LEDGER_STEPS = (
    "reserve",
    "remember_upload",
    "apply Sending",
    "apply Accepted",
    "apply LostTrack",
    "apply Finished",
    "adopt",
    "mark_saved",
)
"""The writes of a job's life; `WatchedLedger` tells of each before and after it."""

POINTS = (*MILESTONES, *(f"{when} {step}" for step in LEDGER_STEPS for when in ("before", "after")))


class WatchedLedger:
    """A ledger that says what it is about to do and what it has done."""

    def __init__(self, ledger: Ledger, passed: Callable[[str], None]) -> None:
        self._ledger = ledger
        self._passed = passed

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._ledger, name)
        if not callable(member):
            return member

        def watched(*arguments: Any, **named: Any) -> Any:
            step = f"apply {type(arguments[1]).__name__}" if name == "apply" else name
            self._passed(f"before {step}")
            answer = member(*arguments, **named)
            self._passed(f"after {step}")
            return answer

        return watched


class SwiftFal(Fal):
    """The client of fal with short deadlines and pauses: a test has no minute to wait for a lost answer."""

    def __init__(self, settings: Settings, read_seconds: float) -> None:
        short = Deadline(5, read_seconds, 2 * read_seconds)
        deadlines = Deadlines(submit=short, status=short, result=short, cancel=short, lookup=Deadline(5, 5, 5))
        super().__init__(
            settings, FalHttp(settings.hosts, settings.fal_key, deadlines=deadlines, sleep=_next_to_nothing)
        )


def swift_runtime(passed: Callable[[str], None], sleep: Callable[[float], Any] | None = None) -> Runtime:
    """The real clock and ids, and pauses of next to nothing."""
    return replace(Runtime(), checkpoint=passed, sleep=sleep or _next_to_nothing)


async def _next_to_nothing(seconds: float) -> None:
    await anyio.sleep(min(seconds, 0.01))


def at_point(options: Mapping[str, Any]) -> Callable[[str], None]:
    """
    What happens when the point named in *options* is passed for the first time.

    `kill`: the process is gone at once. `hold`: it says so in the fifo `told` and
    stops there until something can be read from the fifo `released`. `fill`: the
    disk below that folder is full from then on. `limit`: no file can grow beyond the ledger's size
    from then on. `refuse`: the ledger fails once.
    """
    point = options.get("point")
    pending = point is not None

    def passed(name: str) -> None:
        nonlocal pending
        if not pending or name != point:
            return
        pending = False
        match options["then"]:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hold":
                _hold(Path(options["told"]), Path(options["released"]))
            case "fill":
                fill(Path(options["folder"]))
            case "refuse":
                raise LedgerUnavailable("The ledger could not be used just now.", "Nothing is spent meanwhile.")
            case "limit":
                _let_no_file_outgrow_the_ledger(Path(options["folder"]))

    return passed


def _hold(told: Path, released: Path) -> None:
    with told.open("w") as fifo:
        fifo.write("here\n")
    with released.open() as fifo:
        fifo.read(1)


def fill(folder: Path) -> None:
    """Leave not one free block on the disk of *folder*."""
    descriptor = os.open(folder / "filler", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for size in (1 << 16, 1 << 12, 1):
        try:
            while True:
                os.write(descriptor, b"\0" * size)
        except OSError:
            continue
    os.close(descriptor)


def _let_no_file_outgrow_the_ledger(folder: Path) -> None:
    import resource

    # Python ignores the signal that goes with it, so that a write fails as on a full disk.
    size = (folder / "ledger.sqlite3").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def report(data: object) -> None:
    """One line of JSON on standard output, past every buffer."""
    os.write(1, json.dumps(data).encode() + b"\n")
