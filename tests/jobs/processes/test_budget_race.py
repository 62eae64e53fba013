"""
Fifty processes want 1.7 times the daily budget at once, and at no commit is the limit passed.

`KLING_PROOF_RESERVATIONS=400` lets each process ask that often; 40 times otherwise.
"""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import AsyncExitStack, closing
from typing import TYPE_CHECKING

import anyio
import pytest

from kling_mcp.simulator.serve import bind, urls_of
from tests.conftest import CANARY_KEY
from tests.jobs.processes.programs import open_ledger
from tests.jobs.processes.scene import Home

if TYPE_CHECKING:
    from pathlib import Path

    from tests.jobs.processes.fork_server import ForkServer

pytestmark = pytest.mark.anyio

PROCESSES = 50
TIMES = int(os.environ.get("KLING_PROOF_RESERVATIONS", "40"))
CEILING_MICROUSD = 1_000_000
WANTED_MICROUSD = PROCESSES * TIMES * CEILING_MICROUSD
LIMIT_MICROUSD = WANTED_MICROUSD * 10 // 17
NOON_MS = 1_795_000_000_000

# The engine itself writes down every state of the budget that any process commits.
WATCH = """
CREATE TABLE seen (seq INTEGER PRIMARY KEY, used_u INTEGER NOT NULL);
CREATE TRIGGER watch AFTER UPDATE ON budget BEGIN
    INSERT INTO seen (used_u) VALUES (NEW.held_u + NEW.spent_u);
END;
"""


async def test_fifty_processes_never_pass_the_limit(forks: ForkServer, ram: Path) -> None:
    with bind() as nobody:
        home = Home(ram, CANARY_KEY, urls_of(nobody))
        open_ledger(ram / "state").close()
        with closing(sqlite3.connect(ram / "state" / "ledger.sqlite3")) as db:
            db.executescript(WATCH)
        options = {
            "times": TIMES,
            "ceiling_microusd": CEILING_MICROUSD,
            "day_microusd": LIMIT_MICROUSD,
            "now_ms": NOON_MS,
        }
        async with AsyncExitStack() as stack:
            racers = [
                await stack.enter_async_context(
                    forks.start(
                        "reserve_in_a_race", home.environment(), ram / "errors.txt", name=str(number), **options
                    )
                )
                for number in range(PROCESSES)
            ]
            with anyio.fail_after(120):
                for racer in racers:
                    assert await racer.line() == b'"ready"', (ram / "errors.txt").read_text()
                for racer in racers:
                    racer.write(b"!")
                scores = [json.loads(await racer.line()) for racer in racers]

    held, refused = (sum(score[name] for score in scores) for name in ("held", "refused"))
    assert [score["errors"] for score in scores] == [[]] * PROCESSES
    assert held * CEILING_MICROUSD <= LIMIT_MICROUSD < (held + 1) * CEILING_MICROUSD
    assert held + refused == PROCESSES * TIMES
    with closing(sqlite3.connect(ram / "state" / "ledger.sqlite3")) as db:
        commits, most_microusd = db.execute("SELECT COUNT(*), MAX(used_u) FROM seen").fetchone()
        [(held_microusd, spent_microusd)] = db.execute("SELECT held_u, spent_u FROM budget").fetchall()
    assert commits >= held
    assert most_microusd <= LIMIT_MICROUSD
    assert held_microusd + spent_microusd == held * CEILING_MICROUSD
    assert len(home.jobs()) == held
