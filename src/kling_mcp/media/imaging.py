"""
Drawing a picture anew with Pillow: upright, in a format that the endpoint takes, small enough.

Imported on use only. Pillow sees nothing but files whose header has been judged, one format at a time.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from PIL import Image

from kling_mcp.errors import InputRefused
from kling_mcp.media.pictures import accepts

if TYPE_CHECKING:
    from kling_mcp.media.headers import Format, Header
    from kling_mcp.media.pictures import Limits

__all__ = ["Redrawn", "redraw"]

_MAX_PIXELS: Final = 80_000_000
_QUALITY: Final = 95
_SMALLER: Final = 0.85
# EXIF 2.3, table 6: what has to be done to see the picture upright.
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What can be written as it is; the rest becomes RGB.
_MODES: Final[dict[Format, frozenset[str]]] = {
    "jpeg": frozenset({"RGB", "L", "CMYK"}),
    "png": frozenset({"RGB", "RGBA", "L", "LA", "I;16"}),
    "webp": frozenset({"RGB", "RGBA"}),
}


@dataclass(frozen=True, slots=True)
class Redrawn:
    """A new file, and what is different in it, one phrase each."""

    data: bytes
    changes: tuple[str, ...]


def redraw(data: bytes, header: Header, limits: Limits, *, file_name: str, field: str | None) -> Redrawn:
    """
    Draw the picture *data* anew so that it fits *limits* as far as that can be done without inventing pixels.

    Raises:
        InputRefused: It is damaged, or too large to be decoded.
    """
    if header.width * header.height > _MAX_PIXELS:
        raise InputRefused(
            f"{file_name!r} is {header.width} x {header.height} pixels; "
            f"at most {_MAX_PIXELS:,} in all can be worked on.",
            "Give a smaller picture.",
            field=field,
        )
    try:
        return _redraw(data, header, limits)
    except Exception as error:  # whatever a decoder meets in a damaged file, it is the file's fault
        raise InputRefused(
            f"{file_name!r} cannot be decoded; it seems to be damaged.", "Give another picture.", field=field
        ) from error


def _redraw(data: bytes, header: Header, limits: Limits) -> Redrawn:
    changes: list[str] = []
    with Image.open(io.BytesIO(data), formats=[header.format.upper()]) as opened:
        profile = opened.info.get("icc_profile")
        frames = getattr(opened, "n_frames", 1)
        image = opened.convert("RGBA" if opened.has_transparency_data else "RGB") if opened.mode == "P" else opened
        image.load()
        if header.orientation != 1:
            image = image.transpose(_TURNS[header.orientation])
            changes.append("turned upright")
        if frames > 1:
            changes.append("only the first frame of the animation is used")
        target = _target(header.format, image, limits)
        encoded = _encode(image, target, profile)
        too_large = limits.max_bytes is not None and len(encoded) > limits.max_bytes
        if too_large and target == "png" and not _see_through(image) and accepts(limits, "jpeg"):
            target = "jpeg"
            encoded = _encode(image, target, profile)
        smaller = image
        while limits.max_bytes is not None and len(encoded) > limits.max_bytes and min(smaller.size) > 1:
            # A step in proportion to the excess, and never a timid one.
            step = min(_SMALLER, (limits.max_bytes / len(encoded)) ** 0.5)
            width, height = (max(1, round(side * step)) for side in smaller.size)
            # Pillow's types name numpy's, which is not installed.
            smaller = image.resize((width, height), Image.Resampling.LANCZOS)  # pyright: ignore[reportUnknownMemberType]
            encoded = _encode(smaller, target, profile)
    if target != header.format:
        changes.append(f"converted from {header.format.upper()} to {target.upper()}")
    if smaller.size != image.size:
        (width, height), (new_width, new_height) = image.size, smaller.size
        changes.append(
            f"scaled down from {width} x {height} to {new_width} x {new_height} pixels "
            f"to stay under {limits.max_bytes:,} bytes"
        )
    return Redrawn(encoded, tuple(changes))


def _target(current: Format, image: Image.Image, limits: Limits) -> Format:
    """The format to write: the present one where it is accepted and can be written, else what loses least."""
    if current in _MODES and accepts(limits, current):
        return current
    choices: tuple[Format, ...] = ("png", "webp", "jpeg") if _see_through(image) else ("jpeg", "png", "webp")
    for choice in choices:
        if accepts(limits, choice):
            return choice
    return "jpeg"


def _see_through(image: Image.Image) -> bool:
    if "A" not in image.getbands():
        return False
    lowest, _ = image.getchannel("A").getextrema()
    return isinstance(lowest, (int, float)) and lowest < 255


def _encode(image: Image.Image, target: Format, profile: bytes | None) -> bytes:
    if _see_through(image) and target == "jpeg":
        ground = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(ground, image.convert("RGBA"))
    if image.mode not in _MODES[target]:
        image = image.convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, format=target.upper(), quality=_QUALITY, icc_profile=profile)
    return buffer.getvalue()
