"""
From a call of image_to_video to the arrival of its request at fal's door.

Beside it, in turn: one POST by httpx from a program that does nothing else. What
lies between the two is validation, the SDK, and the ledger, which has the intent
on disk before anything is sent. The same on a file system that lives in memory
shows what is left when a sync costs nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.report import Goal, Table, median, percentile
from benchmarks.scene import ENDPOINT, KEY, MEMORY, arguments, body, our_server, simulated
from benchmarks.wire import clean_environment

if TYPE_CHECKING:
    from benchmarks.counts import Counts
    from benchmarks.wire import Server
    from kling_mcp.simulator.app import Simulator

__all__ = ["measure"]

_WARM_SECONDS = 2.0
_REST_SECONDS = 0.15
"""After this long the job of the call before has ended, and nobody follows anything."""

_GOAL_MS = 5.0


def measure(counts: Counts) -> Table:
    """Make jobs in turn with each program, each job unlike any other."""
    with ExitStack() as stack:
        simulator, urls = stack.enter_context(simulated(speed=1000, immediate=True))
        stamps = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "stamps"
        command = (sys.executable, str(Path(__file__).with_name("stamped.py")), str(stamps))
        memory = MEMORY if MEMORY.is_dir() else None
        unsaved = {"KLING_MCP_OUTPUT_DIR": "none"}
        servers: dict[str, Server] = {"kling-mcp": stack.enter_context(our_server(urls, unsaved))}
        servers["kling-mcp, ledger in memory"] = stack.enter_context(our_server(urls, unsaved, disk=memory))
        stamped = stack.enter_context(our_server(urls, unsaved, command=command))
        post = stack.enter_context(_bare_post())
        # A host has listed the tools by now, and a person has typed a prompt.
        for server in [*servers.values(), stamped]:
            server.ask("tools/list", {})
        time.sleep(_WARM_SECONDS)
        number = 0
        first: dict[str, float] = {}
        taken: dict[str, list[float]] = {"bare POST": []} | {name: [] for name in servers}
        parts: list[dict[str, float]] = []
        for round_number in range(counts.calls + 1):
            runs: dict[str, float] = {}
            number += 1
            runs["bare POST"] = _posted(post, simulator, f"{urls.queue}/{ENDPOINT}", number)
            for name, server in servers.items():
                number += 1
                runs[name] = _called(server, simulator, number)
            number += 1
            part = _parts(stamped, simulator, number, stamps)
            if round_number == 0:
                first = runs
                continue
            parts.append(part)
            for name, milliseconds in runs.items():
                taken[name].append(milliseconds)
    rows: list[tuple[str | float | None, ...]] = [
        (name, first[name], median(values), percentile(values, 0.9)) for name, values in taken.items()
    ]
    rows += [(f"of it: {what}", None, median([part[what] for part in parts]), None) for what in parts[0]]
    rest = median(taken["kling-mcp, ledger in memory"]) - median(taken["bare POST"])
    return Table(
        name="paid_call",
        title="A paid call, from the host's line to fal's door",
        columns=("", "first call, ms", "median, ms", "p90, ms"),
        rows=tuple(rows),
        goals=(
            Goal(
                f"what is neither sync nor HTTP is at most {_GOAL_MS:.0f} ms",
                f"{rest:.1f} ms (ledger in memory, less the bare POST)",
                rest <= _GOAL_MS,
            ),
        ),
        notes=() if memory else ("this machine has no file system in memory, so that row has the syncs in it",),
    )


def _called(server: Server, simulator: Simulator, number: int) -> float:
    time.sleep(_REST_SECONDS)
    before = len(simulator.accepted)
    began = time.time()
    server.call("image_to_video", **arguments(number))
    return 1000 * (_arrival(simulator, before) - began)


def _posted(post: subprocess.Popen[str], simulator: Simulator, url: str, number: int) -> float:
    time.sleep(_REST_SECONDS)
    before = len(simulator.accepted)
    line = json.dumps([url, KEY, body(number)])
    began = time.time()
    _pipe(post.stdin).write(line + "\n")
    _pipe(post.stdin).flush()
    _pipe(post.stdout).readline()
    return 1000 * (_arrival(simulator, before) - began)


def _arrival(simulator: Simulator, before: int) -> float:
    # The ledger goes on for a moment after fal has answered, and another program may be first in line.
    assert len(simulator.accepted) == before + 1
    return simulator.accepted[-1].at


def _parts(server: Server, simulator: Simulator, number: int, stamps: Path) -> dict[str, float]:
    """Where the time of one call goes, by what the server writes down."""
    time.sleep(_REST_SECONDS)
    before, seen = len(simulator.accepted), len(stamps.read_text(encoding="utf-8").splitlines())
    began = time.time()
    server.call("image_to_video", **arguments(number))
    arrived = _arrival(simulator, before)
    lines = [json.loads(line) for line in stamps.read_text(encoding="utf-8").splitlines()[seen:]]
    ready = next(at for at, what, _ in lines if what == "sending recorded")
    ledger = sum(seconds for at, what, seconds in lines if what.startswith("ledger.") and at <= ready)
    return {
        "SDK, validation, price": 1000 * (ready - began - ledger),
        "ledger, with its syncs": 1000 * ledger,
        "HTTP": 1000 * (arrived - ready),
    }


def _bare_post() -> subprocess.Popen[str]:
    program = [sys.executable, str(Path(__file__).with_name("bare_post.py"))]
    pipe: Any = subprocess.PIPE
    return subprocess.Popen(program, stdin=pipe, stdout=pipe, text=True, env=clean_environment())


def _pipe(pipe: Any) -> Any:
    return pipe
