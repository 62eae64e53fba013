"""
What a client can see of the server, as files that are reviewed like code.

Renew them with `KLING_MCP_UPDATE_SNAPSHOTS=1 pytest -n0 tests/server/test_surface.py`
and look at the difference: a changed word is a changed product.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from kling_mcp.catalog.models import load
from kling_mcp.catalog.plan import modes_of
from kling_mcp.server.calls import HANDLERS
from kling_mcp.server.instructions import instructions
from kling_mcp.server.tools import TOOLS
from kling_mcp.server.views import ConfirmationView, ModelsView, ModelView
from kling_mcp.settings import Settings
from tests.server.hosts import ERAS, NEWER, OLDER, SHORT, data, house

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mcp.client.client import Client

    from kling_mcp.catalog.models import Argument, Endpoint

SNAPSHOTS = Path(__file__).parents[1] / "snapshots"
VARIABLE = "KLING_MCP_UPDATE_SNAPSHOTS"
# Read here: no test keeps a setting of the person who runs it.
UPDATE = bool(os.environ.get(VARIABLE))

TOKEN_BYTES = 4
MOST_TOKENS = {"core": 2_700, "core,film": 3_400, "reference": 900, "edit": 900}
"""By the toolsets that are chosen."""
WHOLE_NAME = 64
"""The shortest limit of a name as hosts lengthen it: `mcp__kling__` goes before."""

COMBINATORS = {"oneOf", "anyOf", "allOf", "not", "if", "then", "else"}
ORDERS = re.compile(
    r"\b(you|your|must|should|always|never|please|make sure|ensure|do not|don't|call (this|it|first)|use (this|it)|"
    r"remember|important|required to|before calling|after calling)\b",
    re.IGNORECASE,
)


def wire(model: Any) -> dict[str, Any]:
    return model.model_dump(by_alias=True, mode="json", exclude_none=True)


async def tools_of(client: Client) -> list[dict[str, Any]]:
    return [wire(tool) for tool in (await client.list_tools()).tools]


def schemas_in(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from schemas_in(inner, f"{path}.{name}")
    if "items" in schema:
        yield from schemas_in(schema["items"], f"{path}[]")


@pytest.mark.anyio
@pytest.mark.parametrize("era", ERAS)
async def test_every_tool_is_one_that_every_host_can_read(era: str, tmp_path: Path) -> None:
    """
    Each rule was learnt from a host that drops the tool, or all tools, or half of what it says.
    """
    async with house(tmp_path, KLING_MCP_TOOLSETS="all") as place, place.connect(era) as client:
        tools = await tools_of(client)

    assert [tool["name"] for tool in tools] == list(TOOLS)
    for tool in tools:
        name = tool["name"]
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
        assert len(f"mcp__kling-mcp__{name}") <= WHOLE_NAME
        assert tool["title"]
        assert set(tool["annotations"]) == {"readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"}
        assert 40 <= len(tool["description"]) <= 900
        assert tool["description"].startswith(("Spends money", "Free"))
        assert tool["description"].startswith("Spends money") is not tool["annotations"]["readOnlyHint"] or name in {
            "cancel_job",
            "resolve_job",
        }
        assert not ORDERS.search(tool["description"]), ORDERS.search(tool["description"])
        if name != "view_video":
            assert tool["outputSchema"]["type"] == "object"
        jsonschema.Draft202012Validator.check_schema(tool["inputSchema"])
        jsonschema.Draft202012Validator.check_schema(tool.get("outputSchema", {}))
        for path, schema in schemas_in(tool["inputSchema"]):
            where = f"{name}{path}"
            assert isinstance(schema["type"], str), where
            assert not COMBINATORS & set(schema), where
            assert not {"$ref", "$defs", "$schema", "title"} & set(schema), where
            if schema["type"] == "object":
                assert schema["properties"], where
                assert "additionalProperties" not in schema, where
                assert set(schema.get("required", ())) <= set(schema["properties"]), where
            if schema["type"] == "array":
                assert "items" in schema, where
            if path and not path.endswith("[]"):
                assert schema["description"], where
                assert not ORDERS.search(schema["description"]), where


@pytest.mark.anyio
async def test_limits_and_defaults_are_said_in_words_too(tmp_path: Path) -> None:
    """
    Codex drops numbers from schemas, and a host may load one tool without the others: each says all of its own.
    """
    async with house(tmp_path) as place, place.connect(NEWER) as client:
        tools = await tools_of(client)

    said = 0
    for tool in tools:
        for path, schema in schemas_in(tool["inputSchema"]):
            words = schema.get("description", "")
            assert "As in" not in words
            for figure in {str(schema[limit]) for limit in ("minimum", "maximum") if limit in schema} | figures(
                tool["name"], path
            ):
                assert re.search(rf"(?<![\d.,]){re.escape(figure)}(?!\d|[.,]\d)", words), (
                    f"{tool['name']}{path}: {words}"
                )
                said += 1
    assert said > 45


def figures(tool: Any, path: str) -> set[str]:
    """What any model of *tool* says in values, by schema and rules, about the argument at *path* of its schema."""
    found: set[str] = set()
    modes = modes_of(load(), "multi_shot_video" if tool == "estimate_cost" else tool)
    for endpoint in load().of(*modes):
        argument = argument_at(endpoint, path)
        if argument is None:
            continue
        schema = argument.value_schema
        choices = argument.choices if argument.kind == "choice" else argument.lengths[:1] + argument.lengths[-1:]
        found |= {str(choice) for choice in choices}
        found |= {f"{schema[limit]:,}" for limit in ("minimum", "maximum", "maxLength") if limit in schema}
        if "default" in schema and not argument.many:
            default = schema["default"]
            found.add(f"default {'on' if default else 'off'}" if isinstance(default, bool) else str(default))
        counted = {path.removeprefix("."), f"{path.removeprefix('.')}[]"}
        found |= {
            str(rule.max)
            for rule in endpoint.rules
            if rule.kind == "count" and rule.level == "refuse" and counted & set(rule.of)
        }
    return found


def argument_at(endpoint: Endpoint, path: str) -> Argument | None:
    level, argument = endpoint.arguments, None
    for step in path.removeprefix(".").split("."):
        argument = level.get(step.removesuffix("[]"))
        if argument is None:
            return None
        level = argument.items
    return None if path.endswith("[]") else argument


@pytest.mark.anyio
@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("confirm", ["auto", "always"])
@pytest.mark.parametrize("toolsets", MOST_TOKENS)
async def test_the_list_of_tools_is_small(
    toolsets: str, confirm: str, era: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Every conversation pays for it, whether it makes a video or not.
    """
    async with (
        house(tmp_path, KLING_MCP_CONFIRM=confirm, KLING_MCP_TOOLSETS=toolsets) as place,
        place.connect(era) as client,
    ):
        tools = [tool for tool in await tools_of(client) if TOOLS[tool["name"]].toolset in toolsets.split(",")]

    size = len(json.dumps({"tools": tools}, ensure_ascii=False, separators=(",", ":")).encode())
    with capsys.disabled():
        print(f"\n{toolsets} in {era}, confirming {confirm}: {size} bytes, {size // TOKEN_BYTES} tokens")
    # Asking always is said in each tool that spends.
    spending = sum(TOOLS[tool["name"]].spends for tool in tools)
    assert size <= MOST_TOKENS[toolsets] * TOKEN_BYTES + (50 * spending if confirm == "always" else 0)


