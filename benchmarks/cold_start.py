"""From nothing to the answer to `tools/list`, beside the least that the SDK allows."""

from __future__ import annotations

import resource
import tempfile
import time
from typing import TYPE_CHECKING, Final

from benchmarks.peers import OTHER_SERVER, fal_mcp_server
from benchmarks.report import Goal, Table, median, percentile
from benchmarks.wire import FLOOR, OURS, Server

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.counts import Counts

__all__ = ["measure"]

_OURS: Final = "kling-mcp"
_BARE: Final = "bare server on mcp"


def measure(counts: Counts) -> Table:
    """Start each server in turn, again and again."""
    commands: dict[str, Sequence[str]] = {_OURS: OURS, _BARE: FLOOR}
    other = fal_mcp_server() if counts.peers else None
    if other is not None:
        commands[OTHER_SERVER] = (str(other),)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for command in commands.values():
        _start(command)
    for _ in range(counts.starts):
        for name, command in commands.items():
            taken[name].append(_start(command))
    wall = {name: [starts[0] for starts in all_starts] for name, all_starts in taken.items()}
    busy = {name: [starts[1] for starts in all_starts] for name, all_starts in taken.items()}
    rows = tuple(
        (
            name,
            1000 * median(wall[name]),
            1000 * percentile(wall[name], 0.9),
            median(wall[name]) / median(wall[_BARE]),
            1000 * median(busy[name]),
            median(busy[name]) / median(busy[_BARE]),
        )
        for name in commands
    )
    return Table(
        name="cold_start",
        title="Cold start: spawn to the answer to tools/list",
        columns=("server", "median, ms", "p90, ms", "of the bare server", "processor, ms", "of the bare server"),
        rows=rows,
        goals=tuple(
            Goal(
                f"{what}: at most 1.0 of the bare server",
                f"{median(of[_OURS]) / median(of[_BARE]):.2f}",
                median(of[_OURS]) <= median(of[_BARE]),
            )
            for what, of in (("time", wall), ("processor time", busy))
        ),
        notes=() if other is not None else (f"{OTHER_SERVER} is not installed here, so it is left out",),
    )


def _start(command: Sequence[str]) -> tuple[float, float]:
    """Seconds until the answer, and of processor time; the latter is the same on a machine that others use too."""
    with tempfile.TemporaryDirectory() as state:
        environment = {"KLING_MCP_DATA_DIR": state, "FAL_KEY": "id:secret"}
        before = _processor_seconds()
        began = time.perf_counter()
        with Server(command, environment) as server:
            server.list_tools_at_once()
            answered = time.perf_counter()
        return answered - began, _processor_seconds() - before


def _processor_seconds() -> float:
    """What the programs have used that this one started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
