"""Changes of jobs reach clients of each protocol era, whichever process made them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import mcp_types as t
import pytest
from mcp.server.subscriptions import ResourcesListChanged, ResourceUpdated

from tests.server.hosts import NEWER, OLDER, SHORT, TRANSPORTS, TakesTasks, data, finished, house

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from tests.server.hosts import ServerHarness

pytestmark = [
    pytest.mark.anyio,
    # The older era's subscriptions are what is tested here.
    pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning"),
]


class Heard:
    """Resources that were said to have changed, and how often the list was."""

    def __init__(self) -> None:
        self.uris: list[str] = []
        self.lists = 0
        self._more = anyio.Event()

    async def __call__(self, message: Any) -> None:
        if isinstance(message, t.ResourceUpdatedNotification):
            self.note(str(message.params.uri))
        if isinstance(message, t.ResourceListChangedNotification):
            self.note(None)

    def note(self, uri: str | None) -> None:
        if uri is None:
            self.lists += 1
        else:
            self.uris.append(uri)
        self._more.set()
        self._more = anyio.Event()

    async def until(self, uri: str, times: int = 1) -> None:
        with anyio.fail_after(20):
            while self.uris.count(uri) < times:
                await self._more.wait()


@asynccontextmanager
async def listening(place: ServerHarness, era: str, heard: Heard, *uris: str) -> AsyncGenerator[Any]:
    """A client that hears of *uris* and of the list of resources for as long as the block lasts."""
    if era == OLDER:
        async with place.connect(OLDER, message_handler=heard) as client:
            await client.list_resources()
            for uri in uris:
                await client.subscribe_resource(uri)
            yield client
        return
    async with (
        place.connect(NEWER) as client,
        client.listen(resources_list_changed=True, resource_subscriptions=uris) as stream,
        anyio.create_task_group() as tasks,
    ):

        async def hear() -> None:
            async for event in stream:
                if isinstance(event, ResourceUpdated):
                    heard.note(event.uri)
                elif isinstance(event, ResourcesListChanged):
                    heard.note(None)

        tasks.start_soon(hear)
        yield client
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("era", [OLDER, NEWER])
async def test_a_job_that_moves_is_told_of_while_it_runs(era: str, transport: str, tmp_path: Path) -> None:
    """
    The list of jobs, the money and the list of resources; the news come before the end.
    """
    heard = Heard()
    async with (
        house(tmp_path, transport, speed=60) as place,
        listening(place, era, heard, "kling://jobs", "kling://spend") as client,
    ):
        job = data(await client.call_tool("image_to_video", SHORT))
        await heard.until("kling://jobs")
        before_the_end = data(await client.call_tool("get_job", {"job_id": job["job_id"]}))
        await finished(client, job["job_id"])
        await heard.until("kling://spend", 2)

    assert before_the_end["state"] in {"submitting", "queued", "running"}
    assert heard.lists == 1
    assert set(heard.uris) == {"kling://jobs", "kling://spend"}


@pytest.mark.parametrize("era", [OLDER, NEWER])
async def test_a_job_that_another_process_moves_is_told_of_too(era: str, tmp_path: Path) -> None:
    """
    Two hosts on one machine: what one starts, the other sees move.
    """
    heard = Heard()
    async with house(tmp_path, "stdio", speed=100) as place, place.connect(NEWER) as other:
        place.transport = "memory"
        first = data(await other.call_tool("image_to_video", SHORT))
        async with listening(place, era, heard, first["resource"], "kling://jobs") as client:
            await heard.until(first["resource"])
            before = heard.lists
            second = data(await other.call_tool("image_to_video", {**SHORT, "take": 2}))
            await heard.until("kling://jobs", 2)
            assert (await finished(client, second["job_id"]))["state"] == "completed"

    assert (before, heard.lists) == (0, 1)
    assert second["resource"] not in heard.uris


async def test_who_unsubscribes_hears_no_more(tmp_path: Path) -> None:
    """
    Each request of the older era has a session of its own; what was subscribed belongs to the connection.
    """
    heard = Heard()
    async with house(tmp_path) as place, place.connect(OLDER, message_handler=heard) as client:
        await client.subscribe_resource("kling://jobs")
        await client.subscribe_resource("kling://spend")
        await client.unsubscribe_resource("kling://jobs")
        job = data(await client.call_tool("image_to_video", SHORT))
        await finished(client, job["job_id"])
        await heard.until("kling://spend")

    assert set(heard.uris) == {"kling://spend"}


async def test_a_task_s_job_can_be_watched_instead_of_polled(tmp_path: Path) -> None:
    """
    The resource of the job, whose name is the task's, is said to have changed before the task has ended.
    """
    taker = TakesTasks()
    async with (
        house(tmp_path, speed=30) as place,
        place.connect(NEWER, extensions=[taker]) as client,
    ):
        offered = await client.session.call_tool("image_to_video", SHORT, allow_claimed=True)
        uri = f"kling://jobs/{offered.task_id}"  # type: ignore[union-attr]
        async with client.listen(resource_subscriptions=[uri]) as stream:
            with anyio.fail_after(20):
                event = await anext(aiter(stream))
            state = await taker.end_of(client.session, offered.task_id)  # type: ignore[union-attr]

    assert event == ResourceUpdated(uri=uri)
    assert taker.seen[0].status == "working"
    assert state.status == "completed"
