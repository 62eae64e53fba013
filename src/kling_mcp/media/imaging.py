"""
Decoding a picture to see that it is whole, and redrawing it where fal.ai would show it otherwise than a viewer.

Redrawn, a picture stands upright, in sRGB with 8 bits, on white where it is see-through, in a format and a size
that the endpoint takes. Imported on use only. A decoder sees nothing but files whose header has been judged, one
format at a time.
"""

from __future__ import annotations

import io
import random
from dataclasses import dataclass
from math import ceil, floor
from typing import TYPE_CHECKING, Final, cast

from PIL import Image, ImageCms

from kling_mcp.errors import InputRefused
from kling_mcp.media.limits import MAX_PIXELS, accepts
from kling_mcp.media.metadata import unlike_srgb

if TYPE_CHECKING:
    from collections.abc import Callable

    from kling_mcp.media.image_probe import Format, Header
    from kling_mcp.media.limits import Limits
    from kling_mcp.media.metadata import Drawing

__all__ = ["Redrawn", "redraw"]

# Pictures that are larger do not come here; what is smaller is no bomb.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
_LONGEST_SIDE: Final = 3840
"""The widest video that Kling makes; more pixels than that are work and bytes without a use."""

_QUALITY: Final = 95
# Room below the limit, for what an estimate misses.
_MARGIN: Final = 0.9
_TRIES: Final = 5
_PLAIN_MODES: Final = frozenset({"RGB", "L", "P", "1", "RGBA", "LA", "PA"})
_LOSSLESS: Final[frozenset[Format]] = frozenset({"png", "gif"})
_WRITTEN: Final[tuple[Format, ...]] = ("jpeg", "png", "webp")
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
# Pillow's types leave out what it returns.
_SRGB: Final = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
_END_OF_JPEG: Final = b"\xff\xd9"
_LAST_BYTES: Final = 8
_HAIR: Final = 1e-6
# Differences that rounding makes, of 255.
_ROUNDING: Final = 3


@dataclass(frozen=True, slots=True)
class Redrawn:
    """A new file, and what is different in it, one phrase each."""

    data: bytes
    changes: tuple[str, ...]


def redraw(drawing: Drawing, header: Header, limits: Limits, *, file_name: str, field: str | None) -> Redrawn | None:
    """
    Decode the picture, and redraw it where that is needed to fit *limits* and to look as it should.

    Nothing is made larger. None means that the file can be used as it is.

    Raises:
        InputRefused: It is damaged, or rows are missing.
    """
    try:
        return _redraw(drawing, header, limits)
    except Exception as error:  # whatever a decoder meets in a damaged file, it is the file's fault
        raise InputRefused(
            f"Not all of {file_name!r} is here, or it is damaged: rows of it cannot be decoded. "
            "Is it still downloading?",
            "Once the whole file is there, the same call works; or save it as an ordinary JPEG or PNG, and give that.",
            field=field,
        ) from error


def _redraw(drawing: Drawing, header: Header, limits: Limits) -> Redrawn | None:
    exact = (header.format != "jpeg" or _ends_with_its_rows(drawing.data)) and drawing.exact
    too_large = limits.max_bytes is not None and len(drawing.data) > limits.max_bytes
    wanted = (
        too_large
        or header.orientation != 1
        or not exact
        or drawing.frames
        or header.format in {"avif", "heic"}
        or not accepts(limits, header.format)
        or _scale(header.width, header.height, limits) < 1
    )
    with _opened(drawing.data, header) as image:
        profile = drawing.profile or cast("bytes | None", image.info.get("icc_profile"))
        see_through = image.has_transparency_data and (image.mode.startswith("I") or _see_through(image))
        recolour = _recolouring(profile, image.mode)
        if header.format == "jpeg" and image.mode in _PLAIN_MODES and not (wanted or recolour):
            return None  # its rows have been decoded, and a full decoding would show nothing more
        if header.format == "jpeg":
            # The decoder halves the picture while it reads it, as often as leaves enough of it.
            image.draft(None, _sides(image.size, _LONGEST_SIDE / max(image.size)))
        image.load()
        gamma = cast("float", image.info.get("gamma", 0)) if profile is None else 0.0
        if image.mode in _PLAIN_MODES and not (wanted or recolour or see_through or unlike_srgb(gamma)):
            return None
        changes: list[str] = []
        drawn = _eight_bits(image)
        if recolour is not None:
            drawn = recolour(drawn)
        elif unlike_srgb(gamma):
            drawn = _in_gamma(drawn, gamma)
        if recolour is not None or drawn.mode != image.mode:
            changes.append("colours converted to sRGB")
        if see_through:
            drawn = _on_white(drawn)
            changes.append("what is see-through put on white")
        if drawn.mode not in {"RGB", "L"}:
            drawn = drawn.convert("RGB")
        turned = _turned(drawn, image, header)
        if turned is not drawn:
            changes.append("turned upright")
        if drawing.frames or getattr(image, "n_frames", 1) > 1:
            changes.append("only the first picture of the animation is used")
    target = _target(header.format, limits, too_large=too_large)
    seen = header.width, header.height
    if header.format in {"avif", "heic"}:
        seen = turned.size
    encoded, size, target = _fitted(turned, target, seen, limits)
    if target != header.format:
        changes.append(f"converted from {header.format.upper()} to {target.upper()}")
    if size != seen:
        reason = f" to stay under {limits.max_bytes:,} bytes" if limits.max_bytes is not None and too_large else ""
        changes.append(f"scaled down from {seen[0]} x {seen[1]} to {size[0]} x {size[1]} pixels{reason}")
    return Redrawn(encoded, tuple(changes))


