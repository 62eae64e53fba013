"""
Whole films against the simulator: planned, paid for, made, joined and cancelled, by one server or several.
"""

from __future__ import annotations

import io
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import anyio
import av
import pytest
from anyio import Path as AnyPath

from kling_mcp.catalog.models import load
from kling_mcp.errors import InputRefused, InvalidArguments, NoApiKey, OverBudget
from kling_mcp.fal.client import Fal
from kling_mcp.films.service import FilmService
from kling_mcp.jobs.film import FilmCut
from kling_mcp.jobs.service import JobService
from kling_mcp.runtime import Runtime
from kling_mcp.simulator.app import Simulator
from kling_mcp.simulator.render import sample_picture
from kling_mcp.simulator.serve import serving
from tests.jobs.support import paid_settings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    from kling_mcp.jobs.film import Film
    from kling_mcp.settings import Settings

pytestmark = pytest.mark.anyio

SPEED = 400
ENOUGH_SECONDS = 60
FOX = {"prompt": "A fox wakes.", "duration": 3}


class Place:
    """A user's folders, a fal of their own, and as many servers as a test starts."""

    def __init__(self, settings: Settings, simulator: Simulator) -> None:
        self.settings = settings
        self.simulator = simulator

    @property
    def posts(self) -> list[str]:
        return [str(request.body.get("prompt")) for request in self.simulator.accepted]

    @asynccontextmanager
    async def server(
        self, settings: Settings | None = None, join: Callable[[Film], Awaitable[FilmCut]] | None = None
    ) -> AsyncGenerator[FilmService]:
        async def sleep(seconds: float) -> None:
            await anyio.sleep(seconds / SPEED)

        mine = settings or self.settings
        jobs = JobService(mine, lambda: Fal(mine), runtime=Runtime(sleep=sleep))
        with anyio.fail_after(ENOUGH_SECONDS):
            async with jobs.open():
                films = FilmService(jobs, load(), join)
                jobs.in_background(jobs.recover)
                jobs.in_background(films.driver.run)
                yield films


@pytest.fixture
async def place(tmp_path: Path) -> AsyncGenerator[Place]:
    simulator = Simulator(speed=SPEED)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "fox.jpg").write_bytes(sample_picture())
    async with serving(simulator) as urls:
        yield Place(paid_settings(tmp_path, urls, poll_seconds=0.1), simulator)


def measured_seconds(video: bytes) -> float:
    with av.open(io.BytesIO(video), "r") as opened:
        return (opened.duration or 0) / av.time_base


async def until(films: FilmService, film_id: str, holds: Callable[[Film], bool]) -> Film:
    film = await films.get(film_id)
    while not holds(film):
        film = await films.wait(film, 5)
    return film


async def made(films: FilmService, clips: list[dict[str, Any]], **whole: Any) -> Film:
    """A film that is planned and made, once it is ready or paused."""
    film = (await films.plan({"clips": clips, **whole})).film
    remaining = films.remaining(film)
    await films.check(remaining)
    await films.make(film.film_id, remaining.ceiling_microusd)
    return await until(films, film.film_id, lambda one: one.state in {"ready", "paused"})


async def test_a_film_of_clips_that_continue_each_other_is_made_and_joined(place: Place) -> None:
    async with place.server() as films:
        own = {"prompt": "It jumps.", "duration": 3, "start": str(place.settings.input_dirs[0] / "fox.jpg")}
        film = await made(films, [FOX, {"prompt": "It runs.", "duration": 4}, own], title="Fox: a day")

    assert (film.state, film.why, film.held_microusd) == ("ready", None, 0)
    assert sorted(place.posts) == ["A fox wakes.", "It jumps.", "It runs."]
    assert film.clips[1].begins_with == film.job_ids[0]
    assert film.cut is not None
    path = AnyPath(film.cut.path)
    assert path.name.startswith("Fox-a-day-")
    assert measured_seconds(await path.read_bytes()) == pytest.approx(10, abs=0.1)


async def test_two_servers_make_each_clip_and_the_film_once_however_often_it_is_asked_for(place: Place) -> None:
    async with place.server() as films, place.server() as others:
        planned = await films.plan({"clips": [FOX, {"prompt": "It runs.", "duration": 3}]})
        again = await others.plan({"clips": [FOX, {"prompt": "It runs.", "duration": 3}]})
        film_id = planned.film.film_id
        for one in (films, others, films):
            await one.make(film_id, 2_000_000)
        film = await until(others, film_id, lambda one: one.state == "ready")
        assert film.cut is not None
        joined = AnyPath(film.cut.path)
        # The server that was slower removes its own file.
        while [path.name async for path in joined.parent.glob("film-*")] != [joined.name]:  # noqa: ASYNC110 - no event
            await anyio.sleep(0.02)

    assert again.film.film_id == film_id, "the same plan is the same draft"
    assert sorted(place.posts) == ["A fox wakes.", "It runs."]
    assert film.agreed_microusd == 2_000_000


async def test_a_film_continues_when_a_stopped_server_starts_again(place: Place) -> None:
    async with place.server() as films:
        film = (await films.plan({"clips": [FOX, {"prompt": "It runs.", "duration": 3}]})).film
        await films.make(film.film_id, 2_000_000)
        await until(films, film.film_id, lambda one: one.clips[0].job is not None)
    async with place.server() as films:
        film = await until(films, film.film_id, lambda one: one.state == "ready")

    assert sorted(place.posts) == ["A fox wakes.", "It runs."]


