"""
What the official client answered with ten requests: each submit fault costs at most one here.

Through the real client, service and ledger. Twenty rounds of each; `KLING_PROOF_ROUNDS` sets another number.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest

from kling_mcp.jobs.service import JobService
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
from tests.jobs.processes.programs import answer, settings_of
from tests.jobs.processes.scene import Home, call, instant_fal
from tests.jobs.processes.watched import SwiftFal, swift_runtime

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from kling_mcp.simulator.faults import Fault

pytestmark = pytest.mark.anyio

ROUNDS = int(os.environ.get("KLING_PROOF_ROUNDS", "20"))
RETRIES_AFTER_429 = 2

# The fault, and how many requests of a call reach fal's door while it lasts: only a 429 allows another.
FAULTS: dict[str, tuple[Fault, int]] = {
    "answer lost, closed": (DropAfterAccept(reset=False), 1),
    "answer lost, reset": (DropAfterAccept(), 1),
    "reset before it is read": (DropBeforeAccept(), 0),
    "read timeout": (Hang(), 1),
    "truncated": (Truncated(), 1),
    "408": (Answer(408, accepted=True), 1),
    "409": (Answer(409, accepted=True), 1),
    "429": (too_many(), 1 + RETRIES_AFTER_429),
    "500": (Answer(500, accepted=True), 1),
    "nginx 502": (nginx(502, accepted=True), 1),
    "503": (Answer(503), 1),
    "nginx 504": (nginx(504, accepted=True), 1),
    "no request id": (NoRequestId(), 1),
    "garbage": (Garbage(), 1),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_submit_fault_costs_at_most_one_request(name: str, ram: Path) -> None:
    fault, arrivals = FAULTS[name]
    async with instant_fal() as (fal, urls):
        fal.faults.add("submit", fault, times=None)
        home = Home(ram, CANARY_KEY, urls)
        async with _studio(home, 0.2 if name == "read timeout" else 10.0) as service:
            for number in range(ROUNDS):
                before = len(fal.accepted), _posts(fal)
                call_of_this_round = call(f"video {number}", upload=False)
                with anyio.fail_after(20):
                    answers = [await answer(service, call_of_this_round) for _ in range(2)]

                assert len(fal.accepted) - before[0] <= 1
                # A call that fal has certainly not taken may be made again; no other is.
                certain = (await service.store.get(answers[0])).state == "not_submitted"
                assert certain == (name == "429")
                assert (answers[0] != answers[1]) == certain
                # On a busy machine a client that waits so shortly may have gone before it was heard.
                posts = _posts(fal) - before[1]
                assert posts == arrivals * len(set(answers)) or (name == "read timeout" and posts == 0)

    assert len(home.jobs()) == ROUNDS * (2 if name == "429" else 1)


def test_the_official_client_is_nowhere_near_a_submit() -> None:
    script = (
        "import sys; from tests.jobs.processes.programs import import_everything; import_everything();"
        "sys.exit(any(name.split('.')[0] == 'fal_client' for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0


def _posts(fal: object) -> int:
    return sum(request.kind == "submit" for request in fal.requests)  # type: ignore[attr-defined]


@asynccontextmanager
async def _studio(home: Home, read_seconds: float) -> AsyncGenerator[JobService]:
    settings = settings_of(home.environment())
    service = JobService(settings, lambda: SwiftFal(settings, read_seconds), runtime=swift_runtime(lambda _: None))
    async with service.open():
        yield service
