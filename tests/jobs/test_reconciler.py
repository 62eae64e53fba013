"""
What fal's history proves, on generated histories with a known truth.

A history is drawn from a small runtime: jobs of ours that were answered, ones
whose answer was lost, requests of somebody else, payloads that fal has not
kept or has rewritten, a clock that is wrong, and a list that lags.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from kling_mcp.fal.platform import PastRequest
from kling_mcp.jobs.ledger import KnownRequest
from kling_mcp.jobs.matching import OVER_AFTER_MS, Verdict, judge
from tests.jobs.support import ACCOUNT, ENDPOINT, NOW_MS, job

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kling_mcp.jobs.job import Job

MINUTE = 60_000
HOUR = 60 * MINUTE
BODY: Mapping[str, object] = {"prompt": "a cat looks up", "duration": "5", "image_url": "https://x/a.png"}


def lost(name: str, at_ms: int, body: Mapping[str, object] = BODY) -> Job:
    """A job whose answer was lost a minute after it was sent."""
    return job(name, state="unknown", body=body, created_ms=at_ms, sent_ms=at_ms, updated_ms=at_ms + MINUTE)


def past(
    name: str, sent_ms: int | None, body: Mapping[str, object] | None = BODY, runs_ms: int = MINUTE
) -> PastRequest:
    """A request that fal lists."""
    ended_ms = None if sent_ms is None else sent_ms + runs_ms
    return PastRequest(name, ENDPOINT, sent_ms, ended_ms, 200, body, None)


EARLIER = past("known-0", NOW_MS - 20 * MINUTE, {"prompt": "a"})
LATER = past("known-1", NOW_MS + 10 * MINUTE, {"prompt": "b"})
MUCH_LATER = past("known-2", NOW_MS + 10 * MINUTE + OVER_AFTER_MS, {"prompt": "c"})
KNOWN: dict[str, KnownRequest | None] = {
    "known-0": KnownRequest(NOW_MS - 20 * MINUTE, NOW_MS - 20 * MINUTE, NOW_MS - MINUTE, ACCOUNT),
    "known-1": KnownRequest(NOW_MS + 10 * MINUTE, NOW_MS + 10 * MINUTE),
    "known-2": KnownRequest(NOW_MS + 10 * MINUTE + OVER_AFTER_MS, NOW_MS + 10 * MINUTE + OVER_AFTER_MS),
}


def test_a_request_with_the_payload_and_the_time_is_the_job() -> None:
    assert judge([lost("kj_1", NOW_MS)], [past("r", NOW_MS)], {}) == [Verdict("kj_1", "r")]


def test_defaults_that_fal_has_filled_in_do_not_matter() -> None:
    filled = past("r", NOW_MS, {**BODY, "cfg_scale": 0.5})

    assert judge([lost("kj_1", NOW_MS)], [filled], {}) == [Verdict("kj_1", "r")]


def test_twins_share_their_requests_in_the_order_of_time() -> None:
    twins = [lost("kj_2", NOW_MS + 8 * MINUTE), lost("kj_1", NOW_MS)]

    found = judge(twins, [past("b", NOW_MS + 9 * MINUTE), past("a", NOW_MS + MINUTE)], {})

    assert found == [Verdict("kj_1", "a"), Verdict("kj_2", "b")]


def test_a_request_whose_time_fal_does_not_tell_is_judged_by_its_payload() -> None:
    assert judge([lost("kj_1", NOW_MS)], [past("r", None)], {}) == [Verdict("kj_1", "r")]


@pytest.mark.parametrize(
    ("why", "waiting", "history"),
    [
        ("more matches than jobs", [lost("kj_1", NOW_MS)], [past("a", NOW_MS), past("b", NOW_MS)]),
        ("another payload", [lost("kj_1", NOW_MS)], [past("a", NOW_MS, {**BODY, "prompt": "a dog"})]),
        ("another time", [lost("kj_1", NOW_MS)], [past("a", NOW_MS + 11 * MINUTE)]),
        ("a payload that is not shown", [lost("kj_1", NOW_MS)], [past("a", NOW_MS, None)]),
        (
            "a twin is on its way",
            [lost("kj_1", NOW_MS), replace(lost("kj_2", NOW_MS), state="submitting")],
            [past("a", NOW_MS)],
        ),
    ],
)
def test_nothing_is_adopted_that_is_not_certain(why: str, waiting: list[Job], history: list[PastRequest]) -> None:
    assert judge(waiting, history, {}) == [], why
    # Nor is it believed to be absent, however far the history has come, while something may be it in disguise.
    if why != "another payload":
        assert judge(waiting, [*history, EARLIER, LATER, MUCH_LATER], KNOWN) == [], why


def test_absence_is_believed_between_an_earlier_request_and_a_much_later_one() -> None:
    assert judge([lost("kj_1", NOW_MS)], [EARLIER, LATER, MUCH_LATER], KNOWN) == [Verdict("kj_1", None)]


@pytest.mark.parametrize(
    ("why", "history", "known"),
    [
        ("nothing later is listed", [], KNOWN),
        ("only one later request, soon after", [LATER], KNOWN),
        ("nobody knows when the later one was sent", [MUCH_LATER], {"known-2": None}),
        ("the later ones are not ours", [LATER, MUCH_LATER], {}),
        (
            "the first was made before the job was lost",
            [LATER, MUCH_LATER],
            {**KNOWN, "known-1": KnownRequest(NOW_MS, NOW_MS + 10 * MINUTE)},
        ),
        ("the last has not ended", [LATER, replace(MUCH_LATER, ended_ms=None)], KNOWN),
        ("not late enough", [LATER, replace(MUCH_LATER, ended_ms=NOW_MS + 10 * MINUTE + OVER_AFTER_MS)], KNOWN),
        ("a payload is hidden", [LATER, MUCH_LATER, past("x", NOW_MS, None)], KNOWN),
        ("fal has rewritten it", [LATER, MUCH_LATER, past("x", NOW_MS, {**BODY, "duration": 5})], KNOWN),
        (
            "fal has moved the picture",
            [LATER, MUCH_LATER, past("x", NOW_MS, {**BODY, "image_url": "https://fal/b.png"})],
            KNOWN,
        ),
    ],
)
def test_absence_is_not_believed_before(
    why: str, history: list[PastRequest], known: Mapping[str, KnownRequest | None]
) -> None:
    assert judge([lost("kj_1", NOW_MS)], [EARLIER, *history], known) == [], why


@pytest.mark.parametrize(
    ("why", "history", "ended_ms", "account"),
    [
        ("nothing earlier is listed", [], NOW_MS - MINUTE, ACCOUNT),
        ("the earlier one is open", [EARLIER], None, ACCOUNT),
        ("the earlier one ended only after the job was sent", [EARLIER], NOW_MS + 1, ACCOUNT),
        ("the record's clock stood still, and either may have been first", [EARLIER], NOW_MS, ACCOUNT),
        ("it may be the history of another account", [EARLIER], NOW_MS - MINUTE, "of another key"),
    ],
)
def test_absence_is_not_believed_where_the_history_may_begin_too_late(
    why: str, history: list[PastRequest], ended_ms: int | None, account: str
) -> None:
    known = {**KNOWN, "known-0": KnownRequest(NOW_MS - 20 * MINUTE, NOW_MS - 20 * MINUTE, ended_ms, account)}

    assert judge([lost("kj_1", NOW_MS)], [*history, LATER, MUCH_LATER], known) == [], why


def test_the_words_of_shots_are_looked_at_too() -> None:
    shots = {"multi_prompt": [{"prompt": "a cat", "duration": "5"}, {"prompt": "a dog", "duration": "5"}]}
    rewritten = past("x", NOW_MS, {"multi_prompt": [{"prompt": "a cat", "duration": 5}, {"prompt": "a dog"}]})
    another = past("x", NOW_MS, {"multi_prompt": [{"prompt": "a cat", "duration": 5}, {"prompt": "a bird"}]})
    around = [EARLIER, LATER, MUCH_LATER]

    assert judge([lost("kj_1", NOW_MS, shots)], [rewritten, *around], KNOWN) == []
    assert judge([lost("kj_1", NOW_MS, shots)], [another, *around], KNOWN) == [Verdict("kj_1", None)]


def test_a_clock_that_is_wrong_by_hours_is_corrected_by_what_both_know() -> None:
    fal_is_ahead = 5 * HOUR
    history = [past("r", NOW_MS + fal_is_ahead), replace(LATER, sent_ms=NOW_MS + 10 * MINUTE + fal_is_ahead)]

    assert judge([lost("kj_1", NOW_MS)], history, KNOWN) == [Verdict("kj_1", "r")]


def test_a_clock_that_was_wrong_long_ago_does_not_matter() -> None:
    long_ago = NOW_MS - 20 * 24 * HOUR
    history = [past("r", NOW_MS), past("old", long_ago + HOUR, {"prompt": "z"}), LATER]

    known = {**KNOWN, "old": KnownRequest(long_ago, long_ago, long_ago + MINUTE, ACCOUNT)}

    assert judge([lost("kj_1", NOW_MS)], history, known) == [Verdict("kj_1", "r")]


def test_a_clock_that_was_set_in_between_proves_nothing() -> None:
    history = [past("r", NOW_MS), LATER, replace(MUCH_LATER, sent_ms=NOW_MS)]

    assert judge([lost("kj_1", NOW_MS)], history, KNOWN) == []


# ---- generated histories


@dataclass(frozen=True)
class Fate:
    """One request of ours: when it was sent, what it was, and what became of it at fal."""

    after_minutes: int
    words: str
    answered: bool
    accepted: bool
    waits_minutes: int
    runs_minutes: int
    hidden: bool
    rewritten: bool


FATES = st.builds(
    Fate,
    after_minutes=st.sampled_from((0, 1, 3, 9, 15, 45, 200, 400)),
    words=st.sampled_from(("a cat", "a cat", "a dog")),
    answered=st.booleans(),
    accepted=st.booleans(),
    waits_minutes=st.sampled_from((0, 1, 30, 59)),
    runs_minutes=st.sampled_from((1, 2, 20, 119)),
    hidden=st.sampled_from((False, False, False, True)),
    rewritten=st.sampled_from((False, False, False, True)),
)
FOREIGN = st.tuples(st.integers(0, 800), st.sampled_from(("a cat in the rain", "a bird")), st.booleans())
FOUND: dict[str, int] = {"adopted": 0, "absent": 0, "histories": 0}


@settings(
    max_examples=600,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),  # pyright: ignore[reportArgumentType]  # its metaclass is typed wrongly
)
@given(
    fates=st.lists(FATES, min_size=1, max_size=7),
    foreign=st.lists(FOREIGN, max_size=3),
    skew_minutes=st.sampled_from((0, 0, 2, -300, 300)),
    lag_minutes=st.sampled_from((0, 5, 900)),
    now_minutes=st.integers(0, 2_000),
    later=st.booleans(),
    earlier=st.booleans(),
    begins_minutes=st.sampled_from((-600, -600, -600, 5, 60, 300)),
)
def _one_history(
    fates: list[Fate],
    foreign: list[tuple[int, str, bool]],
    skew_minutes: int,
    lag_minutes: int,
    now_minutes: int,
    later: bool,
    earlier: bool,
    begins_minutes: int,
) -> None:
    """What is adopted was ours, and what is released was never there."""
    waiting, known, history, truth = [], {}, [], {}
    at_minutes = 0
    now_at_fal = now_minutes + (20 + 2 * OVER_AFTER_MS // MINUTE if later else 10)
    lag_minutes = 0 if later else lag_minutes
    for number, fate in enumerate(fates):
        at_minutes += fate.after_minutes
        # At most one request of an account runs at once, so that a long one delays nothing here but itself.
        assume(at_minutes <= now_minutes)
        ours_ms, name, request_id = NOW_MS + at_minutes * MINUTE, f"kj_{number}", f"r-{number}"
        body = {**BODY, "prompt": fate.words}
        at_fal_minutes = at_minutes + skew_minutes
        if fate.answered:
            ended_ms = ours_ms + (fate.waits_minutes + fate.runs_minutes) * MINUTE
            known[request_id] = KnownRequest(ours_ms, ours_ms, ended_ms, ACCOUNT)
        else:
            waiting.append(lost(name, ours_ms, body))
        truth[name] = (request_id if fate.accepted or fate.answered else None, body)
        ended = at_minutes + fate.waits_minutes + fate.runs_minutes
        if (fate.accepted or fate.answered) and ended <= now_at_fal - lag_minutes:
            shown = None if fate.hidden else {**body, "duration": 5} if fate.rewritten else body
            entry = past(request_id, NOW_MS + at_fal_minutes * MINUTE, shown, (ended - at_minutes) * MINUTE)
            history.append(entry)
    for number, (minutes, words, hidden) in enumerate(foreign):
        body = None if hidden else {**BODY, "prompt": words}
        history.append(past(f"foreign-{number}", NOW_MS + (minutes + skew_minutes) * MINUTE, body))
    if later:
        # Two more of ours, made after everything else and long apart: what a watermark needs.
        for number, minutes in enumerate((now_minutes + 10, now_minutes + 20 + OVER_AFTER_MS // MINUTE)):
            known[f"later-{number}"] = KnownRequest(NOW_MS + minutes * MINUTE, NOW_MS + minutes * MINUTE)
            history.append(past(f"later-{number}", NOW_MS + (minutes + skew_minutes) * MINUTE, {"prompt": "z"}))
    if earlier:
        # One of ours that had ended before anything else was sent.
        known["earlier"] = KnownRequest(NOW_MS - HOUR, NOW_MS - HOUR, NOW_MS - MINUTE, ACCOUNT)
        history.append(past("earlier", NOW_MS + (skew_minutes - 60) * MINUTE, {"prompt": "y"}))
    # What ended before the moment that was asked for is not listed.
    begins_ms = NOW_MS + (begins_minutes + skew_minutes) * MINUTE
    history = [entry for entry in history if (entry.ended_ms or 0) >= begins_ms]
    history.sort(key=lambda entry: -(entry.ended_ms or 0))

    verdicts = judge(waiting, history, known)

    FOUND["histories"] += 1
    bodies = {request_id: body for request_id, body in truth.values() if request_id is not None}
    adopted = [verdict.request_id for verdict in verdicts if verdict.request_id is not None]
    assert len(adopted) == len(set(adopted))
    assert len({verdict.job_id for verdict in verdicts}) == len(verdicts)
    for verdict in verdicts:
        if verdict.request_id is not None:
            assert bodies[verdict.request_id] == truth[verdict.job_id][1], "a wrong adoption"
            assert verdict.request_id not in known
            FOUND["adopted"] += 1
    for verdict in verdicts:
        if verdict.request_id is None:
            request_id = truth[verdict.job_id][0]
            # A twin may have taken its request; then the number of them is what counts.
            assert request_id is None or request_id in adopted, "an early release"
            FOUND["absent"] += 1


def test_no_history_leads_to_a_wrong_adoption_or_an_early_release() -> None:
    """Of hundreds of histories, of which enough led to a verdict at all."""
    _one_history()

    assert FOUND["histories"] >= 500
    assert FOUND["adopted"] >= 50
    assert FOUND["absent"] >= 5
