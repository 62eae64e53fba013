"""
Many jobs in one server: how late each end is known, what it costs to know it, and what else suffers meanwhile.

The clock of a job's end is the simulator's. The client has subscribed to every
job, and the notice that counts is the first one after the server has written the
end down.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.scene import MODEL_SECONDS, arguments, our_server, simulated
from kling_mcp.jobs.sqlite.engine import SqliteLedger

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from benchmarks.wire import Server
    from kling_mcp.simulator.app import Simulator

__all__ = ["Crowd", "ran"]

_LOOK_SECONDS = 0.05
_LOOKING_SECONDS = 10.0
_LONGEST_SECONDS = 180.0
_OPEN = ("queued", "running", "submitting", "preparing")


@dataclass(frozen=True, slots=True)
class Crowd:
    """
    What a crowd of jobs was like; lags in seconds, one for each job.

    Attributes:
        requests: How many calls of each kind reached fal, from the first submit to the last end.
        cpu_seconds: Processor time from the first submit to the last end, without that of the questions below.
        get_ms: How long each get_job took while jobs were running.
        list_ms: The same for list_jobs.
    """

    jobs: int
    job_seconds: float
    lags: tuple[float, ...]
    requests: Mapping[str, int]
    submit_seconds: float
    cpu_seconds: float
    before_mb: float
    peak_mb: float
    get_ms: tuple[float, ...]
    list_ms: tuple[float, ...]

    @property
    def questions_per_job(self) -> float:
        """Status calls, streams and results for each job."""
        return sum(self.requests[kind] for kind in ("status", "stream", "result")) / self.jobs


@cache
def ran(jobs: int, seconds: float) -> Crowd:
    """The figures of *jobs* jobs of *seconds* each, all running at once; the same crowd runs once in a process."""
    # Jobs last long enough that the last one has been sent before the first one ends.
    lasting = max(seconds, 0.06 * jobs)
    with (
        tempfile.TemporaryDirectory() as state,
        simulated(speed=MODEL_SECONDS / lasting, immediate=True) as (simulator, urls),
        our_server(urls, {"KLING_MCP_OUTPUT_DIR": "none", "KLING_MCP_DATA_DIR": state}) as server,
    ):
        # What the first job needs is loaded by then.
        server.listen(2)
        return _run(simulator, server, Path(state), jobs, lasting)


def _run(simulator: Simulator, server: Server, folder: Path, jobs: int, lasting: float) -> Crowd:
    before_mb, cpu_seconds = server.now_mb(), server.cpu_seconds()
    began = time.monotonic()
    requests: dict[str, str] = {}
    for number in range(jobs):
        started = server.call("image_to_video", **arguments(number))["structuredContent"]
        requests[started["job_id"]] = started["request_id"]
        server.ask("resources/subscribe", {"uri": f"kling://jobs/{started['job_id']}"})
    submit_seconds = time.monotonic() - began
    before_looking = server.cpu_seconds()
    get_ms, list_ms = _look_around(server, list(requests), min(_LOOKING_SECONDS, lasting / 3))
    looking_seconds = server.cpu_seconds() - before_looking
    _until_all_ended(server)
    kinds = [request.kind for request in simulator.requests]
    told = _told(server.notices, _ends(folder, requests))
    ended = {job_id: simulator.queue.get(request_id) for job_id, request_id in requests.items()}
    lags = [told[job_id] - (job.ended_at or 0.0) for job_id, job in ended.items() if job is not None]
    return Crowd(
        jobs,
        lasting,
        tuple(lags),
        {kind: kinds.count(kind) for kind in ("submit", "status", "stream", "result")},  # type: ignore[arg-type]
        submit_seconds,
        server.cpu_seconds() - cpu_seconds - looking_seconds,
        before_mb,
        server.peak_mb(),
        get_ms,
        list_ms,
    )


def _look_around(server: Server, job_ids: list[str], seconds: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Ask for a job twenty times a second, and for the list in between."""
    get_ms: list[float] = []
    list_ms: list[float] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until or not list_ms:
        server.listen(_LOOK_SECONDS)
        get_ms.append(_took_ms(server, "get_job", job_id=job_ids[len(get_ms) % len(job_ids)]))
        if len(get_ms) % 5 == 0 or not list_ms:
            list_ms.append(_took_ms(server, "list_jobs"))
    return tuple(get_ms), tuple(list_ms)


def _took_ms(server: Server, tool: str, **given: object) -> float:
    began = time.perf_counter()
    server.call(tool, **given)
    return 1000 * (time.perf_counter() - began)


def _until_all_ended(server: Server) -> None:
    """Note what comes until no job is left that could end."""
    stop = time.monotonic() + _LONGEST_SECONDS
    while time.monotonic() < stop:
        server.listen(1)
        if not any(server.call("list_jobs", state=state, limit=1)["structuredContent"]["jobs"] for state in _OPEN):
            server.listen(1)
            return
    raise TimeoutError


def _ends(folder: Path, job_ids: Iterable[str]) -> dict[str, float]:
    """When the server wrote down the end of each job, in seconds since 1970."""
    with closing(SqliteLedger(folder, lambda: "")) as ledger:
        return {job_id: (ledger.get(job_id).ended_ms or 0) / 1000 for job_id in job_ids}


def _told(notices: Iterable[tuple[float, dict[str, Any]]], ends: Mapping[str, float]) -> dict[str, float]:
    """When the client was told of each job for the first time after its end was written down."""
    told: dict[str, float] = {}
    for at, notice in notices:
        job_id = str(notice.get("params", {}).get("uri", "")).removeprefix("kling://jobs/")
        if job_id in ends and at >= ends[job_id] and job_id not in told:
            told[job_id] = at
    return told
