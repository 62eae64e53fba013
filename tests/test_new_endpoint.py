"""A new Kling endpoint is one JSON file: it is listed, priced, submitted, followed and saved by the same code."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.client.client import Client

from kling_mcp.catalog import models
from kling_mcp.catalog.models import load
from kling_mcp.server.app import build
from kling_mcp.server.schemas import job_schema
from kling_mcp.settings import FalHosts, Secret, Settings
from kling_mcp.simulator.app import Simulator
from kling_mcp.simulator.serve import serving
from tests.catalog.test_invented_endpoint import INVENTED
from tests.conftest import CANARY_KEY


@pytest.mark.anyio
async def test_an_endpoint_that_nobody_has_seen_goes_from_estimate_to_a_saved_video(tmp_path: Path) -> None:
    folder = tmp_path / "endpoints"
    folder.mkdir()
    (folder / "v9-opera.json").write_text(json.dumps(INVENTED), encoding="utf-8")
    catalog = load(folder)
    simulator = Simulator(catalog, speed=100)
    wanted: dict[str, Any] = {
        "model": "v9-opera",
        "image": "https://example.com/stage.png",
        "shots": [{"prompt": "abc", "duration": 10}, {"prompt": "def"}],
        "generate_audio": True,
    }

    with anyio.fail_after(60):
        async with (
            serving(simulator) as urls,
            Client(build(_settings(tmp_path, urls), catalog=lambda: catalog)) as client,
        ):
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            price = (await client.call_tool("estimate_cost", wanted)).structured_content
            job = (await client.call_tool("multi_shot_video", {**wanted, "wait_seconds": 45})).structured_content

    assert "singers" in tools["multi_shot_video"].input_schema["properties"]
    assert price is not None
    assert (price["estimated_usd"], price["ceiling_usd"], price["seconds"]) == (50.0, 60.0, 20)
    (accepted,) = simulator.accepted
    assert accepted.endpoint_id == "fal-ai/kling-video/v9/opera/image-to-video"
    assert accepted.body == price["request"]
    assert accepted.body == {
        "stage_url": "https://example.com/stage.png",
        "acts": [{"libretto": "abc", "seconds": 10}, {"libretto": "def", "seconds": 10}],
        "seconds": 20,
        "orchestra": True,
    }
    assert job is not None
    assert job["state"] == "completed", job["error"]
    assert job["video"]["saved_to"] is not None


def test_what_an_endpoint_limits_otherwise_is_said_in_words_and_accepted_by_the_schema(tmp_path: Path) -> None:
    bundled = Path(models.__file__).with_name("endpoints") / "v3-pro.image-to-video.json"
    data = json.loads(bundled.read_text("utf-8"))
    data |= {"model": "v9-pro", "endpoint_id": "fal-ai/kling-video/v9/pro/image-to-video"}
    data["input_schema"]["properties"]["cfg_scale"] |= {"maximum": 2, "default": 0.7}
    (tmp_path / "v9-pro.json").write_text(json.dumps(data), encoding="utf-8")

    said = job_schema(load(tmp_path), "image_to_video")["properties"]["cfg_scale"]

    assert (said["minimum"], said["maximum"]) == (0, 2)
    assert "0 to 1 (default 0.5). v9-pro: 0 to 2, default 0.7." in said["description"]


@pytest.mark.anyio
async def test_a_price_that_is_known_in_part_needs_a_limit_and_one_that_is_not_known_stops_every_job(
    tmp_path: Path,
) -> None:
    """Also where the operator has nobody asked."""
    folder = tmp_path / "endpoints"
    folder.mkdir()
    for name, changes in {
        "v9-chorus": {"tiers_known": False},
        "v9-silence": {"prices": []},
    }.items():
        invented = INVENTED | {"model": name, "endpoint_id": f"fal-ai/kling-video/{name}"} | changes
        (folder / f"{name}.json").write_text(json.dumps(invented), encoding="utf-8")
    catalog = load(folder)
    simulator = Simulator(catalog, speed=100)
    wanted: dict[str, Any] = {"image": "https://example.com/stage.png", "prompt": "abc"}

    with anyio.fail_after(60):
        async with (
            serving(simulator) as urls,
            Client(build(_settings(tmp_path, urls), catalog=lambda: catalog)) as client,
        ):
            asked = await client.call_tool("image_to_video", {**wanted, "model": "v9-chorus"})
            unpriced = await client.call_tool("image_to_video", {**wanted, "model": "v9-silence"})
            assert simulator.requests == []
            agreed = await client.call_tool("image_to_video", {**wanted, "model": "v9-chorus", "max_cost_usd": 500})

    assert asked.structured_content is not None
    assert (asked.structured_content["state"], asked.structured_content["job_id"]) == ("needs_confirmation", None)
    assert "max_cost_usd" in asked.structured_content["next_step"]
    assert unpriced.is_error
    assert unpriced.meta is not None
    assert unpriced.meta["kling-mcp/error"]["code"] == "not_available"
    assert not agreed.is_error
    assert len(simulator.accepted) == 1


def _settings(tmp_path: Path, urls: Any) -> Settings:
    found = Settings.from_environment(
        {
            **urls.environment(),
            "KLING_MCP_DATA_DIR": str(tmp_path / "state"),
            "KLING_MCP_OUTPUT_DIR": str(tmp_path / "videos"),
            "KLING_MCP_POLL_SECONDS": "0.05",
            "KLING_MCP_CONFIRM": "never",
            "KLING_MCP_MAX_JOB_USD": "100",
            "KLING_MCP_DAILY_BUDGET_USD": "100",
        }
    )
    assert isinstance(found.hosts, FalHosts)
    return replace(found, fal_key=Secret(CANARY_KEY))
