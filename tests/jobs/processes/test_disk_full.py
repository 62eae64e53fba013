"""
The disk is full from any point on: nothing is sent without an intent, and an accepted id is not lost.

Once on a small disk of its own (tmpfs, where this process may mount one), once
with a limit above which no file can grow, which needs no rights. fal's history
shows nothing here: an id that is known afterwards was written down.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from typing import TYPE_CHECKING

import anyio
import pytest

from tests.conftest import CANARY_KEY
from tests.jobs.processes.scene import Home, call, instant_fal
from tests.jobs.processes.watched import POINTS

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from tests.jobs.processes.fork_server import ForkServer

pytestmark = pytest.mark.anyio

PLACES = [point for point in POINTS if not point.endswith(("adopt", "LostTrack"))]
AT_ONCE = 3


@pytest.mark.parametrize("how", ["fill", "limit"])
async def test_a_full_disk_loses_no_id_and_sends_nothing_unrecorded(how: str, forks: ForkServer, ram: Path) -> None:
    slots = anyio.CapacityLimiter(AT_ONCE)
    sent: list[str] = []

    async def at(number: int, point: str) -> None:
        async with slots:
            sent.extend([point] * await _fill_up(point, how, forks, ram / str(number)))

    with anyio.fail_after(180):
        async with anyio.create_task_group() as tasks:
            for number, point in enumerate(PLACES):
                tasks.start_soon(at, number, point)

    # Where there was no room to record the intent or the request, nothing was sent; after that, a full disk changes
    # nothing.
    assert set(PLACES) - set(sent) == {
        "before reserve",
        "after reserve",
        "reserved",
        "before sending is recorded",
        "before apply Sending",
    }


async def test_an_id_that_the_ledger_does_not_take_is_kept_beside_it(forks: ForkServer, ram: Path) -> None:
    async with instant_fal(history=False) as (fal, urls):
        home, errors = Home(ram, CANARY_KEY, urls), ram / "errors.txt"
        order = {"arguments": call("a video"), "patience_seconds": 0.5}
        async with forks.start(
            "call_once", home.environment(), errors, point="before apply Accepted", then="refuse", **order
        ) as process:
            assert await process.gone() == 0, errors.read_text()
        assert home.request_ids() == set()
        async with forks.start("only_recover", home.environment(), errors) as process:
            assert await process.gone() == 0, errors.read_text()

    assert {one.request_id for one in fal.accepted} == home.request_ids()
    assert [job.state for job in home.jobs()] == ["completed"]
    assert list((ram / "state" / "owners").iterdir()) == []


async def _fill_up(point: str, how: str, forks: ForkServer, folder: Path) -> int:
    """Let one user's disk be full from *point* on; how many requests were accepted before it was emptied."""
    state, errors = folder / "state", folder.with_suffix(".txt")
    async with instant_fal(history=False) as (fal, urls):
        home = Home(folder, CANARY_KEY, urls)
        with _small_disk(state) as mounted:
            then = how if mounted else "limit"
            options = {"point": point, "then": then, "folder": str(state), "patience_seconds": 1.0}
            # Texts that no page of the ledger has room for.
            wish = {**call(f"{point} {'long ' * 450}"), "model": "v3-standard", "negative_prompt": "dull " * 450}
            order = {"arguments": wish, **options}
            # An earlier video, so that the ledger has no page to spare.
            async with forks.start("make_a_video", home.environment(), errors, arguments=call("before")) as process:
                assert await process.gone() == 0, errors.read_text()
            async with forks.start("call_once", home.environment(), errors, **order) as process:
                assert await process.gone() == 0, errors.read_text()
            sent = len(fal.accepted) - 1
            (state / "filler").unlink(missing_ok=True)
            async with forks.start("make_a_video", home.environment(), errors, arguments=wish) as process:
                assert await process.gone() == 0, errors.read_text()
            jobs, request_ids = home.jobs(), home.request_ids()

    assert {one.tags["kling_intent"] for one in fal.accepted} <= {job.job_id for job in jobs}, point
    assert {one.request_id for one in fal.accepted} == request_ids, point
    assert len(fal.accepted) == 2, point
    assert {job.state for job in jobs} <= {"completed", "not_submitted"}, point
    assert "PAID-UNRECORDED" not in errors.read_text(), point
    return sent


@contextlib.contextmanager
def _small_disk(folder: Path) -> Generator[bool]:
    """A disk of two megabytes at *folder*, and whether there is one."""
    folder.mkdir(parents=True)
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    mounted = mount is not None and subprocess.run(command, check=False, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
