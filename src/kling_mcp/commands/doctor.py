"""
``kling-mcp doctor``: would a job work, and if not, what to do first.

Every question is free. The key is tried by asking for list prices, the hosts
by asking for nothing in particular, the folders by a file without a name that
is gone at once. No folder and no ledger is made.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Final, Literal

import anyio

from kling_mcp import __version__
from kling_mcp.catalog.added import added_endpoints
from kling_mcp.catalog.models import load
from kling_mcp.catalog.pricing import quote
from kling_mcp.commands.jobs import ledger_at
from kling_mcp.commands.terminal import paragraph
from kling_mcp.errors import FalUnreachable, KlingError, LedgerUnavailable, RateLimited, SettingsError
from kling_mcp.fal.failures import Intercepted
from kling_mcp.fal.http import Deadline, FalHttp, TransportError
from kling_mcp.fal.platform import FalPlatform
from kling_mcp.jobs.sqlite.engine import SQLITE_VERSION
from kling_mcp.media import disk
from kling_mcp.media.optional import INSTALL_HINT, usable
from kling_mcp.money import dollars, microusd_text, usd_text
from kling_mcp.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from decimal import Decimal
    from pathlib import Path

    from kling_mcp.jobs.sqlite.engine import SqliteLedger

__all__ = ["Finding", "doctor", "examine", "report"]

Mark = Literal["ok", "note", "stop"]

_MARKS: Final[dict[Mark, str]] = {"ok": "✓", "note": "!", "stop": "✗"}
_GROUPS: Final[tuple[tuple[Mark, str], ...]] = (
    ("stop", "Would stop a job"),
    ("note", "Worth knowing"),
    ("ok", "OK"),
)
_SUBJECT: Final = 8
_OLD_PRICES_DAYS: Final = 120
_LITTLE_SPACE_BYTES: Final = 500_000_000
_MEDIA: Final = {"av": "PyAV", "PIL": "Pillow", "pi_heif": "pi-heif"}


@dataclass(frozen=True, slots=True)
class Finding:
    """
    One thing that a job needs: *stop* means that a job would not work, *note* that something is worth knowing.

    Args:
        text: What was found, and what can be done about it.
        remedy: What to do, in one short sentence; empty where there is nothing to do.
    """

    mark: Mark
    subject: str
    text: str
    remedy: str = ""


def doctor() -> int:
    """Print what a job needs, in groups, and what to do first; 1 if something would stop a job."""
    width = min(max(shutil.get_terminal_size((100, 24)).columns, 40), 120)
    try:
        findings = anyio.run(examine, Settings.from_environment())
    except SettingsError as error:
        findings = [Finding("stop", "settings", str(error), "Fix that setting in the server's configuration.")]
    print("\n".join(report(findings, width)))
    return 1 if any(finding.mark == "stop" for finding in findings) else 0


def report(findings: Sequence[Finding], width: int) -> Iterator[str]:
    """
    *findings* in lines of at most *width*, what stops jobs first, and what to do first in the last line.

    Within a group the order of *findings* is kept: a job needs them in that order.
    """
    for mark, title in _GROUPS:
        group = [finding for finding in findings if finding.mark == mark]
        if group:
            yield title
            for finding in group:
                yield paragraph(f"{_MARKS[mark]} {finding.subject:<{_SUBJECT}}  ", finding.text, width)
            yield ""
    stops = sum(finding.mark == "stop" for finding in findings)
    todo = [one.remedy for mark in ("stop", "note") for one in findings if one.mark == mark and one.remedy]
    works = f"{stops} of these would stop a job." if stops else "A job would work."
    if not todo:
        yield f"{works if stops else 'All is well: a job would work.'} Nothing was spent."
        return
    yield f"{works} Nothing was spent."
    yield f"Do this first: {todo[0]}"


async def examine(settings: Settings) -> list[Finding]:
    """Everything that a job with *settings* needs, in the order in which it needs it."""
    findings = [_version()]
    findings += await _fal(settings)
    findings += [*_folders(settings), *await anyio.to_thread.run_sync(lambda: list(_ledger(settings)))]
    return [*findings, _media(), _prices(datetime.now(UTC).date()), *_added(settings)]


def _version() -> Finding:
    parts = f"kling-mcp {__version__}, Python {platform.python_version()}, SQLite {SQLITE_VERSION}"
    return Finding("ok", "version", f"{parts}, {platform.system()}.")


# ---- fal.ai


async def _fal(settings: Settings) -> list[Finding]:
    if settings.backend == "simulator":
        text = "KLING_MCP_BACKEND is simulator: no key, no network, no money, no real video. It was not started."
        return [Finding("note", "backend", text)]

    async with FalHttp(settings.hosts, settings.fal_key) as http:
        named = {"queue": settings.hosts.queue, "rest": settings.hosts.rest, "api": settings.hosts.api}
        unreachable: dict[str, str] = {}

        async def ask(name: str, base: str) -> None:
            reason = await _unreachable(http, base)
            if reason is not None:
                unreachable[name] = reason

        async with anyio.create_task_group() as tasks:
            for name, base in named.items():
                tasks.start_soon(ask, name, base)
        found = [
            Finding(
                "stop",
                "hosts",
                f"{named[name]} could not be reached: {unreachable[name]}. {_NETWORK}",
                f"Let this machine reach {named[name]}.",
            )
            for name in named
            if name in unreachable
        ]
        if not unreachable:
            found = [Finding("ok", "hosts", f"{', '.join(named.values())} answer.")]
        return [await _key(settings, http, asked="api" not in unreachable), *found]


_NO_KEY: Final = (
    "FAL_KEY is not set. Make a key at https://fal.ai/dashboard/keys and put it into the server's configuration as "
    "FAL_KEY; with KLING_MCP_BACKEND=simulator everything can be tried without one."
)
_NETWORK: Final = "Look at the network, a proxy or a firewall."


async def _unreachable(http: FalHttp, base: str) -> str | None:
    """Why nobody answers at *base*; any HTTP answer, without the key, is one."""

    try:
        await http.request("GET", f"{base}/", deadline=Deadline(5, 10, 10), authenticated=False)
    except TransportError as interrupted:
        return interrupted.reason
    return None


async def _key(settings: Settings, http: FalHttp, *, asked: bool) -> Finding:

    if settings.fal_key is None:
        return Finding("stop", "key", _NO_KEY, "Make a key at https://fal.ai/dashboard/keys and set it as FAL_KEY.")
    if not asked:
        return Finding("note", "key", "FAL_KEY is set; it could not be tried, because fal.ai was not reached.")
    try:
        await FalPlatform(http).prices([load().default.endpoint_id])
    except Intercepted as error:
        return Finding(
            "stop", "key", f"FAL_KEY is set; it could not be tried. {error.what} {error.next_step}", error.next_step
        )
    except (RateLimited, FalUnreachable) as error:
        return Finding(
            "note", "key", f"FAL_KEY is set; it could not be tried just now. {error.what}", "Run doctor again later."
        )
    except KlingError as error:
        return Finding("stop", "key", f"{error.what} {error.next_step}", error.next_step)
    return Finding("ok", "key", "FAL_KEY is set, and fal.ai takes it.")


# ---- this machine


def _folders(settings: Settings) -> Iterator[Finding]:
    if settings.output_dir is None:
        yield Finding(
            "note", "videos", "KLING_MCP_OUTPUT_DIR is set to none: videos are not saved, only linked for a while."
        )
    else:
        yield _writable("videos", settings.output_dir, "KLING_MCP_OUTPUT_DIR")
    missing = [folder for folder in settings.input_dirs if not os.access(folder, os.R_OK | os.X_OK)]
    there = [str(folder) for folder in settings.input_dirs if folder not in missing]
    if not there:
        text = "None of the folders in KLING_MCP_INPUT_DIRS can be read: pictures can only be https URLs or data: URIs."
        yield Finding("note", "pictures", text)
    else:
        unread = f" Not there: {', '.join(map(str, missing))}." if missing else ""
        yield Finding("ok", "pictures", f"Read from {', '.join(there)}.{unread}")
    for folder in settings.too_wide_dirs:
        text = f"{folder} is not read from: it is or holds the home folder. KLING_MCP_INPUT_DIRS can name others."
        yield Finding("note", "pictures", text)
    yield _writable("data", settings.data_dir, "KLING_MCP_DATA_DIR")


def _writable(subject: str, folder: Path, variable: str) -> Finding:
    """Whether a file can be made in *folder*, or in what it would be made in."""
    nearest = next((parent for parent in (folder, *folder.parents) if parent.exists()), folder)
    try:
        with tempfile.TemporaryFile(dir=nearest):
            free_bytes = disk.free_bytes(nearest)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        text = f"{folder} cannot be written ({reason}). {variable} can name another folder."
        return Finding("stop", subject, text, f"Let {folder} be written, or name another folder in {variable}.")
    if free_bytes is not None and free_bytes < _LITTLE_SPACE_BYTES:
        text = f"{folder} has {free_bytes // 1_000_000} MB left; a video takes up to 50 MB."
        return Finding("note", subject, text, f"Make room on the disk of {folder}.")
    return Finding("ok", subject, f"{folder} {'can be written' if nearest == folder else 'will be made'}.")


_LEDGER: Final = "Fix the ledger as described above; until then nothing is spent."


def _ledger(settings: Settings) -> Iterator[Finding]:
    try:
        ledger = ledger_at(settings)
    except LedgerUnavailable as error:
        yield Finding("stop", "ledger", error.what, _LEDGER)
        return
    if ledger is None:
        yield Finding("ok", "ledger", "None yet; the first job makes it.")
        yield _budget(settings, 0, 0)
        return
    try:
        trouble = ledger.trouble or ledger.check()
        if trouble is not None:
            yield Finding("stop", "ledger", trouble, _LEDGER)
            return
        yield _record(ledger)
        today = ledger.spend(time.time_ns() // 1_000_000)[0]
        yield _budget(settings, today.held_microusd, today.spent_microusd)
    except LedgerUnavailable as error:
        yield Finding("stop", "ledger", error.what, _LEDGER)
    finally:
        ledger.close()


def _record(ledger: SqliteLedger) -> Finding:
    unfinished = ledger.unfinished()
    unknown = [job.job_id for job in unfinished if job.state == "unknown"]
    whole = f"Whole; its sums agree. {len(unfinished)} unfinished."
    if not unknown:
        return Finding("ok", "ledger", whole)
    text = f"{whole} In state unknown, so perhaps charged: {', '.join(unknown)}. Ask the assistant to resolve it."
    return Finding("note", "ledger", text, f"Ask the assistant to resolve job {unknown[0]}.")


def _budget(settings: Settings, held_microusd: int, spent_microusd: int) -> Finding:
    left = settings.daily_budget_usd - dollars(held_microusd + spent_microusd)
    text = (
        f"Today {microusd_text(spent_microusd)} spent and {microusd_text(held_microusd)} held "
        f"of {usd_text(settings.daily_budget_usd)}; one job at most {usd_text(settings.max_job_usd)}."
    )
    cheapest = _cheapest_usd()
    if min(left, settings.max_job_usd) >= cheapest:
        return Finding("ok", "budget", text)
    name = "KLING_MCP_MAX_JOB_USD" if settings.max_job_usd < cheapest else "KLING_MCP_DAILY_BUDGET_USD"
    least = usd_text(cheapest)
    text = f"{text} The cheapest video holds {least}: {name} is too low for it."
    wait = "" if settings.max_job_usd < cheapest or settings.daily_budget_usd < cheapest else "Wait for 00:00 UTC, or "
    return Finding("stop", "budget", text, f"{wait}{'raise' if wait else 'Raise'} {name}.")


def _cheapest_usd() -> Decimal:
    """The least that a video from a picture can hold, in US dollars."""
    return min(
        quote(endpoint, seconds=min(endpoint.length.lengths), audio=False, voice=False).ceiling_usd
        for endpoint in load().of("image-to-video")
        if endpoint.length is not None
    )


# ---- what is bundled


def _media() -> Finding:

    missing = [name for module, name in _MEDIA.items() if not usable(module)]
    if not missing:
        return Finding("ok", "media", "Frames of videos are shown, and pictures converted, HEIC too.")
    text = (
        f"Not installed: {', '.join(missing)}. PyAV and Pillow show frames of videos, Pillow converts pictures, and "
        f"pi-heif reads HEIC. To install them: {INSTALL_HINT}"
    )
    return Finding("note", "media", text, f"Install what shows videos and converts pictures: {INSTALL_HINT}")


def _prices(today: date) -> Finding:
    newest = max(price.as_of for endpoint in load().endpoints for price in endpoint.prices)
    days = (today - _first_day(newest)).days
    text = f"The newest list price is from {newest}, {days} days ago."
    if days <= _OLD_PRICES_DAYS:
        return Finding("ok", "prices", text)
    text = f"{text} kling-mcp catalog check compares with fal.ai's."
    return Finding("note", "prices", text, "Run kling-mcp catalog check.")


def _first_day(as_of: str) -> date:
    """The first day of a year, a month or a day written as 2026, 2026-08 or 2026-08-19."""
    year, month, day = (*(int(part) for part in as_of.split("-")), 1, 1)[:3]
    return date(year, month, day)


def _added(settings: Settings) -> Iterator[Finding]:
    """The endpoints that the user has added; nothing where there are none."""
    found = added_endpoints(settings.data_dir)
    if found.files:
        named = [f"{one.model} ({one.mode}{'' if one.prices else ', no price yet'})" for _, one in found.files]
        yield Finding("ok", "added", f"Endpoints: {', '.join(named)}.")
    for line in found.left_out:
        yield Finding("note", "added", line)
