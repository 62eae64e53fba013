"""
``kling-mcp jobs``: the ledger as a table, for the person who pays.

Looking never creates a ledger: an empty one would look like
a record that says that nothing was ever spent.
"""

from __future__ import annotations

import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kling_mcp.jobs.sqlite.engine import SqliteLedger
from kling_mcp.money import microusd_text, usd_text
from kling_mcp.settings import expanded

if TYPE_CHECKING:
    from kling_mcp.jobs.job import Job
    from kling_mcp.jobs.ledger import DaySpend
    from kling_mcp.settings import Settings

__all__ = ["jobs", "ledger_at"]

_PAGE: Final = 200
_AGES: Final = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def jobs(settings: Settings) -> int:
    """Print every job, newest first, and today's money; 1 if the ledger is in trouble."""
    ledger = ledger_at(settings)
    if ledger is None:
        print(f"No jobs yet: there is no ledger in {settings.data_dir}.")
        return 0
    now_ms = time.time_ns() // 1_000_000
    try:
        trouble = ledger.trouble
        if trouble is not None:
            print(f"kling-mcp: {trouble}", file=sys.stderr)
        _print_jobs(ledger, now_ms)
        print(f"\n{_today(ledger.spend(now_ms)[0], settings)}")
    finally:
        ledger.close()
    return 0 if trouble is None else 1


def ledger_at(settings: Settings) -> SqliteLedger | None:
    """
    The ledger that a server with *settings* uses, or None if it does not exist yet.

    A ledger that was there before and is gone is opened too: its trouble says so.

    Raises:
        LedgerUnavailable: It is there and cannot be opened.
    """
    name = "ledger" if settings.backend == "fal" else "simulator"
    traces = (settings.data_dir / f"{name}.{ending}" for ending in ("sqlite3", "id"))
    if not any(trace.exists() for trace in traces):
        return None

    return SqliteLedger(settings.data_dir, lambda: uuid.uuid4().hex, name)


def _print_jobs(ledger: SqliteLedger, now_ms: int) -> None:
    page = ledger.page(limit=_PAGE)
    if not page:
        print("No jobs yet.")
        return
    print(f"{'JOB':<25} {'STATE':<13} {'MODEL':<17} {'VIDEO':>5}  {'COST':>7}  {'AGE':>6}")
    while page:
        for job in page:
            _print_job(job, now_ms)
        page = ledger.page(limit=_PAGE, before_seq=page[-1].seq)


def _print_job(job: Job, now_ms: int) -> None:
    intent = job.intent
    length = "voice" if intent.voice else f"{intent.video_seconds} s"
    print(
        f"{job.job_id:<25} {job.state:<13} {intent.model:<17} {length:>5}"
        f"  {_cost(job):>7}  {_age(now_ms - job.created_ms):>6}"
    )
    mode = "" if intent.mode == "image-to-video" else f"{intent.mode}: "
    if mode or intent.description:
        print(f"    {mode}{' '.join(intent.description.split())}"[:80])
    if job.saved_to:
        print(f"    {_short(Path(job.saved_to))}")
    elif job.state == "unknown":
        print("    fal.ai may have it: look at its list of requests, then resolve_job")
    elif job.fault is not None:
        print(f"    {job.fault.code}: {job.fault.message.partition('. ')[0]}"[:80])
    elif job.save_trouble:
        print(f"    {job.save_trouble}"[:80])


def _cost(job: Job) -> str:
    """What it cost; with a tilde where that is the estimate."""
    if job.cost_microusd is None:
        return f"~{microusd_text(job.intent.estimate_microusd)}"
    return f"{'~' if job.cost_microusd and job.cost_source == 'estimated' else ''}{microusd_text(job.cost_microusd)}"


def _age(age_ms: int) -> str:
    seconds = max(age_ms // 1000, 0)
    unit, size = next(((unit, size) for unit, size in _AGES if seconds >= size), _AGES[-1])
    return f"{seconds // size} {unit}"


def _short(path: Path) -> str:
    home = Path(expanded("~"))
    return f"~/{path.relative_to(home).as_posix()}" if path.is_relative_to(home) and home != path else str(path)


def _today(day: DaySpend, settings: Settings) -> str:
    return (
        f"{day.day} (UTC): {microusd_text(day.spent_microusd)} spent and {microusd_text(day.held_microusd)} held "
        f"of {usd_text(settings.daily_budget_usd)}; one job costs at most {usd_text(settings.max_job_usd)}."
    )
