"""The service as a server uses it, against the simulator over loopback, two hundred times as fast as real time."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from kling_mcp.catalog.models import load
from kling_mcp.catalog.plan import plan
from kling_mcp.errors import InputRefused, InvalidArguments, LedgerUnavailable, NoApiKey, OverBudget, UnknownJob
from kling_mcp.fal.client import Fal
from kling_mcp.jobs.job import Accepted, LostTrack, Progressed, Sending
from kling_mcp.jobs.ledger import Limits
from kling_mcp.jobs.saver import Saver
from kling_mcp.jobs.service import JobService, Started
from kling_mcp.jobs.sqlite.engine import SqliteLedger
from kling_mcp.jobs.warnings import warnings_of
from kling_mcp.runtime import Runtime
from kling_mcp.simulator.app import Simulator, Switches
from kling_mcp.simulator.clock import ScaledClock
from kling_mcp.simulator.faults import Answer, DropAfterAccept, DropBeforeAccept, ShortBody, expired
from kling_mcp.simulator.render import sample_picture, sample_video
from kling_mcp.simulator.serve import serving
from tests.jobs.support import intent, paid_settings
from tests.jobs.support import job as preparing
from tests.media.recorded import Clip, made

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from kling_mcp.catalog.models import Tool
    from kling_mcp.jobs.draft import Draft
    from kling_mcp.jobs.job import Job
    from kling_mcp.settings import Settings

pytestmark = pytest.mark.anyio

SPEED = 200.0
ENOUGH_SECONDS = 20.0
WIDE = Limits(10**9, 10**12)
OVER = {"completed", "failed", "cancelled", "not_submitted"}


class HeldClock(ScaledClock):
    """Time that a test can stop, so that what it looks at stays as it is."""

    def stop(self) -> None:
        self._wall, self.speed = self.now(), 0.0

    def go_on(self, seconds: float = 0.0) -> None:
        self._wall, self._origin, self.speed = self.now() + seconds, time.monotonic(), SPEED


@dataclass
class Place:
    """A user's folders and a fal of their own."""

    folder: Path
    simulator: Simulator
    clock: HeldClock
    settings: Settings
    passed: list[str] = field(default_factory=list)
    at: Callable[[str], None] = lambda _: None

    def runtime(self) -> Runtime:
        async def sleep(seconds: float) -> None:
            await anyio.sleep(seconds / SPEED)

        def passed(point: str) -> None:
            self.passed.append(point)
            self.at(point)

        return Runtime(now_ms=self.now_ms, sleep=sleep, checkpoint=passed)

    def now_ms(self) -> int:
        return int(self.clock.now() * 1000)

    @asynccontextmanager
    async def server(self, settings: Settings | None = None, *, recovers: bool = True) -> AsyncGenerator[JobService]:
        """One server process, from its start to its end."""
        mine = settings or self.settings
        service = JobService(mine, lambda: Fal(mine), runtime=self.runtime())
        with anyio.fail_after(ENOUGH_SECONDS):
            async with service.open():
                if recovers:
                    service.in_background(service.recover)
                yield service

    def ledger(self) -> SqliteLedger:
        return SqliteLedger(self.settings.data_dir, lambda: "ledger-1")

    def calls(self, kind: str) -> int:
        return sum(1 for request in self.simulator.requests if request.kind == kind)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncGenerator[Place]:
    clock = HeldClock(SPEED)
    simulator = Simulator(clock=clock, renderer=sample_video, switches=Switches(history_lag_seconds=5.0))
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "first.jpg").write_bytes(sample_picture())
    async with serving(simulator) as urls:
        yield Place(tmp_path, simulator, clock, paid_settings(tmp_path, urls))


async def drafted(service: JobService, place: Place, **arguments: Any) -> Draft:
    wanted_arguments = {"image": str(place.folder / "pictures" / "first.jpg"), "prompt": "a slow pan", **arguments}
    wanted = plan(load(), "image_to_video", wanted_arguments)
    return await service.prepare(wanted, wanted_arguments)


async def started(service: JobService, place: Place, **arguments: Any) -> Started:
    return await service.start(await drafted(service, place, **arguments))


async def until(service: JobService, job_id: str, is_so: Callable[[Job], bool]) -> Job:
    job = await service.store.get(job_id)
    while not is_so(job):
        job = await service.store.wait(job, 1)
    return job


async def over(service: JobService, job_id: str) -> Job:
    return await until(service, job_id, lambda job: job.state in OVER and service.is_settled(job))


# ---- the whole way


