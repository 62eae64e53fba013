"""
Videos and sound in: from a path, a ``data:`` URI or a job's saved video to a private copy that an endpoint accepts.

They can be hundreds of megabytes, so they are copied piece by piece, and what is uploaded is the copy: nothing that
happens to the file meanwhile changes what was checked. Like pictures they are known by their bytes and not by their
names, and leave under a neutral name. Everything here happens before any upload and any money, and blocks.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Final, Literal

from kling_mcp.errors import ArgumentFault, InputRefused
from kling_mcp.media import allowed_paths, boxes, heads, packets
from kling_mcp.media.cleaning import Cleaned, clean, pieces_of, tells_a_place
from kling_mcp.media.limits import NO_LIMITS
from kling_mcp.media.measured import Inseparable, Measured, Unreadable
from kling_mcp.media.optional import usable
from kling_mcp.media.private_file import PrivateFile
from kling_mcp.media.recording_probe import HEAD_BYTES, Format, format_of, tag_size, what_else
from kling_mcp.media.sources import decoded, kind_of, path_of, unwrapped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from kling_mcp.media.limits import Limits
    from kling_mcp.media.links import Linked
    from kling_mcp.media.measured import Bytes

__all__ = ["MAX_FILE_BYTES", "Kind", "Recording", "check_link", "load", "of_saved"]

MAX_FILE_BYTES: Final = 1 << 30

Kind = Literal["video", "audio"]

_WHAT: Final[dict[Kind, str]] = {"video": "video", "audio": "audio file"}
_IN_BOXES: Final = frozenset({"mp4", "mov", "m4a"})
_SOUND_ONLY: Final = frozenset({"mp3", "wav", "m4a", "aac", "ogg", "flac"})
_CONTENT_TYPES: Final[dict[Format, str]] = {
    "mp4": "video/mp4",
    "mov": "video/quicktime",
    "webm": "video/webm",
    "mkv": "video/x-matroska",
    "mp3": "audio/mpeg",
    "wav": "audio/wav",
    "m4a": "audio/mp4",
    "aac": "audio/aac",
    "ogg": "audio/ogg",
    "flac": "audio/flac",
}
_ALIASES: Final = {"m4v": "mp4", "quicktime": "mov", "mpeg": "mp3", "x-wav": "wav", "wave": "wav", "x-m4a": "m4a",
                   "oga": "ogg", "opus": "ogg", "x-flac": "flac", "x-matroska": "mkv"}  # fmt: skip
# Whose parts do not tell that others should follow.
_SAYING_THEIR_LENGTH: Final = frozenset({"webm", "mkv", "flac"})
_MISSING_SECONDS: Final = Decimal("0.5")
_PRIVATE_KEY: Final = re.compile(rb"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----")
_LONGEST_SECRET: Final = 1024
_FPS_TOLERANCE: Final = Decimal("0.1")
"""24 pictures per second are 23.976 where television once was analogue."""


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """
    A video or sound that may be uploaded.

    Its bytes are in a private file, which is gone once nothing holds the recording.

    Args:
        file: The bytes.
        content_type: Such as ``video/mp4``, from the bytes.
        file_name: A name that says nothing about the owner, with the ending that fits the bytes.
        seconds: How long it is; None where that cannot be measured here.
        width: Pixels per row, as seen; None for sound alone.
        height: Rows, as seen.
        fps: Pictures per second, on average.
        sound: Whether there is sound in it.
        changes: What was changed, one phrase each.
    """

    file: PrivateFile
    content_type: str
    file_name: str
    seconds: Decimal | None
    width: int | None
    height: int | None
    fps: Decimal | None
    sound: bool
    changes: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """Of the bytes, in hexadecimal."""
        return self.file.sha256

    @property
    def size(self) -> int:
        """Bytes."""
        return self.file.size

    def read(self, offset: int, count: int) -> bytes:
        """At most *count* bytes from *offset* on."""
        return self.file.read(offset, count)


def load(
    source: str,
    *,
    kind: Kind,
    folders: Iterable[Path | allowed_paths.AllowedFolder],
    limits: Limits | None = None,
    field: str | None = None,
    av: bool | None = None,
    forbidden: Iterable[bytes] = (),
) -> Recording:
    """
    The recording that a path, a ``file://`` address or a ``data:`` URI means, checked.

    Args:
        source: What the caller gave.
        kind: Whether a video or sound is wanted; a video counts as sound where *limits* name a format of videos.
        folders: The folders that files may be read from.
        limits: What the endpoint accepts.
        field: The argument it came in, for a refusal.
        av: Whether PyAV may be used; None finds out.
        forbidden: Byte strings that must not leave this machine, such as the fal key.

    Raises:
        InputRefused: The place or the file breaks a rule; every rule that the file breaks is named.
        NotAvailable: There is no room for the copy.
    """
    source, what = unwrapped(source), _WHAT[kind]
    wanted = _Wanted(kind, limits or NO_LIMITS, field, tuple(forbidden), usable("av") if av is None else av)
    if kind_of(source) == "data":
        return wanted.from_bytes(_InMemory(decoded(source, what=what, field=field)), f"the {what} in the data: URI")
    with allowed_paths.opened(path_of(source), folders, max_bytes=MAX_FILE_BYTES, field=field, what=what) as file:
        return wanted.from_bytes(_OnDisk(file.descriptor, file.size), file.name)


def of_saved(
    path: Path,
    *,
    kind: Kind,
    limits: Limits | None = None,
    field: str | None = None,
    av: bool | None = None,
    forbidden: Iterable[bytes] = (),
) -> Recording:
    """
    The recording at *path*, where this program itself has saved it: see `load`.

    Raises:
        InputRefused: It is gone, or breaks a rule of the endpoint.
        NotAvailable: There is no room for the copy.
    """
    wanted = _Wanted(kind, limits or NO_LIMITS, field, tuple(forbidden), usable("av") if av is None else av)
    try:
        with path.open("rb") as file:
            return wanted.from_bytes(_OnDisk(file.fileno(), os.fstat(file.fileno()).st_size), path.name)
    except OSError as error:
        rule, step = allowed_paths.explained(error)
        raise InputRefused(
            f"The saved video {path.name!r} {rule}", step or "get_job has the link to the original.", field=field
        ) from None


def check_link(
    linked: Linked, *, argument: str, kind: Kind, limits: Limits | None = None, field: str | None = None
) -> None:
    """
    Compare what is behind a link with what the endpoint accepts, as far as its head tells.

    Raises:
        InputRefused: With every rule that it breaks; it would be fetched, and perhaps paid for, in vain.
    """
    wanted = _Wanted(kind, limits or NO_LIMITS, field, (), av=False)
    wanted.check(linked.measured, linked.form, linked.size, f"What is at the address in {argument}")


@dataclass(frozen=True, slots=True)
class _InMemory:
    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, count: int) -> bytes:
        return self.data[offset : offset + count]


@dataclass(frozen=True, slots=True)
class _OnDisk:
    """A file that one thread reads by its open descriptor."""

    descriptor: int
    size: int

    def read(self, offset: int, count: int) -> bytes:
        os.lseek(self.descriptor, offset, os.SEEK_SET)
        return os.read(self.descriptor, count)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What an argument takes, and the way of a file to it."""

    kind: Kind
    limits: Limits
    field: str | None
    forbidden: tuple[bytes, ...]
    av: bool

    def from_bytes(self, file: Bytes, name: str) -> Recording:
        """
        A checked copy of *file*.

        Raises:
            InputRefused: It may not be used.
        """
        form = self._recognised(file, name)
        try:
            cleaned = clean(file, form, av=self.av)
        except Unreadable:
            raise self._unreadable(name) from None
        except Inseparable:
            cleaned = self._as_it_is(file, name)
        copy = PrivateFile(self._without_secrets(cleaned.pieces, name))
        seen = self._measured(copy, form, name)
        if form in _IN_BOXES and seen is not None and seen.width is None:
            form = "m4a"
        seen = seen or Measured(Decimal(0))
        self.check(seen, form, copy.size, repr(name))
        return Recording(
            file=copy,
            content_type=_CONTENT_TYPES[form],
            file_name=f"{'audio' if form in _SOUND_ONLY else 'video'}.{form}",
            seconds=seen.seconds or None,
            width=seen.width,
            height=seen.height,
            fps=seen.fps,
            sound=seen.sound,
            changes=cleaned.changes,
        )

    @property
    def _taken(self) -> str:
        return "a video" if self.kind == "video" else "an audio file"

    @property
    def _formats(self) -> tuple[str, ...]:
        named = (entry.lower().rpartition("/")[2].removeprefix(".") for entry in self.limits.formats or ())
        return tuple(dict.fromkeys(_ALIASES.get(name, name) for name in named))

    @property
    def _way_out(self) -> str:
        usual = ("mp4", "mov") if self.kind == "video" else ("mp3", "wav")
        return f"Give {self._taken} ({', '.join(self._formats or usual)}); most programs can export what they play so."

    def _recognised(self, file: Bytes, name: str) -> Format:
        head = file.read(0, HEAD_BYTES)
        # What stands behind a tag with pictures of covers is further away than the head reaches.
        form = format_of(file.read(tag_size(head), HEAD_BYTES) if tag_size(head) else head)
        if form is None and not tag_size(head):
            raise InputRefused(
                f"{name!r} is {what_else(head)}, and {self._taken} is expected.", self._way_out, field=self.field
            )
        return form or "mp3"

    def _as_it_is(self, file: Bytes, name: str) -> Cleaned:
        if tells_a_place(file):
            raise InputRefused(
                f"{name!r} says where it was taken (GPS), and that cannot be removed from it here.",
                "Export it anew without its location in any program that plays it, then give that.",
                field=self.field,
            )
        return Cleaned(
            pieces_of(file), ("other data than picture and sound could not be told apart, so none was removed",)
        )

    def _measured(self, file: PrivateFile, form: Format, name: str) -> Measured | None:
        try:
            if not self.av:
                return heads.measure(file, form)
            seen = packets.measure(file, form)
            if form in _SAYING_THEIR_LENGTH:
                said = heads.measure(file, form)
                if said is not None and said.seconds - seen.seconds > _MISSING_SECONDS:
                    raise Unreadable
            lies = form in _IN_BOXES and boxes.is_turned(file)
        except Unreadable:
            raise self._unreadable(name) from None
        return replace(seen, width=seen.height, height=seen.width) if lies else seen

    def _unreadable(self, name: str) -> InputRefused:
        return InputRefused(
            f"{name!r} cannot be read as {self._taken}: it is damaged, or not all of it is here. Is it still "
            "downloading or being written?",
            "Once the whole file is there, the same call works; or export it anew in any program that plays it.",
            field=self.field,
        )

    def _without_secrets(self, pieces: Iterable[bytes], name: str) -> Iterator[bytes]:
        """*pieces*, as long as no key is in them."""
        end = b""
        for piece in pieces:
            seen = end + piece
            if _PRIVATE_KEY.search(seen) or any(secret and secret in seen for secret in self.forbidden):
                raise InputRefused(
                    f"{name!r} has a key or another secret in it, and an uploaded file becomes a public link.",
                    "Give another file.",
                    field=self.field,
                )
            end = seen[-_LONGEST_SECRET:]
            yield piece

    def check(self, seen: Measured, form: Format, size: int | None, name: str) -> None:
        """
        Compare what was *seen* with what the endpoint accepts; *name* is what the caller knows the recording by.

        Raises:
            InputRefused: With all that is wrong.
        """
        faults = [
            ArgumentFault(f"{name} {what}", step, self.field, value, allowed)
            for what, step, value, allowed in (
                *self._kind_faults(seen, form),
                *self._size_faults(seen, size),
                *self._length_faults(seen),
            )
        ]
        if faults:
            raise InputRefused.of(faults)

    def _kind_faults(self, seen: Measured, form: Format) -> Iterator[tuple[str, str, object, tuple[str, ...]]]:
        formats = self._formats
        takes_videos = self.kind == "video" or not _SOUND_ONLY.issuperset(formats)
        if self.kind == "video" and (form in _SOUND_ONLY or (seen.seconds and not seen.width)):
            yield f"has sound alone ({form}), and a video is expected.", self._way_out, form, formats
        elif (formats and form not in formats) or (form not in _SOUND_ONLY and not takes_videos):
            allowed = formats or ("mp3", "wav")
            yield f"is {form}; this model takes {', '.join(allowed)} here.", self._way_out, form, allowed
        elif self.kind == "audio" and not seen.sound:
            yield "has no sound in it, and sound is expected.", "Give a file that can be heard.", None, ()

    def _size_faults(self, seen: Measured, size: int | None) -> Iterator[tuple[str, str, object, tuple[str, ...]]]:
        limits, width, height = self.limits, seen.width, seen.height
        if limits.max_bytes is not None and size is not None and size > limits.max_bytes:
            yield (
                f"has {size:,} bytes; this model takes at most {limits.max_bytes:,} here.",
                "Give a shorter part of it, or save it with a lower bit rate.",
                size,
                (f"at most {limits.max_bytes}",),
            )
        if not width or not height:
            return
        if (
            width < (limits.min_width or 0)
            or height < (limits.min_height or 0)
            or width > (limits.max_width or width)
            or height > (limits.max_height or height)
        ):
            least = f"{limits.min_width or 1} x {limits.min_height or 1}"
            most = f"{limits.max_width or 'any'} x {limits.max_height or 'any'}"
            yield (
                f"is {width} x {height} pixels; this model takes {least} to {most} here.",
                "Scale it in a video program.",
                f"{width}x{height}",
                (f"{least} to {most}",),
            )
        ratio = width / height
        least, most = limits.min_aspect_ratio, limits.max_aspect_ratio
        if (least is not None and ratio < least) or (most is not None and ratio > most):
            yield (
                f"has an aspect ratio (width / height) of {ratio:.2f}; this model takes {_span(least, most)} here.",
                "Crop it in a video program.",
                round(ratio, 2),
                (_span(least, most),),
            )

    def _length_faults(self, seen: Measured) -> Iterator[tuple[str, str, object, tuple[str, ...]]]:
        least, most = self.limits.min_seconds, self.limits.max_seconds
        seconds = seen.seconds
        if seconds and ((least is not None and seconds < least) or (most is not None and seconds > most)):
            too_long = most is not None and seconds > most
            step = "Cut it to a part that is short enough." if too_long else "Give a longer one."
            span = f"{_span(least, most)} seconds"
            yield f"is {seconds.normalize():f} seconds long; this model takes {span} here.", step, str(seconds), (span,)
        least, most = self.limits.min_fps, self.limits.max_fps
        fps = seen.fps
        if fps is not None and (
            (least is not None and fps < least - _FPS_TOLERANCE) or (most is not None and fps > most + _FPS_TOLERANCE)
        ):
            span = f"{_span(least, most)} pictures per second"
            yield (
                f"has {fps.normalize():f} pictures per second; this model takes {span} here.",
                f"Export it with {span}.",
                str(fps),
                (span,),
            )


def _span(least: object, most: object) -> str:
    if least is None:
        return f"at most {most}"
    return f"at least {least}" if most is None else f"{least} to {most}"
