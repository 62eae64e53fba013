"""
Pictures in: from a path or a ``data:`` URI to bytes that an endpoint accepts and that tell nothing about their owner.

Everything here happens before any upload and any money. What leaves has only what draws the picture, under a neutral
name. With the imaging part (Pillow and pi-heif) a picture is decoded once, and redrawn where it is turned, too
large, of another format, or of a kind that programs show wrong; without it such a picture is refused, with what to do.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kling_mcp.errors import InputRefused
from kling_mcp.media import allowed_paths
from kling_mcp.media.image_probe import Format, Header, Incomplete, Malformed, inspect
from kling_mcp.media.limits import MAX_PIXELS, NO_LIMITS, Limits, MediaLimits, accepts
from kling_mcp.media.metadata import Drawing, drawing_only, is_srgb
from kling_mcp.media.optional import INSTALL_HINT, usable
from kling_mcp.media.sources import MAX_DATA_URI_BYTES, decoded, kind_of, path_of, unwrapped

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = [
    "MAX_DATA_URI_BYTES",
    "MAX_PIXELS",
    "NO_LIMITS",
    "Limits",
    "MediaLimits",
    "Picture",
    "check",
    "kind_of",
    "load",
    "prepare",
    "read",
    "unwrapped",
]

_MAX_FILE_BYTES: Final = 128 * 1024 * 1024
_PRIVATE_KEY: Final = re.compile(rb"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----")
_ENDINGS: Final[dict[Format, str]] = {"jpeg": ".jpg", "png": ".png", "webp": ".webp", "gif": ".gif"}
_FORMATS: Final = "JPEG, PNG, WebP, GIF, AVIF or HEIC"
_BY_HAND: Final = "Open it in any picture program and save it as an ordinary JPEG, then give that"
_HEIC_BY_HAND: Final = (
    "Open it on the iPhone or Mac and export it as JPEG (in Preview: File, Export), or with ImageMagick: "
    "magick picture.heic picture.jpg. An iPhone makes JPEG itself with Settings, Camera, Formats, Most Compatible"
)


@dataclass(frozen=True, slots=True)
class Picture:
    """
    A picture that may be uploaded.

    Args:
        data: The file.
        content_type: Such as ``image/jpeg``, from the bytes.
        file_name: A name that says nothing about the owner, with the ending that fits the bytes.
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

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.data)

    def read(self, offset: int, count: int) -> bytes:
        """At most *count* bytes from *offset* on."""
        return self.data[offset : offset + count]