async def test_a_call_becomes_a_saved_video_with_its_real_cost(place: Place) -> None:
    async with place.server() as service:
        heard: list[str] = []

        async def listener(job: Job) -> None:
            heard.append(job.state)

        service.store.subscribe(listener)
        begun = await started(service, place, prompt="a slow pan over the harbour")
        assert begun.fresh
        job = await over(service, begun.job.job_id)
        spend = await service.store.spend()

    (request,) = place.simulator.accepted
    assert (job.state, job.request_id) == ("completed", request.request_id)
    assert request.tags == {"kling_intent": job.job_id}
    assert request.body == job.body
    assert (job.cost_microusd, job.cost_source) == (420_000, "billed")
    assert (spend[0].held_microusd, spend[0].spent_microusd) == (0, 420_000)
    assert job.saved_to is not None
    assert "harbour" in job.saved_to
    with open(job.saved_to, "rb") as video:  # noqa: ASYNC230, PTH123
        assert video.read() == sample_video((), None, None)
    assert [state for state in dict.fromkeys(heard) if state != "running"] == [
        "preparing",
        "submitting",
        "queued",
        "completed",
    ]
    assert list(dict.fromkeys(place.passed)) == [
        "reserved",
        "uploading",
        "uploaded",
        "before sending is recorded",
        "sending recorded",
        "answered",
        "answer recorded",
        "polled",
        "result fetched",
        "end recorded",
        "saving",
        "saved",
        "file recorded",
    ]


async def test_the_same_call_is_the_same_job_also_after_a_restart_and_a_take_is_another(place: Place) -> None:
    async with place.server() as service:
        draft = await drafted(service, place)
        first = await service.start(draft)
        again = await service.start(draft)
        assert (again.job.job_id, again.fresh) == (first.job.job_id, False)
        assert (await service.find_duplicate(draft)) is not None
    async with place.server() as service:
        after_restart = await started(service, place)
        second = await started(service, place, take=2)
        for one in (first, second):
            assert (await over(service, one.job.job_id)).state == "completed"

    assert (after_restart.job.job_id, after_restart.fresh) == (first.job.job_id, False)
    assert second.fresh
    assert len(place.simulator.accepted) == 2
    assert place.calls("upload") == 1, "the same picture is uploaded once"


async def test_without_an_output_folder_the_link_is_all(place: Place) -> None:
    async with place.server(replace(place.settings, output_dir=None)) as service:
        job = await until(service, (await started(service, place)).job.job_id, lambda job: job.state == "completed")
        assert service.is_settled(job)
        await until(service, job.job_id, lambda _: "file recorded" in place.passed)
        assert await service.store.run(lambda ledger: ledger.unfinished()) == []

    assert job.saved_to is None
    assert job.save_trouble is None
    assert place.calls("download") == 0


async def test_a_video_that_nobody_wanted_saved_is_saved_once_somebody_does(place: Place) -> None:
    async with place.server(replace(place.settings, output_dir=None)) as service:
        job_id = (await started(service, place)).job.job_id
        await until(service, job_id, lambda _: "file recorded" in place.passed)

    async with place.server() as service:
        service.repair_in_background(await service.store.get(job_id))
        saved = await until(service, job_id, lambda job: job.saved_to is not None)

    assert saved.saved_to is not None
    assert place.calls("download") == 1


async def called(service: JobService, tool: Tool, **arguments: Any) -> Draft:
    return await service.prepare(plan(load(), tool, arguments), arguments)


async def test_a_voice_is_made_and_not_saved_and_its_name_is_of_its_sample_alone(place: Place) -> None:
    for name, seconds in (("ann.mp3", 6.0), ("bert.mp3", 8.0)):
        (place.folder / "pictures" / name).write_bytes(made(Clip("mp3", seconds)))
    ann, bert = (str(place.folder / "pictures" / name) for name in ("ann.mp3", "bert.mp3"))
    async with place.server() as service:
        draft = await called(service, "create_voice", sample=ann, name="Ann")
        begun = await service.start(draft)
        again = await service.start(await called(service, "create_voice", sample=ann, name="ANN"))
        job = await over(service, begun.job.job_id)
        await until(service, job.job_id, lambda _: "file recorded" in place.passed)
        unfinished = await service.store.run(lambda ledger: ledger.unfinished())
        taken = await called(service, "create_voice", sample=bert, name="ann")
        with pytest.raises(InvalidArguments, match="another sample is called Ann already"):
            await service.check(taken)
        with pytest.raises(InvalidArguments, match="another sample is called Ann already"):
            await service.start(taken)
        other = await service.start(await called(service, "create_voice", sample=bert, name="Bert"))
        speaking = await called(
            service,
            "image_to_video",
            image="https://example.com/a.png",
            prompt="x",
            model="v2.6-pro",
            voice_ids=["ann"],
        )

    assert (again.job.job_id, again.fresh) == (job.job_id, False)
    assert (job.state, job.intent.mode, job.intent.sound, job.cost_microusd) == (
        "completed",
        "create-voice",
        None,
        7_000,
    )
    assert job.voice_id
    assert (job.saved_to, job.save_trouble, unfinished) == (None, None, [])
    assert other.fresh
    assert [given.content for given in speaking.inputs if given.slot.kind == "voice"] == [job.voice_id]
    assert place.calls("download") == 0


