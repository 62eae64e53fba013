"""Reading a job over standard input and output, beside a tool that does nothing on the bare server."""

from __future__ import annotations

import json
import random
import time
from typing import TYPE_CHECKING, Any

from benchmarks.report import Goal, Table, median, percentile
from benchmarks.scene import arguments, our_server, simulated
from benchmarks.wire import FLOOR, Server

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.counts import Counts

__all__ = ["measure"]


def measure(counts: Counts) -> Table:
    """Ask for the same finished job in each way, in turn."""
    with simulated(speed=1000, immediate=True) as (_, urls), our_server(urls) as ours, Server(FLOOR) as floor:
        floor.open()
        job_id = _finished(ours)
        as_large = len(json.dumps(ours.call("get_job", job_id=job_id)))
        asks: dict[str, Callable[[], Any]] = {
            "a tool that does nothing, bare server": lambda: floor.call("nothing"),
            "the same, with an answer as large as get_job's": lambda: floor.call("nothing", characters=as_large),
            "get_job": lambda: ours.call("get_job", job_id=job_id),
            "resource kling://jobs/{job_id}": lambda: ours.ask("resources/read", {"uri": f"kling://jobs/{job_id}"}),
            "resource kling://models": lambda: ours.ask("resources/read", {"uri": "kling://models"}),
            "list_jobs": lambda: ours.call("list_jobs"),
        }
        taken: dict[str, list[float]] = {name: [] for name in asks}
        chance = random.Random(7)  # a program that has just been asked answers faster: each comes first as often
        for _ in range(counts.reads):
            for name, ask in chance.sample(list(asks.items()), len(asks)):
                began = time.perf_counter()
                ask()
                taken[name].append(1000 * (time.perf_counter() - began))
    floor_ms = median(next(iter(taken.values())))
    rows = tuple(
        (name, median(values), percentile(values, 0.99), median(values) / floor_ms) for name, values in taken.items()
    )
    goals = [
        Goal(f"{name}: p50 at most 1.5 of the empty tool", f"{median(taken[name]) / floor_ms:.2f}", ok)
        for name in ("get_job", "resource kling://jobs/{job_id}")
        for ok in [median(taken[name]) <= 1.5 * floor_ms]
    ]
    return Table("reads", "Reading over stdio", ("call", "p50, ms", "p99, ms", "of the empty tool"), rows, tuple(goals))


def _finished(server: Server) -> str:
    started = server.call("image_to_video", **arguments(0))["structuredContent"]
    while True:
        job = server.call("get_job", job_id=started["job_id"], wait_seconds=10)["structuredContent"]
        if job["state"] == "completed" and job["video"]["saved_to"]:
            return str(job["job_id"])
