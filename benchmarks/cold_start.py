"""From nothing to the answer to `tools/list`, beside the least that the SDK allows."""

from __future__ import annotations

import tempfile
import time
from typing import TYPE_CHECKING

from benchmarks.peers import OTHER_SERVER, fal_mcp_server
from benchmarks.report import Goal, Table, median, percentile
from benchmarks.wire import FLOOR, OURS, Server

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.counts import Counts

__all__ = ["measure"]


def measure(counts: Counts) -> Table:
    """Start each server in turn, again and again."""
    commands: dict[str, Sequence[str]] = {"kling-mcp": OURS, "bare server on mcp": FLOOR}
    other = fal_mcp_server() if counts.peers else None
    if other is not None:
        commands[OTHER_SERVER] = (str(other),)
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for command in commands.values():
        _start(command)
    for _ in range(counts.starts):
        for name, command in commands.items():
            seconds[name].append(_start(command))
    floor = median(seconds["bare server on mcp"])
    # Each start beside the floor's start of the same round: what slows the machine slows both.
    against = median([ours / bare for ours, bare in zip(*list(seconds.values())[:2], strict=True)])
    rows = tuple(
        (name, 1000 * median(taken), 1000 * percentile(taken, 0.9), median(taken) / floor)
        for name, taken in seconds.items()
    )
    return Table(
        name="cold_start",
        title="Cold start: spawn to the answer to tools/list",
        columns=("server", "median, ms", "p90, ms", "of the bare server"),
        rows=rows,
        goals=(Goal("at most 1.0 of the bare server", f"{against:.2f} (median of rounds)", against <= 1.0),),
        notes=() if other is not None else (f"{OTHER_SERVER} could not be installed here, so it is left out",),
    )


def _start(command: Sequence[str]) -> float:
    with tempfile.TemporaryDirectory() as state:
        environment = {"KLING_MCP_DATA_DIR": state, "FAL_KEY": "id:secret"}
        began = time.perf_counter()
        with Server(command, environment) as server:
            server.list_tools_at_once()
            return time.perf_counter() - began