async def test_while_a_large_file_is_uploaded_the_job_says_how_far_it_is(place: Place) -> None:
    (place.folder / "pictures" / "ann.wav").write_bytes(made(Clip("wav", 16.0)))
    arguments = {"sample": str(place.folder / "pictures" / "ann.wav")}
    settings = place.settings
    service = JobService(settings, lambda: Fal(settings), runtime=replace(place.runtime(), new_id=lambda: "kj_ann"))
    row = preparing("kj_ann")
    seen: list[str | None] = []
    place.at = lambda point: seen.append(service.store.as_it_is(row).progress_note) if point == "uploaded" else None
    with anyio.fail_after(ENOUGH_SECONDS):
        async with service.open():
            begun = await service.start(await called(service, "create_voice", **arguments))
            await over(service, begun.job.job_id)

    assert seen == ["uploading sound: 3 of 3 MB"]
    assert service.store.as_it_is(row).progress_note is None


# ---- what is refused


async def test_a_budget_and_a_missing_key_stop_a_call_before_anything_leaves(place: Place) -> None:
    poor = replace(place.settings, daily_budget_usd=Decimal("0.41"))
    async with place.server(poor) as service:
        draft = await drafted(service, place)
        with pytest.raises(OverBudget, match="KLING_MCP_DAILY_BUDGET_USD"):
            await service.start(draft)
    async with place.server(replace(place.settings, fal_key=None)) as service:
        draft = await drafted(service, place)
        with pytest.raises(NoApiKey):
            await service.start(draft)
        assert await service.store.page(None, 9, None) == []

    assert place.simulator.requests == []


async def test_a_folder_without_room_for_the_safety_files_stops_a_call(place: Place) -> None:
    place.settings.data_dir.mkdir()
    (place.settings.data_dir / "owners").write_text("in the way")
    async with place.server(recovers=False) as service:
        draft = await drafted(service, place)
        with pytest.raises(LedgerUnavailable, match="KLING_MCP_DATA_DIR"):
            await service.start(draft)

    assert place.simulator.accepted == []


async def test_an_upload_that_fails_ends_the_job_unsent(place: Place) -> None:
    place.simulator.faults.add("any", Answer(403, {"detail": "no"}), times=None)
    async with place.server() as service:
        job = await over(service, (await started(service, place)).job.job_id)

    assert job.state == "not_submitted"
    assert job.fault is not None
    assert job.fault.billed == "no"
    assert place.simulator.accepted == []


@pytest.mark.parametrize("fault", [Answer(422, {"detail": "no such model"}), Answer(401, {"detail": "bad key"})])
async def test_a_refused_request_costs_nothing_and_may_be_made_again(place: Place, fault: Any) -> None:
    place.simulator.faults.add("submit", fault)
    async with place.server() as service:
        refused = await over(service, (await started(service, place)).job.job_id)
        again = await started(service, place)
        assert (await over(service, again.job.job_id)).state == "completed"

    assert (refused.state, refused.cost_microusd) == ("not_submitted", 0)
    assert again.fresh


# ---- what goes wrong at fal


@pytest.mark.parametrize(
    ("error_type", "billed", "named", "cost_microusd"),
    [
        ("content_policy_violation", "maybe", "prompt", 420_000),
        ("image_too_small", "maybe", "image_url", 420_000),
        ("internal_server_error", "no", None, 0),
        ("generation_timeout", "no", None, 0),
        ("something_new", "maybe", None, 420_000),
    ],
)
async def test_an_error_of_fal_ends_the_job_with_what_it_costs_and_where_it_is(
    place: Place, error_type: str, billed: str, named: str | None, cost_microusd: int
) -> None:
    place.simulator.faults.fail(error_type)
    async with place.server() as service:
        job = await over(service, (await started(service, place)).job.job_id)

    assert (job.state, job.cost_microusd) == ("failed", cost_microusd)
    assert job.fault is not None
    assert (job.fault.billed, (job.fault.field or "").split(".")[-1] or None) == (billed, named)


async def test_a_result_behind_a_broken_gateway_is_asked_for_again(place: Place) -> None:
    place.simulator.faults.add("result", Answer(504), times=4)
    place.simulator.faults.add("status", Answer(502), times=2)
    async with place.server() as service:
        job = await over(service, (await started(service, place)).job.job_id)

    assert job.state == "completed"
    assert job.saved_to is not None


async def test_a_result_that_fal_no_longer_keeps_is_taken_from_the_history(place: Place) -> None:
    place.simulator.faults.add("result", expired(), times=None)
    async with place.server() as service:
        job = await over(service, (await started(service, place)).job.job_id)

    assert job.state == "completed"
    assert job.saved_to is not None
    assert (job.cost_microusd, job.cost_source) == (420_000, "estimated")


async def test_a_failure_in_the_history_is_no_video(place: Place) -> None:
    place.simulator.faults.add("result", expired(), times=None)
    place.simulator.faults.fail("content_policy_violation")
    async with place.server() as service:
        job = await over(service, (await started(service, place)).job.job_id)

    assert job.state == "failed"
    assert job.fault is not None
    assert job.fault.billed == "maybe"


