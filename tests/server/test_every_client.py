"""The same conversations over memory, the real command's pipe and HTTP, in both protocol eras."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anyio
import mcp_types as t
import pytest

from kling_mcp.catalog.models import load
from tests.server.hosts import (
    NEWER,
    PICTURE,
    SHORT,
    code_of,
    data,
    everywhere,
    finished,
    house,
    refused,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

MODELS = len(load().models)


@everywhere
async def test_a_job_goes_from_price_to_saved_video(transport: str, era: str, tmp_path: Path) -> None:
    """
    Estimate, start, wait: what an assistant does, and what it then has.
    """
    async with house(tmp_path, transport) as place, place.connect(era) as client:
        assert client.protocol_version == era
        price = data(await client.call_tool("estimate_cost", {**SHORT, "model": "o3-standard"}))
        started = data(await client.call_tool("image_to_video", {**SHORT, "max_cost_usd": price["ceiling_usd"]}))
        done = await finished(client, started["job_id"])

        assert started["state"] in {"preparing", "submitting", "queued", "running", "completed"}
        assert started["cost"]["estimated_usd"] == price["estimated_usd"]
        assert price["request"] == {**dict(place.simulator.accepted[0].body)}
        assert done["state"] == "completed"
        assert done["video"]["saved_to"].startswith(str(tmp_path / "videos"))
        assert done["cost"]["actual_usd"] == price["estimated_usd"]
        assert [job["job_id"] for job in data(await client.call_tool("list_jobs", {}))["jobs"]] == [done["job_id"]]
        assert place.accepted == 1


@everywhere
async def test_a_call_that_waits_tells_how_far_it_is(transport: str, era: str, tmp_path: Path) -> None:
    """
    Progress goes up, has words, and stops when the answer comes, which is text alone.
    """
    heard: list[tuple[float, float | None, str | None]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, total, message))

    async with house(tmp_path, transport, speed=100) as place, place.connect(era) as client:
        with anyio.fail_after(30):
            result = await client.call_tool("image_to_video", {**SHORT, "wait_seconds": 20}, progress_callback=hear)

    job = data(result)
    assert job["state"] == "completed"
    assert [block.type for block in result.content] == ["text"]
    steps = [progress for progress, _, _ in heard]
    assert steps == sorted(set(steps))
    assert any("queued at fal.ai" in (message or "") for _, _, message in heard)
    assert any("rendering" in (message or "") for _, _, message in heard)
    assert all(message for _, _, message in heard)


@everywhere
async def test_the_same_call_is_the_same_job_and_says_so(transport: str, era: str, tmp_path: Path) -> None:
    """
    A host that repeats a call, for whatever reason, does not pay twice.
    """
    async with house(tmp_path, transport) as place, place.connect(era) as client:
        first = data(await client.call_tool("image_to_video", SHORT))
        again = data(await client.call_tool("image_to_video", SHORT))
        other = data(await client.call_tool("image_to_video", {**SHORT, "take": 2}))

    assert again["job_id"] == first["job_id"]
    assert any("nothing new was sent or charged" in warning for warning in again["warnings"])
    assert other["job_id"] != first["job_id"]
    assert place.accepted == 2


@everywhere
async def test_shots_may_come_as_a_json_string(transport: str, era: str, tmp_path: Path) -> None:
    """
    Some hosts write arrays and objects as text.
    """
    shots = json.dumps([{"prompt": "Wide shot.", "duration": 3}, {"prompt": "Close-up.", "duration": "4"}])
    async with house(tmp_path, transport) as place, place.connect(era) as client:
        job = data(await client.call_tool("multi_shot_video", {"image": PICTURE, "shots": shots}))
        done = await finished(client, job["job_id"])

    assert done["state"] == "completed"
    assert place.simulator.accepted[0].body["multi_prompt"] == [
        {"prompt": "Wide shot.", "duration": "3"},
        {"prompt": "Close-up.", "duration": "4"},
    ]


@everywhere
async def test_a_refusal_is_text_alone_with_what_would_work(transport: str, era: str, tmp_path: Path) -> None:
    """
    Every kind of refusal, told the same way over every wire; an unknown tool is an error of the protocol.
    """
    async with house(tmp_path, transport, KLING_MCP_MAX_JOB_USD="0.10") as place, place.connect(era) as client:

        async def said(tool: str, **arguments: Any) -> dict[str, Any]:
            return refused(await client.call_tool(tool, arguments))

        misspelt = await said("image_to_video", **SHORT, durtion=5)
        assert (misspelt["code"], misspelt["field"]) == ("invalid_arguments", "durtion")
        assert "duration" in misspelt["next_step"]
        assert (await said("image_to_video", image=PICTURE))["field"] == "prompt"
        assert (await said("estimate_cost", model="o3-standrad"))["code"] == "unknown_model"
        assert (await said("list_models", model="o3-standrad"))["code"] == "unknown_model"
        assert (await said("get_job", job_id="kj_nobody"))["code"] == "unknown_job"
        assert (await said("get_job"))["field"] == "job_id"
        assert (await said("get_job", job_id="kj_x", wait_seconds="soon"))["field"] == "wait_seconds"
        assert (await said("list_jobs", cursor="²"))["field"] == "cursor"
        assert (await said("cancel_job", job_id="kj_nobody"))["code"] == "unknown_job"
        assert (await said("resolve_job", job_id="kj_x", outcome="perhaps"))["allowed"] == ["charged", "not_charged"]
        assert (await said("image_to_video", **{**SHORT, "image": "/etc/passwd"}))["code"] == "input_refused"
        assert (await said("image_to_video", **SHORT))["code"] == "over_budget"
        assert await code_of(client.call_tool("make_coffee", {})) == t.INVALID_PARAMS
        assert place.accepted == 0


@everywhere
async def test_a_server_without_a_key_does_everything_but_spend(transport: str, era: str, tmp_path: Path) -> None:
    """
    It starts, lists and estimates; only spending says how to set a key.
    """
    async with house(tmp_path, transport, FAL_KEY="") as place, place.connect(era) as client:
        assert len((await client.list_tools()).tools) >= 8
        assert data(await client.call_tool("estimate_cost", {}))["models"]
        error = refused(await client.call_tool("image_to_video", SHORT))

    assert error["code"] == "no_api_key"
    assert "https://fal.ai/dashboard/keys" in error["next_step"]
    assert place.accepted == 0


@everywhere
async def test_resources_show_what_the_tools_show(transport: str, era: str, tmp_path: Path) -> None:
    """
    Every fixed resource, every template, the pages, and what is not there.
    """
    async with house(tmp_path, transport) as place, place.connect(era, cache=None) as client:
        job = await finished(client, data(await client.call_tool("image_to_video", SHORT))["job_id"])
        listed = (await client.list_resources()).resources
        uris = [str(resource.uri) for resource in listed]
        ours = ("models", "pricing", "jobs", "voices", "spend")
        fixed = [*(f"kling://{name}" for name in ours), "ui://kling/job.html"]
        assert uris == [*fixed, job["resource"]]
        templates = (await client.list_resource_templates()).resource_templates
        assert [template.uri_template for template in templates] == [
            "kling://models/{model}",
            "kling://jobs/{job_id}",
            "kling://jobs/{job_id}/last-frame",
        ]

        async def read(uri: str) -> Any:
            (contents,) = (await client.read_resource(uri)).contents
            assert isinstance(contents, t.TextResourceContents)
            assert (contents.uri, contents.mime_type) == (uri, "application/json")
            return json.loads(contents.text)

        assert await read(job["resource"]) == job
        assert await read("kling://jobs") == data(await client.call_tool("list_jobs", {}))
        assert len((await read("kling://models"))["models"]) == MODELS
        assert (await read("kling://models/v2.6-pro"))["model"] == "v2.6-pro"
        assert set((await read("kling://pricing"))["models"]) == set((await read("kling://models"))["models"])
        assert (await read("kling://spend"))["today"]["spent_usd"] == job["cost"]["actual_usd"]
        (frame,) = (await client.read_resource(f"{job['resource']}/last-frame")).contents
        assert isinstance(frame, t.BlobResourceContents)
        assert frame.mime_type == "image/png"

        for name in (job["job_id"].removeprefix("kj_"), job["request_id"], f"{job['job_id']}/"):
            assert (await read(f"kling://jobs/{name}"))["job_id"] == job["job_id"]
        assert (await client.list_resources(cursor="")).resources

        missing = t.INVALID_PARAMS if era == NEWER else -32002
        for uri in ("kling://jobs/kj_nobody", "kling://models/o9", "kling://nothing", "file:///etc/passwd"):
            assert await code_of(client.read_resource(uri)) == missing
        assert await code_of(client.list_resources(cursor="elsewhere")) == t.INVALID_PARAMS


@everywhere
async def test_a_finished_job_may_be_kept_long_and_a_running_one_hardly(
    transport: str, era: str, tmp_path: Path
) -> None:
    """
    The hints of the newer era; the older one has none.
    """
    async with house(tmp_path, transport, speed=100) as place, place.connect(era, cache=None) as client:
        job = data(await client.call_tool("image_to_video", SHORT))
        running = await client.read_resource(job["resource"])
        await finished(client, job["job_id"])
        done = await client.read_resource(job["resource"])
        tools = await client.list_tools()

    hints = [(result.ttl_ms, result.cache_scope) for result in (running, done, tools)]
    assert hints == (
        [(2_000, "private"), (3_600_000, "private"), (3_600_000, "public")] if era == NEWER else [(0, "private")] * 3
    )


@everywhere
async def test_prompts_are_filled_in_and_models_and_jobs_completed(transport: str, era: str, tmp_path: Path) -> None:
    """
    A prompt names the tool to call; completion knows every model and every job.
    """
    async with house(tmp_path, transport) as place, place.connect(era) as client:
        job_id = data(await client.call_tool("image_to_video", SHORT))["job_id"]
        prompts = {prompt.name: prompt for prompt in (await client.list_prompts()).prompts}
        assert set(prompts) == {"single_shot", "storyboard", "transition"}
        for name, tool in (
            ("single_shot", "image_to_video"),
            ("storyboard", "multi_shot_video"),
            ("transition", "image_to_video"),
        ):
            given = {"image": "/fox.png", "end_image": "/owl.png", "idea": "night falls", "model": "o3-pro"}
            wanted = {argument.name for argument in prompts[name].arguments or []}
            filled = await client.get_prompt(name, {key: value for key, value in given.items() if key in wanted})
            (message,) = filled.messages
            assert isinstance(message.content, t.TextContent)
            assert f"The tool is {tool} with image /fox.png" in message.content.text
            assert "model o3-pro" in message.content.text
        assert await code_of(client.get_prompt("single_shot", {"image": "/fox.png"})) == t.INVALID_PARAMS
        assert await code_of(client.get_prompt("haiku")) == t.INVALID_PARAMS

        single = t.PromptReference(type="ref/prompt", name="single_shot")
        jobs = t.ResourceTemplateReference(type="ref/resource", uri="kling://jobs/{job_id}")
        found = await client.complete(single, {"name": "model", "value": "o3-"})
        assert found.completion.values == ["o3-standard", "o3-pro", "o3-4k"]
        assert (await client.complete(jobs, {"name": "job_id", "value": "kj_"})).completion.values == [job_id]
        assert (await client.complete(jobs, {"name": "job_id", "value": "x"})).completion.values == []
        nowhere = t.ResourceTemplateReference(type="ref/resource", uri="kling://none/{x}")
        assert await code_of(client.complete(nowhere, {"name": "x", "value": ""})) == t.INVALID_PARAMS


@everywhere
async def test_jobs_come_in_pages_newest_first_without_gaps(transport: str, era: str, tmp_path: Path) -> None:
    """
    By the tool and by the list of resources; the cursor says where the page before ended.
    """
    async with house(tmp_path, transport) as place, place.connect(era) as client:
        made = [
            data(await client.call_tool("image_to_video", {**SHORT, "take": take}))["job_id"] for take in range(1, 8)
        ]
        seen: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            page = data(await client.call_tool("list_jobs", {"limit": 3, **({"cursor": cursor} if cursor else {})}))
            seen += [job["job_id"] for job in page["jobs"]]
            cursor = page["next_cursor"]

    assert seen == made[::-1]


async def test_the_newest_ten_jobs_are_listed_by_what_they_show(tmp_path: Path) -> None:
    """
    Some hosts make a tool of each resource; the rest is found by the template, whose ids are completed.
    """
    async with (
        house(tmp_path, speed=1, KLING_MCP_POLL_SECONDS="60") as place,
        place.connect(NEWER, cache=None) as client,
    ):
        made = [
            data(await client.call_tool("image_to_video", {**SHORT, "take": take}))["resource"] for take in range(1, 13)
        ]
        listed = await client.list_resources()
        template = t.ResourceTemplateReference(type="ref/resource", uri="kling://jobs/{job_id}")
        completed = await client.complete(template, {"name": "job_id", "value": "kj_"})

    jobs = [resource for resource in listed.resources if str(resource.uri).startswith("kling://jobs/")]
    assert [str(job.uri) for job in jobs] == made[:-11:-1]
    assert {job.title for job in jobs} == {SHORT["prompt"]}
    assert listed.next_cursor is None
    assert len(completed.completion.values) == len(made)


@everywhere
async def test_a_waiting_job_is_cancelled_unbilled(transport: str, era: str, tmp_path: Path) -> None:
    """
    The second job waits behind the first; fal takes it out of its queue, and says so.
    """
    async with house(tmp_path, transport, speed=0.5) as place, place.connect(era) as client:
        await client.call_tool("image_to_video", SHORT)
        second = data(await client.call_tool("image_to_video", {**SHORT, "take": 2}))
        cancelled = data(await client.call_tool("cancel_job", {"job_id": second["job_id"]}))
        again = data(await client.call_tool("cancel_job", {"job_id": second["job_id"]}))

    assert cancelled["state"] == again["state"] == "cancelled"
    assert cancelled["error"]["billed"] == "no"
