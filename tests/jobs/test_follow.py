"""How long the follower is patient, told by the pauses it makes; no clock has a part in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from kling_mcp.errors import AccountLocked, FalRejected, FalUnreachable, KlingError, LedgerUnavailable, RateLimited
from kling_mcp.fal.failures import RequestNotFound
from kling_mcp.fal.queue import NotReady
from kling_mcp.jobs.desk import Desk
from kling_mcp.jobs.follow import Follower, Watch
from kling_mcp.jobs.job import Accepted, Sending
from kling_mcp.jobs.sqlite import SqliteLedger
from kling_mcp.jobs.world import World
from kling_mcp.settings import Secret, Settings
from tests.conftest import CANARY_KEY
from tests.jobs.model import ModelFal
from tests.jobs.support import ENDPOINT, WIDE, intent

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from kling_mcp.jobs.job import Job

pytestmark = pytest.mark.anyio

HOUR = 3600.0
GONE = RequestNotFound("fal.ai does not know it.", "Look at the dashboard.")


class Watched:
    """One job of a model of fal, and a follower that looks at it when told."""

    def __init__(self, folder: Path, fal: ModelFal | None = None, account: str = "") -> None:
        self.fal = fal or ModelFal()
        self.ledger = SqliteLedger(folder, lambda: "ledger-1")
        world = World(now_ms=lambda: self.fal.now_ms, chance=lambda: 0.5)
        self.desk = Desk(folder, world, lambda: self.ledger)
        settings = Settings(folder, None, (), fal_key=Secret(CANARY_KEY))
        self.follower = Follower(
            self.desk, settings, lambda: cast("Any", self.fal), cast("Any", None), lambda: cast("Any", None)
        )
        self.watch = Watch(3.0)
        request = self.fal._accept(ENDPOINT, {"prompt": "x"}, "kj_1")
        self.fal.start(request)
        self.request = request
        self.ledger.reserve(intent("kj_1", account=account or settings.account), WIDE, "me", self.fal.now_ms)
        self.ledger.apply("kj_1", Sending({"prompt": "x"}), self.fal.now_ms)
        self.job: Job = self.ledger.apply("kj_1", Accepted(request.request_id), self.fal.now_ms).job

    async def look_for(self, seconds: float) -> float:
        """Look again and again until the job ends, for at most *seconds* of pauses; how many it took."""
        waited = 0.0
        while self.job.open and waited < seconds:
            self.job = await self.follower.look(self.job, self.watch)
            pause = self.watch.pause()
            waited += pause
            # The clock is set by a day at every look: it must not matter.
            self.fal.now_ms += 86_400_000
        return waited


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncGenerator[Watched]:
    watched = Watched(tmp_path)
    yield watched
    watched.desk.close()
    watched.ledger.close()


@pytest.mark.parametrize(
    "trouble",
    [
        FalRejected("fal.ai does not accept the key in FAL_KEY.", "Make a new one."),
        AccountLocked("The account is locked.", "Top up."),
        RateLimited("Too many questions.", "Wait."),
        FalUnreachable("No answer.", "Wait."),
        LedgerUnavailable("The disk is full.", "Free some space."),
    ],
    ids=lambda trouble: trouble.code,
)
async def test_trouble_with_asking_never_ends_a_job(watched: Watched, trouble: KlingError) -> None:
    watched.fal.trouble = trouble
    await watched.look_for(30 * HOUR)
    assert watched.job.state == "queued"

    watched.fal.trouble = None
    watched.fal.finish(watched.request, "video")
    await watched.look_for(HOUR)

    assert watched.job.state == "completed"


async def test_a_request_that_fal_forgets_is_given_up_after_a_day_of_asking_the_history(watched: Watched) -> None:
    watched.fal.trouble = GONE

    waited = await watched.look_for(100 * HOUR)

    assert 24 * HOUR <= waited <= 26 * HOUR
    assert watched.job.state == "failed"
    assert watched.job.fault is not None
    assert (watched.job.fault.code, watched.job.fault.billed) == ("fal_unreachable", "maybe")
    assert f"request {watched.job.request_id} at https://fal.ai/dashboard/requests" in watched.job.fault.message
    assert watched.job.cost_u == watched.job.intent.estimate_u


async def test_a_job_of_another_key_is_never_given_up(tmp_path: Path) -> None:
    """That this key is not shown it says nothing about it."""
    watched = Watched(tmp_path, account="of another key")
    watched.fal.trouble = GONE

    await watched.look_for(100 * HOUR)
    watched.ledger.close()

    assert watched.job.state == "queued"


@pytest.mark.parametrize(
    ("end", "state", "billed"), [("video", "completed", None), ("charged failure", "failed", "maybe")]
)
async def test_what_the_history_says_is_taken_as_soon_as_it_is_asked(
    watched: Watched, end: Any, state: str, billed: str | None
) -> None:
    watched.fal.finish(watched.request, end)
    watched.fal.now_ms += 1
    watched.fal.strange(ENDPOINT, {"prompt": "somebody else's, which is listed first"})
    watched.fal.trouble = GONE

    waited = await watched.look_for(10 * HOUR)

    assert 600 <= waited <= 700
    assert watched.job.state == state
    assert (watched.job.fault.billed if watched.job.fault else None) == billed


async def test_a_history_that_cannot_be_read_proves_nothing(watched: Watched) -> None:
    watched.fal.trouble, watched.fal.reachable = GONE, False

    await watched.look_for(40 * HOUR)

    assert watched.job.state == "queued"


async def test_trouble_that_comes_and_goes_does_not_add_up(watched: Watched) -> None:
    for trouble in [GONE, None] * 20:
        watched.fal.trouble = trouble
        await watched.look_for(400)

    assert watched.job.open


class _Late(ModelFal):
    """The status says that the request has ended, and the result comes only with the third question."""

    asked = 0

    async def result(self, endpoint_id: str, receipt: Any) -> Any:
        self.asked += 1
        return await super().result(endpoint_id, receipt) if self.asked == 3 else NotReady()


async def test_a_result_that_is_not_ready_is_asked_for_again(tmp_path: Path) -> None:
    watched = Watched(tmp_path, fal := _Late())
    fal.finish(watched.request, "video")

    await watched.look_for(HOUR)
    watched.ledger.close()

    assert (watched.job.state, fal.asked) == ("completed", 3)


class _NoResult(ModelFal):
    """The status works and says that the request has ended, but the result does not come."""

    async def result(self, endpoint_id: str, receipt: Any) -> Any:
        raise FalUnreachable("A gateway answered with 504.", "Wait.")


async def test_a_result_behind_a_gateway_is_asked_for_an_hour_and_then_taken_from_the_history(tmp_path: Path) -> None:
    watched = Watched(tmp_path, _NoResult())
    watched.fal.finish(watched.request, "video")

    waited = await watched.look_for(10 * HOUR)
    watched.ledger.close()

    assert HOUR <= waited <= HOUR + 200
    assert watched.job.state == "completed"