# ---- saving


async def test_a_download_from_a_strange_host_is_refused_and_made_later(place: Place) -> None:
    strict = replace(place.settings, media_hosts=("fal.media",))
    async with place.server(strict) as service:
        job = await over(service, (await started(service, place, image="https://example.com/a.png")).job.job_id)
        assert job.state == "completed"
        assert "host" in (job.save_trouble or "")
        assert job.result is not None
    async with place.server() as service:
        service.repair_in_background(await service.store.get(job.job_id))
        repaired = await until(service, job.job_id, lambda job: job.saved_to is not None)

    assert repaired.save_trouble is None


@pytest.mark.parametrize(
    ("fault", "times"),
    [
        (Answer(503), 15),
        (Answer(404), 2),
        (Answer(410), 1),
        (Answer(200, b"<html>"), 1),
        (Answer(200), 1),
        (ShortBody(), 1),
    ],
    ids=["unavailable", "not there yet", "gone", "a page", "empty", "short"],
)
async def test_a_video_that_cannot_be_saved_yet_is_tried_again_by_itself(
    place: Place, fault: Answer | ShortBody, times: int
) -> None:
    place.simulator.faults.add("download", fault, times=times)
    async with place.server() as service:
        job_id = (await started(service, place)).job.job_id
        troubled = await over(service, job_id)
        saved = await until(service, job_id, lambda job: job.saved_to is not None)

    assert troubled.state == "completed"
    assert saved.save_trouble is None


async def test_a_video_is_saved_by_one_of_two_servers_and_never_again(place: Place) -> None:
    async with place.server(replace(place.settings, output_dir=None)) as service:
        job_id = (await started(service, place)).job.job_id
        await until(service, job_id, lambda _: "file recorded" in place.passed)
    held, go = anyio.Event(), anyio.Event()
    place.simulator.faults.add("download", _Held(held, go))
    async with place.server(recovers=False) as first, place.server(recovers=False) as second:
        first.repair_in_background(await first.store.get(job_id))
        await held.wait()
        # While the first is at it, the second leaves it alone.
        await Saver(second.store, second.settings, lambda: Fal(second.settings)).save(await second.store.get(job_id))
        go.set()
        saved = await until(first, job_id, lambda job: job.saved_to is not None)
        await Saver(second.store, second.settings, lambda: Fal(second.settings)).save(saved)

    assert place.calls("download") == 1


@pytest.mark.parametrize("as_stated", [True, False])
async def test_a_video_whose_place_was_not_recorded_is_found_where_it_is(place: Place, as_stated: bool) -> None:
    def killed(point: str) -> None:
        if point == "saved":
            place.at = lambda _: None
            raise RuntimeError("the power went out")

    place.at = killed
    async with place.server(recovers=False) as service:
        job_id = (await started(service, place)).job.job_id
        await until(service, job_id, lambda _: "saved" in place.passed)
        assert (await service.store.get(job_id)).saved_to is None
    if not as_stated:
        # The size in fal's result is only a hint, and may be wrong.
        video = next((place.folder / "videos").glob("*.mp4"))
        video.write_bytes(video.read_bytes() + bytes(8))
    async with place.server() as service:
        service.repair_in_background(await service.store.get(job_id))
        await until(service, job_id, lambda job: job.saved_to is not None)

    assert place.calls("download") == 1


async def test_a_link_that_has_expired_is_a_warning_on_a_completed_job(place: Place) -> None:
    place.simulator.faults.add("download", Answer(410), times=1)
    async with place.server() as service:
        job = await over(service, (await started(service, place)).job.job_id)
        assert (job.state, job.saved_to) == ("completed", None)
        assert "no longer good" in (job.save_trouble or "")
        service.repair_in_background(job)
        await until(service, job.job_id, lambda job: job.saved_to is not None)


async def test_a_video_that_came_short_is_not_saved_under_its_name(place: Place) -> None:
    place.simulator.faults.add("download", ShortBody(), times=1)
    async with place.server() as service:
        job = await over(service, (await started(service, place)).job.job_id)

    assert job.saved_to is None
    assert job.save_trouble is not None
    assert list((place.folder / "videos").glob("*.mp4")) == []


async def test_a_job_of_shots_that_continues_an_earlier_one_is_named_by_its_first_shot(place: Place) -> None:
    pytest.importorskip("av")
    async with place.server() as service:
        first = await over(service, (await started(service, place)).job.job_id)
        assert first.saved_to is not None
        arguments: dict[str, object] = {
            "image": f"kling://jobs/{first.job_id}/last-frame",
            "shots": [{"prompt": "the gulls rise", "duration": 3}, {"prompt": "they land", "duration": 3}],
        }
        wanted = plan(load(), "multi_shot_video", arguments)
        begun = await service.start(await service.prepare(wanted, arguments))
        second = await over(service, begun.job.job_id)
        frame = await service.last_frame(second.job_id)

    assert second.saved_to is not None
    assert "gulls" in second.saved_to
    assert frame.startswith(b"\x89PNG")


