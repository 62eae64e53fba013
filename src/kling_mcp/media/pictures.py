"""
Pictures in: from a path or a ``data:`` URI to bytes that an endpoint accepts and that tell nothing about their owner.

Everything here happens before any upload and any money. Metadata is always removed. With Pillow installed a picture
is also turned upright, converted and scaled down when the endpoint needs that; without it such a picture is refused,
with the numbers.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import sys
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Final, Literal, Protocol
from urllib.parse import unquote_to_bytes

from kling_mcp.errors import InputRefused
from kling_mcp.media import confined
from kling_mcp.media.headers import Format, Header, Malformed, inspect
from kling_mcp.media.metadata import without_metadata
from kling_mcp.media.optional import INSTALL_HINT, installed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from decimal import Decimal
    from pathlib import Path

__all__ = [
    "MAX_DATA_URI_BYTES",
    "NO_LIMITS",
    "Limits",
    "Picture",
    "PictureLimits",
    "check",
    "kind_of",
    "load",
    "prepare",
]

MAX_DATA_URI_BYTES: Final = 10 * 1024 * 1024
_MAX_FILE_BYTES: Final = 64 * 1024 * 1024
_PRIVATE_KEY: Final = re.compile(rb"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----")
_DATA_URI: Final = re.compile(r"data:[a-z0-9.+/;=_ -]{0,200};base64,", re.IGNORECASE)
_ENDINGS: Final[dict[Format, str]] = {"jpeg": ".jpg", "png": ".png", "webp": ".webp", "gif": ".gif", "avif": ".avif"}

Source = Literal["url", "data", "job", "path"]


class Limits(Protocol):
    """What an endpoint accepts; None where it does not say. The catalogue has such a value for each picture."""

    @property
    def max_bytes(self) -> int | None:
        """Bytes of the file."""
        ...

    @property
    def min_width(self) -> int | None:
        """Pixels per row."""
        ...

    @property
    def min_height(self) -> int | None:
        """Rows."""
        ...

    @property
    def min_aspect_ratio(self) -> float | Decimal | None:
        """Width divided by height."""
        ...

    @property
    def max_aspect_ratio(self) -> float | Decimal | None:
        """Width divided by height."""
        ...

    @property
    def formats(self) -> Collection[str] | None:
        """Names such as ``jpeg`` or ``image/jpeg``."""
        ...


@dataclass(frozen=True, slots=True)
class PictureLimits:
    """What an endpoint accepts: bytes, pixels, width divided by height, and names such as ``jpeg``."""

    max_bytes: int | None = None
    min_width: int | None = None
    min_height: int | None = None
    min_aspect_ratio: float | Decimal | None = None
    max_aspect_ratio: float | Decimal | None = None
    formats: tuple[str, ...] | None = None


NO_LIMITS: Final = PictureLimits()


@dataclass(frozen=True, slots=True)
class Picture:
    """
    A picture that may be uploaded.

    Args:
        data: The file.
        content_type: Such as ``image/jpeg``, from the bytes.
        file_name: The name without the folder, with the ending that fits the bytes.
        width: Pixels per row, as seen.
        height: Rows, as seen.
        sha256: Of *data*, in hexadecimal.
        changes: What was changed, one phrase each.
    """

    data: bytes
    content_type: str
    file_name: str
    width: int
    height: int
    sha256: str
    changes: tuple[str, ...] = ()


def kind_of(source: str) -> Source:
    """What a picture argument is: a web address, a ``data:`` URI, a job's last frame, or else a path."""
    lower = source[:8].lower()
    if lower.startswith(("http:", "https:")):
        return "url"
    if lower.startswith("data:"):
        return "data"
    return "job" if lower.startswith("kling:") else "path"


def load(
    source: str,
    *,
    folders: Iterable[Path | confined.AllowedFolder],
    limits: Limits | None = None,
    field: str | None = None,
    pillow: bool | None = None,
    forbidden: Iterable[bytes] = (),
) -> Picture:
    """
    Read a picture from a path, a ``file://`` address or a ``data:`` URI and make it fit.

    Args:
        source: What the caller gave.
        folders: The folders that pictures may be read from.
        limits: What the endpoint accepts.
        field: The argument it came in, for a refusal.
        pillow: Whether Pillow may be used; None finds out.
        forbidden: Byte strings that must not leave this machine, such as the fal key.

    Raises:
        InputRefused: The place, the file or the picture breaks a rule.
    """
    if kind_of(source) == "data":
        contents = confined.Contents("picture", _decoded(source, field))
    else:
        contents = confined.read(_path_of(source, field), folders, max_bytes=_MAX_FILE_BYTES, field=field)
    return prepare(contents.data, contents.name, limits=limits, field=field, pillow=pillow, forbidden=forbidden)


