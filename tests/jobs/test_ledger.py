"""
What a ledger has to do, whatever it is made of.

An engine takes part by an entry in `ENGINES`. How SQLite behaves when its file
is damaged, replaced or out of room is in `test_sqlite`.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from kling_mcp.errors import InvalidArguments, OverBudget, UnknownJob
from kling_mcp.jobs.job import (
    ENDED,
    Accepted,
    Failed,
    Fault,
    Finished,
    LostTrack,
    NewVoice,
    NotSent,
    Progressed,
    ProvenAbsent,
    Sending,
    SettledByUser,
    Trouble,
)
from kling_mcp.jobs.ledger import DEDUPE_WINDOW_MS, DaySpend, KnownRequest, Limits, Upload
from kling_mcp.jobs.sqlite.engine import SqliteLedger
from tests.jobs.support import ACCOUNT, ENDPOINT, NOW_MS, WIDE, intent

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path

    from kling_mcp.jobs.job import Event, Job
    from kling_mcp.jobs.ledger import Ledger

    Open = Callable[[], Ledger]

TODAY = "2026-11-21"
DAY_MS = 86_400_000
FREE = Fault("fal_rejected", "It failed.", "no", "prompt", "text from fal.ai")
MAYBE = Fault("fal_rejected", "It failed.", "maybe")
RECEIPT = Accepted("r1", "https://q/r1/status", "https://q/r1", "https://q/r1/cancel", 3)
SENT: tuple[Event, ...] = (Sending({"prompt": "x"}),)
QUEUED: tuple[Event, ...] = (*SENT, RECEIPT)

ENGINES: dict[str, Callable[[Path], Ledger]] = {"sqlite": lambda folder: SqliteLedger(folder, lambda: "ledger-1")}


@pytest.fixture(params=ENGINES)
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Open]:
    """Opens the same ledger once more, as another process would."""
    opened: list[Ledger] = []

    def one_more() -> Ledger:
        opened.append(ENGINES[request.param](tmp_path / "state"))
        return opened[-1]

    yield one_more
    for ledger in opened:
        ledger.close()


@pytest.fixture
def ledger(reopen: Open) -> Ledger:
    return reopen()


DROPPED = Fault("fal_unreachable", "It waited too long.", "no", again="same_call")


def told(ledger: Ledger, name: str, events: Sequence[Event], now_ms: int = NOW_MS) -> Job:
    """A job that has gone through *events*."""
    job = ledger.reserve(intent(name), WIDE, "me", now_ms).job
    for event in events:
        found = ledger.apply(name, event, now_ms)
        assert found.changed
        job = found.job
    return job


def today(ledger: Ledger, now_ms: int = NOW_MS) -> DaySpend:
    return ledger.spend(now_ms)[0]


# ---- intents


def test_an_intent_is_there_in_full_before_anything_is_sent(ledger: Ledger, reopen: Open) -> None:
    wanted = intent("kj_1", warnings=("the audio is off",), nonce="n1")

    made = ledger.reserve(wanted, WIDE, "me", NOW_MS)

    assert made.fresh
    assert made.job.intent == wanted
    assert (made.job.state, made.job.owner, made.job.day, made.job.created_ms) == ("preparing", "me", TODAY, NOW_MS)
    assert made.job.warnings == ("the audio is off",)
    assert reopen().get("kj_1") == made.job
    assert today(ledger) == DaySpend(TODAY, 500_000, 0)


def test_the_same_call_is_the_same_job_from_every_connection(ledger: Ledger, reopen: Open) -> None:
    first = ledger.reserve(intent("kj_1", fingerprint="f"), WIDE, "me", NOW_MS)

    again = reopen().reserve(intent("kj_2", fingerprint="f"), WIDE, "you", NOW_MS + 30 * DAY_MS)

    assert not again.fresh
    assert again.job == first.job
    assert [spend.held_microusd for spend in ledger.spend(NOW_MS)] == [0, 500_000]


@pytest.mark.parametrize(
    ("events", "after_ms", "answers"),
    [
        ((), 30 * DAY_MS, True),
        (SENT, 30 * DAY_MS, True),
        ((*SENT, LostTrack("?")), 30 * DAY_MS, True),
        (QUEUED, 30 * DAY_MS, True),
        ((*QUEUED, Finished({})), DEDUPE_WINDOW_MS - 1, True),
        ((*QUEUED, Finished({})), DEDUPE_WINDOW_MS, False),
        ((*QUEUED, Failed(MAYBE)), DEDUPE_WINDOW_MS - 1, True),
        ((*QUEUED, Failed(MAYBE)), DEDUPE_WINDOW_MS, False),
        ((NotSent(FREE),), 0, False),
        ((*SENT, LostTrack("?"), ProvenAbsent(FREE)), 0, False),
    ],
)
def test_a_job_answers_for_its_call_until_fifteen_minutes_after_its_end(
    ledger: Ledger, events: Sequence[Event], after_ms: int, answers: bool
) -> None:
    job = told(ledger, "kj_1", events)
    fingerprint = job.intent.fingerprint

    standing = ledger.find_duplicate(fingerprint, NOW_MS + after_ms)
    second = ledger.reserve(intent("kj_2", fingerprint=fingerprint), WIDE, "me", NOW_MS + after_ms)

    assert standing == (job if answers else None)
    assert second.fresh is not answers


def test_a_confirmation_is_used_up_by_the_job_that_it_finds(ledger: Ledger) -> None:
    """Also by one that was there before, and also when that job was never sent."""
    told(ledger, "kj_1", ())
    found = ledger.reserve(intent("kj_2", fingerprint="fingerprint of kj_1", nonce="n"), WIDE, "me", NOW_MS)
    ledger.apply("kj_1", NotSent(FREE), NOW_MS)

    replayed = ledger.reserve(intent("kj_3", fingerprint="another", nonce="n"), WIDE, "me", NOW_MS + DAY_MS)

    assert found.job.job_id == replayed.job.job_id == "kj_1"
    assert not replayed.fresh


# ---- money


def test_what_is_just_too_much_never_looks_as_if_it_fitted(ledger: Ledger) -> None:
    with pytest.raises(OverBudget, match=r"up to \$0\.51.*is \$0\.50 "):
        ledger.afford(500_001, Limits(500_000, 10_000_000), NOW_MS)
    with pytest.raises(OverBudget, match=r"up to \$0\.50, and of today's \$0\.49 "):
        ledger.afford(500_000, Limits(500_000, 499_999), NOW_MS)


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        (Limits(499_999, 10_000_000), r"limit for one job is \$0\.49 \(KLING_MCP_MAX_JOB_USD\)"),
        (Limits(500_000, 499_999), r"today's \$0\.49 \(KLING_MCP_DAILY_BUDGET_USD, UTC day 2026-11-21\) \$0\.00"),
    ],
)
def test_a_price_over_a_limit_is_refused_and_leaves_nothing(ledger: Ledger, limits: Limits, text: str) -> None:
    with pytest.raises(OverBudget, match=text):
        ledger.reserve(intent("kj_1"), limits, "me", NOW_MS)

    assert ledger.page() == []
    assert today(ledger) == DaySpend(TODAY, 0, 0)


def test_held_and_spent_money_fill_the_day_and_a_new_day_is_a_new_budget(ledger: Ledger, reopen: Open) -> None:
    two = Limits(500_000, 1_000_000)
    ledger.reserve(intent("kj_1"), two, "me", NOW_MS)
    for event in (*QUEUED, Finished({}, 500_000)):
        ledger.apply("kj_1", event, NOW_MS)
    reopen().reserve(intent("kj_2"), two, "me", NOW_MS)

    with pytest.raises(OverBudget, match=r"\$1\.00 is spent or held"):
        ledger.reserve(intent("kj_3"), two, "me", NOW_MS)
    ledger.reserve(intent("kj_3"), two, "me", NOW_MS + DAY_MS)

    assert ledger.spend(NOW_MS + DAY_MS) == [
        DaySpend("2026-11-22", 500_000, 0),
        DaySpend(TODAY, 500_000, 500_000),
    ]


def test_what_a_job_costs_belongs_to_the_day_it_was_started(ledger: Ledger) -> None:
    told(ledger, "kj_1", QUEUED)

    ledger.apply("kj_1", Finished({}, 123_456), NOW_MS + 2 * DAY_MS)

    assert ledger.spend(NOW_MS + 2 * DAY_MS) == [DaySpend("2026-11-23", 0, 0), DaySpend(TODAY, 0, 123_456)]


def test_the_truth_about_a_cost_is_written_even_where_it_passes_the_limit(ledger: Ledger) -> None:
    told(ledger, "kj_1", QUEUED)

    ledger.apply("kj_1", Finished({}, 2_000_000_000), NOW_MS)

    assert today(ledger) == DaySpend(TODAY, 0, 2_000_000_000)


@pytest.mark.parametrize(
    ("events", "state", "spent_microusd"),
    [
        ((NotSent(FREE),), "not_submitted", 0),
        ((*SENT, NotSent(FREE)), "not_submitted", 0),
        ((*QUEUED, Finished({}, 450_000)), "completed", 450_000),
        ((*QUEUED, Finished({})), "completed", 400_000),
        ((*QUEUED, Failed(FREE)), "failed", 0),
        ((*QUEUED, Failed(MAYBE)), "failed", 400_000),
        ((*SENT, LostTrack("?"), SettledByUser(charged=True, fault=MAYBE)), "failed", 400_000),
        ((*SENT, LostTrack("?"), SettledByUser(charged=False, fault=FREE)), "not_submitted", 0),
    ],
)
def test_a_job_is_settled_once_and_then_nothing_moves_it(
    ledger: Ledger, events: Sequence[Event], state: str, spent_microusd: int
) -> None:
    ended = told(ledger, "kj_1", events)
    assert (ended.state, ended.cost_microusd, ended.ended_ms) == (state, spent_microusd, NOW_MS)
    assert today(ledger) == DaySpend(TODAY, 0, spent_microusd)

    late: list[Event] = [*SENT, NotSent(MAYBE), LostTrack("?"), Progressed(running=True), Finished({"x": 1}, 7)]
    late += [Failed(MAYBE), ProvenAbsent(FREE), SettledByUser(charged=True, fault=MAYBE)]
    for event in late:
        assert not ledger.apply("kj_1", event, NOW_MS + 5).changed

    assert ledger.get("kj_1") == ended
    assert today(ledger) == DaySpend(TODAY, 0, spent_microusd)


# ---- events


def test_a_job_keeps_everything_that_it_was_told(ledger: Ledger, reopen: Open) -> None:
    told(ledger, "kj_1", (*QUEUED, Progressed(running=True, note="half way")))
    ledger.apply("kj_1", Finished({"video": {"url": "https://x/ü.mp4"}}, 1), NOW_MS + 9)
    ledger.mark_saved("kj_1", "/videos/a.mp4", None, NOW_MS + 10)
    ledger.mark_cancel("kj_1", NOW_MS + 11)

    job = reopen().get("kj_1")

    assert job.body == {"prompt": "x"}
    assert (job.request_id, job.status_url, job.response_url, job.cancel_url) == (
        "r1", "https://q/r1/status", "https://q/r1", "https://q/r1/cancel",
    )  # fmt: skip
    assert (job.attempt, job.sent_ms, job.accepted_ms, job.started_ms) == (1, NOW_MS, NOW_MS, NOW_MS)
    assert (job.ended_ms, job.cost_microusd, job.cost_source) == (NOW_MS + 9, 1, "billed")
    assert job.result == {"video": {"url": "https://x/ü.mp4"}}
    assert (job.saved_to, job.cancel_requested, job.progress_note) == ("/videos/a.mp4", True, "half way")
    failed = told(ledger, "kj_2", (*SENT, Accepted("r2"), Failed(FREE)))
    assert failed.fault == FREE


def test_an_acceptance_is_taken_while_sending_and_when_unknown(ledger: Ledger) -> None:
    assert told(ledger, "kj_1", (*SENT, Accepted("r1"))).state == "queued"
    assert told(ledger, "kj_2", (*SENT, LostTrack("?"), Accepted("r2"))).state == "queued"

    assert not ledger.apply("kj_1", Accepted("r1"), NOW_MS).changed, "the same once more"
    assert not ledger.apply("kj_2", Accepted("r1"), NOW_MS).changed, "another job's"
    assert ledger.get("kj_2").request_id == "r2"


@pytest.mark.parametrize("events", [(), (NotSent(FREE),), QUEUED, (*QUEUED, Finished({}))])
def test_an_acceptance_that_cannot_be_placed_is_kept_and_shown(ledger: Ledger, events: Sequence[Event]) -> None:
    before = told(ledger, "kj_1", events)

    found = ledger.apply("kj_1", Accepted("second"), NOW_MS)
    ledger.apply("kj_1", Accepted("second"), NOW_MS)

    assert not found.changed
    assert (found.job.state, found.job.request_id) == (before.state, before.request_id)
    assert ledger.requests(ENDPOINT)["second"] is None
    (warning,) = ledger.get("kj_1").warnings
    assert "accepted request second" in warning
    assert "may have been charged" in warning


def test_requests_tell_their_times_only_where_fal_answered_the_submit(ledger: Ledger) -> None:
    told(ledger, "kj_1", QUEUED)
    told(ledger, "kj_2", (*SENT, LostTrack("?"), Accepted("found again")))
    told(ledger, "kj_3", ())
    told(ledger, "kj_4", (*SENT, replace(RECEIPT, request_id="r4"), Finished({}, 1)))

    assert ledger.requests(ENDPOINT) == {
        "r1": KnownRequest(NOW_MS, NOW_MS, None, ACCOUNT),
        "found again": None,
        "r4": KnownRequest(NOW_MS, NOW_MS, NOW_MS, ACCOUNT),
    }
    assert ledger.requests("another/endpoint") == {}


def test_an_address_that_has_no_room_is_left_out_but_never_the_id(ledger: Ledger) -> None:
    job = told(ledger, "kj_1", (*SENT, Accepted("r" * 128, "u" * 5000, "u" * 10, "u" * 10)))

    assert (job.state, job.request_id, job.status_url) == ("queued", "r" * 128, None)


def test_a_clock_that_goes_back_does_not_take_the_ledger_along(ledger: Ledger) -> None:
    """Or a finished job would answer for ever, and a day's budget would come back."""
    told(ledger, "kj_1", ())

    job = ledger.reserve(intent("kj_2"), WIDE, "me", NOW_MS - 40 * DAY_MS).job
    ended = ledger.apply("kj_2", NotSent(FREE), NOW_MS - 40 * DAY_MS).job

    assert (job.created_ms, job.day, ended.ended_ms) == (NOW_MS, TODAY, NOW_MS)
    assert ledger.spend(NOW_MS - 40 * DAY_MS)[0].day == TODAY
    assert ledger.find_duplicate("fingerprint of kj_1", NOW_MS - DAY_MS) is not None


