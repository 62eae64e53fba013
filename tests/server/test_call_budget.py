"""No call takes longer than it was asked to wait and five seconds, whatever hangs behind it."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from kling_mcp.errors import LedgerUnavailable
from kling_mcp.server.call_budget import CallBudget
from kling_mcp.simulator.faults import Hang
from tests.server.hosts import NEWER, OLDER, SHORT, TakesTasks, code_of, data, finished, house, look, refused

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

pytestmark = pytest.mark.anyio

PROMISED_SECONDS = 5


@contextmanager
def locked(folder: Path) -> Generator[None]:
    """The ledger in *folder*, held by another program so that it can be neither read nor written."""
    (file,) = folder.glob("*.sqlite3")
    other = sqlite3.connect(file, isolation_level=None, timeout=10)
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


async def test_a_ledger_that_another_program_holds_delays_no_answer(tmp_path: Path) -> None:
    """
    Everything that needs it says so in time; everything else goes on; and once it is free, so does all.
    """
    calls: dict[str, dict[str, Any]] = {
        "get_job": {"wait_seconds": 0},
        "cancel_job": {},
        "list_jobs": {},
        "image_to_video": {**SHORT, "take": 2},
    }
    async with house(tmp_path, speed=5) as place, place.connect(NEWER) as client:
        job_id = data(await client.call_tool("image_to_video", SHORT))["job_id"]
        refusals: list[dict[str, Any]] = []

        async def ask(name: str, arguments: dict[str, Any]) -> None:
            # Bounded as promised: the answers come together, not one after the other.
            with anyio.fail_after(PROMISED_SECONDS + 1):
                refusals.append(refused(await client.call_tool(name, arguments)))

        with locked(tmp_path / "state"):
            async with anyio.create_task_group() as tasks:
                for name, arguments in calls.items():
                    named = {"job_id": job_id} if name in {"get_job", "cancel_job"} else {}
                    tasks.start_soon(ask, name, {**arguments, **named})
                with anyio.fail_after(PROMISED_SECONDS + 1):
                    estimate = data(await client.call_tool("estimate_cost", SHORT))
                with anyio.fail_after(PROMISED_SECONDS + 1):
                    listed = await client.list_resources()
        after = data(await client.call_tool("get_job", {"job_id": job_id}))

    assert [error["code"] for error in refusals] == ["ledger_unavailable"] * len(calls)
    assert estimate["budget"]["remaining_today_usd"] is None
    assert str(listed.resources[0].uri) == "kling://models"
    assert after["job_id"] == job_id


async def test_a_wait_ends_in_time_though_the_ledger_is_held_meanwhile(tmp_path: Path) -> None:
    """
    The answer is the job as it was last seen.
    """
    async with house(tmp_path, speed=5) as place, place.connect(NEWER) as client:
        job_id = data(await client.call_tool("image_to_video", SHORT))["job_id"]
        answers: list[dict[str, Any]] = []

        async def wait() -> None:
            with anyio.fail_after(2 + PROMISED_SECONDS):
                answers.append(data(await client.call_tool("get_job", {"job_id": job_id, "wait_seconds": 2})))
            answered.set()

        answered = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.sleep(0.3)
            with locked(tmp_path / "state"):
                # It is let go of only once the answer is there.
                await answered.wait()

    assert answers[0]["state"] in {"queued", "running"}


async def test_a_silent_fal_delays_no_answer(tmp_path: Path) -> None:
    """
    A submit that is not answered is a job that is being sent; a cancel that is not answered says so.
    """
    async with house(tmp_path, speed=0.5) as place, place.connect(OLDER) as client:
        running = data(await client.call_tool("image_to_video", SHORT))
        place.simulator.faults.add("submit", Hang(accepted=True))
        place.simulator.faults.add("cancel", Hang(accepted=False), times=None)
        with anyio.fail_after(PROMISED_SECONDS):
            sending = data(await client.call_tool("image_to_video", {**SHORT, "take": 2}))
        with anyio.fail_after(PROMISED_SECONDS):
            cancelling = data(await client.call_tool("cancel_job", {"job_id": running["job_id"]}))
        place.simulator.faults.clear()

    assert sending["state"] == "submitting"
    assert "get_job" in sending["next_step"]
    assert any("has not answered yet" in warning for warning in cancelling["warnings"])
    assert place.accepted == 2


async def test_a_task_is_answered_in_time_too(tmp_path: Path) -> None:
    """
    A task whose ledger is held is an error that may be asked again, not a task that is gone.
    """
    async with house(tmp_path) as place, place.connect(NEWER, extensions=[TakesTasks()]) as client:
        offered = await client.session.call_tool("image_to_video", SHORT, allow_claimed=True)
        task_id = offered.task_id  # type: ignore[union-attr]
        with locked(tmp_path / "state"), anyio.fail_after(PROMISED_SECONDS):
            assert await code_of(look(client.session, task_id)) == -32603
        assert (await finished(client, task_id))["state"] == "completed"


async def test_a_person_s_time_is_not_the_call_s() -> None:
    """
    A user who thinks about a price for minutes still gets the job started.
    """
    async with anyio.create_task_group() as tasks:
        budget = CallBudget(lambda work: tasks.start_soon(work))
        with budget.paused():
            await anyio.sleep(0.2)

        async def quick() -> str:
            return "done"

        assert await budget.within(quick) == "done"
        short = CallBudget(lambda work: tasks.start_soon(work), 0.1)
        late = LedgerUnavailable("late", "later")
        over = anyio.Event()

        async def slow() -> str:
            await over.wait()
            return "ignored"

        with pytest.raises(LedgerUnavailable, match="late"):
            await short.within(slow, late)
        assert await budget.within_or(slow, "unknown", at_most_seconds=0.1) == "unknown"
        over.set()


async def test_progress_keeps_coming_while_nothing_changes(tmp_path: Path) -> None:
    """
    At least every ten seconds: some hosts give up on a silent call. Here nothing changes for six.
    """
    heard: list[float] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append(progress)

    async with house(tmp_path, speed=0.1, KLING_MCP_POLL_SECONDS="30") as place, place.connect(NEWER) as client:
        job = data(await client.call_tool("image_to_video", SHORT))
        await client.call_tool("get_job", {"job_id": job["job_id"], "wait_seconds": 6}, progress_callback=hear)

    gaps = [later - earlier for earlier, later in pairwise(heard)]
    assert len(heard) >= 2
    assert all(0 < gap < 10 for gap in gaps)