async def test_shots_that_come_as_text_are_recorded_as_shots(place: Place) -> None:
    """Some hosts send a list as text; the file is named by its first shot all the same."""
    arguments: dict[str, object] = {
        "image": "https://example.com/a.png",
        "shots": '[{"prompt": "the gulls rise", "duration": "3"}, {"prompt": "they land"}]',
    }
    wanted = plan(load(), "multi_shot_video", arguments)
    async with place.server() as service:
        begun = await service.start(await service.prepare(wanted, arguments))
        job = await over(service, begun.job.job_id)

    assert job.saved_to is not None
    assert "gulls" in job.saved_to
    assert job.intent.arguments["shots"] == [
        {"prompt": "the gulls rise", "duration": 3},
        {"prompt": "they land", "duration": 5},
    ]


async def test_shots_that_are_blank_are_none(place: Place) -> None:
    """Some hosts fill in every argument; a blank one is left out, and the file is named by the prompt."""
    async with place.server() as service:
        begun = await started(service, place, prompt="the gulls rise", shots=" ")
        job = await over(service, begun.job.job_id)

    assert "gulls" in (job.saved_to or "")
    assert "shots" not in job.intent.arguments


async def test_pictures_of_elements_are_uploaded_into_their_places(place: Place) -> None:
    images = pytest.importorskip("PIL.Image")
    images.new("RGB", (640, 480), "red").save(place.folder / "pictures" / "second.png")
    names = [str(place.folder / "pictures" / name) for name in ("first.jpg", "second.png")]
    async with place.server() as service:
        begun = await started(
            service, place, model="v3-standard", prompt="@Element1 rests",
            elements=[{"frontal_image": names[0], "reference_images": [names[1]]}],
        )  # fmt: skip
        await over(service, begun.job.job_id)

    (request,) = place.simulator.accepted
    body: Any = request.body
    (element,) = body["elements"]
    assert element["frontal_image_url"] == body["start_image_url"]
    assert element["reference_image_urls"] != [element["frontal_image_url"]]
    assert place.calls("upload") == 2


@pytest.mark.parametrize(
    ("image", "text"),
    [
        ("kling://somewhere", "not a picture here"),
        ("kling://jobs/kj_1/last-frame", "not saved on this machine"),
    ],
)
async def test_a_frame_that_is_not_there_is_refused(place: Place, image: str, text: str) -> None:
    async with place.server(recovers=False) as service:
        await service.store.run(lambda ledger: ledger.reserve(intent("kj_1"), WIDE, "gone", place.now_ms()))
        with pytest.raises(InputRefused, match=text):
            await drafted(service, place, image=image)


async def test_a_note_that_cannot_be_written_does_not_cost_the_video(place: Place) -> None:
    videos = place.folder / "videos"

    def in_the_way(point: str) -> None:
        if point == "saved":
            (name,) = [path.stem for path in videos.glob("*.mp4")]
            (videos / f"{name}.json").mkdir()

    place.at = in_the_way
    async with place.server() as service:
        job = await over(service, (await started(service, place)).job.job_id)

    assert job.saved_to is not None
    assert job.save_trouble is None


async def test_a_result_without_a_video_is_a_warning(place: Place) -> None:
    place.simulator.faults.add("result", Answer(200, {"images": []}))
    async with place.server() as service:
        job = await over(service, (await started(service, place)).job.job_id)

    assert (job.state, job.save_trouble) == ("completed", "fal.ai's result names no video.")
    assert job.result == {"images": []}


# ---- cancelling


async def test_a_job_is_cancelled_where_it_is(place: Place) -> None:
    """In line it costs nothing; running it goes on; ended it stays as it ended."""
    async with place.server() as service:
        running = (await started(service, place, duration=15)).job.job_id
        await until(service, running, lambda job: job.state == "running")
        place.clock.stop()
        waiting = (await started(service, place, take=2)).job.job_id
        out, said_out = await service.cancel(waiting)
        on, said_on = await service.cancel(running)
        place.clock.go_on()
        await over(service, running)
        ended, said_ended = await service.cancel(running)

    assert (out.state, out.cost_microusd) == ("cancelled", 0)
    assert "Nothing was charged" in said_out
    assert on.cancel_requested
    assert said_on in warnings_of(on, place.now_ms()), "it stays said"
    assert "may still be billed" in said_on
    assert (ended.state, ended.saved_to is not None) == ("completed", True)
    assert "already ended as completed" in said_ended


