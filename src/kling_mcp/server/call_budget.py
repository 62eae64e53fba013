"""
Call budget: the seconds within which a call answers, beside what it was asked to wait.

Hosts cut calls, some at a minute, and a person waits for each. But a ledger
can be locked by another process for half a minute, and fal.ai can be silent
for longer. So such work runs behind the call: the call answers in time with
what is known, and the work goes on to its end and is recorded there.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING, Final, TypeVar

import anyio

from kling_mcp.errors import KlingError, LedgerUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator

__all__ = ["CALL_SECONDS", "CallBudget"]

T = TypeVar("T")
U = TypeVar("U")

log = logging.getLogger(__name__)

CALL_SECONDS: Final = 4.0
"""A call promises five; the rest is for the answer to be written and read."""


class CallBudget:
    """
    The time of one call.

    Args:
        in_background: Starts work that outlives the call.
        seconds: How long the call may take, from now on.
    """

    def __init__(
        self,
        in_background: Callable[[Callable[[], Coroutine[object, object, None]]], object],
        seconds: float = CALL_SECONDS,
    ) -> None:
        self._in_background = in_background
        self._until = anyio.current_time() + seconds

    async def within(self, work: Callable[[], Awaitable[T]], late: KlingError | None = None) -> T:
        """
        What *work* gives, if it does in time; if not, it goes on behind the call.

        Args:
            late: What to raise when it does not; by default, that the ledger is busy.

        Raises:
            KlingError: What *work* raised, or *late*.
        """
        done = await self._run(work, inf)
        if done is None:
            raise late or LedgerUnavailable(
                "The record of jobs is busy: another program holds it.",
                "The same call works once that program has finished with it.",
            )
        return done[0]

    async def within_or(self, work: Callable[[], Awaitable[T]], late: U, *, at_most_seconds: float = inf) -> T | U:
        """
        What *work* gives, or *late* if it is not done in time; it goes on behind the call then.

        Args:
            at_most_seconds: How much of the call's time it may use.

        Raises:
            KlingError: What *work* raised.
        """
        done = await self._run(work, at_most_seconds)
        return late if done is None else done[0]

    async def _run(self, work: Callable[[], Awaitable[T]], at_most_seconds: float) -> tuple[T] | None:
        results: list[tuple[T]] = []
        errors: list[Exception] = []
        done = anyio.Event()
        answered = False

        async def run() -> None:
            try:
                results.append((await work(),))
            except Exception as error:
                errors.append(error)
                if answered:
                    log.info("work that a call did not wait for failed", exc_info=True)
            finally:
                done.set()

        self._in_background(run)
        try:
            with anyio.move_on_after(min(max(0.05, self._until - anyio.current_time()), at_most_seconds)):
                await done.wait()
        finally:
            answered = not done.is_set()
        if errors:
            raise errors[0]
        return results[0] if results else None

    @contextmanager
    def paused(self) -> Generator[None]:
        """Do not count the time that a person takes to answer a question, or that reading large files takes."""
        began = anyio.current_time()
        try:
            yield
        finally:
            self._until += anyio.current_time() - began
