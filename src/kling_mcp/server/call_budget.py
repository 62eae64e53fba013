"""
How long a call may take beside what it was asked to wait.

Hosts cut calls, some at a minute, and a person sits before each. But a ledger
can be locked by another process for half a minute, and fal can be silent
longer than that. So such work is done behind the call, which answers in time
with what is known; the work goes on to its own end and is recorded there.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio

from kling_mcp.errors import KlingError, LedgerUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

__all__ = ["CallBudget"]

T = TypeVar("T")

log = logging.getLogger(__name__)

_SECONDS: Final = 4.0
"""A call promises five; what is left is for the answer to be written and read."""


class CallBudget:
    """
    The time of one call.

    Args:
        in_background: Starts work that outlives the call.
    """

    def __init__(self, in_background: Callable[[Callable[[], Any]], None]) -> None:
        self._in_background = in_background
        self._until = anyio.current_time() + _SECONDS

    async def within(
        self, work: Callable[[], Awaitable[T]], late: KlingError | None = None, *, extra_seconds: float = 0
    ) -> T:
        """
        What *work* gives, if it does in time; it goes on behind the call if not.

        Args:
            late: What to raise when it does not; by default, that the ledger is busy.
            extra_seconds: How much longer than the call's own time it may take.

        Raises:
            KlingError: What *work* raised, or *late*.
        """
        given: list[T] = []
        failed: list[Exception] = []
        done = anyio.Event()

        async def run() -> None:
            try:
                given.append(await work())
            except Exception as error:
                failed.append(error)
                if gone:
                    log.info("work that a call did not wait for failed", exc_info=True)
            finally:
                done.set()

        gone = False
        self._in_background(run)
        try:
            with anyio.move_on_after(max(0.05, self._until - anyio.current_time()) + extra_seconds):
                await done.wait()
        finally:
            gone = not done.is_set()
        if failed:
            raise failed[0]
        if not given:
            raise late or _busy()
        return given[0]

    @contextmanager
    def paused(self) -> Generator[None]:
        """While a person is asked something, the call's own time stands still."""
        began = anyio.current_time()
        try:
            yield
        finally:
            self._until += anyio.current_time() - began


def _busy() -> KlingError:
    return LedgerUnavailable(
        "The record of jobs is busy: another program holds it.",
        "The same call works once that program has finished with it.",
    )