async def test_a_job_is_cancelled_before_it_is_sent(place: Place) -> None:
    async with place.server() as service:
        held, go = anyio.Event(), anyio.Event()
        place.simulator.faults.add("token", _Held(held, go))
        service.in_background(_start, service, await drafted(service, place))
        await held.wait()
        (job,) = await service.store.page("preparing", 9, None)
        cancelled, said = await service.cancel(job.job_id)
        go.set()
        await until(service, job.job_id, lambda _: not service.workers.submitter.under_way(job.job_id))
        job = await service.store.get(job.job_id)

    assert cancelled.state == job.state == "not_submitted"
    assert "before anything was sent" in said
    assert place.simulator.accepted == []


async def test_a_wish_to_cancel_that_comes_too_early_is_passed_on(place: Place) -> None:
    async with place.server() as service:
        first = (await started(service, place, duration=15)).job.job_id
        await until(service, first, lambda job: job.state == "running")
        place.clock.stop()
        held, go = anyio.Event(), anyio.Event()
        place.simulator.faults.add("submit", _Held(held, go))
        service.in_background(_start, service, await drafted(service, place, take=2))
        await held.wait()
        (job,) = await service.store.page("submitting", 9, None)
        _, said = await service.cancel(job.job_id)
        go.set()
        cancelled = await over(service, job.job_id)
        place.clock.go_on()
        assert (await over(service, first)).state == "completed"

    assert "as soon as that is known" in said
    assert (cancelled.state, cancelled.cost_microusd) == ("cancelled", 0)


async def test_a_host_that_gives_up_cancels_only_what_costs_nothing(place: Place) -> None:
    """Waiting in line it is taken out; once it renders, also where the ledger does not know yet, it goes on."""
    async with place.server() as service:
        begun = (await started(service, place, duration=15)).job.job_id
        await until(service, begun, lambda job: job.state == "running")
        place.clock.stop()
        waiting = (await started(service, place, take=2)).job.job_id
        out = await service.withdraw(waiting)
        again = await service.withdraw(waiting)
        ledger = await service.store.run(lambda ledger: ledger)
        ledger.apply(begun, Progressed(running=False), place.now_ms())
        on = await service.withdraw(begun)
        place.clock.go_on()
        done = await over(service, begun)

    assert (out.state, again.state, out.cost_microusd) == ("cancelled", "cancelled", 0)
    assert not on.cancel_requested
    assert done.state == "completed"


async def test_what_fal_dropped_unstarted_is_made_by_the_same_call(place: Place) -> None:
    dropped = Answer(504, {"detail": "Request timed out", "error_type": "request_timeout"})
    status = Answer(200, {"status": "COMPLETED", "error": "Request timed out", "error_type": "request_timeout"})
    place.simulator.faults.add("status", status, times=None)
    place.simulator.faults.add("result", dropped, times=None)
    async with place.server() as service:
        first = await over(service, (await started(service, place)).job.job_id)
        place.simulator.faults.clear()
        second = await started(service, place)
        done = await over(service, second.job.job_id)
        spend = await service.store.spend()

    assert (first.state, first.cost_microusd) == ("failed", 0)
    assert second.fresh
    assert done.state == "completed"
    assert spend[0].held_microusd == 0


async def test_a_job_is_found_by_the_id_that_fal_has_for_it(place: Place) -> None:
    async with place.server() as service:
        job = await over(service, (await started(service, place)).job.job_id)
        found = await service.store.get(place.simulator.accepted[0].request_id)
        _, said = await service.cancel(found.request_id or "")

    assert found == job
    assert "already ended as completed" in said


async def test_a_job_that_ended_at_fal_is_too_late_to_cancel(place: Place) -> None:
    async with place.server(recovers=False) as service:
        job_id = (await started(service, place)).job.job_id
    async with place.server(recovers=False) as service:
        place.clock.go_on(600)
        assert place.simulator.queue.look(_at_fal(place)).state == "COMPLETED"
        _, late = await service.cancel(job_id)
        place.simulator.faults.add("cancel", expired(), times=2)
        _, gone = await service.cancel(job_id)

    assert "already finished at fal.ai" in late
    assert "does not know this request" in gone


def _at_fal(place: Place) -> Any:
    return place.simulator.queue.get(place.simulator.accepted[0].request_id)


@dataclass(frozen=True)
class _Held:
    """A call that is answered when the test says so."""

    held: anyio.Event
    go: anyio.Event

    async def apply(self, exchange: Any) -> None:
        reply = await exchange.accept()
        self.held.set()
        await self.go.wait()
        await exchange.send(reply)


async def _start(service: JobService, draft: Draft) -> None:
    await service.start(draft)


# ---- recovery


async def test_what_a_dead_process_has_left_is_brought_to_its_end(place: Place) -> None:
    ledger = place.ledger()
    for name, events in {
        "kj_preparing": [],
        "kj_submitting": [Sending({"prompt": "x"})],
        "kj_unknown": [Sending({"prompt": "y"}), LostTrack("the connection broke")],
    }.items():
        ledger.reserve(intent(name), WIDE, "somebody who is gone", place.now_ms())
        for event in events:
            ledger.apply(name, event, place.now_ms())
    ledger.close()
    async with place.server(recovers=False) as service:
        queued = (await started(service, place)).job
        assert queued.state == "queued"
    async with place.server() as service:
        finished = await over(service, queued.job_id)
        unsent = await over(service, "kj_preparing")
        lost = await until(service, "kj_submitting", lambda job: job.state == "unknown")
        kept = await service.store.get("kj_unknown")

    assert finished.state == "completed"
    assert finished.saved_to is not None
    assert (unsent.state, unsent.cost_microusd) == ("not_submitted", 0)
    assert (lost.cost_microusd, kept.state) == (None, "unknown")
    assert len(place.simulator.accepted) == 1


