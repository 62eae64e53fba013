"""
A whole job as a client would do it, against the simulator: no key, no money, a real mp4.

The server runs as a child process and is driven over its standard input and
output by the SDK's own client. What works here works in a host.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import anyio

from kling_mcp.errors import SettingsError

if TYPE_CHECKING:
    from mcp.client.client import Client

__all__ = ["demo"]

_STORY: Final = (
    "Wide shot: morning light comes up over the hills, slow push in.",
    "Medium shot: the grass moves in the wind, the camera pans left.",
    "Close-up: a bird lands on a branch, shallow depth of field.",
    "Low angle: clouds pass quickly, static camera.",
    "Tracking shot: a hare runs through the meadow.",
    "Wide shot: the sun sets, the camera pulls back.",
)
_SPEED: Final = 25.0
_LONGEST_SECONDS: Final = 300.0
_BAR: Final = 28


def demo(image: str | None, model: str | None, shots: int) -> int:
    """Run a job of *shots* shots; 0 only if its video is on disk."""
    if not 1 <= shots <= len(_STORY):
        raise SettingsError(f"--shots is {shots}. It takes 1 to {len(_STORY)}.")
    picture = Path(image).expanduser().absolute() if image else _bundled_picture()
    if not picture.is_file():
        raise SettingsError(f"--image is {picture}, which is not a file.")
    return anyio.run(_demo, picture, model, shots)


def _bundled_picture() -> Path:
    return Path(__file__).with_name("simulator") / "sample.jpg"


async def _demo(picture: Path, model: str | None, shots: int) -> int:
    from mcp.client.client import Client
    from mcp.client.stdio import StdioServerParameters

    videos = Path(os.environ.get("KLING_MCP_OUTPUT_DIR") or tempfile.mkdtemp(prefix="kling-demo-"))
    with tempfile.TemporaryDirectory(prefix="kling-demo-state-") as state:
        server = StdioServerParameters(
            command=sys.executable,
            args=["-m", "kling_mcp"],
            env={
                **os.environ,
                "KLING_MCP_BACKEND": "simulator",
                "KLING_MCP_SIMULATOR_SPEED": str(_SPEED),
                "KLING_MCP_POLL_SECONDS": "0.2",
                "KLING_MCP_DATA_DIR": state,
                "KLING_MCP_OUTPUT_DIR": str(videos),
                "KLING_MCP_INPUT_DIRS": str(picture.parent),
                "KLING_MCP_LOG_LEVEL": "ERROR",
            },
        )
        with anyio.fail_after(_LONGEST_SECONDS):
            async with Client(server) as client:
                return await _play(client, picture, model, shots)


async def _play(client: Client, picture: Path, model: str | None, shots: int) -> int:
    arguments = _arguments(picture, model, shots)
    tool = "multi_shot_video" if shots > 1 else "image_to_video"
    print(f"Picture   {picture}")
    for number, line in enumerate(_STORY[:shots], 1):
        print(f"Shot {number}    {line}")
    price = await _call(client, "estimate_cost", arguments)
    print(f"Price     ${price['estimated_usd']:.2f}, at most ${price['ceiling_usd']:.2f} ({price['basis']})")
    job = await _call(client, tool, {**arguments, "max_cost_usd": price["ceiling_usd"]})
    if job["job_id"] is None:
        print(f"Stopped   {job['next_step']}")
        return 1
    print(f"Job       {job['job_id']} on {job['model']}")
    began = time.monotonic()
    progress = _Progress(shots)
    while job["state"] in {"preparing", "submitting", "queued", "running"} or _unsaved(job):
        progress.show(job)
        job = await _call(client, "get_job", {"job_id": job["job_id"], "wait_seconds": 1}, progress.said)
    progress.end(job)
    return _report(job, time.monotonic() - began)


def _arguments(picture: Path, model: str | None, shots: int) -> dict[str, Any]:
    arguments: dict[str, Any] = {"image": str(picture), "generate_audio": True}
    if model is not None:
        arguments["model"] = model
        if model.startswith(("o1-", "v3-turbo-")):
            del arguments["generate_audio"]
    if shots > 1:
        arguments["shots"] = [{"prompt": line, "duration": 2 if shots > 3 else 3} for line in _STORY[:shots]]
    else:
        arguments |= {"prompt": _STORY[0], "duration": 5}
    return arguments


async def _call(client: Client, tool: str, arguments: dict[str, Any], progress: Any = None) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments, progress_callback=progress)
    if result.is_error or result.structured_content is None:
        text = " ".join(getattr(block, "text", "") for block in result.content)
        print(f"Refused   {text}")
        raise SystemExit(1)
    return cast("dict[str, Any]", result.structured_content)


def _unsaved(job: dict[str, Any]) -> bool:
    return job["state"] == "completed" and job["video"]["saved_to"] is None and not job["warnings"]


class _Progress:
    """A bar on a terminal, a line per change elsewhere."""

    def __init__(self, shots: int) -> None:
        self._shots = shots
        self._last = ""

    async def said(self, progress: float, total: float | None, message: str | None) -> None:
        """What the server reports while a call waits."""
        self._draw(progress / total if total else 1.0, message or "")

    def show(self, job: dict[str, Any]) -> None:
        """Where the job stands between two calls."""
        if job["state"] in {"preparing", "submitting", "queued"}:
            place = job["queue_position"]
            self._draw(0.0, "queued" if place is None else f"queued, place {place + 1} in line")

    def end(self, job: dict[str, Any]) -> None:
        """The last state, on a line of its own."""
        self._draw(1.0, job["state"])
        if sys.stdout.isatty():
            print()

    def _draw(self, part: float, message: str) -> None:
        part = min(max(part, 0.0), 1.0)
        shot = min(int(part * self._shots) + 1, self._shots)
        bar = "█" * round(part * _BAR) + "░" * (_BAR - round(part * _BAR))
        line = f"{bar} {part:4.0%} shot {shot}/{self._shots}  {message}"
        if sys.stdout.isatty():
            print(f"\r\033[K{line}", end="", flush=True)
        elif message.partition(",")[0] != self._last:
            print(line, flush=True)
        self._last = message.partition(",")[0]


def _report(job: dict[str, Any], took_seconds: float) -> int:
    saved = job["video"] and job["video"]["saved_to"]
    if not saved or not Path(saved).is_file():
        reason = job["error"]["message"] if job["error"] else "; ".join(job["warnings"])
        print(f"Failed    {job['state']}: {reason}")
        return 1
    cost = job["cost"]
    paid = cost["actual_usd"] if cost["actual_usd"] is not None else cost["estimated_usd"]
    size_kb = Path(saved).stat().st_size / 1000
    print(f"Video     {saved} ({size_kb:.0f} kB, after {took_seconds:.0f} s of simulated time at {_SPEED:.0f}x)")
    print(f"Cost      ${paid:.2f} (simulated: nothing was charged)")
    return 0
