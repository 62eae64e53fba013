"""The line of an account, without HTTP: every state follows from the clock alone."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kling_mcp.simulator.clock import ManualClock, ScaledClock, iso
from kling_mcp.simulator.outcomes import cancelled, success
from kling_mcp.simulator.queue import Job, Queue, Shot


def job(clock: ManualClock, name: str, **changes: Any) -> Job:
    values: dict[str, Any] = {
        "request_id": name,
        "endpoint_id": "fal-ai/kling-video/x",
        "account": "a",
        "body": {},
        "headers": {},
        "tags": {},
        "sent_at": clock.now(),
        "ready_at": clock.now() + 1,
        "work_seconds": 10.0,
        "outcome": success(),
        "shots": (Shot("p", 5),),
    }
    return Job(**{**values, **changes})


def test_a_thousand_jobs_end_one_after_the_other_however_late_one_looks() -> None:
    clock = ManualClock()
    queue = Queue(clock)
    jobs = [job(clock, str(number)) for number in range(1000)]
    for one in jobs:
        queue.add(one)

    clock.advance(1 + 10 * 1000)

    assert queue.look(jobs[999]).state == "COMPLETED"
    assert [one.ended_at for one in jobs] == [jobs[0].ready_at + 10 * (number + 1) for number in range(1000)]
    assert len(queue.ended("a", clock.now())) == 1000


@settings(max_examples=60, deadline=None)
@given(
    works=st.lists(st.floats(0.5, 50), min_size=1, max_size=12),
    looks=st.lists(st.floats(0.1, 40), max_size=30),
    runners=st.integers(1, 3),
)
def test_how_often_one_looks_changes_nothing(works: list[float], looks: list[float], runners: int) -> None:
    def ends(steps: list[float]) -> list[float | None]:
        clock = ManualClock(0.0)
        queue = Queue(clock, concurrency=runners)
        jobs = [job(clock, str(number), work_seconds=work) for number, work in enumerate(works)]
        for one in jobs:
            queue.add(one)
        for step in steps:
            clock.advance(step)
            queue.waiting("a")
        clock.advance(10_000 - clock.now())
        queue.waiting("a")
        return [one.ended_at for one in jobs]

    assert ends(looks) == ends([])


def test_a_runner_that_is_stopped_takes_the_next_at_once() -> None:
    clock = ManualClock()
    queue = Queue(clock)
    first, second = job(clock, "1"), job(clock, "2")
    queue.add(first)
    queue.add(second)
    clock.advance(4)

    assert queue.cancel(first, cancelled(), stops_running=True) == "CANCELLATION_REQUESTED"

    queue.waiting("a")
    assert first.ended_at == second.started_at == clock.now()


def test_what_waits_too_long_leaves_the_line_at_its_deadline() -> None:
    clock = ManualClock()
    queue = Queue(clock)
    queue.add(job(clock, "1"))
    late = job(clock, "2", start_by=clock.now() + 5)
    queue.add(late)
    queue.add(job(clock, "3"))

    clock.advance(7)

    assert queue.waiting("a") == 1
    assert (late.started_at, late.ended_at, late.outcome.status) == (None, late.start_by, 504)


def test_a_job_without_a_deadline_waits_for_ever() -> None:
    clock = ManualClock()
    assert job(clock, "1").start_by == math.inf


def test_a_scaled_clock_runs_ahead_and_never_back() -> None:
    clock = ScaledClock(1e6)

    looks = [clock.now() for _ in range(1000)]

    assert looks == sorted(looks)
    assert looks[-1] > looks[0]


def test_a_time_is_written_as_fal_writes_it() -> None:
    assert iso(1_767_225_600.25) == "2026-01-01T00:00:00.250000Z"