@pytest.mark.parametrize(("backend", "state"), [("simulator", "not_submitted"), ("fal", "unknown")])
async def test_a_request_that_may_have_reached_a_stopped_simulator_is_gone_and_one_to_fal_is_not(
    place: Place, backend: Any, state: str
) -> None:
    settings = replace(place.settings, backend=backend)
    async with place.server(settings, recovers=False) as service:
        for name, events in {"kj_1": [], "kj_2": [LostTrack("the connection broke")]}.items():
            await service.store.run(
                lambda ledger, name=name: ledger.reserve(intent(name), WIDE, "gone", place.now_ms())
            )
            for event in (Sending({"prompt": name}), *events):
                await service.store.apply(name, event)
    async with place.server(settings) as service:
        found = [await until(service, name, lambda job: job.state != "submitting") for name in ("kj_1", "kj_2")]
        if backend == "simulator":
            found = [await over(service, job.job_id) for job in found]

    assert [job.state for job in found] == [state, state]
    assert [job.open for job in found] == [backend == "fal"] * 2


async def test_a_finished_job_without_a_file_is_downloaded_by_the_next_process(place: Place) -> None:
    async with place.server(replace(place.settings, output_dir=None)) as service:
        job = await until(service, (await started(service, place)).job.job_id, lambda job: job.state == "completed")
    ledger = place.ledger()
    ledger.mark_saved(job.job_id, None, "the connection broke off", place.now_ms(), again=True)
    ledger.close()
    async with place.server() as service:
        saved = await until(service, job.job_id, lambda job: job.saved_to is not None)

    assert saved.save_trouble is None


async def test_a_request_whose_answer_was_lost_is_found_again(place: Place) -> None:
    place.simulator.faults.add("submit", DropAfterAccept())
    async with place.server() as service:
        begun = await started(service, place)
        assert begun.job.state == "unknown"
        again = await started(service, place)
        job = await over(service, begun.job.job_id)

    assert again.job.job_id == begun.job.job_id
    assert job.state == "completed"
    assert job.saved_to is not None
    assert [request.request_id for request in place.simulator.accepted] == [job.request_id]


async def test_a_history_that_cannot_be_read_is_asked_again(place: Place) -> None:
    place.simulator.faults.add("submit", DropAfterAccept())
    place.simulator.faults.add("history", Answer(500), times=3)
    async with place.server() as service:
        job = await over(service, (await started(service, place)).job.job_id)

    assert job.state == "completed"


async def test_an_id_in_a_spool_is_brought_into_the_ledger_by_the_next_process(place: Place) -> None:
    async with place.server(recovers=False) as service:
        await service.store.owner()
        begun = await started(service, place)
    ledger = place.ledger()
    ledger.reserve(intent("kj_spooled"), WIDE, "gone", place.now_ms())
    ledger.apply("kj_spooled", Sending({"prompt": "x"}), place.now_ms())
    ledger.close()
    from kling_mcp.jobs.journal import AcceptanceJournal

    folder = place.settings.data_dir / "owners"
    for name, job_id, request_id in (
        ("gone", "kj_spooled", "11111111-aaaa"),
        ("other", "kj_of_another_ledger", "2222"),
    ):
        journal = AcceptanceJournal(folder, name)
        journal.keep(job_id, Accepted(request_id))
        journal.close()
    place.simulator.faults.add("status", Answer(503), times=None)
    async with place.server() as service:
        placed = await until(service, "kj_spooled", lambda job: job.state == "queued")
        await until(service, begun.job.job_id, lambda _: not (folder / "gone.spool").exists())

    assert placed.request_id == "11111111-aaaa"
    assert (folder / "other.spool").exists(), "an id that no job takes is kept"


async def test_a_broken_ledger_leaves_the_id_in_the_spool_and_recovery_places_it(place: Place) -> None:
    async with place.server() as service:
        ledger = await service.store.run(lambda ledger: ledger)

        class Broken:
            left = 1

            def __getattr__(self, name: str) -> Any:
                return getattr(ledger, name)

            def apply(self, job_id: str, event: Any, now_ms: int) -> Any:
                if isinstance(event, Accepted) and self.left:
                    self.left -= 1
                    raise RuntimeError("not a failure that anybody foresaw")
                return ledger.apply(job_id, event, now_ms)

        service.store._ledger = Broken()  # type: ignore[assignment]
        job = await over(service, (await started(service, place)).job.job_id)

    assert job.state == "completed"
    assert len(place.simulator.accepted) == 1


