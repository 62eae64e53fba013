"""From fal's link to a file in the user's folder; whatever goes wrong here, the job stays completed."""

from __future__ import annotations

import logging
import stat
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread

from kling_mcp.fal.queue import video_of_body
from kling_mcp.media import downloads
from kling_mcp.shown import shorten_data_uris

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from kling_mcp.fal.client import Fal
    from kling_mcp.fal.queue import Video
    from kling_mcp.jobs.job import Job
    from kling_mcp.jobs.store import JobStore
    from kling_mcp.settings import Settings

__all__ = ["Saver", "described"]

log = logging.getLogger(__name__)

_TRIES: Final = 6
_AT_ONCE: Final = 4

_PASSES: Final = frozenset({downloads.Reason.INTERRUPTED, downloads.Reason.DISK_FULL})
"""Trouble that ends by itself: the video is paid for, so recovery tries again."""
_LATE: Final = frozenset({downloads.Reason.EXPIRED, downloads.Reason.DAMAGED})
"""fal names the address before the file is there, so for a day this may still become a video."""
_LATE_MS: Final = 24 * 3_600_000


class Saver:
    """Downloads finished videos into the output folder, a few at a time."""

    def __init__(self, store: JobStore, settings: Settings, fal: Callable[[], Fal]) -> None:
        self._store = store
        self._settings = settings
        self._fal = fal
        self._slots = anyio.CapacityLimiter(_AT_ONCE)

    async def save(self, job: Job) -> Job:
        """Save the video of *job* and note where, or why not."""
        if job.intent.voice is not None:
            # Its id is in the result, and that is all.
            return await self._noted(job, None, None)
        folder = self._settings.output_dir
        video = _video(job)
        if folder is None or video is None:
            return await self._noted(job, None, None if video else "fal.ai's result names no video.")
        if job.saved_to is not None:
            return job
        name = downloads.video_name(
            datetime.fromtimestamp(job.created_ms / 1000, UTC), job.intent.model, described(job), job.job_id
        )
        async with self._slots:
            attempt = 0
            while True:
                attempt += 1
                self._store.runtime.checkpoint("saving")
                try:
                    path = await self._downloaded(video, folder, name)
                except downloads.DownloadError as error:
                    if error.reason is downloads.Reason.BUSY:
                        # Another process is at it and will note where; should it die, recovery comes here again.
                        return job
                    if error.reason is not downloads.Reason.INTERRUPTED or attempt == _TRIES:
                        log.warning("a video was not saved", extra={"job_id": job.job_id, "why": str(error)})
                        since_ms = self._store.runtime.now_ms() - (job.ended_ms or 0)
                        again = error.reason in _PASSES or (error.reason in _LATE and since_ms < _LATE_MS)
                        return await self._noted(job, None, str(error), again=again)
                    await self._store.runtime.sleep(2**attempt * (0.5 + self._store.runtime.chance()))
                else:
                    self._store.runtime.checkpoint("saved")
                    await anyio.to_thread.run_sync(_write_sidecar, path, _sidecar(job))
                    return await self._noted(job, str(path), None)

    async def _downloaded(self, video: Video, folder: Path, name: str) -> Path:
        if await anyio.to_thread.run_sync(_is_there, folder / name):
            return folder / name
        return await downloads.save(self._fal().media, video.url, folder, name, expected_size=video.file_size)

    async def _noted(self, job: Job, path: str | None, trouble: str | None, *, again: bool = False) -> Job:
        if again and job.save_trouble == trouble:
            # Already so in the ledger.
            return job
        now_ms = self._store.runtime.now_ms()
        job = await self._store.run(lambda ledger: ledger.mark_saved(job.job_id, path, trouble, now_ms, again=again))
        self._store.runtime.checkpoint("file recorded")
        await self._store.notify(job)
        return job


def _is_there(path: Path) -> bool:
    """
    Whether a process saved the video at *path* and was killed before it could note that.

    The name has the job's id in it, and only whole videos get such a name; the size that fal states may be wrong.
    """
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size > 0


def _video(job: Job) -> Video | None:
    return None if job.result is None else video_of_body(job.result)


def described(job: Job) -> str:
    """What the job shows, in the user's words: its prompt, that of its first shot, or what it is made from."""
    return job.intent.description.split(" / ")[0]


def _write_sidecar(video: Path, data: Mapping[str, object]) -> None:
    try:
        downloads.write_sidecar(video.parent, video.name, data)
    except downloads.DownloadError as error:
        # The video is what was paid for; the note beside it is a convenience.
        log.warning("the note beside a video was not written", extra={"why": str(error)})


def _sidecar(job: Job) -> dict[str, object]:
    return {
        "job_id": job.job_id,
        "request_id": job.request_id,
        "model": job.intent.model,
        "endpoint": job.intent.endpoint_id,
        "arguments": job.intent.arguments,
        "request": job.body,
        "result": shorten_data_uris(job.result),
        "cost_basis": job.intent.basis,
    }
