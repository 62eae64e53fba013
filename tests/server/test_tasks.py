"""The tasks extension, as a client that takes tasks meets it; and calls that their host gives up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
import mcp_types as t
import pytest

from tests.server.hosts import (
    DEAR,
    ERAS,
    NEWER,
    SHORT,
    TRANSPORTS,
    CancelTask,
    TakesTasks,
    TaskName,
    code_of,
    data,
    everywhere,
    finished,
    house,
    look,
    refused,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kling_mcp.simulator.faults import Exchange

pytestmark = pytest.mark.anyio


@everywhere
async def test_a_client_that_takes_tasks_gets_one_and_its_result(transport: str, era: str, tmp_path: Path) -> None:
    """
    The newer era only: elsewhere the declaration changes nothing.
    """
    taker = TakesTasks()
    async with house(tmp_path, transport) as place, place.connect(era, extensions=[taker]) as client:
        result = await client.call_tool("image_to_video", SHORT)
        job = data(result)
        done = await finished(client, job["job_id"])

    if era == NEWER:
        (task,) = taker.offered
        assert task.task_id == job["job_id"]
        assert task.ttl_ms is None
        assert taker.seen[0].status == "working"
        assert {state.status for state in taker.seen} == {"working", "completed"}
        assert job == {name: value for name, value in done.items() if name != "arguments"}
        assert [block.type for block in result.content] == ["text"]
    else:
        assert taker.offered == []
        assert done["state"] == "completed"


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_task_outlives_the_server_that_made_it(transport: str, tmp_path: Path) -> None:
    """
    The task's id is the job's: another server, started later on the same ledger, knows it.
    """
    first, second = TakesTasks(), TakesTasks()
    async with house(tmp_path, transport, speed=30) as place:
        async with place.connect(NEWER, extensions=[first]) as client:
            offered = await client.session.call_tool("image_to_video", SHORT, allow_claimed=True)
            task_id = offered.task_id  # type: ignore[union-attr]
        async with place.connect(NEWER, extensions=[second]) as client:
            state = await second.end_of(client.session, task_id)
            nobody = await code_of(look(client.session, "kj_nobody"))

    assert state.status == "completed"
    assert state.result is not None
    assert state.result["structuredContent"]["job_id"] == task_id
    assert state.result["structuredContent"]["video"]["saved_to"]
    assert nobody == t.INVALID_PARAMS
    assert place.accepted == 1


async def test_the_same_call_is_answered_by_the_job_and_is_no_second_task(tmp_path: Path) -> None:
    """
    A host reports a second task as a second video; the first one says what it costs.
    """
    async with house(tmp_path, speed=5) as place, place.connect(NEWER, extensions=[TakesTasks()]) as client:
        first = await client.session.call_tool("image_to_video", SHORT, allow_claimed=True)
        again = await client.session.call_tool("image_to_video", SHORT, allow_claimed=True)

    job = data(again)  # type: ignore[arg-type]
    assert job["job_id"] == first.task_id  # type: ignore[union-attr]
    assert "nothing new was sent or charged" in job["warnings"][-1]
    assert "about $0.26, at most $0.26" in first.status_message  # type: ignore[union-attr]
    assert place.accepted == 1


async def test_a_price_is_agreed_to_before_there_is_a_task(tmp_path: Path) -> None:
    """
    The question comes with the call; the task comes with the answer, and asks nothing more.
    """
    asked: list[str] = []

    async def agree(context: object, params: t.ElicitRequestParams) -> t.ElicitResult:
        asked.append(params.message)
        return t.ElicitResult(action="accept", content={"proceed": True})

    taker = TakesTasks()
    async with house(tmp_path) as place, place.connect(NEWER, extensions=[taker], elicitation_callback=agree) as client:
        job = data(await client.call_tool("image_to_video", DEAR))

    assert len(asked) == 1
    assert [task.task_id for task in taker.offered] == [job["job_id"]]
    assert {state.status for state in taker.seen} <= {"working", "completed"}
    assert place.accepted == 1


async def test_what_fails_at_fal_is_a_completed_task_with_an_error(tmp_path: Path) -> None:
    """
    `failed` is for errors of the protocol; the model shall read what happened.
    """
    taker = TakesTasks()
    async with house(tmp_path) as place, place.connect(NEWER, extensions=[taker]) as client:
        place.simulator.faults.fail("content_policy_violation")
        result = await client.call_tool("image_to_video", SHORT)

    error = refused(result)
    assert taker.seen[-1].status == "completed"
    assert error["job_id"] == taker.offered[0].task_id


async def test_a_cancelled_task_is_cancelled_and_no_message_is_lost(tmp_path: Path) -> None:
    """
    The cancel is acknowledged at once; how it went shows in the task.
    """
    taker = TakesTasks()
    async with house(tmp_path, speed=0.5) as place, place.connect(NEWER, extensions=[taker]) as client:
        await client.session.call_tool("image_to_video", SHORT, allow_claimed=True)
        offered = await client.session.call_tool("image_to_video", {**SHORT, "take": 2}, allow_claimed=True)
        task_id = offered.task_id  # type: ignore[union-attr]
        before = await look(client.session, task_id)
        for _ in range(2):
            await client.session.send_request(CancelTask(params=TaskName(task_id=task_id)), t.EmptyResult)
        after = await look(client.session, task_id)

    assert before.status == "working"
    assert "queued at fal.ai" in (before.status_message or "")
    assert after.status == "cancelled"


async def test_a_task_that_is_cancelled_while_it_renders_goes_on(tmp_path: Path) -> None:
    """
    Hosts cancel the tasks of a chat that is stopped; a video that is billed anyway is not thrown away for that.
    """
    taker = TakesTasks()
    async with house(tmp_path, speed=20) as place, place.connect(NEWER, extensions=[taker]) as client:
        offered = await client.session.call_tool("image_to_video", SHORT, allow_claimed=True)
        task_id = offered.task_id  # type: ignore[union-attr]
        while data(await client.call_tool("get_job", {"job_id": task_id, "wait_seconds": 1}))["state"] != "running":
            pass
        await client.session.send_request(CancelTask(params=TaskName(task_id=task_id)), t.EmptyResult)
        during = data(await client.call_tool("get_job", {"job_id": task_id}))
        end = await taker.end_of(client.session, task_id)

    assert during["warnings"] == []
    assert end.status == "completed"
    assert end.result is not None
    assert end.result["structuredContent"]["state"] == "completed"
    assert [request.kind for request in place.simulator.requests if request.kind == "cancel"] == []


@pytest.mark.parametrize("era", ERAS)
async def test_a_call_given_up_by_its_host_leaves_the_job_running(era: str, tmp_path: Path) -> None:
    """
    A cancelled wait is not a cancelled job: what is paid for is still made.
    """
    async with house(tmp_path, "stdio", speed=50) as place, place.connect(era) as client:
        job_id = data(await client.call_tool("image_to_video", SHORT))["job_id"]
        with anyio.move_on_after(0.2) as gone:
            await client.call_tool("get_job", {"job_id": job_id, "wait_seconds": 45})
        done = await finished(client, job_id)

    assert gone.cancelled_caught
    assert done["state"] == "completed"
    assert place.accepted == 1


@dataclass(frozen=True)
class SilentOnceThere:
    """fal takes the request and says nothing."""

    there: Callable[[], None]

    async def apply(self, exchange: Exchange) -> None:
        await exchange.accept()
        self.there()
        await exchange.gone()


async def test_a_call_cancelled_while_fal_is_silent_still_has_its_job_recorded(tmp_path: Path) -> None:
    """
    The intent is in the ledger before anything is sent, and is never sent twice.
    """
    async with house(tmp_path) as place, place.connect(NEWER) as client:
        with anyio.fail_after(10), anyio.CancelScope() as call:
            place.simulator.faults.add("submit", SilentOnceThere(call.cancel))
            await client.call_tool("image_to_video", SHORT)
        (job,) = data(await client.call_tool("list_jobs", {}))["jobs"]
        again = data(await client.call_tool("image_to_video", SHORT))

    assert job["state"] == "submitting"
    assert again["job_id"] == job["job_id"]
    assert place.accepted == 1
