"""The pictures of a plan, checked before anything is paid for or leaves this machine."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections import OrderedDict
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlsplit

import anyio
import anyio.to_thread

from kling_mcp.decoders import SHOWS_VIDEOS
from kling_mcp.errors import InputRefused
from kling_mcp.jobs.draft import Frame
from kling_mcp.media import pictures
from kling_mcp.media.addresses import check_url
from kling_mcp.media.allowed_paths import Contents

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from kling_mcp.catalog.plan import InputSlot, Plan
    from kling_mcp.media.pictures import Picture
    from kling_mcp.settings import Settings

__all__ = ["LAST_FRAME", "framed"]

_READ_WITHIN_SECONDS: Final = 4.0
"""A drive that does not answer must not hold up the call. Decoding and converting take the time they take."""

_DECODED_WITHIN_SECONDS: Final = 60.0

_T = TypeVar("_T")

LAST_FRAME: Final = re.compile(r"kling://jobs/([A-Za-z0-9_-]{1,100})/last-frame")
_VIDEO_ENDINGS: Final = frozenset({".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".wmv", ".3gp"})
# What fal.ai cannot read from a link, and this program can make readable from a file, or cannot either.
_NOT_FETCHED: Final = {
    ".heic": "a HEIC picture",
    ".heif": "a HEIC picture",
    ".svg": "an SVG drawing",
    ".pdf": "a PDF",
    ".psd": "a Photoshop file",
    ".tif": "a TIFF",
    ".tiff": "a TIFF",
    ".dng": "a camera's raw file",
    ".zip": "an archive",
}

# Reads that never end on a dead drive use up these threads, not those of the ledger.
_READS: Final = anyio.CapacityLimiter(8)
# A picture of 200 megapixels takes a gigabyte while it is decoded: one after the other.
_CONVERSIONS: Final = anyio.CapacityLimiter(1)
_KEPT: Final = 6


class _Converted:
    """A cache of the last few prepared pictures: the call after an estimate or a question has the same ones."""

    def __init__(self) -> None:
        self._pictures: OrderedDict[Hashable, Picture] = OrderedDict()

    async def get(self, key: Hashable, make: Callable[[], Picture]) -> Picture:
        """The picture of *key*, made at most once."""
        async with _CONVERSIONS:
            picture = self._pictures.get(key)
            if picture is None:
                picture = await anyio.to_thread.run_sync(make, limiter=anyio.CapacityLimiter(1))
            self._pictures[key] = picture
            self._pictures.move_to_end(key)
            while len(self._pictures) > _KEPT:
                self._pictures.popitem(last=False)
            return picture


_CONVERTED: Final = _Converted()


async def framed(
    plan: Plan,
    settings: Settings,
    saved_video: Callable[[str], Awaitable[str | None]],
    *,
    job_of: Callable[[str], Awaitable[str | None]] | None = None,
    within_seconds: float = _READ_WITHIN_SECONDS,
) -> tuple[Frame, ...]:
    """
    Every picture of *plan* as a link that fal may fetch, or as bytes to upload.

    Args:
        saved_video: Tells where the video of an earlier job was saved.
        job_of: Tells the job whose video is at a path or an address, if there is one.
        within_seconds: How long opening and reading each of them may take.

    Raises:
        InputRefused: A picture may not be used, or the model would not take it.
        NotAvailable: A picture needs what is not installed here.
        UnknownJob: A last frame of a job that does not exist was asked for.
    """
    frames: list[Frame] = []
    for slot in plan.inputs:
        value = pictures.unwrapped(slot.value)
        if slot.kind == "voice":
            frames.append(Frame(slot, value))
            continue
        if slot.kind != "picture":
            frames.append(Frame(slot, _fetched(slot, value)))
            continue
        await _no_video(slot, value, job_of)
        match pictures.kind_of(value):
            case "job":
                content = await _last_frame(slot, value, saved_video, within_seconds)
            case "url":
                content = _link(slot, value)
            case _:
                content = await _loaded(slot, value, settings, within_seconds)
        frames.append(Frame(slot, content))
    return tuple(frames)


def _fetched(slot: InputSlot, value: str) -> str:
    if pictures.kind_of(value) != "url":
        raise InputRefused(
            f"{slot.argument} is {_shown(value)!r}; a {slot.kind} is fetched by fal.ai from an https URL.",
            "Give an https URL.",
            field=slot.argument,
        )
    return check_url(value, field=slot.argument)


async def _no_video(slot: InputSlot, value: str, job_of: Callable[[str], Awaitable[str | None]] | None) -> None:
    """
    Refuse a *value* that names a video.

    Raises:
        InputRefused: It does; the text has its last frame's address, where the video is that of a job.
    """
    if pictures.kind_of(value) not in {"path", "url"} or _ending(value) not in _VIDEO_ENDINGS:
        return
    job_id = None if job_of is None else await job_of(value)
    step = "Give a frame of it as a picture"
    if SHOWS_VIDEOS and job_id is None:
        step += "; kling://jobs/{job_id}/last-frame is the last frame of a finished job's video"
    elif SHOWS_VIDEOS:
        step = f"kling://jobs/{job_id}/last-frame is its last frame: give that to go on from where the video ends"
    raise InputRefused(
        f"{slot.argument} is {_shown(value)!r}, which is a video, and a picture is expected.",
        f"{step}.",
        field=slot.argument,
    )


def _shown(value: str) -> str:
    return value if len(value) <= 200 else f"{value[:199]}…"


def _ending(value: str) -> str:
    path = urlsplit(value).path if pictures.kind_of(value) == "url" else value.replace("\\", "/")
    return PurePosixPath(path).suffix.lower()


def _link(slot: InputSlot, value: str) -> str:
    url = check_url(value, field=slot.argument)
    if kind := _NOT_FETCHED.get(_ending(url)):
        raise InputRefused(
            f"The address in {slot.argument} is that of {kind}, which fal.ai cannot read.",
            "Download it to one of the folders that KLING_MCP_INPUT_DIRS names and give its path (HEIC is converted "
            "here; save the others as JPEG or PNG first).",
            field=slot.argument,
        )
    return url


async def _loaded(slot: InputSlot, value: str, settings: Settings, within_seconds: float) -> Picture:
    # A file that holds the key is no picture, whatever its first bytes say.
    key = [] if settings.fal_key is None else [settings.fal_key.reveal().encode()]
    read = partial(pictures.read, value, folders=settings.input_dirs, field=slot.argument)
    contents = await _in_time(read, within_seconds)
    return await _prepared(slot, contents, key)


async def _prepared(slot: InputSlot, contents: Contents, forbidden: list[bytes]) -> Picture:
    make = partial(
        pictures.prepare,
        contents.data,
        contents.name,
        limits=slot.limits,
        field=slot.argument,
        forbidden=forbidden,
    )
    return await _CONVERTED.get((hashlib.sha256(contents.data).digest(), slot.limits, *forbidden), make)


async def _last_frame(
    slot: InputSlot, value: str, saved_video: Callable[[str], Awaitable[str | None]], within_seconds: float
) -> Picture:
    match = LAST_FRAME.fullmatch(value)
    if match is None:
        raise InputRefused(
            f"{slot.argument} is {value[:80]!r}, which is not a picture here.",
            "kling://jobs/{job_id}/last-frame is the last frame of a finished job."
            if SHOWS_VIDEOS
            else "Give an https URL, a path or a data: URI.",
            field=slot.argument,
        )
    path = await saved_video(match[1])
    if path is None:
        raise InputRefused(
            f"{slot.argument} is the last frame of job {match[1]}, whose video is not saved on this machine.",
            f"get_job with job_id {match[1]} shows whether it has finished and saves it.",
            field=slot.argument,
        )
    from kling_mcp.media import frames

    video = Path(path)
    await _in_time(partial(_first_byte, video), within_seconds)
    data = await _in_time(partial(frames.last_frame, video), _DECODED_WITHIN_SECONDS)
    return await _prepared(slot, Contents("the last frame", data), [])


def _first_byte(path: Path) -> None:
    """Open the file; if that cannot be done, the decoder says so."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.read(1)


async def _in_time(work: Callable[[], _T], seconds: float) -> _T:
    """
    What *work* gives, which a thread does; after *seconds* it is left alone.

    Raises:
        InputRefused: It took longer.
    """
    with anyio.move_on_after(seconds):
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=_READS)
    raise InputRefused(
        f"The pictures could not be read within {seconds:g} seconds, as on a network drive or in a cloud "
        "folder that is not on this machine yet.",
        "Once the files are on this machine, the same call works.",
    )
