"""What clients of earlier protocol versions get: nothing that their version does not know."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.server.hosts import DEAR, PICTURE, house
from tests.server.pipes import piped

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")

KNOWN: dict[str, dict[str, set[str]]] = {
    "2024-11-05": {
        "capabilities": {"experimental", "logging", "prompts", "resources", "tools"},
        "serverInfo": {"name", "version"},
        "tools": {"name", "description", "inputSchema"},
        "resources": {"uri", "name", "description", "mimeType", "annotations"},
        "resourceTemplates": {"uriTemplate", "name", "description", "mimeType", "annotations"},
        "prompts": {"name", "description", "arguments"},
        "arguments": {"name", "description", "required"},
        "contents": {"uri", "mimeType", "text", "blob"},
        "result": {"content", "isError", "_meta"},
        "content": {"type", "text", "annotations"},
        "progress": {"progressToken", "progress", "total"},
    },
    "2025-03-26": {
        "capabilities": {"completions"},
        "tools": {"annotations"},
        "resources": {"size"},
        "progress": {"message"},
    },
    "2025-06-18": {
        "serverInfo": {"title"},
        "tools": {"title", "outputSchema", "_meta"},
        "resources": {"title", "_meta"},
        "resourceTemplates": {"title", "_meta"},
        "prompts": {"title", "_meta"},
        "arguments": {"title"},
        "contents": {"_meta"},
        "result": {"structuredContent"},
        "content": {"_meta"},
        "question": {"message", "requestedSchema"},
    },
    "2025-11-25": {
        "capabilities": {"tasks", "extensions"},
        "serverInfo": {"description", "icons", "websiteUrl"},
        "tools": {"icons", "execution"},
    },
}
"""What each version added, by the schemas at modelcontextprotocol.io."""


def known(version: str, place: str) -> set[str]:
    return set().union(*(added.get(place, set()) for first, added in KNOWN.items() if first <= version))


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_client_gets_no_field_that_its_version_does_not_know(version: str, tmp_path: Path) -> None:
    """
    From the first answer to the video: strict readers of an older version drop what they do not know, or fail.
    """
    found: dict[str, set[str]] = {}

    def note(place: str, members: Any) -> None:
        for member in members if isinstance(members, list) else [members]:
            found.setdefault(place, set()).update(member)

    async with house(tmp_path, speed=100) as place, piped(tmp_path, log=None, **place.environment) as pipe:
        client = {
            "protocolVersion": version,
            # Some clients say it for every version.
            "capabilities": {"elicitation": {}},
            "clientInfo": {"name": "a", "version": "1"},
        }
        hello = (await pipe.ask("initialize", client))["result"]
        await pipe.send("notifications/initialized")
        assert hello["protocolVersion"] == version
        note("serverInfo", hello["serverInfo"])
        note("capabilities", hello["capabilities"])
        for method, name in (
            ("tools/list", "tools"),
            ("resources/list", "resources"),
            ("resources/templates/list", "resourceTemplates"),
            ("prompts/list", "prompts"),
        ):
            answer = (await pipe.ask(method))["result"]
            note(name, answer[name])
            for prompt in answer.get("prompts", ()):
                note("arguments", prompt["arguments"])
        for uri in ("kling://jobs", "ui://kling/job.html"):
            note("contents", (await pipe.ask("resources/read", {"uri": uri}))["result"]["contents"])
        call = {
            "name": "image_to_video",
            "arguments": {"image": PICTURE, "prompt": "A fox.", "duration": 3, "wait_seconds": 30},
            "_meta": {"progressToken": "p"},
        }
        done = (await pipe.ask("tools/call", call))["result"]
        refused = (await pipe.ask("tools/call", {**call, "arguments": {}}))["result"]
        for result in (done, refused):
            note("result", result)
            note("content", result["content"])
        await pipe.send("tools/call", {"name": "image_to_video", "arguments": DEAR}, 2)
        question = await pipe.receive()
        note("question", question.get("params", {}))
        told = [message for message in pipe.heard if message.get("method") == "notifications/progress"]
        note("progress", [message["params"] for message in told])

    unknown = {where: names - known(version, where) for where, names in found.items()}
    assert {where: names for where, names in unknown.items() if names} == {}
    assert not done["isError"], done
    job = json.loads(done["content"][0]["text"].partition("\n")[2])
    assert job["state"] == "completed"
    assert ("method" in question) is (version >= "2025-06-18")
    assert ("structuredContent" in done) is (version >= "2025-06-18")
    assert job == done.get("structuredContent", job)
