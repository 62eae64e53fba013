"""
The inputs of a plan, checked before anything is paid for or leaves this machine.

Pictures, videos and sound become links that fal fetches, or bytes to upload. Everything that is wrong with any of them
is in one refusal.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections import OrderedDict
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlsplit

import anyio
import anyio.to_thread

from kling_mcp.decoders import SHOWS_VIDEOS
from kling_mcp.errors import ArgumentFault, InputRefused, KlingError
from kling_mcp.ids import job_id_in
from kling_mcp.jobs.draft import PreparedInput
from kling_mcp.jobs.voices import voice_meant
from kling_mcp.media import allowed_paths, pictures, recordings
from kling_mcp.media.addresses import check_url
from kling_mcp.media.allowed_paths import Contents
from kling_mcp.media.limits import MediaLimits
from kling_mcp.media.sources import kind_of, path_of, unwrapped

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence

    from kling_mcp.catalog.plan import InputSlot, Plan
    from kling_mcp.jobs.job import Job
    from kling_mcp.media.limits import Limits
    from kling_mcp.media.pictures import Picture
    from kling_mcp.media.recordings import Kind, Recording
    from kling_mcp.settings import Settings

__all__ = ["LAST_FRAME", "Lookup", "length_faults", "lengths", "measured", "prepared"]

_READ_WITHIN_SECONDS: Final = 4.0
"""A drive that does not answer must not hold up the call. Decoding and converting take the time they take."""

_DECODED_WITHIN_SECONDS: Final = 60.0
_COPIED_WITHIN_SECONDS: Final = 45.0
"""A video can have a gigabyte, and is read as a whole."""

_OVER_SECONDS: Final = Decimal("0.1")
"""How much longer than it is said to be a video may be: one of 10 s has an odd frame or two more."""

_WHAT: Final[Mapping[Kind, str]] = {"video": "video", "audio": "audio file"}

_T = TypeVar("_T")

LAST_FRAME: Final = re.compile(r"kling://jobs/([A-Za-z0-9_-]{1,100})/last-frame")
_JOB_VIDEO: Final = re.compile(r"kling:/*jobs/[^/]+(?:/video/?)?", re.IGNORECASE)
_VIDEO_ENDINGS: Final = frozenset({".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".wmv", ".3gp"})
_PICTURE_ENDINGS: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".avif", ".heic", ".heif", ".svg"})
_SOUND_ENDINGS: Final = frozenset({".mp3", ".wav", ".m4a", ".aac", ".ogg", ".oga", ".opus", ".flac"})
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


async def _no_job(_: str) -> str | None:
    return None


async def _not_there(_: str) -> bool:
    return False


async def _none() -> Sequence[Job]:
    return ()


async def _not_known(_: str) -> Decimal | None:
    return None


@dataclass(frozen=True, slots=True)
class Lookup:
    """
    What inputs may refer to besides files.

    Attributes:
        job: The job with an id; raises UnknownJob.
        job_of: The id of the job whose video is at a path or an address, if there is one.
        still_there: Whether fal still has the file at one of its links.
        length_of: How long the video or sound behind a link is, if that can be told.
        voices: The jobs that have made a voice, or still may, newest first.
    """

    job: Callable[[str], Awaitable[Job]]
    job_of: Callable[[str], Awaitable[str | None]] = _no_job
    still_there: Callable[[str], Awaitable[bool]] = _not_there
    length_of: Callable[[str], Awaitable[Decimal | None]] = _not_known
    voices: Callable[[], Awaitable[Sequence[Job]]] = _none


async def prepared(
    plan: Plan, settings: Settings, lookup: Lookup, *, within_seconds: float = _READ_WITHIN_SECONDS
) -> tuple[PreparedInput, ...]:
    """
    Every input of *plan* as it will be sent.

    Args:
        within_seconds: How long opening and reading each of them may take.

    Raises:
        InputRefused: An input may not be used, or the model would not take it; every fault of every input is in it.
        NotAvailable: An input needs what is not installed here.
        UnknownJob: The video or last frame of a job that does not exist was asked for.
    """
    preparing = _Preparing(settings, lookup, within_seconds)
    inputs: list[PreparedInput] = []
    errors: list[KlingError] = []
    for slot in plan.inputs:
        try:
            inputs.append(await preparing.one(slot, measured=slot.argument in plan.longest))
        except KlingError as error:
            errors.append(error)
    too_long = length_faults(plan, lengths(inputs))
    if len(errors) == 1 and not too_long:
        raise errors[0]
    if errors or too_long:
        raise InputRefused.of([*(fault for error in errors for fault in error.faults), *too_long])
    return tuple(inputs)


def lengths(inputs: Sequence[PreparedInput]) -> dict[str, Decimal | None]:
    """How long each video and sound is, by argument."""
    return {given.slot.argument: given.seconds for given in inputs if given.slot.kind in {"video", "audio"}}


def length_faults(plan: Plan, measured: Mapping[str, Decimal | None]) -> list[ArgumentFault]:
    """What of *plan* is too long, or too short, by the lengths that were measured."""
    faults: list[ArgumentFault] = []
    limits = {slot.argument: slot.limits for slot in plan.inputs}
    for name, seconds in measured.items():
        if seconds is None:
            continue
        said, limit = f"{name} is {_plain(seconds)} s long", limits.get(name)
        least, most = (limit.min_seconds, limit.max_seconds) if limit else (None, None)
        rules = [rule for rule in plan.length_rules if name in rule.of and seconds > rule.max + _OVER_SECONDS]
        if (least is not None and seconds < least) or (most is not None and seconds > most + _OVER_SECONDS):
            span = f"{_plain(least or Decimal(0))} to {_plain(most)} s" if most else f"at least {least} s"
            faults.append(
                ArgumentFault(
                    f"{said}; {plan.endpoint.model} takes {span} there.",
                    "Cut it to a part that fits." if seconds > (least or 0) else "Give a longer one.",
                    name,
                    str(seconds),
                    (span,),
                )
            )
        elif rules:
            rule = min(rules, key=lambda rule: rule.max)
            case = f" with {rule.argument} {rule.value}" if rule.argument else ""
            faults.append(
                ArgumentFault(
                    f"{said}; {plan.endpoint.model} takes at most {rule.max} s{case}. {rule.say}".strip(),
                    "Cut it to a part that is short enough"
                    + (f", or give another {rule.argument}." if rule.argument else "."),
                    name,
                    str(seconds),
                    (f"up to {rule.max} s",),
                )
            )
    return faults


def _plain(seconds: Decimal) -> str:
    return f"{seconds.quantize(Decimal('0.01')).normalize():f}"


async def measured(plan: Plan, settings: Settings, lookup: Lookup) -> dict[str, Decimal | None]:
    """
    The lengths that set the price of *plan*, as far as they can be known without network: of files and of our own jobs.

    Raises:
        KlingError: A file may not be used, or there is no such job.
    """
    preparing = _Preparing(settings, lookup, _READ_WITHIN_SECONDS)
    paid = [slot for slot in plan.inputs if slot.argument in plan.input_seconds]
    return {slot.argument: await preparing.length(slot) for slot in paid if kind_of(slot.value) != "url"}


@dataclass(frozen=True, slots=True)
class _Preparing:
    settings: Settings
    lookup: Lookup
    within_seconds: float

    async def one(self, slot: InputSlot, *, measured: bool) -> PreparedInput:
        """
        The input in *slot* as it will be sent.

        Args:
            measured: Whether a link is looked into because of its length.
        """
        value = unwrapped(slot.value)
        match slot.kind:
            case "voice":
                meant, warning = voice_meant(value, await self.lookup.voices(), slot.argument)
                return PreparedInput(slot, meant, warning=warning)
            case "picture":
                return PreparedInput(slot, await self._picture(slot, value))
            case "video" | "audio" as kind:
                given = await self._recording(slot, value, kind)
                if measured and given.url is not None:
                    return replace(given, seconds=await self.lookup.length_of(given.url))
                return given

    @property
    def _key(self) -> list[bytes]:
        # A file that holds the key is no picture or video, whatever its first bytes say.
        return [] if self.settings.fal_key is None else [self.settings.fal_key.reveal().encode()]

    # ---- pictures

    async def _picture(self, slot: InputSlot, value: str) -> str | Picture:
        await self._no_video(slot, value)
        match kind_of(value):
            case "job":
                return await self._last_frame(slot, value)
            case "url":
                return _link(slot, value)
            case _:
                read = partial(pictures.read, value, folders=self.settings.input_dirs, field=slot.argument)
                return await _made_ready(slot, await _in_time(read, self.within_seconds), self._key)

    async def _no_video(self, slot: InputSlot, value: str) -> None:
        """
        Refuse a *value* that names a video.

        Raises:
            InputRefused: It does; the text has its last frame's address, where the video is that of a job.
        """
        if kind_of(value) not in {"path", "url"} or _ending(value) not in _VIDEO_ENDINGS:
            return
        job_id = await self.lookup.job_of(value)
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

    async def _last_frame(self, slot: InputSlot, value: str) -> Picture:
        match = LAST_FRAME.fullmatch(value)
        if match is None:
            raise InputRefused(
                f"{slot.argument} is {value[:80]!r}, which is not a picture here.",
                "kling://jobs/{job_id}/last-frame is the last frame of a finished job."
                if SHOWS_VIDEOS
                else "Give an https URL, a path or a data: URI.",
                field=slot.argument,
            )
        job = await self.lookup.job(match[1])
        if job.intent.voice is not None:
            raise _no_video_of(slot, job)
        path = job.saved_to
        if path is None:
            raise InputRefused(
                f"{slot.argument} is the last frame of job {match[1]}, whose video is not saved on this machine.",
                f"get_job with job_id {match[1]} shows whether it has finished and saves it.",
                field=slot.argument,
            )
        from kling_mcp.media import frames

        video = Path(path)
        await _in_time(partial(_first_byte, video), self.within_seconds)
        data = await _in_time(partial(frames.last_frame, video), _DECODED_WITHIN_SECONDS)
        return await _made_ready(slot, Contents("the last frame", data), [])

    # ---- videos and sound

    async def _recording(self, slot: InputSlot, value: str, kind: Kind) -> PreparedInput:
        if job_id := await self._job_meant(value):
            return await self._of_job(slot, job_id, kind)
        if kind_of(value) == "url":
            return PreparedInput(slot, _recording_link(slot, value, kind))
        recording = await self._loaded(slot, value, kind, slot.limits)
        return PreparedInput(slot, recording, seconds=recording.seconds)

    async def _job_meant(self, value: str) -> str | None:
        """The job whose video *value* is: by its address here, its path, or fal's link to it."""
        if kind_of(value) == "job" and _JOB_VIDEO.fullmatch(value):
            return job_id_in(value)
        return await self.lookup.job_of(value) if _ending(value) in _VIDEO_ENDINGS else None

    async def _loaded(self, slot: InputSlot, value: str, kind: Kind, limits: Limits | None) -> Recording:
        if kind_of(value) == "job":
            raise InputRefused(
                f"{slot.argument} is {value[:80]!r}, which is no {kind} here.",
                "kling://jobs/{job_id}/video is the video of a finished job.",
                field=slot.argument,
            )
        folders = self.settings.input_dirs
        if kind_of(value) == "path":
            await _in_time(partial(_first_byte_inside, value, folders, slot, kind), self.within_seconds)
        load = partial(
            recordings.load, value, kind=kind, folders=folders, field=slot.argument, forbidden=self._key, limits=limits
        )
        return await _in_time(load, _COPIED_WITHIN_SECONDS)

    async def _of_job(self, slot: InputSlot, job_id: str, kind: Kind) -> PreparedInput:
        """The video of a job: the saved file, or else fal's own link as long as it leads to it."""
        job = await self.lookup.job(job_id)
        job_id = job.job_id
        _refuse_unfinished(slot, job)
        if job.saved_to is not None and await self._is_there(job.saved_to):
            load = partial(recordings.of_saved, Path(job.saved_to), kind=kind, limits=slot.limits, field=slot.argument)
            recording = await _in_time(load, _COPIED_WITHIN_SECONDS)
            return PreparedInput(slot, recording, job_id, recording.seconds)
        url = job.video_file.get("url")
        if isinstance(url, str) and url.lower().startswith("https:") and await self.lookup.still_there(url):
            return PreparedInput(slot, url, job_id)
        raise InputRefused(
            f"{slot.argument} is the video of job {job_id}, which is not on this machine, and fal.ai's link to it "
            "leads nowhere any more.",
            "If the user has the file, its path works where KLING_MCP_INPUT_DIRS names its folder.",
            field=slot.argument,
        )

    async def _is_there(self, path: str) -> bool:
        return await _in_time(partial(_is_file, path), self.within_seconds)

    # ---- lengths alone

    async def length(self, slot: InputSlot) -> Decimal | None:
        """How long the video or sound in *slot* is, without network."""
        value, kind = unwrapped(slot.value), "audio" if slot.kind == "audio" else "video"
        formats = MediaLimits(formats=tuple(slot.limits.formats)) if slot.limits else None
        if job_id := await self._job_meant(value):
            job = await self.lookup.job(job_id)
            _refuse_unfinished(slot, job)
            if job.saved_to is None or not await self._is_there(job.saved_to):
                return Decimal(job.intent.video_seconds)
            load = partial(recordings.of_saved, Path(job.saved_to), kind=kind, limits=formats, field=slot.argument)
            return (await _in_time(load, _COPIED_WITHIN_SECONDS)).seconds
        return (await self._loaded(slot, value, kind, formats)).seconds


