"""
MCP's own Inspector, in its strict mode, against the real command.

It is a Node program: `npm install` in `tests/node` brings it and its Node 22.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.server.hosts import SHORT
from tests.server.test_conformance import NODE, NODE_MODULES

INSPECTOR = NODE_MODULES / "@modelcontextprotocol" / "inspector" / "clients" / "launcher" / "build" / "index.js"

pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(not NODE.exists() or not INSPECTOR.exists(), reason="npm install in tests/node brings it"),
    pytest.mark.parametrize("era", ["legacy", "modern"]),
]


def inspect(folder: Path, era: str, method: str, *arguments: str) -> dict[str, Any]:
    """What the Inspector prints of one request to a server of its own."""
    environment = {
        "KLING_MCP_BACKEND": "simulator",
        "KLING_MCP_SIMULATOR_SPEED": "60",
        "KLING_MCP_POLL_SECONDS": "0.1",
        "KLING_MCP_DATA_DIR": str(folder / "state"),
        "KLING_MCP_OUTPUT_DIR": str(folder / "videos"),
        "KLING_MCP_LOG_LEVEL": "ERROR",
    }
    given = [part for name, value in environment.items() for part in ("-e", f"{name}={value}")]
    command = [str(NODE), str(INSPECTOR), "--cli", sys.executable, "-m", "kling_mcp", *given]
    done = subprocess.run(
        [*command, "--protocol-era", era, "--format", "json", "--method", method, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(done.stdout)["result"]


def call(folder: Path, era: str, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The structured half of a tool's answer."""
    given = ["--tool-name", tool, "--tool-args-json", json.dumps(arguments)]
    result = inspect(folder, era, "tools/call", *given)
    assert not result.get("isError")
    return result["structuredContent"]


def test_the_inspector_has_nothing_to_say_about_the_tools(era: str, tmp_path: Path) -> None:
    """
    Strict: a schema that some client would choke on is a failure.
    """
    tools = inspect(tmp_path, era, "tools/list", "--strict")["tools"]

    assert {"image_to_video", "estimate_cost", "get_job"} <= {tool["name"] for tool in tools}


def test_the_inspector_can_ask_for_a_price(era: str, tmp_path: Path) -> None:
    """
    The result fits the output schema, which it checks.
    """
    assert call(tmp_path, era, "estimate_cost", SHORT)["estimated_usd"] == 0.252


def test_the_inspector_follows_a_whole_job(era: str, tmp_path: Path) -> None:
    """
    In the newer era it takes tasks, and polls this one to its end; in the older one the call waits.
    """
    job = call(tmp_path, era, "image_to_video", {**SHORT, "wait_seconds": 45})

    assert job["state"] == "completed"
    assert Path(job["video"]["saved_to"]).is_file() or job["video"]["url"]