# ---- several processes


def test_twenty_connections_at_once_never_pass_the_budget(ledger: Ledger, reopen: Open) -> None:
    limits = Limits(500_000, 500_000 * 7)

    def reserve(number: int) -> bool:
        try:
            return reopen().reserve(intent(f"kj_{number}"), limits, "me", NOW_MS).fresh
        except OverBudget:
            return False

    with ThreadPoolExecutor(20) as threads:
        fresh = list(threads.map(reserve, range(20)))

    assert fresh.count(True) == 7
    assert today(ledger) == DaySpend(TODAY, 500_000 * 7, 0)


def test_twenty_connections_with_the_same_call_make_one_job(reopen: Open) -> None:
    def reserve(number: int) -> tuple[str, bool]:
        made = reopen().reserve(intent(f"kj_{number}", fingerprint="same"), WIDE, "me", NOW_MS)
        return made.job.job_id, made.fresh

    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(reserve, range(20)))

    assert len({job_id for job_id, _ in answers}) == 1
    assert [fresh for _, fresh in answers].count(True) == 1


def test_a_job_is_adopted_by_one_process_only(ledger: Ledger, reopen: Open) -> None:
    before = told(ledger, "kj_1", (*SENT, LostTrack("?")))

    assert ledger.adopt("kj_1", "me", "you", NOW_MS + 5)
    assert not reopen().adopt("kj_1", "me", "somebody", NOW_MS + 5)

    after = ledger.get("kj_1")
    assert (after.owner, after.updated_ms) == ("you", before.updated_ms)


