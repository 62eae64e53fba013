"""
Every mode as an assistant uses it: files of this machine in, a video or a voice out, at the price of what was given.
"""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from anyio import Path as AnyPath

from kling_mcp.jobs.job import Accepted, Finished, NewVoice, Sending
from kling_mcp.jobs.sqlite.engine import SqliteLedger
from kling_mcp.simulator.app import Simulator
from kling_mcp.simulator.render import sample_picture
from kling_mcp.simulator.serve import serving
from tests.jobs.support import NOW_MS, WIDE, intent
from tests.media.recorded import Clip, made
from tests.server.hosts import NEWER, ServerHarness, data, finished, house, refused

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from mcp.client.client import Client

pytestmark = pytest.mark.anyio

FILES = {
    "ann.jpg": sample_picture(),
    "dance.mp4": made(Clip("mp4", 4.0, (1280, 720), rate=24)),
    "speech.mp3": made(Clip("mp3", 6.0)),
}


@asynccontextmanager
async def server_with_files(tmp_path: Path) -> AsyncGenerator[tuple[ServerHarness, Client]]:
    """A server with every tool, and the files of a user."""
    for name, content in FILES.items():
        await AnyPath(tmp_path / name).write_bytes(content)
    simulator = Simulator(speed=200)
    async with (
        house(tmp_path, KLING_MCP_TOOLSETS="all", KLING_MCP_CONFIRM_ABOVE_USD="5") as plain,
        serving(simulator) as urls,
    ):
        harness = ServerHarness(simulator, plain.environment | urls.environment(), "memory")
        async with harness.connect(NEWER) as client:
            yield harness, client


def here(tmp_path: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: str(tmp_path / value) if value in FILES else value for name, value in arguments.items()}


def elements_of(body: Any) -> list[dict[str, Any]]:
    return body["elements"]


async def resource(client: Client, uri: str) -> dict[str, Any]:
    (contents,) = (await client.read_resource(uri)).contents
    return json.loads(getattr(contents, "text"))  # noqa: B009 - of the two kinds of contents, this one is a text


MADE: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "lip_sync",
        {"video": "dance.mp4", "audio": "speech.mp3"},
        {"mode": "lip-sync", "seconds": 4, "usd": "0.07", "prompt": "video dance.mp4, audio speech.mp3"},
    ),
    (
        "lip_sync",
        {"video": "dance.mp4", "text": "Good morning.", "voice": "uk_boy1"},
        {"mode": "lip-sync", "seconds": 4, "usd": "0.07", "prompt": "Good morning."},
    ),
    (
        "motion_control",
        {"image": "ann.jpg", "video": "dance.mp4", "orientation": "image", "model": "v3-standard"},
        {"mode": "motion-control", "seconds": 4, "usd": "0.504", "prompt": "image ann.jpg, video dance.mp4"},
    ),
    (
        "talking_avatar",
        {"image": "ann.jpg", "audio": "speech.mp3", "model": "avatar-standard"},
        {"mode": "avatar", "seconds": 6, "usd": "0.3372", "prompt": "image ann.jpg, audio speech.mp3"},
    ),
    (
        "text_to_video",
        {"prompt": "A fox in snow.", "duration": 3, "generate_audio": False},
        {"mode": "text-to-video", "seconds": 3, "usd": "0.252", "prompt": "A fox in snow."},
    ),
]


@pytest.mark.parametrize(("tool", "arguments", "shown"), MADE)
async def test_a_job_of_each_mode_is_priced_by_its_files_and_ends_as_a_saved_video(
    tmp_path: Path, tool: str, arguments: dict[str, Any], shown: dict[str, Any]
) -> None:
    async with server_with_files(tmp_path) as (harness, client):
        call = here(tmp_path, arguments)
        estimated = data(await client.call_tool("estimate_cost", {"tool": tool, **call}))
        begun = data(await client.call_tool(tool, call))
        again = data(await client.call_tool(tool, call))
        job = await finished(client, begun["job_id"])
        (row,) = data(await client.call_tool("list_jobs", {}))["jobs"]

    assert {name: job[name] for name in ("mode", "seconds", "prompt")} == {
        name: shown[name] for name in ("mode", "seconds", "prompt")
    }
    assert Decimal(str(job["cost"]["estimated_usd"])) == Decimal(shown["usd"])
    assert estimated["estimated_usd"] == begun["cost"]["estimated_usd"]
    assert job["video"]["saved_to"]
    assert again["job_id"] == begun["job_id"]
    assert row["prompt"] == shown["prompt"]
    (request,) = harness.simulator.accepted
    assert request.endpoint_id == job["endpoint"]


