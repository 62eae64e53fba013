"""Whole conversations with the simulator, whose own list of accepted requests is the truth."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from kling_mcp import errors
from kling_mcp.fal.client import Fal
from kling_mcp.fal.http import FalHttp
from kling_mcp.fal.media_client import MediaClient
from kling_mcp.fal.platform import FalPlatform
from kling_mcp.fal.queue import (
    Accepted,
    Completed,
    Failed,
    FalQueue,
    Finished,
    QueueStatus,
    Rejected,
    Unknown,
    video_of_body,
)
from kling_mcp.fal.storage import FalStorage
from kling_mcp.settings import Settings
from kling_mcp.simulator import faults
from kling_mcp.simulator.app import Simulator, Switches
from kling_mcp.simulator.clock import ManualClock
from kling_mcp.simulator.render import sample_picture, sample_video
from kling_mcp.simulator.serve import serving
from tests.conftest import CANARY_KEY
from tests.fal.support import ENDPOINT, SOON, a_file

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from kling_mcp.fal.queue import Receipt
    from kling_mcp.simulator.serve import BaseUrls

pytestmark = pytest.mark.anyio

BODY: dict[str, Any] = {"image_url": "https://example.com/boat.png", "prompt": "The boat drifts.", "duration": "5"}


@dataclass(frozen=True)
class Talk:
    simulator: Simulator
    clock: ManualClock
    urls: BaseUrls
    queue: FalQueue
    storage: FalStorage
    platform: FalPlatform
    media: MediaClient

    async def accepted(self, body: dict[str, Any] | None = None) -> Receipt:
        outcome = await self.queue.submit(ENDPOINT, body or BODY, job_id="kj_1")
        assert isinstance(outcome, Accepted)
        return outcome.receipt


@asynccontextmanager
async def talking(switches: Switches | None = None, **arguments: Any) -> AsyncGenerator[Talk]:
    """A client, a simulator whose clock the test moves, and no waiting between tries."""
    clock = ManualClock()
    simulator = Simulator(clock=clock, key=CANARY_KEY, switches=switches, renderer=sample_video)
    async with serving(simulator) as urls:
        settings = Settings.from_environment({"FAL_KEY": CANARY_KEY, **urls.environment()})

        async def no_sleep(seconds: float) -> None:
            await anyio.lowlevel.checkpoint()

        http = FalHttp(settings.hosts, settings.fal_key, sleep=no_sleep, now=clock.now, **arguments)
        async with http, MediaClient(settings.media_hosts) as media:
            yield Talk(
                simulator,
                clock,
                urls,
                FalQueue(http),
                FalStorage(http, settings.media_hosts, now=clock.now),
                FalPlatform(http),
                media,
            )


async def test_a_job_goes_from_a_picture_to_a_video_and_its_real_cost() -> None:
    async with talking() as talk:
        picture = await talk.storage.upload(a_file(sample_picture(), "image/jpeg", "boat.jpg"))
        first = await talk.accepted({**BODY, "image_url": picture})
        second = await talk.accepted()

        assert await talk.queue.status(ENDPOINT, second) == QueueStatus(False, 1)
        talk.clock.advance(40)
        running = await talk.queue.status(ENDPOINT, first)
        assert isinstance(running, QueueStatus)
        assert running.running
        assert running.last_log == "Shot 1 of 1: 0% of the video."
        talk.clock.advance(60)
        ended = await talk.queue.status(ENDPOINT, first)
        assert isinstance(ended, Completed)
        assert ended.failure is None

        result = await talk.queue.result(ENDPOINT, first)
        assert isinstance(result, Finished)
        named = video_of_body(result.body)
        assert named is not None
        assert result.billable_units is not None
        assert await talk.platform.cost_usd(ENDPOINT, result.billable_units) is not None
        async with talk.media.fetch(named.url) as fetched:
            video = b"".join([chunk async for chunk in fetched.chunks()])
        assert len(video) == named.file_size
        async with talk.media.fetch(named.url, 1000, fetched.headers.get("etag")) as rest:
            assert rest.status == 206
            assert b"".join([chunk async for chunk in rest.chunks()]) == video[1000:]

        history = [
            request
            async for request in talk.platform.history(ENDPOINT, start_ms=int(talk.clock.now() * 1000) - 600_000)
        ]
        [found] = [request for request in history if request.request_id == first.request_id]
        assert found.input == {**BODY, "image_url": picture}
        assert found.output == result.body
        assert [accepted.tags for accepted in talk.simulator.accepted] == [{"kling_intent": "kj_1"}] * 2


async def test_a_cancel_depends_on_how_far_the_request_is() -> None:
    async with talking() as talk:
        first, second = await talk.accepted(), await talk.accepted()
        talk.clock.advance(10)

        assert await talk.queue.cancel(ENDPOINT, second) == "removed"
        assert await talk.queue.cancel(ENDPOINT, first) == "requested"
        talk.clock.advance(100)
        assert await talk.queue.cancel(ENDPOINT, first) == "too_late"
        stranger = type(first)("00000000-0000-4000-8000-000000000000")
        assert await talk.queue.cancel(ENDPOINT, stranger) == "not_found"
        removed = await talk.queue.status(ENDPOINT, second)
        assert isinstance(removed, Completed)
        assert removed.failure is not None
        assert removed.failure.type == "client_cancelled"


@pytest.mark.parametrize(
    "type_", ["content_policy_violation", "image_too_small", "generation_timeout", "runner_server_error"]
)
async def test_a_job_that_fails_at_the_end_says_how(type_: str) -> None:
    async with talking() as talk:
        talk.simulator.faults.fail(type_)
        receipt = await talk.accepted()
        talk.clock.advance(1000)
        status = await talk.queue.status(ENDPOINT, receipt)

        assert isinstance(status, Completed)
        assert status.failure is not None
        assert status.failure.type == type_
        if type_ != "runner_server_error":
            result = await talk.queue.result(ENDPOINT, receipt)
            assert isinstance(result, Failed)
            assert result.failure.type == type_


SUBMIT_FAULTS: dict[str, tuple[faults.Fault, type]] = {
    "drop before": (faults.DropBeforeAccept(), Unknown),
    "reset after": (faults.DropAfterAccept(), Unknown),
    "close after": (faults.DropAfterAccept(reset=False), Unknown),
    "hang": (faults.Hang(), Unknown),
    "truncated": (faults.Truncated(), Unknown),
    "garbage": (faults.Garbage(), Unknown),
    "no id": (faults.NoRequestId(), Unknown),
    "drip": (faults.Drip(0.05), Unknown),
    "endless": (faults.Endless(), Unknown),
    "gzip": (faults.Gzip(), Accepted),
    "gzip bomb": (faults.Gzip(padding=5_000_000), Unknown),
    "redirect": (faults.Redirect("https://example.com/"), Unknown),
    "409": (faults.Answer(409, accepted=True), Unknown),
    "408": (faults.Answer(408, accepted=True), Unknown),
    "500": (faults.Answer(500, accepted=True), Unknown),
    "nginx 502": (faults.nginx(502, accepted=True), Unknown),
    "balance": (faults.exhausted_balance(), Rejected),
}


@pytest.mark.parametrize("name", SUBMIT_FAULTS)
async def test_a_submit_that_goes_wrong_buys_at_most_one_video(name: str) -> None:
    fault, outcome = SUBMIT_FAULTS[name]
    async with talking(deadlines=SOON) as talk:
        talk.simulator.faults.add("submit", fault, times=None)

        with anyio.fail_after(10):
            assert type(await talk.queue.submit(ENDPOINT, BODY, job_id="kj_1")) is outcome
        assert len(talk.simulator.accepted) <= 1
        assert len([call for call in talk.simulator.requests if call.kind == "submit"]) <= 1


async def test_a_busy_queue_takes_the_request_a_little_later() -> None:
    async with talking() as talk:
        talk.simulator.faults.add("submit", faults.too_many("2"), times=2)
        await talk.accepted()

        assert len(talk.simulator.accepted) == 1


async def test_addresses_at_a_foreign_host_are_replaced_by_our_own() -> None:
    async with talking() as talk:
        talk.simulator.faults.add("submit", faults.WrongHost())
        receipt = await talk.accepted()

        assert receipt.status_url is not None
        assert receipt.status_url.startswith(talk.urls.queue)
        assert await talk.queue.status(ENDPOINT, receipt) == QueueStatus(False, 0)


async def test_a_gateway_timeout_on_a_finished_result_is_waited_out() -> None:
    async with talking() as talk:
        receipt = await talk.accepted()
        talk.clock.advance(1000)
        talk.simulator.faults.add("result", faults.nginx(504), times=2)

        assert isinstance(await talk.queue.result(ENDPOINT, receipt), Finished)


async def test_the_full_path_that_fal_answers_with_nothing_is_left_for_the_short_one() -> None:
    async with talking(Switches(full_path="empty")) as talk:
        receipt = await talk.accepted()
        full = type(receipt)(
            receipt.request_id, f"{talk.urls.queue}/{ENDPOINT}/requests/{receipt.request_id}/status", None, None, None
        )

        assert await talk.queue.status(ENDPOINT, full) == QueueStatus(False, 0)


async def test_an_upload_goes_by_a_signed_address_where_tokens_fail() -> None:
    async with talking() as talk:
        talk.simulator.faults.add("token", faults.Answer(500), times=None)
        url = await talk.storage.upload(a_file(b"a picture", "image/png", "boat.png"), lifetime_seconds=3600)

        stored = talk.simulator.files.by_url(url)
        assert stored is not None
        assert stored.data == b"a picture"
        kinds = [call.kind for call in talk.simulator.requests]
        assert kinds == ["token"] * 3 + ["initiate", "put"]
        assert CANARY_KEY not in repr(talk.simulator.requests[-1].headers)


BIG = bytes(range(256)) * 4_000
"""A megabyte, which is large where the limit is lowered."""


def in_parts(talk: Talk) -> FalStorage:
    """The storage, with parts of a tenth of `BIG`."""
    return FalStorage(
        talk.storage._http, talk.storage._hosts, now=talk.clock.now, in_parts_above=len(BIG) - 1, part_bytes=100_000
    )


PART_TROUBLES: dict[str, tuple[list[faults.Fault], int]] = {
    "none": ([], 11),
    "each of two parts once": ([faults.nginx(502), faults.DropAfterAccept()], 13),
    "a part that is not confirmed": ([faults.Answer(200)], 12),
}


@pytest.mark.parametrize("name", PART_TROUBLES)
async def test_a_large_file_goes_up_in_parts_each_repeated_by_itself(name: str) -> None:
    troubles, puts = PART_TROUBLES[name]
    told: list[tuple[int, int]] = []
    async with talking() as talk:
        for trouble in troubles:
            talk.simulator.faults.add("put", trouble)
        content = a_file(BIG, "video/mp4", "video.mp4")
        url = await in_parts(talk).upload(content, lifetime_seconds=3600, progress=lambda *sent: told.append(sent))

        stored = talk.simulator.files.by_url(url)
        assert stored is not None
        assert (stored.data, stored.content_type) == (BIG, "video/mp4")
        assert stored.lifecycle == {"expiration_duration_seconds": 3600}
        assert len(talk.simulator.files) == 1
        parts = [call for call in talk.simulator.requests if call.kind == "put"]
        assert len(parts) >= puts
        assert all(
            call.headers["authorization"] != f"Key {CANARY_KEY}" for call in parts if "authorization" in call.headers
        )
    assert told == sorted(set(told))
    assert told[-1] == (len(BIG), len(BIG))


async def test_a_large_file_goes_by_a_signed_address_where_the_token_does_not_lead_to_the_end() -> None:
    async with talking() as talk:
        talk.simulator.faults.add("token", faults.Answer(500), times=None)
        url = await in_parts(talk).upload(a_file(BIG, "video/mp4", "video.mp4"))

        stored = talk.simulator.files.by_url(url)
        assert stored is not None
        assert stored.data == BIG
        kinds = [call.kind for call in talk.simulator.requests]
        assert kinds == ["token"] * 3 + ["initiate"] + ["put"] * 11 + ["upload"]


async def test_a_part_that_never_arrives_ends_the_upload_with_nothing_in_its_place() -> None:
    async with talking() as talk:
        talk.simulator.faults.add("put", faults.nginx(503), times=None)
        with pytest.raises(errors.FalUnreachable, match="could not be uploaded"):
            await in_parts(talk).upload(a_file(BIG, "video/mp4", "video.mp4"))

        assert len(talk.simulator.files) == 0


async def test_a_file_is_read_piece_by_piece_and_again_for_another_try() -> None:
    reads: list[tuple[int, int]] = []

    class Watched:
        content_type, file_name, size = "video/mp4", "video.mp4", 3_000_000

        def read(self, offset: int, count: int) -> bytes:
            reads.append((offset, count))
            return bytes(count)

    async with talking() as talk:
        talk.simulator.faults.add("upload", faults.nginx(502))
        url = await talk.storage.upload(Watched())

        stored = talk.simulator.files.by_url(url)
        assert stored is not None
        assert stored.data == bytes(3_000_000)
    assert max(count for _, count in reads) <= 1 << 20
    assert [offset for offset, _ in reads].count(0) == 2


async def test_the_client_of_the_settings_reaches_every_part() -> None:
    async with talking() as talk:
        fal = Fal(Settings.from_environment({"FAL_KEY": CANARY_KEY, **talk.urls.environment()}))
        try:
            assert isinstance(await fal.queue.submit(ENDPOINT, BODY, job_id="kj_1"), Accepted)
            url = await fal.storage.upload(a_file(b"a picture", "image/png", "boat.png"))
            async with fal.media.fetch(url) as fetched:
                assert b"".join([chunk async for chunk in fetched.chunks()]) == b"a picture"
            assert ENDPOINT in await fal.platform.models([ENDPOINT, "fal-ai/kling-video/o9/image-to-video"])
        finally:
            await fal.aclose()