def test_a_change_by_any_connection_shows_in_the_counter(ledger: Ledger, reopen: Open) -> None:
    seen = [ledger.change_counter()]
    told(ledger, "kj_1", ())
    seen.append(ledger.change_counter())
    reopen().mark_cancel("kj_1", NOW_MS)
    seen.append(ledger.change_counter())

    assert len(set(seen)) == 3
    assert ledger.change_counter() == seen[-1]


# ---- looking


def test_pages_are_newest_first_and_can_be_walked(ledger: Ledger) -> None:
    for number in range(5):
        told(ledger, f"kj_{number}", (NotSent(FREE),) if number % 2 else ())

    first = ledger.page(limit=2)
    rest = ledger.page(limit=9, before_seq=first[-1].seq)

    assert [job.job_id for job in (*first, *rest)] == ["kj_4", "kj_3", "kj_2", "kj_1", "kj_0"]
    assert [job.job_id for job in ledger.page(state="not_submitted")] == ["kj_3", "kj_1"]
    assert {job.state for job in ledger.page(state="not_submitted")} <= ENDED


def test_unfinished_are_the_open_ones_and_those_whose_video_is_missing(ledger: Ledger) -> None:
    told(ledger, "kj_open", SENT)
    told(ledger, "kj_over", (NotSent(FREE),))
    for name in ("kj_unsaved", "kj_saved", "kj_refused", "kj_interrupted"):
        told(ledger, name, (*SENT, Accepted(name), Finished({})))
    ledger.mark_saved("kj_saved", "/a.mp4", None, NOW_MS)
    ledger.mark_saved("kj_refused", None, "its host is not allowed", NOW_MS)
    ledger.mark_saved("kj_interrupted", None, "the connection broke off", NOW_MS, again=True)

    assert [job.job_id for job in ledger.unfinished()] == ["kj_open", "kj_unsaved", "kj_interrupted"]


