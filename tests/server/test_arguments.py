"""Every tool reads what it is given in one way, however a host, a model or a person writes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kling_mcp.errors import InvalidArguments
from kling_mcp.server.arguments import read
from kling_mcp.server.tools import TOOLS
from tests.conftest import CANARY_KEY
from tests.server.hosts import ERAS, NEWER, SHORT, data, finished, house, refused

if TYPE_CHECKING:
    from pathlib import Path

    from kling_mcp.server.inputs import Input


def takes(tool: str) -> type[Input]:
    takes = TOOLS[tool].takes
    assert isinstance(takes, type)
    return takes


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
    ("get_job", {"job_id": OURS, "wait_seconds": "9" * 12}, {"wait_seconds": 45}),
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
    known = read(given, takes(tool)).model_dump(exclude_unset=True)

    assert {name: known[name] for name in found} == found
    assert set(known) - {"job_id", "outcome"} <= set(found)


REFUSED: list[tuple[str, dict[str, Any], dict[str, str | None]]] = [
    ("list_jobs", {"state": "in_progress"}, {"state": "running"}),
    ("list_jobs", {"state": "inProgress"}, {"state": "running"}),
    ("list_jobs", {"state": "done"}, {"state": "completed"}),
    ("list_jobs", {"state": "pending"}, {"state": "queued"}),
    ("list_jobs", {"state": "canceled"}, {"state": "cancelled"}),
    ("list_jobs", {"state": "succeed"}, {"state": "completed"}),
    ("list_jobs", {"state": "SUBMITTED"}, {"state": "queued"}),
    ("list_jobs", {"state": "all"}, {"state": None}),
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
        read(given, takes(tool))

    assert {fault.path: fault.nearest for fault in caught.value.faults} == nearest
    for fault in caught.value.faults:
        assert fault.what in str(caught.value)
    str(caught.value).encode()


@pytest.mark.anyio
async def test_the_video_of_a_job_given_as_a_picture_leads_to_its_last_frame(tmp_path: Path) -> None:
    async with house(tmp_path) as place, place.connect(NEWER) as client:
        job_id = data(await client.call_tool("image_to_video", SHORT))["job_id"]
        video = (await finished(client, job_id))["video"]
        other = (await client.call_tool("image_to_video", {**SHORT, "image": "/elsewhere/fox.mp4"}), "{job_id}")
        named = [
            (await client.call_tool("image_to_video", {**SHORT, "image": written}), job_id)
            for written in (
                *(video["url"], f"{video['url']}?token=1", video["saved_to"], f"file://{video['saved_to']}"),
                *(f"~/Videos/{video['saved_to'].rpartition('/')[2]}", job_id, f"kling://jobs/{job_id}"),
            )
        ]

        request_id = data(await client.call_tool("get_job", {"job_id": job_id}))["request_id"]
        continued = [
            data(await client.call_tool("image_to_video", {**SHORT, "image": f"kling://jobs/{written}/last-frame"}))
            for written in (job_id, job_id.removeprefix("kj_"), request_id)
        ]

    for result, name in (*named, other):
        assert f"kling://jobs/{name}/last-frame" in refused(result)["next_step"]
    assert len({job["job_id"] for job in continued}) == 1
    assert place.accepted == 2


@pytest.mark.anyio
@pytest.mark.parametrize("era", ERAS)
async def test_the_same_wish_spelt_otherwise_is_one_job(era: str, tmp_path: Path) -> None:
    """
    Defaults spelt out, blanks, other forms of letters and words for nothing are no new charge; another value is.
    """
    first = {**SHORT, "model": "v3-turbo-standard", "prompt": "A caf\u00e9 at dawn."}
    same: list[dict[str, Any]] = [
        {"prompt": " A cafe\u0301 at dawn.\n"},
        {"duration": "3.0", "wait_seconds": 0, "take": "1"},
        {"cfg_scale": 0.5, "aspect_ratio": "16:9", "generate_audio": "True"},
        {"voice_ids": ["null"], "elements": "[]", "end_image": "undefined"},
    ]
    async with house(tmp_path) as place, place.connect(era) as client:
        job_id = data(await client.call_tool("image_to_video", first))["job_id"]
        again = [data(await client.call_tool("image_to_video", {**first, **change}))["job_id"] for change in same]
        other = data(await client.call_tool("image_to_video", {**first, "prompt": "A cafe at dawn."}))["job_id"]

    assert set(again) == {job_id}
    assert other != job_id
    assert place.accepted == 2


@pytest.mark.anyio
@pytest.mark.parametrize("era", ERAS)
async def test_every_fault_of_a_call_is_in_one_refusal_as_text_and_as_data(era: str, tmp_path: Path) -> None:
    wrong = {"image": "undefined", "prompt": "x", "duration": 20, "resolution": "4K", "voice_ids": ["a"]}
    async with house(tmp_path) as place, place.connect(era) as client:
        result = await client.call_tool("image_to_video", wrong)

    error = refused(result)
    faults = {fault["path"]: fault for fault in error["faults"]}
    assert set(faults) == {"image", "duration", "resolution", "voice_ids"}
    assert faults["resolution"]["models"] == ["o3-4k", "v3-4k"]
    assert faults["voice_ids"]["models"] == ["v3-standard", "v2.6-pro"]
    assert set(faults["duration"]) == {"path", "value", "allowed", "nearest", "models"}
    assert (faults["duration"]["value"], faults["duration"]["nearest"]) == (20, "15")
    assert "last-frame" in error["next_step"]
    assert place.accepted == 0


@pytest.mark.anyio
@pytest.mark.parametrize(
    "arguments",
    [
        {"prompt": f"A boat. My key is {CANARY_KEY}."},
        {"image": f"https://pictures.example.com/boat.png?key={CANARY_KEY}"},
        {"elements": [{"frontal_image": CANARY_KEY}]},
    ],
)
async def test_a_call_that_holds_the_key_is_refused_before_anybody_else_sees_it(
    arguments: dict[str, object], tmp_path: Path
) -> None:
    whole = {"image": "https://pictures.example.com/boat.png", "prompt": "A boat.", **arguments}
    async with house(tmp_path) as place, place.connect(ERAS[0]) as client:
        result = await client.call_tool("image_to_video", whole)

    assert "hold the key" in refused(result)["message"]
    assert CANARY_KEY not in repr(result)
    assert place.accepted == 0