@pytest.mark.anyio
async def test_the_surface_is_the_one_that_was_reviewed(tmp_path: Path) -> None:
    """
    One file for each tool, one for everything else on the wire in both eras.
    """
    found: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    tools: dict[str, list[dict[str, Any]]] = {}
    async with house(tmp_path, KLING_MCP_OUTPUT_DIR="none", KLING_MCP_TOOLSETS="all") as place:
        for era in ERAS:
            async with place.connect(era) as client:
                tools[era] = await tools_of(client)
                rest[era] = {
                    "capabilities": wire(client.server_capabilities),
                    "instructions": client.instructions,
                    "tools": [tool["name"] for tool in tools[era]],
                    "resources": [wire(resource) for resource in (await client.list_resources()).resources],
                    "resourceTemplates": [
                        wire(template) for template in (await client.list_resource_templates()).resource_templates
                    ],
                    "prompts": [wire(prompt) for prompt in (await client.list_prompts()).prompts],
                }

    assert tools[OLDER] == tools[NEWER]
    found = {f"tools/{tool['name']}": tool for tool in tools[NEWER]} | {"surface": rest}
    if UPDATE:
        for name, value in found.items():
            file = SNAPSHOTS / f"{name}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    kept = {
        file.relative_to(SNAPSHOTS).with_suffix("").as_posix(): json.loads(file.read_text("utf-8"))
        for file in SNAPSHOTS.rglob("*.json")
    }
    assert found == kept, f"{VARIABLE}=1 renews the files"