def test_a_saved_file_is_not_forgotten_by_a_later_failure(ledger: Ledger) -> None:
    told(ledger, "kj_1", (*QUEUED, Finished({})))
    ledger.mark_saved("kj_1", "/a.mp4", None, NOW_MS)

    job = ledger.mark_saved("kj_1", None, "the connection broke off", NOW_MS)

    assert (job.saved_to, job.save_trouble) == ("/a.mp4", None)


def test_a_warning_is_added_once(ledger: Ledger) -> None:
    told(ledger, "kj_1", ())

    ledger.warn("kj_1", "mind the gap", NOW_MS)

    assert ledger.warn("kj_1", "mind the gap", NOW_MS).warnings == ("mind the gap",)


def test_an_upload_is_known_until_it_expires(ledger: Ledger) -> None:
    ledger.remember_upload(Upload("abc", "https://old", 1_000))
    ledger.remember_upload(Upload("abc", "https://new", 2_000))

    assert ledger.upload("abc", 1_999) == Upload("abc", "https://new", 2_000)
    assert ledger.upload("abc", 2_000) is None
    assert ledger.upload("def", 0) is None


def test_a_job_that_is_not_there_is_named(ledger: Ledger) -> None:
    for ask in (
        lambda: ledger.get("kj_9"),
        lambda: ledger.apply("kj_9", Sending({}), NOW_MS),
        lambda: ledger.apply("kj_9", Accepted("r"), NOW_MS),
        lambda: ledger.mark_cancel("kj_9", NOW_MS),
        lambda: ledger.warn("kj_9", "x", NOW_MS),
    ):
        with pytest.raises(UnknownJob, match="kj_9"):
            ask()
    assert ledger.trouble is None


