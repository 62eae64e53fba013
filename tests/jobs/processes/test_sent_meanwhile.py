"""A job that is sent between another server's look at it and what the other makes of it."""

from __future__ import annotations

import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import anyio
import anyio.from_thread
import pytest

from kling_mcp.jobs.service import JobService
from tests.conftest import CANARY_KEY
from tests.jobs.processes.gates import InServer, OnWire
from tests.jobs.processes.programs import open_ledger, settings_of
from tests.jobs.processes.scene import Home, call, instant_fal
from tests.jobs.processes.watched import SwiftFal, WatchedLedger

if TYPE_CHECKING:
    from pathlib import Path

    from tests.jobs.processes.fork_server import ForkServer

pytestmark = pytest.mark.anyio


async def test_a_job_that_was_sent_after_recovery_had_looked_at_it_is_not_taken_for_unsent(
    forks: ForkServer, ram: Path
) -> None:
    order: dict[str, Any] = {"arguments": call("a video")}
    async with instant_fal() as (fal, urls), AsyncExitStack() as stack:
        home, wire = Home(ram / "home", CANARY_KEY, urls), OnWire(0)
        fal.faults.add("submit", wire)
        with InServer(ram / "first", "reserved") as first, InServer(ram / "second", "after unfinished") as second:
            with anyio.fail_after(30):
                dying = await stack.enter_async_context(
                    forks.start("make_a_video", home.environment(), read_seconds=20, **order, **first.options)
                )
                await first.reached()
                recovering = await stack.enter_async_context(
                    forks.start("make_a_video", home.environment(), **order, **second.options)
                )
                # The other has read that the job is being prepared ...
                await second.reached()
                first.open()
                # ... and now fal has it, and its server dies before it knows.
                await wire.reached()
                dying.signal(signal.SIGKILL)
                await dying.gone()
                second.open()
                assert await recovering.gone() == 0

    assert len(fal.accepted) == 1
    assert [(job.state, job.request_id) for job in home.jobs()] == [("completed", fal.accepted[0].request_id)]


async def test_a_job_sent_while_it_is_being_cancelled_is_not_called_unsent(forks: ForkServer, ram: Path) -> None:
    async with instant_fal() as (fal, urls), AsyncExitStack() as stack:
        home, wire = Home(ram / "home", CANARY_KEY, urls), OnWire(0)
        fal.faults.add("submit", wire)
        first = stack.enter_context(InServer(ram / "first", "reserved"))

        def sent_meanwhile(point: str) -> None:
            if point.startswith("before apply"):
                first.open()
                anyio.from_thread.run(wire.reached)

        settings = settings_of(home.environment())
        panel = JobService(
            settings,
            lambda: SwiftFal(settings, 5.0),
            lambda: WatchedLedger(open_ledger(settings.data_dir), sent_meanwhile),  # type: ignore[arg-type, return-value]
        )
        with anyio.fail_after(30):
            sender = await stack.enter_async_context(
                forks.start(
                    "make_a_video", home.environment(), arguments=call("a video"), read_seconds=20, **first.options
                )
            )
            await first.reached()
            async with panel.open():
                [job] = await panel.store.page(None, 10, None)
                cancelled, said = await panel.cancel(job.job_id)
            wire.open()
            assert await sender.gone() == 0

    assert (job.state, cancelled.state) == ("preparing", "submitting")
    assert "may still run and be billed" in said
    assert {one.request_id for one in fal.accepted} == home.request_ids()
    assert len(fal.accepted) == 1