@pytest.mark.parametrize("backend", ["fal", "simulator"])
@pytest.mark.parametrize("folder", ["/home/fox/Videos/Kling", "/" + "very-long-name/" * 80, "none"])
def test_the_instructions_are_short_and_their_first_part_is_whole(backend: str, folder: str) -> None:
    """
    Codex reads 512 characters of them, Claude Code 2,000; nobody needs more than 1,200.
    """
    text = instructions(
        Settings.from_environment({"HOME": "/home/fox", "KLING_MCP_BACKEND": backend, "KLING_MCP_OUTPUT_DIR": folder})
    )

    assert len(text) <= 1_200
    first = text[:512]
    assert any(first[:end].endswith("new charge.") for end in range(300, 513))
    for word in ("get_job", "job_id", "wait_seconds", "estimate_cost", "spend money"):
        assert word in first
    for word in ("list_jobs", "last-frame", "dated list prices", "resolve_job", "7 days"):
        assert word in text
    assert ("saved in" in text) is (folder != "none")


@pytest.mark.anyio
@pytest.mark.parametrize("era", ERAS)
async def test_every_answer_fits_the_schema_that_the_tool_declares(era: str, tmp_path: Path) -> None:
    """
    A client may check; the SDK's does. The list has only the beginning of each schema; the whole view holds too.
    """
    async with house(tmp_path) as place, place.connect(era) as client:
        schemas = {tool["name"]: tool.get("outputSchema", {}) for tool in await tools_of(client)}
        job = data(await client.call_tool("image_to_video", SHORT))
        for name, arguments in (
            ("image_to_video", SHORT),
            ("image_to_video", {**SHORT, "take": 2, "max_cost_usd": 0.01}),
            ("estimate_cost", {}),
            ("estimate_cost", SHORT),
            ("list_models", {}),
            ("list_models", {"model": "v3-standard"}),
            ("list_models", {"mode": "text-to-video"}),
            ("get_job", {"job_id": job["job_id"]}),
            ("list_jobs", {}),
            ("cancel_job", {"job_id": job["job_id"]}),
        ):
            found = data(await client.call_tool(name, arguments))
            jsonschema.validate(found, schemas[name])
            gives = TOOLS[name].gives
            if found.get("state") == "needs_confirmation":
                gives = ConfirmationView
            elif arguments == {"model": "v3-standard"}:
                gives = ModelView
            elif arguments == {"mode": "text-to-video"}:
                gives = ModelsView
            assert gives is not None
            jsonschema.validate(found, gives.model_json_schema() | {"additionalProperties": False})


def test_every_tool_of_the_list_has_a_function_that_answers_it() -> None:
    assert list(HANDLERS) == list(TOOLS)
