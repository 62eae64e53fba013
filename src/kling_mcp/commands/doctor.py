"""
``kling-mcp doctor``: would a job work, and if not, what to do.

Every question is free. The key is tried by asking for list prices, the hosts
by asking for nothing in particular, the folders by a file without a name that
is gone at once. No folder and no ledger is made.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import textwrap
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
    from collections.abc import Iterator
    from decimal import Decimal
    from pathlib import Path

    from kling_mcp.jobs.sqlite.engine import SqliteLedger

__all__ = ["Finding", "doctor", "examine"]

Mark = Literal["ok", "note", "stop"]

_MARKS: Final[dict[Mark, str]] = {"ok": "✓", "note": "!", "stop": "✗"}
_SUBJECT: Final = 8
_OLD_PRICES_DAYS: Final = 120
_LITTLE_SPACE_BYTES: Final = 500_000_000
_MEDIA: Final = {"av": "PyAV", "PIL": "Pillow", "pi_heif": "pi-heif"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: *stop* means that a job would not work, *note* that something is worth knowing."""

    mark: Mark
    subject: str
    text: str


def doctor() -> int:
    """Print a line for each thing that a job needs; 1 if something would stop one."""
    width = min(max(shutil.get_terminal_size((100, 24)).columns, 40), 120)
    try:
        settings = Settings.from_environment()
    except SettingsError as error:
        _print(Finding("stop", "settings", str(error)), width)
        return 1
    findings = anyio.run(examine, settings)
    for finding in findings:
        _print(finding, width)
    stops = sum(finding.mark == "stop" for finding in findings)
    print(f"\n{f'{stops} of these would stop a job.' if stops else 'A job would work.'} Nothing was spent.")
    return 1 if stops else 0


async def examine(settings: Settings) -> list[Finding]:
    """Everything that a job with *settings* needs, in the order in which it needs it."""
    findings = [_version()]
    findings += await _fal(settings)
    findings += [*_folders(settings), *await anyio.to_thread.run_sync(lambda: list(_ledger(settings)))]
    return [*findings, _media(), _prices(datetime.now(UTC).date()), *_added(settings)]


def _print(finding: Finding, width: int) -> None:
    head = f"{_MARKS[finding.mark]} {finding.subject:<{_SUBJECT}}  "
    body = textwrap.wrap(finding.text, width - len(head), break_long_words=False, break_on_hyphens=False)
    print(head + f"\n{' ' * len(head)}".join(body))


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
            Finding("stop", "hosts", f"{named[name]} could not be reached: {unreachable[name]}. {_NETWORK}")
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
        return Finding("stop", "key", _NO_KEY)
    if not asked:
        return Finding("note", "key", "FAL_KEY is set; it could not be tried, because fal.ai was not reached.")
    try:
        await FalPlatform(http).prices([load().default.endpoint_id])
    except Intercepted as error:
        return Finding("stop", "key", f"FAL_KEY is set; it could not be tried. {error.what} {error.next_step}")
    except (RateLimited, FalUnreachable) as error:
        return Finding("note", "key", f"FAL_KEY is set; it could not be tried just now. {error.what}")
    except KlingError as error:
        return Finding("stop", "key", f"{error.what} {error.next_step}")
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
        return Finding("stop", subject, f"{folder} cannot be written ({reason}). {variable} can name another folder.")
    if free_bytes is not None and free_bytes < _LITTLE_SPACE_BYTES:
        return Finding("note", subject, f"{folder} has {free_bytes // 1_000_000} MB left; a video takes up to 50 MB.")
    return Finding("ok", subject, f"{folder} {'can be written' if nearest == folder else 'will be made'}.")


def _ledger(settings: Settings) -> Iterator[Finding]:
    try:
        ledger = ledger_at(settings)
    except LedgerUnavailable as error:
        yield Finding("stop", "ledger", error.what)
        return
    if ledger is None:
        yield Finding("ok", "ledger", "None yet; the first job makes it.")
        yield _budget(settings, 0, 0)
        return
    try:
        trouble = ledger.trouble or ledger.check()
        if trouble is not None:
            yield Finding("stop", "ledger", trouble)
            return
        yield _record(ledger)
        today = ledger.spend(time.time_ns() // 1_000_000)[0]
        yield _budget(settings, today.held_microusd, today.spent_microusd)
    except LedgerUnavailable as error:
        yield Finding("stop", "ledger", error.what)
    finally:
        ledger.close()


def _record(ledger: SqliteLedger) -> Finding:
    unfinished = ledger.unfinished()
    unknown = [job.job_id for job in unfinished if job.state == "unknown"]
    whole = f"Whole; its sums agree. {len(unfinished)} unfinished."
    if not unknown:
        return Finding("ok", "ledger", whole)
    text = f"{whole} In state unknown, so perhaps charged: {', '.join(unknown)}. Ask the assistant to resolve it."
    return Finding("note", "ledger", text)


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
    return Finding("stop", "budget", f"{text} The cheapest video holds {least}: {name} is too low for it.")


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
    return Finding("note", "media", text)


def _prices(today: date) -> Finding:
    newest = max(price.as_of for endpoint in load().endpoints for price in endpoint.prices)
    days = (today - _first_day(newest)).days
    text = f"The newest list price is from {newest}, {days} days ago."
    if days <= _OLD_PRICES_DAYS:
        return Finding("ok", "prices", text)
    return Finding("note", "prices", f"{text} kling-mcp catalog check compares with fal.ai's.")


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
