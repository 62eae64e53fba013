"""
Libraries that agents are built with, in the versions that broke on servers like this one.

Each runs in an environment of its own, which `tests/hosts/install.sh` makes,
starts the real command, and prints what it made of the answers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.server.hosts import SHORT

HERE = Path(__file__).parent
NODE = HERE / "node_modules" / "node" / "bin" / "node"

MADE = ("image_to_video", {**SHORT, "wait_seconds": 45})
READ: list[tuple[str, dict[str, Any]]] = [
    ("get_job", {"job_id": "JOB", "wait_seconds": 45}),
    ("list_jobs", {}),
    ("estimate_cost", {}),
    ("view_video", {"job_id": "JOB", "frames": 2}),
    ("get_job", {"job_id": "kj_nothing"}),
]
"""What an agent asks once a video is there, and one mistake."""


def environment(folder: Path) -> dict[str, str]:
    """The settings of a server that makes its videos itself, and quickly."""
    return {
        **os.environ,
        "KLING_MCP_BACKEND": "simulator",
        "KLING_MCP_SIMULATOR_SPEED": "200",
        "KLING_MCP_POLL_SECONDS": "0.1",
        "KLING_MCP_DATA_DIR": str(folder / "state"),
        "KLING_MCP_OUTPUT_DIR": str(folder / "videos"),
        "KLING_MCP_LOG_LEVEL": "ERROR",
    }


def drive(program: Path, driver: str, folder: Path, *calls: tuple[str, dict[str, Any]]) -> Any:
    """What *driver* prints after *calls*, run by *program*; skips where that is not installed."""
    if not program.exists():
        pytest.skip("tests/hosts/install.sh brings it")
    order = {
        "server": {"command": sys.executable, "args": ["-m", "kling_mcp"], "env": environment(folder)},
        "calls": calls,
        "lists": ["resources", "resourceTemplates", "prompts"],
    }
    done = subprocess.run(
        [str(program), str(HERE / "drivers" / driver), json.dumps(order)],
        capture_output=True,
        text=True,
        timeout=90,
        cwd=folder,
        env={**os.environ, "HOME": str(folder)},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(done.stdout)


def python(name: str) -> Path:
    """The interpreter of the environment that has the pins of *name*."""
    return HERE / ".envs" / name / "bin" / "python"


def is_the_finished_job(text: str) -> bool:
    """Whether *text* tells a model everything about a job with its video."""
    assert "\n" in text, text
    job = json.loads(text.partition("\n")[2])
    return job["state"] == "completed" and Path(job["video"]["saved_to"]).is_file()


@pytest.mark.parametrize(
    ("program", "driver"),
    [
        pytest.param(python("mcp-1.6"), "mcp_sdk.py", id="mcp 1.6"),
        pytest.param(python("mcp-1.9"), "mcp_sdk.py", id="mcp 1.9"),
        pytest.param(NODE, "mcp_sdk.mjs", id="@modelcontextprotocol/sdk 1.11", marks=pytest.mark.node),
    ],
)
def test_an_sdk_that_knows_only_the_protocol_of_2024_reads_a_finished_job(
    program: Path, driver: str, tmp_path: Path
) -> None:
    """
    Their models know text, pictures and embedded resources, and fail the whole result on anything else.
    """
    seen = drive(program, driver, tmp_path, MADE, *READ)

    made, job, listed, priced, frames, nothing = seen["answers"]
    assert {"image_to_video", "get_job"} <= set(seen["tools"])
    assert [len(answer["content"]) for answer in (made, job, listed, priced, nothing)] == [1] * 5
    assert is_the_finished_job(job["content"][0]["text"])
    assert [bool(answer.get("isError")) for answer in seen["answers"]] == [False] * 5 + [True]
    assert "image" in {block["type"] for block in frames["content"]}
    assert {block["type"] for answer in seen["answers"] for block in answer["content"]} == {"text", "image"}
    assert all(seen["lists"])


def test_a_langchain_agent_goes_on_after_every_answer(tmp_path: Path) -> None:
    """
    LangChain makes a file of a resource link, which OpenAI's messages do not take: the next turn would raise.
    """
    seen = drive(python("langchain"), "langchain_agent.py", tmp_path, MADE, *READ)

    answers = [turn["content"] for turn in seen["completions"] if turn["role"] == "tool"]
    assert {"image_to_video", "get_job"} <= set(seen["tools"])
    assert len(answers) == len([turn for turn in seen["responses"] if turn.get("type") == "function_call_output"]) == 6
    assert is_the_finished_job(answers[1][0]["text"])
    assert {block["type"] for answer in answers for block in answer} == {"text", "image_url"}
    assert "unknown_job" in answers[-1][0]["text"]


@pytest.mark.parametrize("version", ["2", "3", "newest"])
def test_gemini_is_told_of_every_tool_and_argument(version: str, tmp_path: Path) -> None:
    """
    `google-genai` reads a schema where `additionalProperties` says false, and raises on all tools.
    """
    told = {
        declared["name"]: declared
        for tool in drive(python(f"genai-{version}"), "gemini.py", tmp_path)
        for declared in tool["function_declarations"]
    }

    given = told["image_to_video"]["parameters"]
    assert {"estimate_cost", "list_models", "get_job", "list_jobs", "cancel_job", "resolve_job"} <= set(told)
    assert set(given["required"]) == {"image", "prompt"}
    assert given["properties"]["model"]["type"] == "STRING"
    assert "v3-standard/pro" in given["properties"]["model"]["description"]
    assert given["properties"]["elements"]["items"]["properties"]["frontal_image"]["type"] == "STRING"
    assert all(tool["description"] for tool in told.values())


def test_an_agent_that_has_to_fill_every_argument_in_buys_and_reads_a_video(tmp_path: Path) -> None:
    """
    Strict mode requires all of them: a `cfg_scale` for a model without one, an empty list of voices.
    """
    seen = drive(
        python("openai-agents"),
        "strict_agent.py",
        tmp_path,
        (MADE[0], {**MADE[1], "model": "o3-standard", "generate_audio": True, "max_cost_usd": 1}),
        ("get_job", {"job_id": "JOB", "wait_seconds": 45}),
        ("list_jobs", {"limit": 20}),
        ("estimate_cost", {"model": "o3-standard", "duration": 3}),
        ("list_models", {}),
        ("multi_shot_video", {"image": SHORT["image"], "shots": [{"prompt": "A fox.", "duration": 3}], "duration": 3}),
        ("view_video", {"job_id": "JOB", "frames": 2}),
    )

    assert all(seen["strict"].values()), seen["strict"]
    made = seen["answers"][0]["given"]
    assert {"cfg_scale", "aspect_ratio", "elements", "voice_ids", "end_image", "negative_prompt"} <= set(made)
    said = [json.dumps(answer["output"]) for answer in seen["answers"]]
    assert not [text for text in said if "invalid_arguments" in text or "An error" in text]
    assert is_the_finished_job(seen["answers"][1]["output"]["text"])
