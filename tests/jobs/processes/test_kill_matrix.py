"""
SIGKILL at every named point from intent to saved video, with every fault of fal, and the call repeated.

The truth is fal's list of accepted requests. Whatever happens, a call has at
most one of them, and the ledger knows each after recovery.

29 points and 13 kinds of trouble make 377 cells, each of two processes or more,
forked from a warm one (see `warm`). `KLING_PROOF_KILLS_PER_CELL=3` kills the
first two servers that recover as well, at the same point.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import anyio
import pytest

from kling_mcp.simulator.faults import (
    Answer,
    DropAfterAccept,
    DropBeforeAccept,
    Garbage,
    Hang,
    NoRequestId,
    Truncated,
    nginx,
    too_many,
)
from tests.conftest import CANARY_KEY
from tests.jobs.processes.scene import Home, call, instant_fal
from tests.jobs.processes.watched import POINTS

if TYPE_CHECKING:
    from pathlib import Path

    from kling_mcp.simulator.faults import CallKind, Fault
    from tests.jobs.processes.fork_server import ForkServer

pytestmark = pytest.mark.anyio

FAULTS: dict[str, tuple[CallKind, Fault] | None] = {
    "nothing": None,
    "accepted, then reset": ("submit", DropAfterAccept()),
    "accepted, then closed": ("submit", DropAfterAccept(reset=False)),
    "reset before it is read": ("submit", DropBeforeAccept()),
    "accepted and 500": ("submit", Answer(500, accepted=True)),
    "accepted and nginx 502": ("submit", nginx(502, accepted=True)),
    "504": ("submit", Answer(504)),
    "429": ("submit", too_many()),
    "truncated": ("submit", Truncated()),
    "no request id": ("submit", NoRequestId()),
    "silence": ("submit", Hang()),
    "garbage": ("submit", Garbage()),
    "504 on the result": ("result", Answer(504)),
}
KILLS = int(os.environ.get("KLING_PROOF_KILLS_PER_CELL", "1"))
AT_ONCE = 4


@pytest.mark.parametrize("point", POINTS)
async def test_a_kill_loses_no_video_and_buys_none_twice(point: str, forks: ForkServer, ram: Path) -> None:
    killed: list[str] = []
    slots = anyio.CapacityLimiter(AT_ONCE)

    async def cell(number: int, fault: str) -> None:
        async with slots:
            killed.extend([fault] * await _kill(point, fault, forks, ram / str(number)))

    with anyio.fail_after(120):
        async with anyio.create_task_group() as cells:
            for number, fault in enumerate(FAULTS):
                cells.start_soon(cell, number, fault)

    assert killed


async def _kill(point: str, fault: str, forks: ForkServer, folder: Path) -> int:
    """Let one user be killed at *point* while fal has *fault*, and look at what is left; how often it came to that."""
    kill: dict[str, object] = {"point": point, "then": "kill"}
    # Only a server that finds a dead one's job takes it over.
    before = [{"point": "sending recorded", "then": "kill"}] if point.endswith("adopt") else []
    codes: list[int] = []
    errors = folder.with_suffix(".txt")
    async with instant_fal() as (fal, urls):
        if (trouble := FAULTS[fault]) is not None:
            fal.faults.add(*trouble)
        home = Home(folder, CANARY_KEY, urls)
        for plot in (*before, *[kill] * KILLS, {}):
            order = {"arguments": call(fault), "read_seconds": 0.4, **plot}
            async with forks.start("make_a_video", home.environment(), errors, **order) as process:
                codes.append(await process.gone())

    assert set(codes) <= {-9, 0}, errors.read_text()
    assert codes[-1] == 0, errors.read_text()
    accepted, jobs = fal.accepted, home.jobs()
    assert len(accepted) <= 1, fault
    assert {one.request_id for one in accepted} == home.request_ids(), fault
    assert {job.state for job in jobs} <= {"completed", "unknown", "not_submitted"}, fault
    assert not accepted or "unknown" not in {job.state for job in jobs}, fault
    finished = [job for job in jobs if job.state == "completed"]
    videos = sorted((home.folder / "videos").glob("*.mp4"))
    assert len(finished) == len(accepted), fault
    assert [job.saved_to for job in finished] == [str(video) for video in videos], fault
    return codes[len(before) :].count(-9)
