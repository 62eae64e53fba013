"""What is said of a job beside its state: a row and a time give the sentences."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from kling_mcp.jobs.job import Trouble
from kling_mcp.jobs.warnings import place_in_line, warnings_of
from tests.jobs.support import NOW_MS, intent, job

if TYPE_CHECKING:
    from kling_mcp.jobs.job import State

MINUTE = 60_000
HOUR = 60 * MINUTE
SINCE = Trouble("fal_unreachable", "fal.ai could not be asked: no connection.", NOW_MS + 5 * MINUTE)
RUNS: dict[str, Any] = {"state": "running", "accepted_ms": NOW_MS, "started_ms": NOW_MS, "request_id": "r1"}
WAITS: dict[str, Any] = {"state": "queued", "accepted_ms": NOW_MS, "request_id": "r1"}
NO_TIME: dict[str, Any] = {"intent": intent(expected_seconds=None)}


@pytest.mark.parametrize(
    ("row", "after_ms", "words"),
    [
        # Trouble with asking: since when and what, while the job is open at fal.
        (WAITS, MINUTE, []),
        ({**WAITS, "trouble": SINCE}, MINUTE, ["Since 2026-11-21 10:05 UTC fal.ai has not said"]),
        ({**RUNS, "trouble": SINCE}, MINUTE, ["no connection"]),
        ({**RUNS, "trouble": SINCE, "state": "completed"}, MINUTE, []),
        # A wish to cancel stays said until the job ends.
        ({**RUNS, "cancel_requested": True}, MINUTE, ["may still be billed"]),
        ({**WAITS, "cancel_requested": True}, MINUTE, ["may still be billed"]),
        ({"state": "submitting", "cancel_requested": True}, MINUTE, ["may still run and be billed"]),
        ({"state": "unknown", "cancel_requested": True}, MINUTE, ["may still run and be billed"]),
        ({"state": "completed", "cancel_requested": True}, MINUTE, []),
        ({"state": "cancelled", "cancel_requested": True}, MINUTE, []),
        # A job that never ends: from ten times what is expected on, or an hour.
        (RUNS, 940_000 - 1, []),
        (RUNS, 940_000, ["running for 16 min. A video .* take 94 s.*cancel_job.*billed.*r1 at http"]),
        (RUNS, 5 * HOUR, ["running for 5 h 0 min"]),
        ({**RUNS, **NO_TIME}, HOUR - 1, []),
        ({**RUNS, **NO_TIME}, HOUR, ["running for 1 h 0 min. Usually fal.ai ends"]),
        ({**RUNS, "started_ms": NOW_MS + HOUR}, HOUR + 10 * MINUTE, []),
        (WAITS, 940_000, ["queue for 16 min.*unbilled.*r1 at http"]),
        ({**RUNS, "state": "completed"}, 5 * HOUR, []),
        ({"state": "unknown"}, 5 * HOUR, []),
        # What fal billed beside what could be foreseen.
        ({"state": "completed", "cost_microusd": 500_000, "cost_source": "billed"}, MINUTE, []),
        (
            {"state": "completed", "cost_microusd": 140_000_000, "cost_source": "billed"},
            MINUTE,
            [r"\$140\.00.*\$0\.50"],
        ),
        ({"state": "failed", "cost_microusd": 600_000, "cost_source": "estimated"}, MINUTE, []),
        # What was recorded with it comes first, trouble with saving last.
        (
            {**RUNS, "warnings": ("Written down.",), "cancel_requested": True, "save_trouble": "Not saved."},
            HOUR,
            ["Written down", "Cancelling", "running for", "Not saved"],
        ),
    ],
)  # fmt: skip
def test_a_job_says_what_its_user_should_know(row: dict[str, Any], after_ms: int, words: list[str]) -> None:

    found = warnings_of(job(**row), NOW_MS + after_ms)

    assert len(found) == len(words)
    for warning, wanted in zip(found, words, strict=True):
        assert re.search(wanted, warning), warning


@pytest.mark.parametrize(
    ("state", "trouble", "place"),
    [("queued", None, 1), ("queued", SINCE, None), ("running", None, None), ("completed", None, None)],
)
def test_a_place_in_line_is_told_only_while_it_is_known(
    state: State, trouble: Trouble | None, place: int | None
) -> None:
    assert place_in_line(job(state=state, trouble=trouble, queue_position=1)) == place
