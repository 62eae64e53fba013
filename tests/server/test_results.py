"""
What a model would read of each result, in hosts that show only a part of it.

Claude Code, Codex and VS Code show the structured half; Zed and Gemini CLI
the text. Neither may miss anything, and neither may be long.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import mcp_types as t
import pytest

from kling_mcp.catalog.models import load
from kling_mcp.server.app import build
from kling_mcp.server.tools import TOOLS
from kling_mcp.settings import Settings
from tests.conftest import CANARY_KEY
from tests.server.hosts import DEAR, ERAS, NEWER, OLDER, SHORT, code_of, data, finished, house, refused

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

MOST_BYTES = 8_000
"""2,000 tokens."""


def shown(result: t.CallToolResult, *, structured: bool) -> str:
    """What a host puts before its model."""
    if structured and result.structured_content is not None:
        return json.dumps(result.structured_content, ensure_ascii=False)
    return "\n".join(block.text for block in result.content if isinstance(block, t.TextContent))


@pytest.mark.parametrize("era", ERAS)
async def test_either_half_of_a_result_is_enough(era: str, tmp_path: Path) -> None:
    """
    Facts, names and the next step are in both, in under 2,000 tokens, and no picture or key is in either.
    """
    async with house(tmp_path) as place, place.connect(era) as client:
        started = await client.call_tool("image_to_video", SHORT)
        job_id = data(started)["job_id"]
        done = await finished(client, job_id)
        for take in range(2, 8):
            await client.call_tool("image_to_video", {**SHORT, "take": take})
        results = {
            "started": (started, [job_id, "get_job", "0.252"]),
            "finished": (
                await client.call_tool("get_job", {"job_id": job_id}),
                [done["video"]["url"], done["video"]["saved_to"], "last-frame"],
            ),
            "needs the user": (await client.call_tool("image_to_video", DEAR), ["4.2", "max_cost_usd"]),
            "estimate": (await client.call_tool("estimate_cost", SHORT), ["0.252", "o3-standard"]),
            "comparison": (await client.call_tool("estimate_cost", {}), ["o3-standard", "o1-pro", "v3-4k"]),
            "few would do": (
                await client.call_tool("estimate_cost", {"elements": [{}], "voice_ids": ["v"], "duration": 12}),
                ["v3-standard", "o1-pro does not take"],
            ),
            "models": (await client.call_tool("list_models", {}), ["o3-standard", "o1-pro", "v3-4k"]),
            "list": (await client.call_tool("list_jobs", {}), ["next_cursor", "kj_"]),
            "cancelled too late": (await client.call_tool("cancel_job", {"job_id": job_id}), ["already ended"]),
        }
        for mode in load().modes:
            rows = await client.call_tool("list_models", {"mode": mode})
            results[mode] = (rows, [mode, load().of(mode)[0].model])
        for endpoint in load().endpoints:
            named = {"model": endpoint.model, "mode": endpoint.mode}
            in_full = await client.call_tool("list_models", named)
            results[" ".join(named.values())] = (in_full, [endpoint.model, "usd_per_second", *endpoint.arguments])

    for name, (result, facts) in results.items():
        data(result)
        for structured in (True, False):
            words = shown(result, structured=structured)
            assert len(words.encode()) <= MOST_BYTES, f"{name}: {len(words.encode())} bytes"
            assert not [fact for fact in facts if fact not in words], name
            assert not re.search(r"[A-Za-z0-9+/]{300}", words), name
            assert CANARY_KEY not in words


async def test_money_is_a_number_with_its_currency_and_nothing_is_left_out_when_unknown(tmp_path: Path) -> None:
    """
    The same keys in every state, null where there is nothing yet.
    """
    async with house(tmp_path, speed=5) as place, place.connect(NEWER) as client:
        job = data(await client.call_tool("image_to_video", SHORT))

    assert list(job) == [
        "job_id", "state", "prompt", "model", "mode", "seconds", "sound", "take", "endpoint", "request_id",
        "queue_position", "progress", "created_at", "elapsed_seconds", "expected_seconds", "cost", "video", "error",
        "warnings", "resource", "next_step",
    ]  # fmt: skip
    assert job["cost"] | {"basis": ""} == {
        "estimated_usd": 0.252, "ceiling_usd": 0.252, "actual_usd": None, "basis": "",
    }  # fmt: skip
    assert job["video"] is job["error"] is None
    assert {name: job[name] for name in ("prompt", "mode", "seconds", "sound", "take")} == {
        "prompt": SHORT["prompt"], "mode": "image-to-video", "seconds": 3, "sound": False, "take": 1,
    }  # fmt: skip


# ---- defects

SECRET = f"https://user:{CANARY_KEY}@fal.run/private"


class Boom(Exception):
    """A defect whose message holds what nobody may read."""


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(
    ("spends", "begun", "billed"),
    [
        (True, True, "It may have been charged."),
        (True, False, "Nothing was charged."),
        (False, False, "list_jobs"),
    ],
)
async def test_a_defect_in_a_tool_is_told_by_a_reference_and_nothing_else(
    spends: bool, begun: bool, billed: str, era: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """
    The log has the details under the reference; the answer has neither message nor name of the exception.
    """

    async def _raises(call: Any) -> Any:
        if begun:
            call.billed = "maybe"
        raise Boom(SECRET)

    like = TOOLS["image_to_video" if spends else "get_job"]
    broken = replace(like, name="broken", gives=None, run=_raises)
    async with house(tmp_path) as place:
        server = build(Settings.from_environment(place.environment), tools={**TOOLS, "broken": broken})
        async with _client(server, era) as client:
            result = await client.call_tool("broken", {})
            alive = await client.call_tool("estimate_cost", {})

    error = refused(result)
    assert error["code"] == "internal"
    reference = re.search(r"reference ([0-9a-f]{8})", error["message"])
    assert reference
    assert billed in shown(result, structured=True)
    assert CANARY_KEY not in result.model_dump_json()
    assert "Boom" not in result.model_dump_json()
    assert any(getattr(record, "reference", "") == reference[1] for record in caplog.records)
    assert not alive.is_error


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("method", ["resources/read", "prompts/get", "completion/complete", "resources/list"])
async def test_a_defect_elsewhere_leaves_as_an_error_of_the_protocol_without_its_text(
    method: str, era: str, tmp_path: Path
) -> None:
    """
    The SDK alone sends the text of an exception to clients of the older era.
    """
    async with house(tmp_path) as place:
        server = build(Settings.from_environment(place.environment))
        entry = server.get_request_handler(method)
        assert entry is not None

        async def broken(ctx: Any, params: Any) -> Any:
            raise Boom(SECRET)

        server.add_request_handler(method, entry.params_type, broken)
        async with _client(server, era) as client:
            asked = {
                "resources/read": lambda: client.read_resource("kling://models"),
                "resources/list": client.list_resources,
                "prompts/get": lambda: client.get_prompt("storyboard", {}),
                "completion/complete": lambda: client.complete(
                    t.PromptReference(type="ref/prompt", name="storyboard"), {"name": "model", "value": ""}
                ),
            }[method]
            with pytest.raises(Exception, match=r"reference [0-9a-f]{8}") as raised:
                await asked()
            assert await code_of(asked()) == t.INTERNAL_ERROR

    assert CANARY_KEY not in str(raised.value)


def _client(server: Any, era: str) -> Any:
    from mcp.client.client import Client

    return Client(server, mode="legacy" if era == OLDER else "auto")
