"""
The same call from two servers at once, and again after a crash: one request, and both answers name the same job.

A hundred pairs; `KLING_PROOF_PAIRS` sets another number.
"""

from __future__ import annotations

import os
import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import anyio
import pytest

from tests.conftest import CANARY_KEY
from tests.jobs.processes.pipe_client import PipeClient
from tests.jobs.processes.scene import Home, call, instant_fal

if TYPE_CHECKING:
    from pathlib import Path

    from tests.jobs.processes.fork_server import ForkServer

pytestmark = pytest.mark.anyio

PAIRS = int(os.environ.get("KLING_PROOF_PAIRS", "100"))
CRASH_EVERY = 5


async def test_two_panels_that_make_the_same_call_get_the_same_job(forks: ForkServer, ram: Path) -> None:
    async with instant_fal() as (fal, urls), AsyncExitStack() as stack:
        home = Home(ram, CANARY_KEY, urls)

        async def panel() -> PipeClient:
            process = forks.start("serve", home.environment(), ram / "errors.txt", pause_seconds=0.05)
            host = PipeClient(await stack.enter_async_context(process))
            await host.hello()
            return host

        left, right = await panel(), await panel()
        with anyio.fail_after(60 + PAIRS):
            for number in range(PAIRS):
                arguments = call(f"video {number}")
                asked = [(host, host.tool("image_to_video", arguments)) for host in (left, right)]
                answers = [(await host.answer(question))["result"] for host, question in asked]
                jobs = [answer["structuredContent"]["job_id"] for answer in answers]
                assert jobs[0] == jobs[1]
                # Only one of them is told that nothing new was charged.
                assert ["was made before" in str(answer) for answer in answers].count(True) == 1
                if number % CRASH_EVERY == 0:
                    left.process.signal(signal.SIGKILL)
                    await left.process.gone()
                    left = await panel()
                    assert (await left.job("image_to_video", arguments))["job_id"] == jobs[0]

    assert len(fal.accepted) == PAIRS
    assert {one.body["prompt"] for one in fal.accepted} == {f"video {number}" for number in range(PAIRS)}
    assert len(home.jobs()) == PAIRS
