"""
What an assistant reads of a ledger with a past, and of one that cannot be opened.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import mcp_types as t
import pytest
from mcp.shared.exceptions import MCPError

from kling_mcp.jobs.job import LostTrack, Sending
from kling_mcp.jobs.sqlite.engine import SqliteLedger
from tests.jobs.support import NOW_MS, WIDE, intent
from tests.server.hosts import NEWER, OLDER, SHORT, data, finished, house, refused

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


def with_an_unknown_job(folder: Path) -> None:
    ledger = SqliteLedger(folder, lambda: "ledger-1")
    ledger.reserve(intent("kj_lost"), WIDE, "me", NOW_MS)
    for event in (Sending({}), LostTrack("the answer was lost")):
        ledger.apply("kj_lost", event, NOW_MS)
    ledger.close()


@pytest.mark.parametrize("outcome", ["charged", "not_charged"])
async def test_an_unknown_job_is_settled_once_by_what_the_user_saw(tmp_path: Path, outcome: str) -> None:
    with_an_unknown_job(tmp_path / "state")
    async with house(tmp_path) as place, place.connect(NEWER) as client:
        before = data(await client.call_tool("list_jobs", {"state": "open"}))
        settled = data(await client.call_tool("resolve_job", {"job_id": "kj_lost", "outcome": outcome}))
        again = refused(await client.call_tool("resolve_job", {"job_id": "kj_lost", "outcome": outcome}))
        after = data(await client.call_tool("list_jobs", {"state": "open"}))

    assert [(row["job_id"], row["state"]) for row in before["jobs"]] == [("kj_lost", "unknown")]
    assert settled["state"] == ("failed" if outcome == "charged" else "not_submitted")
    assert settled["error"]["billed"] == ("yes" if outcome == "charged" else "no")
    assert "there is nothing to settle" in again["message"]
    assert after["jobs"] == []


async def test_a_request_id_that_fal_does_not_know_settles_nothing(tmp_path: Path) -> None:
    with_an_unknown_job(tmp_path / "state")
    async with house(tmp_path) as place, place.connect(NEWER) as client:
        call = {"job_id": "kj_lost", "outcome": "charged", "request_id": "00000000-0000-0000-0000-000000000000"}
        refusal = refused(await client.call_tool("resolve_job", call))
        job = data(await client.call_tool("get_job", {"job_id": "kj_lost"}))

    assert "does not confirm request" in refusal["message"]
    assert job["state"] == "unknown"


async def values(client: Any, ref: Any, name: str, begun: str) -> list[str]:
    return (await client.complete(ref, {"name": name, "value": begun})).completion.values


async def test_names_are_completed_and_unknown_places_to_complete_are_refused(tmp_path: Path) -> None:
    async with house(tmp_path) as place, place.connect(OLDER) as client:
        job = data(await client.call_tool("image_to_video", SHORT))
        template = t.ResourceTemplateReference(type="ref/resource", uri="kling://jobs/{job_id}")
        prompt = t.PromptReference(type="ref/prompt", name="single_shot")

        assert await values(client, template, "job_id", "kj_") == [job["job_id"]]
        assert "o3-standard" in await values(client, prompt, "model", "o3")
        assert await values(client, prompt, "idea", "a") == []
        for nowhere in (
            t.PromptReference(type="ref/prompt", name="no_such_prompt"),
            t.ResourceTemplateReference(type="ref/resource", uri="kling://nothing/{at_all}"),
        ):
            with pytest.raises(MCPError, match="There is no"):
                await values(client, nowhere, "model", "o3")


async def test_the_last_frame_is_read_as_png_and_a_page_of_jobs_follows_its_cursor(tmp_path: Path) -> None:
    async with house(tmp_path) as place, place.connect(NEWER) as client:
        jobs = [data(await client.call_tool("image_to_video", {**SHORT, "take": take})) for take in (1, 2)]
        await finished(client, jobs[0]["job_id"])
        (frame,) = (await client.read_resource(f"kling://jobs/{jobs[0]['job_id']}/last-frame")).contents
        newest = data(await client.call_tool("list_jobs", {"limit": 1}))
        older = data(await client.call_tool("list_jobs", {"limit": 1, "cursor": newest["next_cursor"]}))
        nonsense = refused(await client.call_tool("list_jobs", {"cursor": "the second page"}))

    assert isinstance(frame, t.BlobResourceContents)
    assert frame.mime_type == "image/png"
    assert [page["jobs"][0]["job_id"] for page in (newest, older)] == [jobs[1]["job_id"], jobs[0]["job_id"]]
    assert "next_cursor" in nonsense["next_step"]


async def test_without_a_ledger_prices_and_models_are_still_there_and_nothing_is_spent(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("this is a file")
    async with house(tmp_path) as place, place.connect(NEWER) as client:
        price = data(await client.call_tool("estimate_cost", SHORT))
        listed = (await client.list_resources()).resources
        refusals = [
            refused(await client.call_tool(tool, arguments))
            for tool, arguments in (("image_to_video", SHORT), ("list_jobs", {}), ("get_job", {"job_id": "kj_1"}))
        ]
        with pytest.raises(MCPError, match="ledger_unavailable"):
            await client.read_resource("kling://jobs")
        accepted = list(place.simulator.accepted)

    assert price["ceiling_usd"] > 0
    assert {"kling://models", "kling://pricing"} <= {str(one.uri) for one in listed}
    assert {refusal["code"] for refusal in refusals} == {"ledger_unavailable"}
    assert accepted == []
    assert json.dumps(price["budget"])