async def test_a_retake_is_paid_once_and_marks_the_clip_that_continues_it(place: Place) -> None:
    async with place.server() as films:
        film = await made(films, [FOX, {"prompt": "It runs.", "duration": 3}])
        first = film.cut
        remaining = films.remaining(film, retake=[1])
        await films.make(film.film_id, remaining.used_microusd + remaining.ceiling_microusd, retake=[1])
        film = await until(films, film.film_id, lambda one: one.state == "paused")
        assert (film.why, [film.matches(clip) for clip in film.clips]) == ("clips_differ", [True, False])
        await films.make(film.film_id, None)
        film = await until(films, film.film_id, lambda one: one.state == "ready")

    assert len(place.posts) == 3
    assert first is not None
    assert film.cut is not None
    assert (film.cut.version, film.cut.path != first.path, await AnyPath(first.path).is_file()) == (2, True, True)
    assert not remaining.agreed, "the agreement was for the first takes"


async def test_what_goes_beyond_the_agreement_is_not_started(place: Place) -> None:
    """Acceptance 4."""
    async with place.server() as films:
        film = await made(films, [FOX])
        await films.make(film.film_id, None, retake=[1])
        film = await until(films, film.film_id, lambda one: one.why == "over_agreement")

    assert len(place.posts) == 1
    assert "agreed for film" in film.detail
    assert film.state == "paused"


async def test_a_cancelled_film_starts_nothing_and_a_changed_one_is_paused(place: Place) -> None:
    async with place.server() as films:
        film = (await films.plan({"clips": [FOX, {"prompt": "It runs.", "duration": 3}]})).film
        await films.make(film.film_id, 2_000_000)
        await until(films, film.film_id, lambda one: one.clips[0].job is not None)
        stopped = await films.cancel(film.film_id)
        assert (stopped.state, stopped.why) == ("paused", "cancelled")

        changed = await films.plan({"clips": [FOX, {"prompt": "It sleeps.", "duration": 3}]}, film.film_id)
        assert (changed.film.film_id, changed.film.why) == (film.film_id, "changed")
        only_title = await films.plan({"title": "Fox"}, film.film_id)
        assert [clip.planned.arguments["prompt"] for clip in only_title.film.clips] == ["A fox wakes.", "It sleeps."]
        await films.make(film.film_id, None)
        film = await until(films, film.film_id, lambda one: one.state == "ready")

    assert "It runs." not in place.posts
    assert film.title == "Fox"


async def test_a_finished_job_is_a_clip_and_a_film_without_a_joiner_is_ready_without_a_file(place: Place) -> None:
    async with place.server() as films:
        first = await made(films, [FOX])
        clips = [{"start": first.job_ids[0]}, {"prompt": "It runs.", "duration": 3}]
        film = await made(films, clips)
        assert film.job_ids[0] == first.job_ids[0]
        assert film.cut is not None

    unsaved = replace(place.settings, output_dir=None)
    async with place.server(unsaved) as films:
        with pytest.raises(InvalidArguments, match="KLING_MCP_OUTPUT_DIR is none"):
            await films.plan({"clips": [FOX, {"prompt": "x"}]})


async def test_a_failed_join_leaves_the_clips_and_is_tried_again_when_asked_for(place: Place) -> None:
    tried: list[str] = []

    async def join(film: Film) -> FilmCut:
        tried.append(film.film_id)
        if len(tried) == 1:
            raise InputRefused("The disk is full.", "Free some space.")
        return FilmCut(0, film.job_ids, "/films/fox.mp4", "copied")

    async with place.server(join=join) as films:
        film = await made(films, [FOX])
        assert (film.state, film.why, film.cut) == ("ready", "join_failed", None)
        await films.make(film.film_id, None)
        film = await until(films, film.film_id, lambda one: one.cut is not None)

    assert len(place.posts) == 1
    assert len(tried) == 2


async def test_a_defect_in_one_film_does_not_stop_the_server_or_another_film(place: Place) -> None:
    async def join(film: Film) -> FilmCut:
        if film.title == "broken":
            raise ZeroDivisionError
        return FilmCut(0, film.job_ids, "/films/fox.mp4", "copied")

    async with place.server(join=join) as films:
        broken = (await films.plan({"clips": [FOX], "title": "broken"})).film
        await films.make(broken.film_id, 1_000_000)
        await until(films, broken.film_id, lambda one: one.all_made)
        other = await made(films, [{"prompt": "It runs.", "duration": 3}])
        broken = await films.get(broken.film_id)

    assert (other.state, broken.state) == ("ready", "joining")


async def test_a_film_that_could_not_be_finished_is_refused_before_its_price_is_asked_about(place: Place) -> None:
    async with place.server() as films:
        with pytest.raises(InputRefused) as refusal:
            await films.plan({"clips": [{**FOX, "start": "nowhere.jpg"}, {"start": "kj_0123456789abcdefghijkl"}]})
        assert [(fault.path or "").split(".")[0] for fault in refusal.value.faults] == ["clips[0]", "clips[1]"]
        film = (await films.plan({"clips": [FOX, {"prompt": "It runs."}, {"prompt": "It stops."}]})).film
        for only, retake, words in (([9], [], "no clip 9"), ([], [7], "no clip 7"), ([3], [], "which is not made")):
            with pytest.raises(InvalidArguments, match=words):
                films.remaining(film, only=only, retake=retake)
        everything = films.remaining(film)
    for changed, error in (
        ({"fal_key": None}, NoApiKey),
        ({"max_job_usd": everything.clips[0].planned.ceiling_microusd // 10**6}, OverBudget),
        ({"daily_budget_usd": 1}, OverBudget),
    ):
        settings = replace(place.settings, **{k: Decimal(v) if isinstance(v, int) else v for k, v in changed.items()})
        async with place.server(settings) as films:
            with pytest.raises(error):
                await films.check(everything)
    assert place.posts == []
