"""What a host learns of the job's page before it shows it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from kling_mcp.simulator.render import sample_picture
from tests.server.hosts import ERAS, NEWER, SHORT, data, house

if TYPE_CHECKING:
    from pathlib import Path

URI = "ui://kling/job.html"
EXTENSION = "io.modelcontextprotocol/ui"
MOST_BYTES = 24_000
BOUND = {"image_to_video", "multi_shot_video", "get_job", "text_to_video"}
META = {
    "ui": {
        "csp": {"resourceDomains": ["https://*.fal.media", "https://fal.media", "https://storage.googleapis.com"]},
        "prefersBorder": True,
    }
}


@pytest.mark.anyio
@pytest.mark.parametrize("era", ERAS)
async def test_the_page_is_declared_to_every_client(era: str, tmp_path: Path) -> None:
    """
    The clients here say nothing of pages: hosts have shown them without saying so. The older era's
    capabilities have no place for extensions; there the tools alone tell.
    """
    async with house(tmp_path) as place, place.connect(era) as client:
        tools = (await client.list_tools()).tools
        listed = {str(one.uri): one for one in (await client.list_resources()).resources}
        (part,) = (await client.read_resource(URI)).contents

        assert {tool.name for tool in tools if tool.meta} == BOUND
        for tool in tools:
            assert tool.meta in (None, {"ui": {"resourceUri": URI}, "ui/resourceUri": URI})
        if era == NEWER:
            assert EXTENSION in (client.server_capabilities.extensions or {})
        for found in (listed[URI], part):
            assert found.mime_type == "text/html;profile=mcp-app"
            assert found.meta == META


@pytest.mark.anyio
async def test_the_page_is_small_and_whole_in_itself(tmp_path: Path) -> None:
    async with house(tmp_path) as place, place.connect(NEWER) as client:
        (part,) = (await client.read_resource(URI)).contents
    page: str = part.text  # type: ignore[union-attr]

    assert len(page.encode()) <= MOST_BYTES
    assert page.startswith("<!doctype html>")
    assert re.findall(r"(?:src|href)=|@import|url\(|https?://", page) == []
    ways_to_markup = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|DOMParser|srcdoc"
    assert re.findall(ways_to_markup, page) == []


@pytest.mark.anyio
async def test_a_result_tells_the_page_what_the_model_knows_already(tmp_path: Path) -> None:
    """
    Shots and picture come beside the result, so that a page in a later conversation has them too; the model
    does not pay for them.
    """
    shots = [{"prompt": "The fox looks up. " * 40, "duration": "2"}, {"prompt": "It runs."}]
    async with house(tmp_path) as place, place.connect(NEWER) as client:
        picture = tmp_path / "fox.jpg"
        await anyio.Path(picture).write_bytes(sample_picture())
        # Shots as some hosts send them, with a length left to the default.
        call = {"image": str(picture), "shots": str(shots).replace("'", '"'), "generate_audio": False}
        begun = await client.call_tool("multi_shot_video", call)
        job_id = data(begun)["job_id"]
        looked = await client.call_tool("get_job", {"job_id": job_id, "wait_seconds": 20})
        cancelled = await client.call_tool("cancel_job", {"job_id": job_id})

    for result in (begun, looked, cancelled):
        board = _board(result)
        assert [(shot["start_seconds"], shot["end_seconds"]) for shot in board["shots"]] == [(0, 2), (2, 7)]
        assert [shot["number"] for shot in board["shots"]] == [1, 2]
        assert board["shots"][0]["prompt"] == shots[0]["prompt"][:400]
        assert board["image"] == str(picture)
        assert "storyboard" not in str(result.structured_content)
    (accepted,) = place.simulator.accepted
    assert _board(looked)["image_url"] == accepted.body["image_url"]


@pytest.mark.anyio
async def test_a_picture_in_the_call_itself_is_not_sent_back(tmp_path: Path) -> None:
    import base64

    given = "data:image/jpeg;base64," + base64.b64encode(sample_picture()).decode()
    async with house(tmp_path) as place, place.connect(NEWER) as client:
        result = await client.call_tool("image_to_video", {**SHORT, "image": given, "wait_seconds": 20})

    assert _board(result)["image"] is None
    assert len(result.model_dump_json()) < 8_000


def _board(result: Any) -> dict[str, Any]:
    return result.meta["kling-mcp/storyboard"]
