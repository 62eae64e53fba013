"""``kling-mcp jobs --watch``: follows open jobs in the ledger."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from kling_mcp.commands.job_page import cuts_of, price, short_path
from kling_mcp.commands.terminal import bar, plain, rendered
from kling_mcp.jobs.warnings import place_in_line
from kling_mcp.server.job_texts import describe_status
from kling_mcp.server.views import moment, prompt_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kling_mcp.commands.terminal import Screen
    from kling_mcp.jobs.job import Job
    from kling_mcp.jobs.ledger import Ledger

__all__ = ["watch"]

_LOOK_SECONDS: Final = 1.0
_CTRL_C: Final = 130
"""The exit code of a program that was interrupted."""
_LONGEST_PROMPT: Final = 200
_NEARLY: Final = 0.99
"""The most that a bar shows while only the elapsed time is known."""
_BAR: Final = 20
_HOW: Final = "Ctrl-C stops watching. The jobs go on in the assistant's server."


def watch(
    ledger: Ledger,
    screen: Screen,
    now_ms: Callable[[], int],
    pause: Callable[[float], None],
    only: str | None = None,
) -> int:
    """
    Follow open jobs until all have ended: a bar for each on a terminal, elsewhere a line for each change.

    A job in state unknown is shown and not waited for: it may stay so until the user settles it.

    Args:
        only: The id of the one job to follow; None for all of them.

    Returns:
        0, or 130 after Ctrl-C.

    Raises:
        LedgerUnavailable: The ledger cannot be read.
    """
    watched = _Watched(ledger, screen, only)
    try:
        while going_on := watched.look(now_ms()):
            screen.draw([*(line for job in going_on for line in _picture(job, now_ms())), _HOW])
            pause(_LOOK_SECONDS)
        screen.draw([])
        watched.summarize()
    except KeyboardInterrupt:
        return _CTRL_C
    finally:
        screen.end()
    return 0


class _Watched:
    """The jobs seen open so far, and what was last written about each."""

    def __init__(self, ledger: Ledger, screen: Screen, only: str | None) -> None:
        self._ledger = ledger
        self._screen = screen
        self._only = only
        self._said: dict[str, object] = {}
        self._unknown: list[str] = []

    def look(self, now_ms: int) -> Sequence[Job]:
        """Write what has changed, and return the jobs that may still change, oldest first."""
        unfinished = [job for job in self._ledger.unfinished() if self._only in {None, job.job_id}]
        open_now = {job.job_id for job in unfinished}
        before = [self._only] if self._only and not self._said else self._said
        for job_id in [job_id for job_id in before if job_id not in open_now]:
            self._say(self._ledger.get(job_id), now_ms, ended=True)
            if self._only is None:
                del self._said[job_id]
        for job in unfinished:
            self._say(job, now_ms, ended=not _going_on(job))
        self._unknown = [job.job_id for job in unfinished if job.state == "unknown"]
        return [job for job in unfinished if _going_on(job)]

    def _say(self, job: Job, now_ms: int, *, ended: bool) -> None:
        trouble = None if job.trouble is None else job.trouble.code
        news = (job.state, place_in_line(job), job.progress_note, trouble, job.saved_to, job.save_trouble)
        if self._said.get(job.job_id) != news and (ended or not self._screen.live):
            words = _end(job) if ended else plain(describe_status(job, now_ms))
            self._screen.write(f"{moment(now_ms)}  {job.job_id}  {words}")
        self._said[job.job_id] = news

    def summarize(self) -> None:
        """Say why there is nothing more to watch."""
        if self._only is None:
            self._screen.write("No job is open." if not self._unknown else "No other job is open.")
        for job_id in self._unknown:
            self._screen.write(f"In state unknown, so perhaps charged: kling-mcp jobs {job_id} says what to do.")


def _going_on(job: Job) -> bool:
    """Whether *job*, which is unfinished, may still change without the user; a finished one may be downloading."""
    return job.state != "unknown" and job.save_trouble is None


def _end(job: Job) -> str:
    """How *job* ended, its cost, and where its video is or why there is none."""
    paid = f"{job.state.replace('_', ' ')}, {price(job)}"
    if job.saved_to is not None:
        return f"{paid}: {short_path(Path(job.saved_to))}"
    if job.fault is not None:
        return f"{paid}: {job.fault.code}: {plain(job.fault.message)}"
    return f"{paid}: {plain(job.save_trouble)}" if job.save_trouble else paid


def _picture(job: Job, now_ms: int) -> tuple[str, str]:
    """Two lines: the job, and its bar."""
    part = _part(job, now_ms)
    head = f"{job.job_id}  {job.intent.model}  {price(job)}  {plain(prompt_of(job, _LONGEST_PROMPT))}"
    return head, f"    {bar(part, cuts_of(job), _BAR)} {part:4.0%}  {plain(describe_status(job, now_ms))}"


def _part(job: Job, now_ms: int) -> float:
    """How much of *job* is done, by its note if that says so, else by its expected time."""
    if job.state == "completed":
        return 1.0
    if job.state == "running" and (noted := rendered(job.progress_note)) is not None:
        return noted[1]
    expected_seconds = job.intent.expected_seconds
    if job.state != "running" or not expected_seconds:
        return 0.0
    lasts_ms = now_ms - (job.started_ms or job.accepted_ms or job.created_ms)
    return min(max(lasts_ms / 1000 / expected_seconds, 0.0), _NEARLY)
