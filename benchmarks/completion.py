"""From the moment that a job has ended to the client's notice of it, and how often fal was asked for that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.crowd import ran
from benchmarks.official import CLIENTS, run
from benchmarks.report import Goal, Table, median, percentile
from benchmarks.scene import MODEL_SECONDS
from kling_mcp.simulator.app import Simulator, Switches
from kling_mcp.simulator.render import sample_video

if TYPE_CHECKING:
    from benchmarks.counts import Counts
    from benchmarks.official import Client
    from benchmarks.report import Cell

__all__ = ["measure"]

_JAVASCRIPT_POLLS_SECONDS = 0.5


def measure(counts: Counts) -> Table:
    """One job with each of fal's clients, then crowds of ours."""
    rows: list[tuple[Cell, ...]] = []
    for client in CLIENTS:
        theirs = _theirs(client, counts.job_seconds)
        if theirs is not None:
            lag, questions = theirs
            rows.append(
                (client, 1, counts.job_seconds, lag, lag, float(questions), questions / (2 * counts.job_seconds))
            )
    goals: list[Goal] = []
    for jobs in counts.crowds:
        crowd = ran(jobs, counts.job_seconds)
        lag = median(crowd.lags)
        script = crowd.job_seconds / _JAVASCRIPT_POLLS_SECONDS
        share = crowd.questions_per_job / script
        rows.append(
            (
                "kling-mcp",
                jobs,
                crowd.job_seconds,
                lag,
                percentile(crowd.lags, 0.99),
                crowd.questions_per_job,
                share,
            )
        )
        goals.append(
            Goal(
                f"{jobs:,} jobs: at most 1 s of lag for at most 1/5 of the JavaScript client's requests",
                f"{lag:.2f} s (median), {share:.2f} of two requests a second",
                lag <= 1 and share <= 1 / 5,
            )
        )
    return Table(
        name="completion",
        title="From the end of a job to the client's notice",
        columns=(
            "client",
            "running jobs",
            "a job, s",
            "median lag, s",
            "p99 lag, s",
            "requests per job",
            "of two requests a second",
        ),
        rows=tuple(rows),
        goals=tuple(goals),
        notes=("requests are status calls, streams and results; the submit is not counted",),
    )


def _theirs(client: Client, seconds: float) -> tuple[float, int] | None:
    """The lag and the number of questions of one of fal's clients."""
    switches = Switches(dispatch_seconds=0.0)
    simulator = Simulator(speed=MODEL_SECONDS / seconds, renderer=sample_video, switches=switches)
    known = run(client, simulator, "wait", 0)
    if known is None:
        return None
    job = simulator.queue.get(simulator.accepted[0].request_id)
    questions = [request for request in simulator.requests if request.kind in {"status", "stream", "result"}]
    return known - ((job.ended_at if job else None) or 0.0), len(questions)
