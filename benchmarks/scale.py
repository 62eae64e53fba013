"""Many jobs in one server, and a ledger of years: memory, processor, and how long a question waits."""

from __future__ import annotations

import json
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.crowd import ran
from benchmarks.report import Goal, Table, median, percentile
from benchmarks.scene import ENDPOINT, MEMORY, arguments, body, our_server, simulated
from kling_mcp.jobs.job import Accepted, Finished, Intent, Sending
from kling_mcp.jobs.ledger import Limits
from kling_mcp.jobs.sqlite.engine import SqliteLedger

if TYPE_CHECKING:
    from benchmarks.counts import Counts
    from benchmarks.report import Cell

__all__ = ["measure"]

_QUESTIONS = 200
_DAY_MS = 86_400_000


def measure(counts: Counts) -> Table:
    """Crowds of jobs, then questions to a ledger with few and with many rows."""
    rows: list[tuple[Cell, ...]] = []
    for jobs in counts.crowds:
        crowd = ran(jobs, counts.job_seconds)
        rows.append(
            (
                f"{jobs:,} running jobs of {crowd.job_seconds:.0f} s",
                crowd.peak_mb,
                1000 * (crowd.peak_mb - crowd.before_mb) / jobs,
                1000 * crowd.cpu_seconds / jobs,
                median(crowd.get_ms),
                percentile(crowd.get_ms, 0.99),
                percentile(crowd.list_ms, 0.99),
            )
        )
    # As many as there are questions, so that each is about another job in both.
    some_rows = min(_QUESTIONS, counts.rows)
    few, many = _ledger(some_rows), _ledger(counts.rows)
    for size, (peak_mb, get_ms, list_ms) in ((some_rows, few), (counts.rows, many)):
        rows.append(
            (
                f"at rest, {size:,} rows in the ledger",
                peak_mb,
                None,
                None,
                median(get_ms),
                percentile(get_ms, 0.99),
                percentile(list_ms, 0.99),
            )
        )
    grown = median(many[1]) / median(few[1])
    some = next((jobs for jobs in counts.crowds if jobs >= 10), counts.crowds[-1])
    alone, together = (ran(jobs, counts.job_seconds).cpu_seconds / jobs for jobs in (some, counts.crowds[-1]))
    return Table(
        name="scale",
        title="Many jobs, and a large ledger",
        columns=(
            "",
            "peak memory, MB",
            "memory per job, kB",
            "processor per job, ms",
            "get_job p50, ms",
            "get_job p99, ms",
            "list_jobs p99, ms",
        ),
        rows=tuple(rows),
        goals=(
            Goal(
                f"a job costs at most 1.5 times as much processor time among {counts.crowds[-1]:,} as among {some}",
                f"{together / alone:.2f} times",
                together <= 1.5 * alone,
            ),
            Goal(
                f"get_job takes at most 1.25 times as long among {counts.rows:,} rows as among {some_rows}",
                f"{grown:.2f} times",
                grown <= 1.25,
            ),
        ),
    )


def _ledger(rows: int) -> tuple[float, list[float], list[float]]:
    """Peak memory in MB, and the milliseconds of get_job and list_jobs, with *rows* finished jobs."""
    with tempfile.TemporaryDirectory() as folder, simulated() as (_, urls):
        ids = _filled(Path(folder), rows)
        with our_server(urls, {"KLING_MCP_DATA_DIR": folder, "KLING_MCP_OUTPUT_DIR": "none"}) as server:
            server.listen(2)
            get_ms: list[float] = []
            list_ms: list[float] = []
            for number in range(_QUESTIONS):
                began = time.perf_counter()
                server.call("get_job", job_id=ids[number * len(ids) // _QUESTIONS])
                between = time.perf_counter()
                server.call("list_jobs", limit=20)
                get_ms.append(1000 * (between - began))
                list_ms.append(1000 * (time.perf_counter() - between))
            return server.peak_mb(), get_ms, list_ms


def _filled(folder: Path, rows: int) -> list[str]:
    """A ledger in *folder* with so many finished jobs, fifty a day; their ids."""
    place = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
    ids: list[str] = []
    now_ms = time.time_ns() // 1_000_000 - rows // 50 * _DAY_MS
    with closing(SqliteLedger(place, lambda: "benchmark")) as ledger:
        for number in range(rows):
            intent = _intent(number)
            now_ms += _DAY_MS // 50
            address = f"https://queue.fal.run/fal-ai/kling-video/requests/r{number}"
            ledger.reserve(intent, Limits(10**9, 10**12), "nobody", now_ms)
            ledger.apply(intent.job_id, Sending(body(number)), now_ms)
            accepted = Accepted(f"r{number}", f"{address}/status", address, f"{address}/cancel", 0)
            ledger.apply(intent.job_id, accepted, now_ms)
            ledger.apply(intent.job_id, Finished(_RESULT), now_ms)
            ledger.mark_saved(intent.job_id, f"/videos/{number}.mp4", None, now_ms)
            ids.append(intent.job_id)
    for file in place.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
        file.unlink()
    place.rmdir()
    return ids


def _intent(number: int) -> Intent:
    return Intent(
        job_id=f"kj_benchmark{number}",
        account="none",
        fingerprint=json.dumps(number),
        take=1,
        model="o3-standard",
        endpoint_id=ENDPOINT,
        arguments=arguments(number),
        estimate_microusd=560_000,
        ceiling_microusd=560_000,
        basis="5 s × $0.112/s (audio on)",  # noqa: RUF001 - as the catalog words it
        video_seconds=5,
        expected_seconds=94,
        warnings=(),
        nonce=None,
    )


_RESULT = {
    "video": {
        "url": "https://v3.fal.media/files/benchmarks/out.mp4",
        "content_type": "video/mp4",
        "file_name": "out.mp4",
        "file_size": 12_037_975,
    }
}