def _no_video_of(slot: InputSlot, job: Job) -> InputRefused:
    return InputRefused(
        f"{slot.argument} is of job {job.job_id}, which makes a voice and no video.",
        "list_jobs shows the jobs with videos; a voice goes into voice_ids or the voice_id of an element.",
        field=slot.argument,
    )


def _refuse_unfinished(slot: InputSlot, job: Job) -> None:
    if job.intent.voice is not None:
        raise _no_video_of(slot, job)
    if job.state == "completed":
        return
    get_job = f"get_job with job_id {job.job_id}"
    raise InputRefused(
        f"{slot.argument} is the video of job {job.job_id}, which is {job.state}, so there is none.",
        f"{get_job} and wait_seconds 45 waits for it." if job.open else f"{get_job} says what became of it.",
        field=slot.argument,
    )


def _shown(value: str) -> str:
    return value if len(value) <= 200 else f"{value[:199]}…"


def _ending(value: str) -> str:
    kind = kind_of(value)
    if kind not in {"url", "path"}:
        return ""
    path = urlsplit(value).path if kind == "url" else value.replace("\\", "/")
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


def _recording_link(slot: InputSlot, value: str, kind: Kind) -> str:
    """
    The address of a video or sound.

    Raises:
        InputRefused: It may not be used, or is by its ending of something else.
    """
    url = check_url(value, field=slot.argument, what=_WHAT[kind])
    ending = _ending(url)
    wrong = _NOT_FETCHED.get(ending) or ("a picture" if ending in _PICTURE_ENDINGS else None)
    if kind == "video" and ending in _SOUND_ENDINGS:
        wrong = "sound alone"
    if wrong is not None:
        expected = "a video" if kind == "video" else "an audio file"
        raise InputRefused(
            f"The address in {slot.argument} is that of {wrong}, and {expected} is expected.",
            f"Give the address of {expected}.",
            field=slot.argument,
        )
    return url


