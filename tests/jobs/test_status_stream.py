"""The pause between two looks: a stream may end it early, and nothing that a stream does can harm a job."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

import anyio
import pytest

from kling_mcp.catalog.models import load
from kling_mcp.catalog.plan import plan
from kling_mcp.errors import FalUnreachable
from kling_mcp.fal.client import Fal
from kling_mcp.fal.queue import Completed, QueueStatus
from kling_mcp.jobs.job import Intent, Job
from kling_mcp.jobs.service import JobService
from kling_mcp.jobs.status_stream import StatusStream
from kling_mcp.runtime import Runtime
from kling_mcp.settings import Settings
from kling_mcp.simulator import faults
from kling_mcp.simulator.app import Simulator
from kling_mcp.simulator.render import sample_video
from kling_mcp.simulator.serve import serving

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from kling_mcp.simulator.faults import Fault

pytestmark = pytest.mark.anyio

RUNNING = QueueStatus(running=True, queue_position=None)
ENDED = Completed(None)


class Streams:
    """Streams that say what a test lets them say, and pauses that end when a test lets them."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.said: dict[str, list[QueueStatus | Completed]] = {}
        self.end: dict[str, anyio.Event] = {}
        self.told: list[str] = []
        self.pauses: list[float] = []
        self.listener = StatusStream(replace(Runtime(), sleep=self.sleep), self.stream, news_seconds=0)

    async def stream(self, job: Job) -> AsyncGenerator[QueueStatus | Completed]:
        self.opened.append(job.job_id)
        said = self.said.get(job.job_id)
        if said is None:
            raise FalUnreachable("There is no stream.", "", billed="no")
        for status in said:
            yield status
        if job.job_id in self.end:
            await self.end[job.job_id].wait()
            yield ENDED

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        if seconds > 1:
            await anyio.sleep_forever()

    async def tell(self, job: Job, status: QueueStatus) -> Job:
        self.told.append(job.job_id)
        return job

    async def pause(self, job: Job, seconds: float = 0.5) -> None:
        with anyio.fail_after(5):
            await self.listener.pause(job, seconds, self.tell)


def job(number: int) -> Job:
    intent = Intent(
        job_id=f"kj_{number}", account="a", fingerprint="f", take=1, model="m", endpoint_id="a/b/c", arguments={},
        estimate_microusd=1, ceiling_microusd=1, basis="",
        video_seconds=5, expected_seconds=None, warnings=(), nonce=None,
    )  # fmt: skip
    return Job(
        intent=intent, state="running", owner="o", day="2026-11-21", created_ms=1, updated_ms=1, seq=number,
        request_id=f"r{number}",
    )  # fmt: skip


async def test_a_pause_ends_when_the_stream_tells_of_the_end() -> None:
    streams = Streams()
    streams.said["kj_1"] = [RUNNING, ENDED]

    await streams.pause(job(1), seconds=3600)

    assert streams.told == ["kj_1"]


@pytest.mark.parametrize(("seconds", "listened"), [(0.5, 15), (15, 15), (450, 450)])
async def test_a_job_that_never_ends_is_listened_to_for_as_long_as_its_pause(seconds: float, listened: float) -> None:
    """A look follows each stream that says nothing, so they come ever more rarely too."""
    streams = Streams()
    streams.said["kj_1"], streams.end["kj_1"] = [RUNNING], anyio.Event()

    with anyio.move_on_after(0.05):
        await streams.pause(job(1), seconds=seconds)

    assert streams.pauses == [listened]


@pytest.mark.parametrize("said", [None, []], ids=["no stream", "an empty one"])
async def test_without_a_stream_the_pause_is_the_whole_one_and_no_other_is_opened(
    said: list[QueueStatus | Completed] | None,
) -> None:
    streams = Streams()
    if said is not None:
        streams.said["kj_1"] = said

    await streams.pause(job(1))
    await streams.pause(job(1))

    assert streams.opened == ["kj_1"]
    assert [seconds for seconds in streams.pauses if seconds < 1] == [0.5, 0.5]


async def test_an_end_that_is_told_of_twice_is_believed_once() -> None:
    streams = Streams()
    streams.said["kj_1"] = [ENDED]

    await streams.pause(job(1))
    await streams.pause(job(1))

    assert streams.opened == ["kj_1"]
    assert [seconds for seconds in streams.pauses if seconds < 1] == [0.5]