def _opened(data: bytes, header: Header) -> Image.Image:
    if header.format != "heic":
        return Image.open(io.BytesIO(data), formats=[header.format.upper()])
    import pi_heif  # pyright: ignore[reportMissingTypeStubs]

    # It turns and mirrors as the file says, and makes 8 bits of 10.
    opened = pi_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=True)  # pyright: ignore[reportUnknownMemberType]
    image = opened.to_pillow()
    image.info.pop("exif", None)
    return image


def _ends_with_its_rows(data: bytes) -> bool:
    """
    Whether the coded pixels of a JPEG end where the file does, and no stray bytes follow them.

    Where the pixels end too early, the decoder makes up the rest without a word. So the end is put off with bytes that
    are no picture: they are skipped after the last row, and drawn where rows are missing. And where the last bytes can
    be replaced without a change, they draw nothing.

    Raises:
        ValueError: Rows are missing.
    """
    progressive = b"\xff\xc2" in data or b"\xff\xca" in data
    # A 0xff before the bytes that are put there would make a marker of them.
    body = data[: -len(_END_OF_JPEG)].rstrip(b"\xff")

    def decoded(coded: bytes, *, small: bool = not progressive) -> bytes:
        with Image.open(io.BytesIO(coded + _END_OF_JPEG), formats=["JPEG"]) as image:
            if small:
                # At an eighth every block is one pixel: as telling, and far cheaper.
                image.draft(None, (max(1, image.width // 8), max(1, image.height // 8)))
            return image.tobytes()

    whole, other = decoded(body), body[:-_LAST_BYTES] + _NO_PICTURE
    if whole != decoded(body + _NO_PICTURE):
        raise ValueError("rows are missing")
    try:
        return whole != decoded(other) or decoded(body, small=False) != decoded(other, small=False)
    except OSError:  # the last scan has fewer bytes, so its header was replaced
        return True


def _noise() -> bytes:
    dice = random.Random(0)  # noqa: S311 - the same bytes each time
    parts = [bytes(dice.choices(range(255), k=250)) + bytes((0xFF, 0xD0 + number)) for number in range(8)]
    return b"".join(parts) * 2


_NO_PICTURE: Final = _noise()


def _eight_bits(image: Image.Image) -> Image.Image:
    """The picture in RGB, RGBA, L, LA or CMYK, with 8 bits."""
    if image.mode.startswith("I"):
        # Pillow's types name numpy's, which is not installed.
        grey = image.convert("I").point(lambda value: value * (1 / 257) + 0.5).convert("L")  # pyright: ignore[reportUnknownMemberType]
        hidden = cast("object", image.info.get("transparency"))
        if isinstance(hidden, int):
            grey.putalpha(grey.point([0 if level == round(hidden / 257) else 255 for level in range(256)]))  # pyright: ignore[reportUnknownMemberType]
        return grey
    if image.mode in {"P", "PA", "1"} or "transparency" in image.info:
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    return image


def _see_through(image: Image.Image) -> bool:
    alpha = image.convert("RGBA").getchannel("A")
    lowest, _ = alpha.getextrema()
    return isinstance(lowest, (int, float)) and lowest < 255


def _on_white(image: Image.Image) -> Image.Image:
    ground = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")


def _recolouring(profile: bytes | None, mode: str) -> Callable[[Image.Image], Image.Image] | None:
    """What brings the colours from *profile* to sRGB; None where they are that already, or nothing can be read."""
    if not profile:
        return None
    colours = {"L": "L", "LA": "L", "I;16": "L", "I": "L", "CMYK": "CMYK"}.get(mode, "RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, _SRGB, colours, "RGB")
        sample = _sample(colours)
        shown = ImageCms.applyTransform(sample, transform)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    if shown is None or (colours != "CMYK" and _alike(sample.convert("RGB"), shown)):
        return None

    def recolour(image: Image.Image) -> Image.Image:
        alpha = image.getchannel("A") if "A" in image.getbands() else None
        plain = ImageCms.applyTransform(image.convert(colours), transform)
        if plain is None:  # pragma: no cover - only where it is asked to work in place
            return image
        if alpha is not None:
            plain.putalpha(alpha)
        return plain

    return recolour


def _sample(colours: str) -> Image.Image:
    """Some of all colours: a ramp of greys, or a cube."""
    if colours == "L":
        return Image.frombytes("L", (256, 1), bytes(range(256)))
    steps = range(0, 256, 51)
    cube = bytes(value for red in steps for green in steps for blue in steps for value in (red, green, blue))
    return Image.frombytes("RGB", (216, 1), cube).convert(colours)


def _alike(one: Image.Image, other: Image.Image) -> bool:
    return all(abs(a - b) <= _ROUNDING for a, b in zip(one.tobytes(), other.tobytes(), strict=True))


def _in_gamma(image: Image.Image, gamma: float) -> Image.Image:
    curve = [round(255 * (value / 255) ** (1 / (2.2 * gamma))) for value in range(256)]
    straight = list(range(256))
    levels = [level for band in image.getbands() for level in (straight if band == "A" else curve)]
    return image.point(levels)  # pyright: ignore[reportUnknownMemberType]


def _turned(drawn: Image.Image, image: Image.Image, header: Header) -> Image.Image:
    # Pillow tells an AVIF's irot and imir as an EXIF orientation.
    orientation = image.getexif().get(0x0112, 1) if header.format == "avif" else header.orientation
    return drawn.transpose(_TURNS[orientation]) if orientation in _TURNS else drawn


def _target(current: Format, limits: Limits, *, too_large: bool) -> Format:
    """The format to write: what loses nothing where nothing was lost yet, and JPEG for the rest."""
    first: Format = "png" if current in _LOSSLESS and not (too_large and accepts(limits, "jpeg")) else "jpeg"
    for choice in (first, *_WRITTEN):
        if accepts(limits, choice):
            return choice
    return first


def _scale(width: int, height: int, limits: Limits) -> float:
    """What the sides have to be multiplied by to keep to the largest ones that the endpoint names."""
    return min(1.0, (limits.max_width or width) / width, (limits.max_height or height) / height)


def _fitted(
    image: Image.Image, target: Format, seen: tuple[int, int], limits: Limits
) -> tuple[bytes, tuple[int, int], Format]:
    """*image* in so few bytes as the endpoint takes; how much smaller it has to be is worked out from the last try."""
    scale = min(_scale(*seen, limits), _LONGEST_SIDE / max(seen), 1.0)
    most = limits.max_bytes
    encoded, size = b"", image.size
    for _ in range(_TRIES):
        size = _sides(seen, scale)
        # Pillow's types name numpy's, which is not installed.
        smaller = image if size == image.size else image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)  # pyright: ignore[reportUnknownMemberType]
        encoded = _encode(smaller, target)
        if most is not None and len(encoded) > most and target == "png" and accepts(limits, "jpeg"):
            target = "jpeg"
            encoded = _encode(smaller, target)
        if most is None or len(encoded) <= most:
            break
        scale *= (most * _MARGIN / len(encoded)) ** 0.5
    return encoded, size, target


def _sides(seen: tuple[int, int], scale: float) -> tuple[int, int]:
    """The sides, rounded towards a square, so that no limit of the shape is passed by a fraction of a pixel."""
    if scale >= 1:
        return seen
    long, short = max(1, floor(max(seen) * scale + _HAIR)), max(1, ceil(min(seen) * scale - _HAIR))
    short = min(long, short)
    return (long, short) if seen[0] >= seen[1] else (short, long)


def _encode(image: Image.Image, target: Format) -> bytes:
    buffer = io.BytesIO()
    options = {"compress_level": 4} if target == "png" else {"quality": _QUALITY, "subsampling": 0}
    if target == "webp":
        options = {"quality": _QUALITY}
    image.info.clear()  # nothing of the first file gets into the new one
    image.save(buffer, format=target.upper(), **options)
    return buffer.getvalue()