# ---- what came to be known later


@pytest.mark.parametrize("sound", [True, False, None])
def test_a_job_says_whether_it_has_sound_and_how_it_can_be_had_again(reopen: Open, sound: bool | None) -> None:
    ledger = reopen()
    ledger.reserve(intent("kj_1", sound=sound), WIDE, "me", NOW_MS)
    for event in (*QUEUED, Failed(DROPPED)):
        ledger.apply("kj_1", event, NOW_MS)

    for one in (ledger, reopen()):
        job = one.get("kj_1")
        assert job.intent.sound is sound
        assert job.fault == DROPPED


def test_trouble_with_asking_is_kept_until_it_is_over_and_is_no_change_of_the_job(reopen: Open) -> None:
    ledger = reopen()
    job = told(ledger, "kj_1", QUEUED)
    trouble = Trouble("fal_unreachable", "No answer.", NOW_MS + 5)

    assert ledger.note_trouble("kj_1", trouble) == replace(job, trouble=trouble)
    assert reopen().get("kj_1").trouble == trouble
    assert ledger.note_trouble("kj_1", None) == job


def test_a_job_is_found_by_the_id_that_fal_gave_it(ledger: Ledger) -> None:
    told(ledger, "kj_open", QUEUED)
    told(ledger, "kj_ended", (*SENT, replace(RECEIPT, request_id="r2"), Failed(FREE)))

    found = [ledger.of_request(request_id) for request_id in ("r1", "r2", "r3")]

    assert [job.job_id if job else None for job in found] == ["kj_open", "kj_ended", None]