async def test_a_stream_that_breaks_off_is_opened_again_after_a_pause() -> None:
    streams = Streams()
    streams.said["kj_1"] = [RUNNING]

    await streams.pause(job(1))
    await streams.pause(job(1))

    assert streams.opened == ["kj_1", "kj_1"]
    assert [seconds for seconds in streams.pauses if seconds < 1] == [0.5, 0.5]


async def test_of_many_jobs_the_one_that_was_begun_first_gets_the_next_free_stream() -> None:
    streams = Streams()
    jobs = [job(number) for number in range(40)]
    for one in jobs:
        streams.said[one.job_id], streams.end[one.job_id] = [RUNNING], anyio.Event()

    async with anyio.create_task_group() as tasks:
        for one in [*jobs[:32], *reversed(jobs[32:])]:
            tasks.start_soon(streams.pause, one, 3600)
        await anyio.wait_all_tasks_blocked()
        assert len(streams.opened) == 32
        for one in jobs:
            streams.end[one.job_id].set()

    assert streams.opened[32:] == [one.job_id for one in jobs[32:]]


async def test_a_job_that_finds_no_free_stream_is_looked_at_without_one() -> None:
    streams = Streams()
    for number in range(34):
        streams.said[f"kj_{number}"], streams.end[f"kj_{number}"] = [RUNNING], anyio.Event()

    async with anyio.create_task_group() as tasks:
        for number in range(32):
            tasks.start_soon(streams.pause, job(number), 3600)
        await anyio.wait_all_tasks_blocked()
        await streams.pause(job(32))
        assert len(streams.opened) == 32
        streams.end["kj_0"].set()
        await anyio.wait_all_tasks_blocked()
        # Its place in the line is gone with its pause: the stream that came free is for the next.
        tasks.start_soon(streams.pause, job(33), 3600)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()

    assert streams.opened[32:] == ["kj_33"]


async def test_a_pause_that_is_cancelled_gives_its_stream_back() -> None:
    streams = Streams()
    for number in range(33):
        streams.said[f"kj_{number}"], streams.end[f"kj_{number}"] = [RUNNING], anyio.Event()

    async with anyio.create_task_group() as tasks:
        for number in range(32):
            tasks.start_soon(streams.pause, job(number), 3600)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    streams.end["kj_32"].set()
    await streams.pause(job(32), seconds=3600)

    assert streams.opened[-1] == "kj_32"


CUTS: dict[str, Fault] = {
    "refused": faults.Answer(405),
    "cut": faults.DropBeforeAccept(),
    "not a stream": faults.Garbage(),
}


async def test_a_job_ends_long_before_the_next_poll(tmp_path: Path) -> None:
    simulator = Simulator(speed=60, renderer=sample_video)

    ended = await made(simulator, tmp_path, poll_seconds=3600)

    kinds = [request.kind for request in simulator.requests]
    assert ended.state == "completed"
    assert (kinds.count("stream"), kinds.count("status"), kinds.count("result")) == (1, 2, 1)


@pytest.mark.parametrize("how", CUTS)
async def test_a_job_whose_stream_fails_is_polled_to_its_end(how: str, tmp_path: Path) -> None:
    simulator = Simulator(speed=60, renderer=sample_video)
    simulator.faults.add("stream", CUTS[how], times=None)

    ended = await made(simulator, tmp_path, poll_seconds=0.05)

    assert ended.state == "completed"
    assert len(simulator.accepted) == 1


async def made(simulator: Simulator, folder: Path, poll_seconds: float) -> Job:
    """A job from its arguments to its saved video."""
    catalog = load()
    async with serving(simulator) as urls:
        settings = replace(
            Settings.from_environment({"FAL_KEY": "id:secret", **urls.environment()}),
            data_dir=folder / "state", output_dir=folder / "videos", poll_seconds=poll_seconds,
            max_job_usd=Decimal(10),
        )  # fmt: skip
        arguments = {"image": "https://v3.fal.media/files/a/boat.png", "prompt": "A boat."}
        wanted = plan(catalog, "image_to_video", arguments)
        service = JobService(settings, lambda: Fal(settings))
        with anyio.fail_after(30):
            async with service.open():
                job = (await service.start(await service.prepare(wanted, arguments))).job
                while not service.is_settled(job):
                    job = await service.store.wait(job, 1)
                return job