async def test_a_voice_is_made_of_a_recording_and_used_by_its_name(tmp_path: Path) -> None:
    async with server_with_files(tmp_path) as (harness, client):
        call = {"sample": str(tmp_path / "speech.mp3"), "name": "Grandma"}
        estimated = data(await client.call_tool("estimate_cost", {"tool": "create_voice", **call}))
        begun = data(await client.call_tool("create_voice", call))
        made_voice = await finished(client, begun["job_id"])
        again = data(await client.call_tool("create_voice", call))
        (listed,) = (await resource(client, "kling://voices"))["voices"]
        spoken = data(
            await client.call_tool(
                "image_to_video",
                {
                    "image": str(tmp_path / "ann.jpg"),
                    "prompt": "<<<voice_1>>> says good morning.",
                    "model": "v2.6-pro",
                    "voice_ids": ["grandma"],
                },
            )
        )
        await finished(client, spoken["job_id"])

    assert estimated["ceiling_usd"] == begun["cost"]["ceiling_usd"] == 0.007
    assert (made_voice["state"], made_voice["mode"], made_voice["video"]) == ("completed", "create-voice", None)
    assert made_voice["voice"]["name"] == "Grandma"
    assert again["job_id"] == begun["job_id"]
    assert (listed["name"], listed["voice_id"]) == ("Grandma", made_voice["voice"]["voice_id"])
    recording, video = harness.simulator.accepted
    assert recording.endpoint_id == "fal-ai/kling-video/create-voice"
    assert dict(video.body)["voice_ids"] == [made_voice["voice"]["voice_id"]]


def with_voices(folder: Path) -> None:
    """A ledger in which two voices were made, and one of them once more."""
    ledger = SqliteLedger(folder, lambda: "ledger-1")
    for number, (name, voice_id) in enumerate([("Anna", "8300"), (None, "8301"), ("Anna", "8302")]):
        job_id = f"kj_voice{number}"
        voice = NewVoice(name, f"sample {name}", "voice_id")
        ledger.reserve(intent(job_id, voice=voice, mode="create-voice", video_seconds=0), WIDE, "me", NOW_MS + number)
        for event in (Sending({}), Accepted(f"r{number}"), Finished({"voice_id": voice_id})):
            ledger.apply(job_id, event, NOW_MS + number)
        ledger.mark_saved(job_id, None, None, NOW_MS + number)
    ledger.close()


async def test_voices_are_listed_go_by_their_names_and_have_no_pictures(tmp_path: Path) -> None:
    with_voices(tmp_path / "state")
    async with server_with_files(tmp_path) as (harness, client):
        voice = data(await client.call_tool("get_job", {"job_id": "kj_voice2"}))
        listed = await resource(client, "kling://voices")
        element = {"frontal_image": str(tmp_path / "ann.jpg"), "reference_images": [str(tmp_path / "ann.jpg")]}
        call = {
            "image": str(tmp_path / "ann.jpg"),
            "prompt": "@Element1 says good morning.",
            "duration": 3,
            "model": "v3-standard",
        }
        spoken = data(await client.call_tool("image_to_video", {**call, "elements": [{**element, "voice_id": "ANNA"}]}))
        refusals = [
            refused(await client.call_tool(tool, arguments))
            for tool, arguments in (
                ("image_to_video", {**call, "elements": [{**element, "voice_id": "Ana"}]}),
                ("image_to_video", {"prompt": "x", "image": "kling://jobs/kj_voice2/last-frame"}),
                ("edit_video", {"prompt": "x", "video": "kling://jobs/kj_voice2/video"}),
                ("view_video", {"job_id": "kj_voice2"}),
            )
        ]

    assert (voice["state"], voice["mode"], voice["video"]) == ("completed", "create-voice", None)
    assert voice["voice"] == {"voice_id": "8302", "name": "Anna"}
    assert voice["warnings"] == []
    assert "'Anna' or 8302" in voice["next_step"]
    assert "voice" not in spoken
    assert [(row["name"], row["voice_id"], row["job_id"]) for row in listed["voices"]] == [
        ("Anna", "8302", "kj_voice2"),
        (None, "8301", "kj_voice1"),
        ("Anna", "8300", "kj_voice0"),
    ]
    (request,) = harness.simulator.accepted
    assert [sent["voice_id"] for sent in elements_of(request.body)] == ["8302"]
    assert "The nearest is Anna." in refusals[0]["next_step"]
    assert all("makes a voice" in refusal["message"] for refusal in refusals[1:])


async def test_a_finished_video_is_edited_by_the_address_of_its_job(tmp_path: Path) -> None:
    async with server_with_files(tmp_path) as (harness, client):
        first = await finished(
            client,
            data(await client.call_tool("text_to_video", {"prompt": "A street.", "duration": 5}))["job_id"],
        )
        call = {"video": f"kling://jobs/{first['job_id']}/video", "prompt": "Make it rain.", "model": "o3-standard"}
        edited = await finished(client, data(await client.call_tool("edit_video", call))["job_id"])

    assert (edited["mode"], edited["seconds"]) == ("edit", 5)
    assert edited["video"]["saved_to"] != first["video"]["saved_to"]
    assert len(harness.simulator.accepted) == 2


async def test_everything_that_is_wrong_with_the_files_is_refused_before_anything_is_uploaded(tmp_path: Path) -> None:
    async with server_with_files(tmp_path) as (harness, client):
        error = refused(
            await client.call_tool("lip_sync", here(tmp_path, {"video": "ann.jpg", "audio": str(tmp_path / "no.mp3")}))
        )

    assert error["code"] == "input_refused"
    assert [fault["path"] for fault in error["faults"]] == ["video", "audio"]
    assert harness.simulator.requests == []
