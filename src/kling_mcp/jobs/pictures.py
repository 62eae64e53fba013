"""The pictures of a plan, looked at before anything costs or leaves this machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread

from kling_mcp.errors import InputRefused
from kling_mcp.jobs.submit import Frame
from kling_mcp.media import pictures
from kling_mcp.media.addresses import check_url

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kling_mcp.catalog.arguments import PictureSlot, Plan
    from kling_mcp.settings import Settings

__all__ = ["LAST_FRAME", "framed"]

_READ_WITHIN_SECONDS: Final = 4.0
"""A call answers within five seconds of what it asked to wait, also where a drive does not answer at all."""

LAST_FRAME: Final = re.compile(r"kling://jobs/(kj_[A-Za-z0-9_-]{1,64})/last-frame")


async def framed(
    plan: Plan,
    settings: Settings,
    saved_video: Callable[[str], Awaitable[str | None]],
    *,
    within_seconds: float = _READ_WITHIN_SECONDS,
) -> tuple[Frame, ...]:
    """
    Every picture of *plan* as a link that fal may fetch, or as bytes to upload.

    Args:
        saved_video: Tells where the video of an earlier job was saved.
        within_seconds: How long looking at all of them may take.

    Raises:
        InputRefused: A picture may not be used, or the model would not take it.
        NotAvailable: A picture needs an optional part that is not installed.
        UnknownJob: A last frame of a job that does not exist was asked for.
    """
    with anyio.move_on_after(within_seconds):
        return tuple([await _frame(slot, settings, saved_video) for slot in plan.pictures])
    raise InputRefused(
        f"The pictures could not be read within {within_seconds:g} seconds, as on a network drive or in a cloud "
        "folder that is not on this machine yet.",
        "Once the files are on this machine, the same call works.",
    )


async def _frame(slot: PictureSlot, settings: Settings, saved_video: Callable[[str], Awaitable[str | None]]) -> Frame:
    value = slot.value
    if value.startswith("kling:"):
        match = LAST_FRAME.fullmatch(value)
        if match is None:
            raise InputRefused(
                f"{slot.argument} is {value[:80]!r}, which is not a picture here.",
                "kling://jobs/{job_id}/last-frame is the last frame of a finished job.",
                field=slot.argument,
            )
        path = await saved_video(match[1])
        if path is None:
            raise InputRefused(
                f"{slot.argument} is the last frame of job {match[1]}, whose video is not saved on this machine.",
                f"get_job with job_id {match[1]} shows whether it has finished and saves it.",
                field=slot.argument,
            )
        return await anyio.to_thread.run_sync(_last_frame, slot, Path(path), abandon_on_cancel=True)
    if pictures.kind_of(value) == "url":
        return Frame(slot, check_url(value, field=slot.argument))
    return await anyio.to_thread.run_sync(_loaded, slot, settings, abandon_on_cancel=True)


def _loaded(slot: PictureSlot, settings: Settings) -> Frame:
    # A file that holds the key is no picture, whatever its first bytes say.
    key = [] if settings.fal_key is None else [settings.fal_key.reveal().encode()]
    content = pictures.load(
        slot.value, folders=settings.input_dirs, limits=slot.limits, field=slot.argument, forbidden=key
    )
    return Frame(slot, content)


def _last_frame(slot: PictureSlot, video: Path) -> Frame:
    from kling_mcp.media import frames

    data = frames.last_frame(video)
    return Frame(slot, pictures.prepare(data, f"{video.stem}-last-frame.jpg", limits=slot.limits, field=slot.argument))