def prepare(
    data: bytes,
    file_name: str,
    *,
    limits: Limits | None = None,
    field: str | None = None,
    pillow: bool | None = None,
    forbidden: Iterable[bytes] = (),
) -> Picture:
    """
    Make the picture *data* fit: see `load`.

    Raises:
        InputRefused: It is no picture, is damaged, holds a secret, or cannot be made to fit.
    """
    limits = limits or NO_LIMITS
    pillow = installed("PIL") if pillow is None else pillow
    if _PRIVATE_KEY.search(data) or any(secret and secret in data for secret in forbidden):
        raise InputRefused(
            f"{file_name!r} has a key or another secret in it, and an uploaded file becomes a public link.",
            "Give another picture.",
            field=field,
        )
    try:
        header = inspect(data)
        clean = without_metadata(data, header)
    except Malformed as error:
        raise InputRefused(
            f"{file_name!r} is not a picture that can be used: {error}.",
            "Give a JPEG, PNG, WebP, GIF or AVIF file.",
            field=field,
        ) from None
    changes = _removals(header, changed=clean != data)
    obstacles = _obstacles(clean, header, limits)
    if obstacles and pillow:
        from kling_mcp.media.imaging import redraw

        redrawn = redraw(clean, header, limits, file_name=file_name, field=field)
        clean, changes = redrawn.data, (*changes, *redrawn.changes)
        header = inspect(clean)
    elif header.format == "avif" and header.metadata:
        raise InputRefused(
            f"{file_name!r} is an AVIF file with metadata, which may say where it was taken and is not removed "
            "without the optional imaging part.",
            f"Save it as JPEG or PNG, or install the optional part: {INSTALL_HINT}",
            field=field,
        )
    picture = Picture(
        data=clean,
        content_type=f"image/{header.format}",
        file_name=PurePath(file_name).stem + _ENDINGS[header.format],
        width=header.width,
        height=header.height,
        sha256=hashlib.sha256(clean).hexdigest(),
        changes=changes,
    )
    check(picture, limits, field=field, pillow=pillow)
    return picture


def check(picture: Picture, limits: Limits, *, field: str | None = None, pillow: bool = True) -> None:
    """
    Compare *picture* with what the endpoint accepts.

    Raises:
        InputRefused: With the numbers, and what would work.
    """
    rule = _rule_against(picture, limits)
    if rule is None:
        return
    what, mendable = rule
    hint = f" Pictures are converted and scaled down here once the optional part is installed: {INSTALL_HINT}"
    raise InputRefused(
        f"{picture.file_name!r} {what}",
        "Give a picture that keeps to this." + (hint if mendable and not pillow else ""),
        field=field,
    )


def accepts(limits: Limits, name: str) -> bool:
    """Whether the endpoint takes pictures of the format *name*; its list may say ``jpg`` or ``image/jpeg`` for one."""
    if limits.formats is None:
        return True
    plain = {entry.lower().removeprefix("image/").removeprefix(".") for entry in limits.formats}
    return name in plain or (name == "jpeg" and "jpg" in plain)


def _rule_against(picture: Picture, limits: Limits) -> tuple[str, bool] | None:
    """The limit that *picture* breaks as the end of a sentence, and whether Pillow could mend it."""
    width, height, size = picture.width, picture.height, len(picture.data)
    name = picture.content_type.removeprefix("image/")
    if limits.formats is not None and not accepts(limits, name):
        return f"is {name.upper()}; this model takes {', '.join(limits.formats)}.", True
    if limits.max_bytes is not None and size > limits.max_bytes:
        return f"has {size:,} bytes; this model takes at most {limits.max_bytes:,}.", True
    if (limits.min_width is not None and width < limits.min_width) or (
        limits.min_height is not None and height < limits.min_height
    ):
        least = f"{limits.min_width or 1} x {limits.min_height or 1}"
        return f"is {width} x {height} pixels; this model takes at least {least}.", False
    ratio = width / height
    if (limits.min_aspect_ratio is not None and ratio < limits.min_aspect_ratio) or (
        limits.max_aspect_ratio is not None and ratio > limits.max_aspect_ratio
    ):
        least, most = limits.min_aspect_ratio or 0, limits.max_aspect_ratio or "any"
        shape = f"an aspect ratio (width / height) of {ratio:.2f}"
        return f"is {width} x {height} pixels, {shape}; this model takes {least} to {most}.", False
    return None


def _obstacles(data: bytes, header: Header, limits: Limits) -> bool:
    """Whether the picture has to be drawn anew to be used."""
    return (
        header.orientation != 1
        or not accepts(limits, header.format)
        or (limits.max_bytes is not None and len(data) > limits.max_bytes)
        or (header.format == "avif" and header.metadata)
    )


def _removals(header: Header, *, changed: bool) -> tuple[str, ...]:
    if header.location:
        return ("the place where it was taken (GPS) and other metadata removed",)
    return ("metadata removed",) if changed else ()


def _decoded(source: str, field: str | None) -> bytes:
    start = _DATA_URI.match(source)
    if start is None:
        raise InputRefused(
            "The data: URI is not a base64 picture.", "Write it as data:image/png;base64,… .", field=field
        )
    # Four characters carry three bytes; what is longer need not be decoded to be too long.
    if (len(source) - start.end()) * 3 // 4 > MAX_DATA_URI_BYTES + 3:
        raise _too_long(field)
    payload = source[start.end() :]
    try:
        plain = unquote_to_bytes(payload) if "%" in payload else payload.encode("ascii")
        data = base64.b64decode(b"".join(plain.split()), validate=True)
    except (binascii.Error, UnicodeError):
        raise InputRefused(
            "The data: URI has characters in it that are not base64, or is cut off.",
            "Give the whole picture as base64, or save it as a file and give the path.",
            field=field,
        ) from None
    if len(data) > MAX_DATA_URI_BYTES:
        raise _too_long(field)
    return data


def _too_long(field: str | None) -> InputRefused:
    return InputRefused(
        f"The data: URI has more than {MAX_DATA_URI_BYTES:,} bytes.",
        "Save the picture in one of the folders that KLING_MCP_INPUT_DIRS names and give its path.",
        field=field,
    )


def _path_of(source: str, field: str | None, *, windows: bool = sys.platform == "win32") -> str:
    """The path in a ``file://`` address (RFC 8089), or *source* itself."""
    if source[:7].lower() != "file://":
        return source
    rest = source[7:].removeprefix("localhost")
    try:
        path = unquote_to_bytes(rest).decode()
    except UnicodeDecodeError:
        raise InputRefused(
            "The file address does not spell a path in UTF-8.", "Give the absolute path itself.", field=field
        ) from None
    return path.removeprefix("/") if windows and re.match(r"/[A-Za-z]:", path) else path
