"""
What pictures, videos and sounds are, by their bytes, as far as Pillow and PyAV are installed.

It is written apart from what kling-mcp itself looks with, so that the one can prove the other.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

__all__ = ["Picture", "Recording", "Unreadable", "first_frame", "picture_of", "recording_of"]

_TURNED: Final = range(5, 9)
"""Values of EXIF's orientation that exchange width and height."""
_ORIENTATION: Final = 0x0112

_FORMATS: Final = (
    (re.compile(rb"....ftypqt  ", re.DOTALL), "mov", "mov"),
    (re.compile(rb"....ftypM4A", re.DOTALL), "m4a", "mov"),
    (re.compile(rb"....ftyp", re.DOTALL), "mp4", "mov"),
    (re.compile(rb"\x1aE\xdf\xa3"), "webm", "matroska"),
    (re.compile(rb"RIFF....WAVE", re.DOTALL), "wav", "wav"),
    (re.compile(rb"OggS"), "ogg", "ogg"),
    (re.compile(rb"fLaC"), "flac", "flac"),
    (re.compile(rb"\xff[\xf0\xf1\xf8\xf9]"), "aac", "aac"),
    (re.compile(rb"ID3|\xff[\xe2-\xff]"), "mp3", "mp3"),
)
"""How files begin, their names, and FFmpeg's reader: without that it might read a list of other files."""


class Unreadable(Exception):
    """The bytes are not what they should be."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as it is seen."""

    format: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Recording:
    """A video or sound."""

    format: str
    seconds: Decimal
    sound: bool


def picture_of(data: bytes) -> Picture | None:
    """
    The picture in *data*; None where it cannot be looked at here.

    Raises:
        Unreadable: It is no picture.
    """
    if importlib.util.find_spec("PIL") is None:
        return None
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as picture:
            width, height = picture.size
            turned = picture.getexif().get(_ORIENTATION) in _TURNED
            return Picture((picture.format or "").lower(), *((height, width) if turned else (width, height)))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        # Older releases of Pillow do not know AVIF.
        if b"avif" in data[8:32]:
            return None
        raise Unreadable from None


def recording_of(data: bytes) -> Recording | None:
    """
    The video or sound in *data*; None where it cannot be looked at here.

    Raises:
        Unreadable: It is neither.
    """
    kind, reader = _reader(data)
    if importlib.util.find_spec("av") is None:
        return None
    # PyAV's own types are incomplete.
    av: Any = importlib.import_module("av")
    try:
        with av.open(io.BytesIO(data), format=reader) as container:
            lengths = [stream.duration * stream.time_base for stream in container.streams if stream.duration]
            microseconds = container.duration or (int(max(lengths) * 1_000_000) if lengths else 0)
            seconds = (Decimal(microseconds) / 1_000_000).quantize(Decimal("0.001"))
            return Recording(kind, seconds, bool(container.streams.audio))
    except (av.error.FFmpegError, ValueError):
        raise Unreadable from None


def first_frame(data: bytes) -> bytes | None:
    """The first picture of the video in *data*, as a PNG; None where there is none to be had."""
    if any(importlib.util.find_spec(name) is None for name in ("av", "PIL")):
        return None
    av: Any = importlib.import_module("av")
    file = io.BytesIO()
    try:
        with av.open(io.BytesIO(data), format=_reader(data)[1]) as container:
            next(container.decode(video=0)).to_image().save(file, "PNG")
    except (av.error.FFmpegError, ValueError, IndexError, StopIteration, Unreadable):
        return None
    return file.getvalue()


def _reader(data: bytes) -> tuple[str, str]:
    for beginning, kind, reader in _FORMATS:
        if beginning.match(data):
            return kind, reader
    raise Unreadable
