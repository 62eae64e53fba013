"""The whole table of states and events: what is not in it is illegal."""

from __future__ import annotations

import contextlib

import pytest

from kling_mcp.jobs.job import (
    ENDED,
    OPEN,
    STATES,
    Accepted,
    CancelledAtFal,
    Event,
    Failed,
    Fault,
    Finished,
    IllegalTransitionError,
    LostTrack,
    NewVoice,
    NotSent,
    Progressed,
    ProvenAbsent,
    Sending,
    SettledByUser,
    State,
    Step,
    Withdrawn,
    step,
)
from tests.jobs.support import intent, job

FREE = Fault("fal_rejected", "It failed.", "no")
MAYBE = Fault("fal_rejected", "It failed.", "maybe")
CHARGED = Fault("fal_rejected", "It failed.", "yes")

ESTIMATE = 400_000
"""What `support.job` is expected to cost; its ceiling is higher."""

EVENTS: dict[str, Event] = {
    "sending": Sending({"prompt": "x"}),
    "not sent": NotSent(FREE),
    "withdrawn": Withdrawn(FREE),
    "accepted": Accepted("r1"),
    "lost track": LostTrack("the connection broke"),
    "waiting": Progressed(running=False, queue_position=2),
    "running": Progressed(running=True),
    "finished, billed": Finished({}, 123_456),
    "finished, free": Finished({}, 0),
    "finished": Finished({}),
    "failed, free": Failed(FREE),
    "failed, maybe billed": Failed(MAYBE),
    "failed, billed": Failed(CHARGED),
    "cancelled, free": CancelledAtFal(FREE),
    "cancelled, maybe billed": CancelledAtFal(MAYBE),
    "absent": ProvenAbsent(FREE),
    "user: charged": SettledByUser(charged=True, fault=CHARGED),
    "user: not charged": SettledByUser(charged=False, fault=FREE),
}

HELD = None
AT_FAL: dict[str, Step] = {
    "waiting": Step("queued", HELD),
    "running": Step("running", HELD),
    "finished, billed": Step("completed", 123_456, "billed"),
    "finished, free": Step("completed", 0, "billed"),
    "finished": Step("completed", ESTIMATE, "estimated"),
    "failed, free": Step("failed", 0),
    "failed, maybe billed": Step("failed", ESTIMATE, "estimated"),
    "failed, billed": Step("failed", ESTIMATE, "estimated"),
    "cancelled, free": Step("cancelled", 0),
    "cancelled, maybe billed": Step("cancelled", ESTIMATE, "estimated"),
}
TABLE: dict[State, dict[str, Step]] = {
    "preparing": {
        "sending": Step("submitting", HELD),
        "not sent": Step("not_submitted", 0),
        "withdrawn": Step("not_submitted", 0),
    },
    "submitting": {
        "not sent": Step("not_submitted", 0),
        "accepted": Step("queued", HELD),
        "lost track": Step("unknown", HELD),
    },
    "queued": AT_FAL,
    "running": AT_FAL,
    "unknown": {
        "accepted": Step("queued", HELD),
        "absent": Step("not_submitted", 0),
        "user: charged": Step("failed", ESTIMATE, "estimated"),
        "user: not charged": Step("not_submitted", 0),
    },
    "completed": {},
    "failed": {},
    "cancelled": {},
    "not_submitted": {},
}


def test_the_table_has_every_state() -> None:
    assert set(TABLE) == set(STATES) == OPEN | ENDED
    assert not OPEN & ENDED


@pytest.mark.parametrize("state", STATES)
def test_each_event_leads_where_the_table_says_and_nowhere_else(state: State) -> None:
    found: dict[str, Step] = {}
    for name, event in EVENTS.items():
        with contextlib.suppress(IllegalTransitionError):
            found[name] = step(job(state=state), event)

    assert found == TABLE[state]


def test_an_illegal_event_is_named_with_the_state() -> None:
    with pytest.raises(IllegalTransitionError, match="Accepted does not apply to a job that is preparing"):
        step(job(), Accepted("r1"))


def test_money_moves_exactly_when_a_job_ends() -> None:
    for steps in TABLE.values():
        for leads_to in steps.values():
            assert (leads_to.settle_microusd is not None) == (leads_to.state in ENDED)


def test_a_job_is_open_as_long_as_its_price_is_held() -> None:
    assert {state for state in STATES if job(state=state).open} == OPEN


@pytest.mark.parametrize(
    ("arguments", "prompt"),
    [
        ({"prompt": "a fox"}, "a fox"),
        ({"prompt": None, "shots": [{"prompt": "a fox"}, {"prompt": "it runs", "duration": 3}]}, "a fox / it runs"),
        ({"prompt": "a fox", "shots": []}, "a fox"),
        ({"shots": " "}, ""),
        ({"shots": [7, {"prompt": None}, {"prompt": "a fox"}]}, "a fox"),
        ({}, ""),
    ],
)
def test_the_prompt_of_a_job_is_that_of_its_call_or_of_all_its_shots(arguments: dict[str, object], prompt: str) -> None:
    assert intent(arguments=arguments).prompt == prompt


@pytest.mark.parametrize(
    ("arguments", "voice", "described"),
    [
        ({"image": "/p/fox.png", "prompt": "The fox looks up."}, None, "The fox looks up."),
        ({"shots": [{"prompt": "Wide."}, {"prompt": "Close."}]}, None, "Wide. / Close."),
        ({"video": "/v/ann.mp4", "text": "Good morning."}, None, "Good morning."),
        (
            {"video": "kling://jobs/kj_1/video", "audio": "https://example.com/a/speech.mp3?key=1"},
            None,
            "video of job kj_1, audio speech.mp3",
        ),
        (
            {"image": "C:\\p\\ann.png", "video": "data:video/mp4 (2 kB)"},
            None,
            "image ann.png, video data:video/mp4 (2 kB)",
        ),
        ({"sample": "/v/ann.wav"}, NewVoice("Ann", "s", "voice_id"), "voice Ann from sample ann.wav"),
        ({"sample": "/v/ann.wav"}, NewVoice(None, "s", "voice_id"), "voice from sample ann.wav"),
        ({}, None, ""),
    ],
)
def test_a_job_without_a_prompt_is_described_by_what_is_said_or_given(
    arguments: dict[str, object], voice: NewVoice | None, described: str
) -> None:
    assert intent(arguments=arguments, voice=voice).description == described
