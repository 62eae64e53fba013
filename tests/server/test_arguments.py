"""Every tool reads what it is given in one way, however a host, a model or a person writes it."""

from __future__ import annotations

from typing import Any

import pytest

from kling_mcp.catalog.endpoint import load
from kling_mcp.errors import InvalidArguments
from kling_mcp.server.arguments import read
from kling_mcp.server.tools import TOOLS

OURS = "kj_Ab-9_fGhIjKlMnOpQrStU-"

READ: list[tuple[str, dict[str, Any], dict[str, object]]] = [
    # Ids
    ("get_job", {"job_id": f"`{OURS}`"}, {"job_id": OURS}),
    ("cancel_job", {"job_id": f"kling://jobs/{OURS}"}, {"job_id": OURS}),
    ("view_video", {"job_id": OURS.removeprefix("kj_")}, {"job_id": OURS}),
    ("get_job", {"job_id": 12}, {"job_id": "12"}),
    ("resolve_job", {"job_id": OURS, "outcome": "Not charged", "request_id": '"764c"'}, {"request_id": "764c"}),
    # Numbers, and waits that are too long or too short
    ("get_job", {"job_id": OURS, "wait_seconds": "120"}, {"wait_seconds": 45}),
    ("get_job", {"job_id": OURS, "wait_seconds": 10**9}, {"wait_seconds": 45}),
    ("get_job", {"job_id": OURS, "wait_seconds": -3}, {"wait_seconds": 0}),
    ("get_job", {"job_id": OURS, "wait_seconds": "5.0"}, {"wait_seconds": 5}),
    ("view_video", {"job_id": OURS, "frames": "4.0"}, {"frames": 4}),
    ("list_jobs", {"limit": 5.0}, {"limit": 5}),
    ("list_jobs", {"cursor": 17}, {"cursor": "17"}),
    ("list_jobs", {"cursor": 17.0}, {"cursor": "17"}),
    ("list_jobs", {"state": " Running "}, {"state": "running"}),
    ("list_jobs", {"state": "NOT-SUBMITTED"}, {"state": "not_submitted"}),
    # Nothing
    ("list_jobs", {"state": "null", "limit": "", "cursor": "undefined"}, {}),
    ("list_jobs", {"state": [], "limit": {}, "cursor": " n/a "}, {}),
    ("list_models", {"model": "None"}, {}),
    ("get_job", {"job_id": OURS, "wait_seconds": float("nan")}, {}),
]


@pytest.mark.parametrize(("tool", "given", "found"), READ)
def test_what_hosts_write_differently_is_read(tool: str, given: dict[str, Any], found: dict[str, object]) -> None:
    known = read(given, TOOLS[tool].schema(load()))

    assert {name: known[name] for name in found} == found
    assert set(known) - {"job_id", "outcome"} <= set(found)


REFUSED: list[tuple[str, dict[str, Any], dict[str, str | None]]] = [
    ("list_jobs", {"state": "in_progress"}, {"state": "running"}),
    ("list_jobs", {"state": "inProgress"}, {"state": "running"}),
    ("list_jobs", {"state": "done"}, {"state": "completed"}),
    ("list_jobs", {"state": "pending"}, {"state": "queued"}),
    ("list_jobs", {"state": "canceled"}, {"state": "cancelled"}),
    (
        "list_jobs",
        {"status": "running", "limit": 500, "page": 2},
        {"status": "state", "limit": "100", "page": "cursor"},
    ),
    ("list_jobs", {"limit": True}, {"limit": None}),
    ("get_job", {"id": OURS}, {"id": "job_id", "job_id": None}),
    ("get_job", {"job_id": "undefined"}, {"job_id": None}),
    ("get_job", {"job_id": "half \ud83e"}, {"job_id": None}),
    ("get_job", {"job_id": OURS, "wait_seconds": "soon"}, {"wait_seconds": None}),
    ("get_job", {"job_id": [OURS]}, {"job_id": None}),
    ("resolve_job", {"job_id": OURS, "outcome": "paid"}, {"outcome": "charged"}),
    ("resolve_job", {"outcome": None}, {"job_id": None, "outcome": None}),
]


@pytest.mark.parametrize(("tool", "given", "nearest"), REFUSED)
def test_all_that_is_wrong_is_refused_at_once_with_the_nearest_that_there_is(
    tool: str, given: dict[str, Any], nearest: dict[str, str | None]
) -> None:
    with pytest.raises(InvalidArguments) as caught:
        read(given, TOOLS[tool].schema(load()))

    assert {fault.path: fault.nearest for fault in caught.value.faults} == nearest
    for fault in caught.value.faults:
        assert fault.what in str(caught.value)
    str(caught.value).encode()