def load(
    source: str,
    *,
    folders: Iterable[Path | allowed_paths.AllowedFolder],
    limits: Limits | None = None,
    field: str | None = None,
    pillow: bool | None = None,
    heif: bool | None = None,
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
        heif: The same of pi-heif.
        forbidden: Byte strings that must not leave this machine, such as the fal key.

    Raises:
        InputRefused: The place, the file or the picture breaks a rule.
    """
    contents = read(source, folders=folders, field=field)
    return prepare(
        contents.data, contents.name, limits=limits, field=field, pillow=pillow, heif=heif, forbidden=forbidden
    )


def read(
    source: str, *, folders: Iterable[Path | allowed_paths.AllowedFolder], field: str | None = None
) -> allowed_paths.Contents:
    """
    The bytes of a path, a ``file://`` address or a ``data:`` URI, and a name for them.

    Raises:
        InputRefused: The place or the file breaks a rule.
    """
    source = unwrapped(source)
    if kind_of(source) == "data":
        data = decoded(source, what="picture", field=field)
        return allowed_paths.Contents("the picture in the data: URI", data)
    return allowed_paths.read(path_of(source), folders, max_bytes=_MAX_FILE_BYTES, field=field)


def prepare(
    data: bytes,
    file_name: str,
    *,
    limits: Limits | None = None,
    field: str | None = None,
    pillow: bool | None = None,
    heif: bool | None = None,
    forbidden: Iterable[bytes] = (),
) -> Picture:
    """
    Make the picture *data* fit: see `load`.

    Raises:
        InputRefused: It is no picture, is damaged, holds a secret, or cannot be made to fit.
    """
    limits = limits or NO_LIMITS
    pillow = usable("PIL") if pillow is None else pillow
    if _PRIVATE_KEY.search(data) or any(secret and secret in data for secret in forbidden):
        raise InputRefused(
            f"{file_name!r} has a key or another secret in it, and an uploaded file becomes a public link.",
            "Give another picture.",
            field=field,
        )
    try:
        header = inspect(data)
        if header.width * header.height > MAX_PIXELS:
            raise InputRefused(
                f"{file_name!r} is {header.width} x {header.height} pixels; at most {MAX_PIXELS:,} in all are taken.",
                "Give a smaller picture.",
                field=field,
            )
        drawing = drawing_only(data, header)
    except Incomplete:
        raise InputRefused(
            f"Not all of {file_name!r} is here, or it is damaged: its pixels end too early. Is it still downloading?",
            "Once the whole file is there, the same call works; or save it as an ordinary JPEG or PNG, and give that.",
            field=field,
        ) from None
    except Malformed as error:
        raise InputRefused(
            f"{file_name!r} is not a picture that can be used: {error}.",
            f"Give a {_FORMATS} file; most picture programs can save what they show as JPEG.",
            field=field,
        ) from None
    changes = _removals(header, changed=drawing.data != data)
    clean = drawing.data
    if header.format == "heic" and not (pillow and (usable("pi_heif") if heif is None else heif)):
        raise _needs_imaging(file_name, "is a HEIC picture", _HEIC_BY_HAND, field)
    if pillow:
        from kling_mcp.media.imaging import redraw

        redrawn = redraw(drawing, header, limits, file_name=file_name, field=field)
        if redrawn is not None:
            clean, changes = redrawn.data, (*changes, *redrawn.changes)
            header = inspect(clean)
    else:
        clean = _as_it_is(drawing, header, file_name, field)
    picture = Picture(
        data=clean,
        content_type=f"image/{header.format}",
        file_name=f"picture{_ENDINGS.get(header.format, '')}",
        width=header.width,
        height=header.height,
        sha256=hashlib.sha256(clean).hexdigest(),
        changes=changes,
    )
    check(picture, limits, field=field, pillow=pillow, name=file_name)
    return picture


def _as_it_is(drawing: Drawing, header: Header, file_name: str, field: str | None) -> bytes:
    """
    The picture as a viewer shows it, without a decoder.

    Raises:
        InputRefused: fal.ai may show it otherwise.
    """
    reason = drawing.unusual
    if drawing.profile and not is_srgb(drawing.profile):
        reason = "has other colours than sRGB, and fal.ai may show them wrong"
    if header.format == "avif":
        reason = "is an AVIF picture, from which metadata cannot be removed without decoding it"
    elif not drawing.exact:
        reason = "does not end where its pixels do, so it cannot be told without decoding it what belongs to it"
    elif header.orientation != 1:
        reason = "is stored turned or mirrored, and fal.ai may show it that way"
    elif drawing.see_through:
        reason = "is see-through in places, and fal.ai may show what is under them"
    if reason is not None:
        raise _needs_imaging(file_name, reason, _BY_HAND, field)
    return drawing.data


def _needs_imaging(file_name: str, reason: str, by_hand: str, field: str | None) -> InputRefused:
    return InputRefused(
        f"{file_name!r} {reason}. This program puts that right, but the part that decodes pictures is not installed.",
        f"{by_hand}. Or the user installs that part: {INSTALL_HINT}",
        field=field,
    )


def check(
    picture: Picture, limits: Limits, *, field: str | None = None, pillow: bool = True, name: str | None = None
) -> None:
    """
    Compare *picture* with what the endpoint accepts; *name* is what the caller knows it by.

    Raises:
        InputRefused: With the numbers, and what would work.
    """
    rule = _rule_against(picture, limits)
    if rule is None:
        return
    what, mendable = rule
    hint = f" Pictures are converted and scaled down here once Pillow is installed: {INSTALL_HINT}"
    raise InputRefused(
        f"{(name or picture.file_name)!r} {what}",
        "Give a picture that keeps to this." + (hint if mendable and not pillow else ""),
        field=field,
    )


def _rule_against(picture: Picture, limits: Limits) -> tuple[str, bool] | None:
    """The limit that *picture* breaks as the end of a sentence, and whether Pillow could mend it."""
    width, height, size = picture.width, picture.height, len(picture.data)
    name = picture.content_type.removeprefix("image/")
    if limits.formats and not accepts(limits, name):
        return f"is {name.upper()}; this model takes {', '.join(limits.formats)}.", True
    if limits.max_bytes is not None and size > limits.max_bytes:
        return f"has {size:,} bytes; this model takes at most {limits.max_bytes:,}.", True
    if (limits.min_width is not None and width < limits.min_width) or (
        limits.min_height is not None and height < limits.min_height
    ):
        least = f"{limits.min_width or 1} x {limits.min_height or 1}"
        return f"is {width} x {height} pixels; this model takes at least {least}.", False
    if width > (limits.max_width or width) or height > (limits.max_height or height):
        most = f"{limits.max_width or 'any'} x {limits.max_height or 'any'}"
        return f"is {width} x {height} pixels; this model takes at most {most}.", True
    ratio = width / height
    if (limits.min_aspect_ratio is not None and ratio < limits.min_aspect_ratio) or (
        limits.max_aspect_ratio is not None and ratio > limits.max_aspect_ratio
    ):
        least, most = limits.min_aspect_ratio or 0, limits.max_aspect_ratio or "any"
        shape = f"an aspect ratio (width / height) of {ratio:.2f}"
        return f"is {width} x {height} pixels, {shape}; this model takes {least} to {most}.", False
    return None


def _removals(header: Header, *, changed: bool) -> tuple[str, ...]:
    if header.location:
        return ("the place where it was taken (GPS) and other metadata removed",)
    return ("metadata removed",) if changed else ()
