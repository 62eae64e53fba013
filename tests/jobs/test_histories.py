"""
Made-up histories of jobs: the real program holds, and programs with a bug do not.

`KLING_MCP_TEST_STEPS=1000000 pytest -n 0 tests/jobs/test_histories.py -k real` runs the long version;
each step is one call, crash, answer, jump of a clock, or other event.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.errors import Flaky
from hypothesis.stateful import run_state_machine_as_test

from tests.jobs.bugs import BUGS
from tests.jobs.machine import Histories, Variant

if TYPE_CHECKING:
    from collections.abc import Generator

# Before pytest's fixtures take the variables of kling-mcp away.
STEPS = int(os.environ.get("KLING_MCP_TEST_STEPS", "20000"))
STEPS_OF_A_HISTORY = 60
ENOUGH_FOR_A_BUG = 300
"""Histories within which a bug has to show."""
RUNS_AT_MOST = 3


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Trouble is what these histories are made of, and writing it down would take most of their time."""
    caplog.set_level(logging.CRITICAL + 1, "kling_mcp")


@pytest.fixture
def loop() -> Generator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def _machine(variant_: Variant, loop_: asyncio.AbstractEventLoop) -> type[Histories]:
    class Machine(Histories):
        variant = variant_
        loop = loop_

    return Machine


def _run(machine: type[Histories], histories: int, *phases: Phase, always_the_same: bool = False) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=histories,
            stateful_step_count=STEPS_OF_A_HISTORY,
            deadline=None,
            database=None,
            phases=phases,
            derandomize=always_the_same,
            # One is enough, and several would be told as a group.
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),  # pyright: ignore[reportArgumentType]  # its metaclass is typed wrongly
        ),
    )


@pytest.mark.parametrize("part", range(2))
def test_no_history_of_the_real_program_pays_twice_or_loses_a_video(part: int, loop: asyncio.AbstractEventLoop) -> None:
    """
    Two halves, so that two workers can share them.
    """
    machine = _machine(Variant(), loop)

    while machine.steps < STEPS // 2:
        _run(machine, 100, Phase.generate, Phase.shrink)

    assert machine.steps >= STEPS // 2


@pytest.mark.parametrize("bug", BUGS)
def test_a_program_with_a_bug_is_found_out(bug: str, loop: asyncio.AbstractEventLoop) -> None:
    """
    The service's short waits take real time. Where one ends early, Hypothesis meets another history than it expects and
    raises `Flaky`: while it handles a check that failed, or before any did. The second says nothing of the bug, so
    other histories follow.
    """
    for number in range(RUNS_AT_MOST):
        machine = _machine(BUGS[bug], loop)
        with pytest.raises((AssertionError, Flaky)) as found:
            _run(machine, ENOUGH_FOR_A_BUG, Phase.generate, always_the_same=number == 0)
        assert machine.steps <= ENOUGH_FOR_A_BUG * (STEPS_OF_A_HISTORY + 1)
        if _is_a_failed_check(found.value):
            return

    pytest.fail(f"{RUNS_AT_MOST} runs ended before a check failed")


def _is_a_failed_check(error: BaseException) -> bool:
    causes = [error, error.__context__, error.__cause__, *getattr(error, "exceptions", ())]
    return any(isinstance(cause, AssertionError) for cause in causes)
