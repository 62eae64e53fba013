"""
Three servers on one ledger, killed at moments that nobody chose, and every call repeated after the restart.

`KLING_PROOF_KILLS=10000` makes the night's version; 200 kills otherwise. The
servers speak MCP over pipes; they are forked from a warm process, because a cold
start is a second in which there is nothing to kill. `KLING_PROOF_SEED` chooses
other moments.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
from collections import Counter, deque
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio
import pytest

from tests.conftest import CANARY_KEY
from tests.jobs.processes.pipe_client import PipeClient
from tests.jobs.processes.scene import Home, call, instant_fal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kling_mcp.simulator.app import Accepted
    from tests.jobs.processes.fork_server import ForkServer, Process

pytestmark = pytest.mark.anyio

KILLS = int(os.environ.get("KLING_PROOF_KILLS", "200"))
SEED = int(os.environ.get("KLING_PROOF_SEED", "20261121"))
SERVERS = 3


@dataclass
class Calls:
    """The calls that are still to be made, and how often a server was killed so far."""

    waiting: deque[str] = field(default_factory=deque)
    made: int = 0
    kills: int = 0

    def next(self) -> str:
        if not self.waiting:
            self.made += 1
            self.waiting.append(f"video {self.made}")
        return self.waiting.popleft()


async def test_random_kills_of_three_servers_lose_no_video_and_buy_none_twice(forks: ForkServer, ram: Path) -> None:
    chance, calls = random.Random(SEED), Calls()
    async with instant_fal() as (fal, urls):
        home = Home(ram, CANARY_KEY, urls)
        with anyio.fail_after(60 + KILLS):
            async with anyio.create_task_group() as slots:
                for _ in range(SERVERS):
                    slots.start_soon(_be_killed_again_and_again, calls, chance, forks, home)
            # What was interrupted last is called for once more, by a host whose server lives.
            async with _server(forks, home) as process:
                host = PipeClient(process)
                await host.hello()
                for number in range(1, calls.made + 1):
                    await host.job("image_to_video", call(f"video {number}"))
            for _ in range(2):
                # The first takes over what the last servers left, the second looks at what became of it.
                async with forks.start("only_recover", home.environment(), ram / "errors.txt") as process:
                    assert await process.gone() == 0, (ram / "errors.txt").read_text()

    jobs = home.jobs()
    assert calls.kills >= KILLS
    assert not _twice(fal.accepted, home), _twice(fal.accepted, home)
    assert {one.request_id for one in fal.accepted} == home.request_ids()
    assert {job.state for job in jobs} <= {"completed", "not_submitted", "unknown"}
    assert sum(job.state == "completed" for job in jobs) == len(fal.accepted)
    assert len(list((ram / "videos").glob("*.mp4"))) == len(fal.accepted)
    with closing(sqlite3.connect(ram / "state" / "ledger.sqlite3")) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def _twice(accepted: Sequence[Accepted], home: Home) -> list[str]:
    """What is known of each request whose call had one already."""
    calls = Counter(str(one.body["prompt"]) for one in accepted)
    with closing(sqlite3.connect(home.folder / "state" / "ledger.sqlite3")) as db:
        return [
            f"{one} {db.execute('SELECT * FROM event WHERE job = ?', (one.tags['kling_intent'],)).fetchall()}"
            for one in accepted
            if calls[str(one.body["prompt"])] > 1
        ]


def _server(forks: ForkServer, home: Home) -> Process:
    return forks.start("serve", home.environment(), home.folder / "errors.txt", pause_seconds=0.2)


async def _be_killed_again_and_again(calls: Calls, chance: random.Random, forks: ForkServer, home: Home) -> None:
    prompt = calls.next()
    while calls.kills < KILLS:
        async with _server(forks, home) as process, anyio.create_task_group() as life:
            life.start_soon(_kill_soon, process, chance)
            host = PipeClient(process)
            try:
                await host.hello()
                while True:
                    await host.job("image_to_video", call(prompt))
                    prompt = calls.next()
            except EOFError:
                # The call that was not answered is the first one to the next server.
                assert await process.gone() == -9
                calls.kills += 1
    calls.waiting.append(prompt)


async def _kill_soon(process: Process, chance: random.Random) -> None:
    # Most die young, some live long enough to take over what others left.
    await anyio.sleep(chance.choice((chance.random() * 0.2, chance.random() * 0.2, chance.random() * 1.2)))
    process.signal(signal.SIGKILL)
