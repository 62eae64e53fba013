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

from kling_mcp.commands.job_page import age, job_page, price, short_path
from kling_mcp.commands.terminal import Screen, clip, plain
from kling_mcp.commands.watch import watch
from kling_mcp.errors import UnknownJob
from kling_mcp.ids import job_id_in
from kling_mcp.jobs.sqlite.engine import SqliteLedger
from kling_mcp.money import microusd_text, usd_text
from kling_mcp.server.views import prompt_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kling_mcp.jobs.job import Job
    from kling_mcp.jobs.ledger import DaySpend
    from kling_mcp.settings import Settings

__all__ = ["jobs", "ledger_at"]

_PAGE: Final = 200
_LONGEST_PROMPT: Final = 500


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def jobs(
    settings: Settings,
    named: str = "",
    *,
    follow: bool = False,
    screen: Screen | None = None,
    now_ms: Callable[[], int] = _now_ms,
    pause: Callable[[float], None] = time.sleep,
) -> int:
    """
    Show every job and today's money, or one job in full, or follow those that are open.

    It only reads the ledger.

    Args:
        named: A job's id, or fal's request id, in any spelling; empty for all jobs.
        follow: Show the progress of open jobs until all have ended, or until Ctrl-C.
        screen: Where to write.
        now_ms: UTC milliseconds since 1970.
        pause: Sleeps for a number of seconds between two reads of the ledger.

    Returns:
        0; 1 if something is wrong with the ledger, 130 after Ctrl-C.

    Raises:
        UnknownJob: No job has that id.
        LedgerUnavailable: The ledger cannot be read.
    """
    screen = Screen() if screen is None else screen
    ledger = ledger_at(settings)
    if ledger is None:
        if named:
            raise UnknownJob(job_id_in(named))
        screen.write(f"No jobs yet: there is no ledger in {settings.data_dir}.")
        return 0
    try:
        trouble = ledger.trouble
        if trouble is not None:
            print(f"kling-mcp: {trouble}", file=sys.stderr)
        one = _named(ledger, named) if named else None
        code = 0
        if follow:
            code = watch(ledger, screen, now_ms, pause, only=one and one.job_id)
        elif one is not None:
            screen.write(job_page(one, now_ms(), screen.width))
        else:
            for line in _table(ledger, now_ms(), screen.width):
                screen.write(line)
            screen.write(f"\n{_today(ledger.spend(now_ms())[0], settings)}")
    finally:
        ledger.close()
    return code or (0 if trouble is None else 1)


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


def _named(ledger: SqliteLedger, named: str) -> Job:
    job_id = job_id_in(named)
    found = ledger.of_request(job_id)
    return ledger.get(job_id) if found is None else found


def _table(ledger: SqliteLedger, now_ms: int, width: int) -> Iterator[str]:
    page = ledger.page(limit=_PAGE)
    if not page:
        yield "No jobs yet."
        return
    yield f"{'JOB':<25} {'STATE':<13} {'MODEL':<17} {'VIDEO':>5}  {'PRICE':>7}  {'AGE':>6}"
    while page:
        for job in page:
            yield from _rows(job, now_ms, width)
        page = ledger.page(limit=_PAGE, before_seq=page[-1].seq)


def _rows(job: Job, now_ms: int, width: int) -> Iterator[str]:
    intent = job.intent
    length = "voice" if intent.voice else f"{intent.video_seconds} s"
    yield (
        f"{job.job_id:<25} {job.state:<13} {intent.model:<17} {length:>5}"
        f"  {price(job):>7}  {age(now_ms - job.created_ms):>6}"
    )
    mode = "" if intent.mode == "image-to-video" else f"{intent.mode}: "
    if line := f"{mode}{plain(prompt_of(job, _LONGEST_PROMPT))}":
        yield clip(f"    {line}", width)
    if job.saved_to:
        yield f"    {short_path(Path(job.saved_to))}"
    elif job.state == "unknown":
        yield "    fal.ai may have it: look at its list of requests, then resolve_job"
    elif job.fault is not None:
        yield clip(f"    {job.fault.code}: {plain(job.fault.message.partition('. ')[0])}", width)
    elif job.save_trouble:
        yield clip(f"    {plain(job.save_trouble)}", width)


def _today(day: DaySpend, settings: Settings) -> str:
    return (
        f"{day.day} (UTC): {microusd_text(day.spent_microusd)} spent and {microusd_text(day.held_microusd)} held "
        f"of {usd_text(settings.daily_budget_usd)}; one job costs at most {usd_text(settings.max_job_usd)}."
    )
