"""How long the poller is patient, told by the pauses it makes; no clock has a part in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

import pytest

from kling_mcp.errors import AccountLocked, FalRejected, FalUnreachable, KlingError, LedgerUnavailable, RateLimited
from kling_mcp.fal.failures import Failure, RequestNotFound
from kling_mcp.fal.queue import Completed, NotReady
from kling_mcp.jobs.job import Accepted, Progressed, Sending
from kling_mcp.jobs.poller import Poller, PollState
from kling_mcp.jobs.sqlite.engine import SqliteLedger
from kling_mcp.jobs.store import JobStore
from kling_mcp.runtime import Runtime
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
    """One job of a model of fal, and a poller that looks at it when told."""

    asked = 0

    def __init__(
        self, folder: Path, fal: ModelFal | None = None, account: str = "", backend: Literal["fal", "simulator"] = "fal"
    ) -> None:
        self.fal = fal or ModelFal()
        self.ledger = SqliteLedger(folder, lambda: "ledger-1")
        runtime = Runtime(now_ms=lambda: self.fal.now_ms, chance=lambda: 0.5)
        self.store = JobStore(folder, runtime, lambda: self.ledger)
        settings = Settings(folder, None, (), fal_key=Secret(CANARY_KEY), backend=backend)
        self.poller = Poller(
            self.store, settings, lambda: cast("Any", self.fal), cast("Any", None), lambda: cast("Any", None)
        )
        self.watch = PollState(3.0)
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
            self.asked += 1
            self.job = await self.poller.poll_once(self.job, self.watch)
            pause = self.watch.pause()
            waited += pause
            # The clock is set by a day at every look: it must not matter.
            self.fal.now_ms += 86_400_000
        return waited


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncGenerator[Watched]:
    watched = Watched(tmp_path)
    yield watched
    watched.store.close()
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
    assert watched.job.cost_microusd == watched.job.intent.estimate_microusd


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


# ---- what a job says while fal says nothing


def noted(watched: Watched) -> list[str]:
    """How often anything was written about trouble: the ledger says what it was last."""
    written: list[str] = []
    note = watched.ledger.note_trouble

    def counted(job_id: str, trouble: Any) -> Any:
        written.append("over" if trouble is None else trouble.code)
        return note(job_id, trouble)

    watched.ledger.note_trouble = counted  # type: ignore[method-assign]
    return written


async def test_trouble_is_written_down_when_it_begins_changes_and_ends_and_not_at_every_look(watched: Watched) -> None:
    written = noted(watched)
    began_ms = watched.fal.now_ms

    for trouble in (
        FalUnreachable("It answered with HTTP status 503.", "Wait."),
        FalUnreachable("It answered with HTTP status 504.", "Wait."),
        FalRejected("fal.ai does not accept the key in FAL_KEY.", "Make a new one."),
    ):
        watched.fal.trouble = trouble
        await watched.look_for(HOUR)
    during = watched.ledger.get("kj_1").trouble
    watched.fal.trouble = None
    await watched.look_for(HOUR)

    assert written == ["fal_unreachable", "fal_rejected", "over"]
    assert during is not None
    assert (during.since_ms, during.message) == (
        began_ms,
        "fal.ai does not accept the key in FAL_KEY. Make a new one.",
    )
    assert watched.ledger.get("kj_1").trouble is None


async def test_a_result_that_cannot_be_had_is_on_the_job_too(tmp_path: Path) -> None:
    watched = Watched(tmp_path, fal := _NoResult())
    fal.finish(watched.request, "video")

    await watched.look_for(600)
    job = watched.ledger.get("kj_1")
    watched.ledger.close()

    assert job.open
    assert job.trouble is not None
    assert "504" in job.trouble.message


async def test_a_job_that_a_stopped_simulator_had_ends_and_costs_nothing(tmp_path: Path) -> None:
    """The jobs of the simulator die with it; those of fal.ai are looked for (above)."""
    watched = Watched(tmp_path, backend="simulator")
    watched.fal.trouble = GONE

    await watched.look_for(60)
    watched.ledger.close()

    assert watched.job.state == "failed"
    assert watched.job.fault is not None
    assert (watched.job.fault.billed, watched.job.fault.again) == ("no", "same_call")


async def test_a_job_that_never_ends_is_asked_about_ever_more_rarely_and_never_given_up(watched: Watched) -> None:
    looks: list[int] = []
    for hours in (1, 4, 20, 100):
        before = watched.asked
        await watched.look_for(hours * HOUR)
        looks.append((watched.asked - before) // hours)

    assert watched.job.open
    assert looks == sorted(looks, reverse=True)
    assert 60 <= looks[0] <= 260
    assert looks[-1] <= 6


@pytest.mark.parametrize(
    "result",
    [FalRejected("No.", "Look."), RateLimited("Slow.", "Wait."), FalUnreachable("500.", "Wait."), NotReady()],
    ids=str,
)
@pytest.mark.parametrize(
    ("kind", "billed", "again"),
    [
        ("request_timeout", "no", "same_call"),
        ("startup_timeout", "no", "same_call"),
        ("runner_scheduling_failure", "no", "next_take"),
        ("content_policy_violation", "maybe", "changed_call"),
        ("unknown_error", "maybe", None),
    ],
)
async def test_an_end_that_fal_states_is_an_end_whatever_it_answers_about_the_result(
    tmp_path: Path, kind: str, billed: Any, again: str | None, result: Any
) -> None:
    watched = Watched(tmp_path, _Stated(kind, billed, result))

    await watched.look_for(60)
    watched.ledger.close()

    assert watched.job.state == "failed"
    assert watched.job.fault is not None
    assert (watched.job.fault.billed, watched.job.fault.again) == (billed, again)
    assert watched.job.cost_microusd == (0 if billed == "no" else watched.job.intent.estimate_microusd)


async def test_what_was_seen_running_was_not_dropped_from_the_queue(tmp_path: Path) -> None:
    watched = Watched(tmp_path, _Stated("request_timeout", "no", NotReady()))
    watched.job = watched.ledger.apply("kj_1", Progressed(running=True), watched.fal.now_ms).job

    await watched.look_for(60)
    watched.ledger.close()

    assert watched.job.fault is not None
    assert watched.job.fault.again == "next_take"


class _Stated(ModelFal):
    """The status says that the request has failed, and why; the result is something else."""

    def __init__(self, kind: str, billed: Any, answer: Any) -> None:
        super().__init__()
        retryable = kind.endswith(("timeout", "failure"))
        self._failure = Failure(kind, "It failed.", "Look.", None, retryable, billed, None, "fal_rejected")
        self._result = answer

    async def status(self, endpoint_id: str, receipt: Any) -> Any:
        return Completed(self._failure)

    async def result(self, endpoint_id: str, receipt: Any) -> Any:
        if isinstance(self._result, KlingError):
            raise self._result
        return self._result