async def _made_ready(slot: InputSlot, contents: Contents, forbidden: list[bytes]) -> Picture:
    make = partial(
        pictures.prepare,
        contents.data,
        contents.name,
        limits=slot.limits,
        field=slot.argument,
        forbidden=forbidden,
    )
    return await _CONVERTED.get((hashlib.sha256(contents.data).digest(), slot.limits, *forbidden), make)


def _first_byte(path: Path) -> None:
    """Open the file; if that cannot be done, the decoder says so."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.read(1)


def _first_byte_inside(value: str, folders: Sequence[Path], slot: InputSlot, kind: Kind) -> None:
    """Open the file where a whole copy would; what is wrong with the place is said at once."""
    with allowed_paths.opened(
        path_of(value), folders, max_bytes=recordings.MAX_FILE_BYTES, field=slot.argument, what=_WHAT[kind]
    ) as file:
        os.read(file.descriptor, 1)


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except OSError:
        return False


async def _in_time(work: Callable[[], _T], seconds: float) -> _T:
    """
    What *work* gives, which a thread does; after *seconds* it is left alone.

    Raises:
        InputRefused: It took longer.
    """
    with anyio.move_on_after(seconds):
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=_READS)
    raise InputRefused(
        f"The files could not be read within {seconds:g} seconds, as on a network drive or in a cloud "
        "folder that is not on this machine yet.",
        "Once the files are on this machine, the same call works.",
    )