# ---- the user's word


async def _unknown(place: Place, service: JobService, fault: Any) -> str:
    place.simulator.faults.add("submit", fault)
    begun = await started(service, place)
    assert begun.job.state == "unknown"
    return begun.job.job_id


async def test_the_user_settles_an_unknown_job_as_not_charged(place: Place) -> None:
    async with place.server(recovers=False) as service:
        job = await service.resolve(await _unknown(place, service, DropBeforeAccept()), charged=False, request_id=None)
        fresh = await started(service, place)

    assert (job.state, job.cost_microusd) == ("not_submitted", 0)
    assert fresh.fresh


async def test_the_user_settles_an_unknown_job_as_charged(place: Place) -> None:
    async with place.server(recovers=False) as service:
        job = await service.resolve(await _unknown(place, service, DropAfterAccept()), charged=True, request_id=None)
        spend = await service.store.spend()

    assert (job.state, job.cost_microusd) == ("failed", 420_000)
    assert job.fault is not None
    assert job.fault.billed == "yes"
    assert (spend[0].held_microusd, spend[0].spent_microusd) == (0, 420_000)


async def test_the_user_names_the_request_and_gets_the_video(place: Place) -> None:
    async with place.server(recovers=False) as service:
        job_id = await _unknown(place, service, DropAfterAccept())
        with pytest.raises(InvalidArguments, match=r"does not confirm request 'nonsense'"):
            await service.resolve(job_id, charged=True, request_id="nonsense")
        await service.resolve(job_id, charged=True, request_id=place.simulator.accepted[0].request_id)
        job = await over(service, job_id)
        other = await _unknown_take(place, service)
        with pytest.raises(InvalidArguments, match="already belongs to another job"):
            await service.resolve(other, charged=True, request_id=job.request_id)
        with pytest.raises(InvalidArguments, match=r"is completed, not unknown; .* It was charged\."):
            await service.resolve(job_id, charged=False, request_id=None)

    assert job.state == "completed"
    assert job.saved_to is not None


async def _unknown_take(place: Place, service: JobService) -> str:
    place.simulator.faults.add("submit", DropBeforeAccept())
    return (await started(service, place, take=2)).job.job_id


# ---- the server's end


async def test_a_listener_that_fails_or_never_ends_holds_up_no_job(place: Place) -> None:
    async with place.server() as service:

        async def fails(_: Job) -> None:
            raise RuntimeError("the client is gone")

        service.store.subscribe(fails)
        job = await over(service, (await started(service, place)).job.job_id)

    assert job.state == "completed"


async def test_a_server_that_closes_while_a_picture_goes_up_sends_nothing(place: Place) -> None:
    async with place.server(recovers=False) as service:
        held, go = anyio.Event(), anyio.Event()
        place.simulator.faults.add("token", _Held(held, go))
        service.in_background(_start, service, await drafted(service, place))
        await held.wait()
        await service.close()
        go.set()
        (job,) = await service.store.page(None, 9, None)
        job = await until(service, job.job_id, lambda job: job.state != "preparing")

    assert job.state == "not_submitted"
    assert job.fault is not None
    assert "stopped before the request was sent" in job.fault.message
    assert place.simulator.accepted == []


async def test_a_server_that_closes_waits_for_the_answer_that_is_on_its_way(place: Place) -> None:
    async with place.server(recovers=False) as service:
        held, go = anyio.Event(), anyio.Event()
        place.simulator.faults.add("submit", _Held(held, go))
        service.in_background(_start, service, await drafted(service, place))
        await held.wait()
        go.set()
        (job,) = await service.store.page(None, 9, None)

    ledger = place.ledger()
    assert ledger.get(job.job_id).request_id == place.simulator.accepted[0].request_id
    ledger.close()


async def test_a_defect_while_preparing_gives_the_money_back(place: Place) -> None:
    def defect(point: str) -> None:
        if point == "uploading":
            raise RuntimeError("a defect")

    place.at = defect
    async with place.server() as service:
        job = await over(service, (await started(service, place)).job.job_id)

    assert job.state == "not_submitted"
    assert job.fault is not None
    assert job.fault.code == "internal"


async def test_a_studio_that_is_not_open_starts_nothing(place: Place) -> None:
    service = JobService(place.settings, lambda: Fal(place.settings))

    with pytest.raises(RuntimeError, match="not open"):
        service.in_background(service.recover)


async def test_what_is_not_there_is_named(place: Place) -> None:
    async with place.server() as service:
        for ask in (service.store.get("kj_9"), service.cancel("kj_9"), service.last_frame("kj_9")):
            with pytest.raises(UnknownJob):
                await ask
        (await service.store.run(lambda ledger: ledger.reserve(intent("kj_1"), WIDE, "gone", place.now_ms())))
        with pytest.raises(UnknownJob):
            await service.last_frame("kj_1")