@pytest.mark.parametrize(
    ("events", "stands"),
    [
        (QUEUED, True),
        ((*QUEUED, Progressed(running=True)), True),
        ((*SENT, LostTrack("the connection broke")), True),
        ((*QUEUED, Finished({"video": {}})), True),
        ((*QUEUED, Failed(MAYBE)), True),
        ((*QUEUED, Failed(FREE)), True),
        ((*QUEUED, Failed(DROPPED)), False),
        ((*SENT, NotSent(FREE)), False),
    ],
)
def test_only_a_job_that_never_ran_and_cost_nothing_makes_room_for_the_same_call(
    ledger: Ledger, events: Sequence[Event], stands: bool
) -> None:
    told(ledger, "kj_1", events)
    same = intent("kj_2", fingerprint=intent("kj_1").fingerprint)

    assert (ledger.find_duplicate(same.fingerprint, NOW_MS) is not None) is stands
    assert ledger.reserve(same, WIDE, "me", NOW_MS).fresh is not stands


@pytest.mark.parametrize(
    ("limits", "refusal"),
    [
        (WIDE, None),
        (Limits(499_999, 10**9), "KLING_MCP_MAX_JOB_USD"),
        (Limits(10**9, 999_999), "KLING_MCP_DAILY_BUDGET_USD"),
        (Limits(500_000, 1_000_000), None),
    ],
)
def test_what_cannot_be_afforded_is_said_without_holding_anything(
    ledger: Ledger, limits: Limits, refusal: str | None
) -> None:
    told(ledger, "kj_1", QUEUED)

    said: list[str] = []
    for ask in (
        lambda: ledger.afford(500_000, limits, NOW_MS),
        lambda: ledger.reserve(intent("kj_2"), limits, "me", NOW_MS),
    ):
        assert ledger.spend(NOW_MS)[0].held_microusd == 500_000
        try:
            ask()
        except OverBudget as error:
            said.append(str(error))

    assert len(said) == (2 if refusal else 0)
    assert all(refusal in words for words in said if refusal)
    assert len(set(said)) <= 1, "the check says what the reservation says"


# ---- voices

ANNA = NewVoice("Anna", "sha256:one", "voice_id")


def test_voices_are_the_jobs_that_made_one_or_still_may_the_newest_first(ledger: Ledger, reopen: Open) -> None:
    for name, voice, events in (
        ("kj_failed", ANNA, (*QUEUED, Failed(FREE))),
        ("kj_made", ANNA, (*SENT, replace(RECEIPT, request_id="r2"), Finished({"voice_id": " v-1 "}))),
        ("kj_empty", ANNA, (*SENT, replace(RECEIPT, request_id="r3"), Finished({}))),
        ("kj_video", None, ()),
        ("kj_open", NewVoice(None, "sha256:two", "voice_id"), SENT),
    ):
        ledger.reserve(intent(name, voice=voice, mode="create-voice"), WIDE, "me", NOW_MS)
        for event in events:
            assert ledger.apply(name, event, NOW_MS).changed

    voices = reopen().voices()

    assert [(job.job_id, job.voice_id) for job in voices] == [("kj_open", None), ("kj_made", "v-1")]
    assert voices[1].intent.voice == ANNA
    assert voices[1].intent.mode == "create-voice"


@pytest.mark.parametrize(
    ("events", "wanted", "refused"),
    [
        ((), NewVoice("ANNA", "sha256:two", "voice_id"), True),
        ((*QUEUED, Finished({"voice_id": "v"})), NewVoice("anna", "sha256:two", "voice_id"), True),
        ((*QUEUED, Finished({"voice_id": "v"})), NewVoice("Anna", "sha256:one", "voice_id"), False),
        ((*QUEUED, Finished({"voice_id": "v"})), NewVoice(None, "sha256:two", "voice_id"), False),
        ((*QUEUED, Failed(FREE)), NewVoice("Anna", "sha256:two", "voice_id"), False),
    ],
)
def test_a_name_is_of_one_sample_from_the_reservation_on(
    ledger: Ledger, events: Sequence[Event], wanted: NewVoice, refused: bool
) -> None:
    ledger.reserve(intent("kj_1", voice=ANNA), WIDE, "me", NOW_MS)
    for event in events:
        ledger.apply("kj_1", event, NOW_MS)
    held = today(ledger)

    with pytest.raises(InvalidArguments, match="called Anna already") if refused else contextlib.nullcontext():
        assert ledger.reserve(intent("kj_2", voice=wanted), WIDE, "me", NOW_MS).fresh

    assert (today(ledger) == held) is refused
