"""
One answer lost after fal has taken the request: how many paid requests come of one wish.

The connection is reset once fal has the request. A client that sends again pays again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.official import CLIENTS, run
from benchmarks.report import Goal, Table
from benchmarks.scene import arguments, our_server
from kling_mcp.simulator.app import Simulator
from kling_mcp.simulator.faults import Answer, DropAfterAccept
from kling_mcp.simulator.render import sample_video
from kling_mcp.simulator.serve import running_in_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.counts import Counts
    from benchmarks.report import Cell
    from kling_mcp.simulator.faults import Fault

__all__ = ["measure"]

_FAULTS: dict[str, Fault | None] = {
    "nothing goes wrong": None,
    "the connection is reset": DropAfterAccept(),
    "the connection is closed": DropAfterAccept(reset=False),
    "a proxy answers 502": Answer(502, b"<html>nginx</html>", accepted=True, bare=True),
}


def measure(counts: Counts) -> Table:
    """One wish with each client for each fault."""
    clients: dict[str, Callable[[Simulator], object]] = {"kling-mcp": _ours}
    for client in CLIENTS:
        clients[client] = lambda simulator, client=client: run(client, simulator, "submit", 0)
    rows: list[tuple[Cell, ...]] = []
    for what, fault in _FAULTS.items():
        row: list[Cell] = [what]
        for ask in clients.values():
            simulator = Simulator(speed=0.1, renderer=sample_video)
            if fault is not None:
                simulator.faults.add("submit", fault)
            done = ask(simulator)
            row.append(None if done is None else len(simulator.accepted))
        rows.append(tuple(row))
    ours = max(int(row[1] or 0) for row in rows)
    return Table(
        name="faults",
        title="Paid requests from one wish, when the answer to the first is lost",
        columns=("after fal has the request", *clients),
        rows=tuple(rows),
        goals=(Goal("one wish is one paid request", f"{ours} at most", ours == 1),),
    )


def _ours(simulator: Simulator) -> bool:
    with running_in_thread(simulator) as urls, our_server(urls) as server:
        # The same wish twice, as an assistant does that has got no video.
        server.call("image_to_video", **arguments(0))
        server.call("image_to_video", **arguments(0))
    return True
