"""
The host goes, gives up or ends the server while a job is anywhere between intent and saved video.

Fifty places, each reached for certain: the job stands at a gate in the server or
on the wire when the ending comes. At most one request is accepted, nothing is
stuck after recovery, and the process is gone within two seconds of the ending.
`KLING_PROOF_GATES=closed` keeps every gate on the wire closed until the process
is gone; otherwise only a few stay closed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from tests.conftest import CANARY_KEY
from tests.jobs.processes.fork_server import ROOT, Process
from tests.jobs.processes.gates import InServer, OnWire, StopPoint
from tests.jobs.processes.pipe_client import PipeClient
from tests.jobs.processes.scene import Home, call, instant_fal
from tests.jobs.processes.watched import LEDGER_STEPS, MILESTONES

if TYPE_CHECKING:
    from kling_mcp.simulator.faults import CallKind
    from tests.jobs.processes.fork_server import ForkServer
    from tests.jobs.processes.gates import Gate

pytestmark = pytest.mark.anyio

GONE_WITHIN_SECONDS = 2.0
AT_ONCE = 3

CALLS: tuple[CallKind, ...] = ("token", "upload", "status", "result", "download")
IN_LEDGER = [
    StopPoint(point=f"{when} {step}")
    for step in LEDGER_STEPS
    if step not in {"adopt", "apply LostTrack"}
    for when in ("before", "after")
]
IN_SUBMIT = [StopPoint(call="submit", sent=sent) for sent in (None, 0, 0.01, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.99)]
PLACES = [
    *(StopPoint(point=point) for point in MILESTONES),
    *IN_LEDGER,
    *IN_SUBMIT,
    *(StopPoint(call=kind, sent=sent) for kind in CALLS for sent in (None, 0, 0.5)),
]
CLOSED = PLACES if os.environ.get("KLING_PROOF_GATES") == "closed" else [*IN_LEDGER[2:8], *IN_SUBMIT[:3]]
"""Where a job may stand for longer than the server has: a ledger that is busy, a fal that is slow."""

ENDINGS = ("end of input", "SIGTERM", "cancelled")


@pytest.mark.parametrize("ending", ENDINGS)
async def test_an_ending_anywhere_buys_at_most_once_and_leaves_nothing_stuck(
    ending: str, forks: ForkServer, ram: Path
) -> None:
    assert len(PLACES) == 50
    await _everywhere(PLACES, ending, forks, ram, opens=True)


@pytest.mark.parametrize("ending", ["end of input", "SIGTERM"])
async def test_a_job_that_cannot_go_on_does_not_keep_the_process(ending: str, forks: ForkServer, ram: Path) -> None:
    await _everywhere([place for place in CLOSED if place not in PLACES[:13]], ending, forks, ram, opens=False)


async def _everywhere(places: list[StopPoint], ending: str, forks: ForkServer, folder: Path, *, opens: bool) -> None:
    slots = anyio.CapacityLimiter(AT_ONCE)

    async def at(number: int, place: StopPoint) -> None:
        async with slots:
            await _end(place, ending, forks, folder / str(number), opens=opens)

    with anyio.fail_after(180):
        async with anyio.create_task_group() as tasks:
            for number, place in enumerate(places):
                tasks.start_soon(at, number, place)


async def _end(place: StopPoint, ending: str, forks: ForkServer, folder: Path, *, opens: bool) -> None:
    errors = folder.with_suffix(".txt")
    with ExitStack() as stack:
        async with instant_fal() as (fal, urls):
            home = Home(folder, CANARY_KEY, urls)
            options: dict[str, str] = {}
            gate: Gate
            if place.call is None:
                gate = stack.enter_context(InServer(folder, place.point or ""))
                options = gate.options
            else:
                gate = OnWire(place.sent)
                fal.faults.add(place.call, gate)
            async with forks.start("serve", home.environment(), errors, **options) as process:
                host = PipeClient(process)
                await host.hello()
                question = host.tool("image_to_video", call(str(place)))
                with anyio.fail_after(20):
                    await gate.reached()
                if ending == "cancelled":
                    host.notify("notifications/cancelled", {"requestId": question})
                    gate.open()
                    await host.answer(host.send("ping", {}))
                if ending == "SIGTERM":
                    process.signal(signal.SIGTERM)
                else:
                    process.close_input()
                if opens:
                    gate.open()
                try:
                    with anyio.fail_after(GONE_WITHIN_SECONDS):
                        assert await process.gone() == 0
                except TimeoutError:
                    pytest.fail(f"still there after {ending} at {place}: {errors.read_text()}")
            gate.open()
            fal.faults.clear()

            async with forks.start("make_a_video", home.environment(), errors, arguments=call(str(place))) as process:
                assert await process.gone() == 0, errors.read_text()

    jobs = home.jobs()
    states = {job.state for job in jobs}
    assert len(fal.accepted) <= 1, place
    assert {one.request_id for one in fal.accepted} == home.request_ids(), place
    assert states <= {"completed", "not_submitted", "unknown"}, (place, states)
    assert ("unknown" in states) != ("completed" in states), (place, states)
    assert bool(fal.accepted) == ("completed" in states), (place, states)


@pytest.mark.parametrize("ending", ["end of input", "SIGTERM", "SIGINT", "dead parent"])
async def test_a_server_that_was_started_cold_leaves_cleanly(ending: str, tmp_path: Path) -> None:
    """
    `python -m kling_mcp` as a host starts it, below a parent that can die.
    """
    with (tmp_path / "errors.txt").open("wb") as errors:
        async with instant_fal() as (fal, urls):
            home = Home(tmp_path, CANARY_KEY, urls)
            environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **home.environment()}
            stdin, to_server = os.pipe()
            from_server, stdout = os.pipe()
            with _family(stdin=stdin, stdout=stdout, stderr=errors, env=environment, cwd=ROOT) as parent:
                os.close(stdin)
                os.close(stdout)
                async with Process(lambda _: parent.wait(5), parent.pid, to_server, from_server) as family:
                    with anyio.fail_after(30):
                        server = int(await family.line())
                        host = PipeClient(family)
                        await host.hello()
                        job = await host.job("image_to_video", call("a video"))
                        await host.job("get_job", {"job_id": job["job_id"], "wait_seconds": 20})
                    assert _children(server) == ""
                    limit_seconds = GONE_WITHIN_SECONDS
                    match ending:
                        case "end of input":
                            family.close_input()
                        case "dead parent":
                            # It looks every two seconds.
                            parent.kill()
                            limit_seconds += 2
                        case _:
                            os.kill(server, signal.Signals[ending])
                    with anyio.fail_after(limit_seconds):
                        exit_code = await family.gone()

    assert exit_code == (-9 if ending == "dead parent" else 0)
    assert len(fal.accepted) == 1
    assert [job.state for job in home.jobs()] == ["completed"]
    assert "Traceback" not in (tmp_path / "errors.txt").read_text()
    # Nothing that is kept for a living process is left behind.
    assert list((tmp_path / "state" / "owners").iterdir()) == []


PARENT = """
import subprocess, sys
child = subprocess.Popen(sys.argv[1:])
print(child.pid, flush=True)
sys.exit(child.wait())
"""


def _family(**options: Any) -> subprocess.Popen[Any]:
    return subprocess.Popen([sys.executable, "-c", PARENT, sys.executable, "-m", "kling_mcp"], **options)


def _children(pid: int) -> str:
    """The processes that a process has started, where the kernel tells."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return path.read_text() if path.exists() else ""
