"""
Only what draws a picture: one list for each format of what may leave this machine.

What is uploaded becomes a public link. Cameras and programs write the place, the time, the device, whole prompts and
second pictures into a file, under names that nobody can list. So the lists name what stays: what is needed to draw the
first picture of the file. Pixels are not touched here. On the way the file is checked for completeness, as far as
that can be seen without its decoder: all rows of a PNG and a GIF, all scans of a JPEG.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kling_mcp.media.image_probe import (
    FRAME_MARKERS,
    Header,
    Incomplete,
    Malformed,
    Piece,
    jpeg_segments,
    png_chunks,
    webp_chunks,
)

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

__all__ = ["Drawing", "drawing_only", "is_srgb", "unlike_srgb"]

_JPEG_TABLES: Final = frozenset({0xC4, 0xCC, 0xDA, 0xDB, 0xDC, 0xDD, *FRAME_MARKERS})
_PROFILE_SEGMENT: Final = b"ICC_PROFILE\0"
# With its length, where the format fixes one; None where it does not. PNG, third edition, section 11.
_PNG_CHUNKS: Final[dict[bytes, int | None]] = {
    b"IHDR": 13,
    b"PLTE": None,
    b"tRNS": None,
    b"IDAT": None,
    b"gAMA": 4,
    b"cHRM": 32,
    b"sRGB": 1,
    b"cICP": 4,
}
_PNG_CRITICAL: Final = frozenset({b"IHDR", b"PLTE", b"IDAT"})
# What is said less exactly than by a profile or by the name of sRGB.
_PNG_COLOURS: Final = frozenset({b"gAMA", b"cHRM"})
_PNG_SAMPLES: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# Where each pass begins and how far apart its pixels are: PNG, third edition, section 8.1.
_ADAM7: Final = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_WEBP_CHUNKS: Final = frozenset({b"VP8X", b"VP8 ", b"VP8L", b"ALPH"})
_WEBP_ALPHA: Final = 0x10
# IEC 61966-2-1, adapted to the white of the profile connection space.
_SRGB_PRIMARIES: Final = (0.4361, 0.2225, 0.0139, 0.3851, 0.7169, 0.0971, 0.1431, 0.0606, 0.7142)


@dataclass(frozen=True, slots=True)
class Drawing:
    """
    A picture without anything that does not draw it.

    Args:
        data: The file, without its colour profile.
        profile: That profile.
        exact: Whether it ends where its pixels do, as far as can be told; else only its decoder can tell.
        frames: Whether there are further pictures, which are left out.
        see_through: Whether some pixels are, as far as can be told without a decoder.
        unusual: What a program may show wrong that does not know its kind, as the end of a sentence.
    """

    data: bytes
    profile: bytes | None = None
    exact: bool = True
    frames: bool = False
    see_through: bool = False
    unusual: str | None = None


def drawing_only(data: bytes, header: Header) -> Drawing:
    """
    *data* with what draws its first picture, and nothing else; AVIF and HEIC keep what they have, to be redrawn.

    Raises:
        Malformed: The file is damaged after its header.
        Incomplete: Not all of it is here.
    """
    try:
        match header.format:
            case "jpeg":
                return _jpeg(data)
            case "png":
                return _png(data, header)
            case "webp":
                return _webp(data)
            case "gif":
                return _gif(data)
            case _:
                return Drawing(data[: header.end])
    except (struct.error, IndexError) as error:
        raise Incomplete("the picture is cut off") from error


def is_srgb(profile: bytes) -> bool:
    """
    Whether a colour profile says what every program assumes anyway, or nothing that a viewer would use.

    It is read as far as three primaries and a curve go (ICC.1:2022, sections 8.3 and 10).
    """
    try:
        if profile[36:40] != b"acsp":
            return True
        (count,) = struct.unpack_from(">I", profile, 128)
        entries = [struct.unpack_from(">4sII", profile, 132 + 12 * number) for number in range(min(count, 100))]
        tags = {name: profile[start : start + size] for name, start, size in entries}
        if profile[16:20] == b"GRAY":
            return _middle(tags[b"kTRC"])
        primaries = [
            value / 65536 for name in (b"rXYZ", b"gXYZ", b"bXYZ") for value in struct.unpack_from(">3i", tags[name], 8)
        ]
        near = all(abs(a - b) < 0.005 for a, b in zip(primaries, _SRGB_PRIMARIES, strict=True))
        return near and all(_middle(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC"))
    except struct.error:
        return True
    except KeyError:
        return False


def _middle(curve: bytes) -> bool:
    """Whether half of the signal is the light that it is in sRGB, 0.214 of the whole."""
    if curve[:4] == b"para":
        kind, gamma = struct.unpack_from(">HxxI", curve, 8)
        gamma /= 65536
        if kind != 3:
            return kind == 0 and abs(0.5**gamma - 0.214) < 0.01
        scale, offset = (value / 65536 for value in struct.unpack_from(">2i", curve, 16))
        return abs((0.5 * scale + offset) ** gamma - 0.214) < 0.01
    (count,) = struct.unpack_from(">I", curve, 8)
    if count == 0:
        return False
    (value,) = struct.unpack_from(">H", curve, 12 + 2 * (count // 2))
    light = 0.5 ** (value / 256) if count == 1 else value / 65535
    return abs(light - 0.214) < 0.01


# ---- JPEG


def _jpeg(data: bytes) -> Drawing:
    pieces = list(jpeg_segments(data))
    exact = pieces[-1].kind == b"\xd9"
    if not exact:
        # Room that a download reserved is no part of the picture.
        data = data.rstrip(b"\0")
        pieces = list(jpeg_segments(data))
    components = _all_scans(pieces)
    profile = b"".join(
        part for _, part in sorted((piece.body[12:14], piece.body[14:]) for piece in pieces if _holds_profile(piece))
    )
    kept = b"".join(_in_jpeg(data, piece) for piece in pieces)
    unusual = "has four colours for printing (CMYK)" if components == 4 else None
    return Drawing(data[:2] + kept + b"\xff\xd9", profile or None, exact, unusual=unusual)


def _holds_profile(piece: Piece) -> bool:
    return piece.kind == b"\xe2" and piece.body.startswith(_PROFILE_SEGMENT)


def _in_jpeg(data: bytes, piece: Piece) -> bytes:
    """What of a segment draws: JFIF without its thumbnail and Adobe's mark tell how the colours are stored."""
    if piece.kind[0] in _JPEG_TABLES:
        return data[piece.start : piece.end]
    if piece.kind == b"\xe0" and piece.body.startswith(b"JFIF\0"):
        return b"\xff\xe0\0\x10" + piece.body[:12].ljust(12, b"\0") + b"\0\0"
    if piece.kind == b"\xee" and piece.body.startswith(b"Adobe") and len(piece.body) >= 12:
        return b"\xff\xee\0\x0e" + piece.body[:12]
    return b""


def _all_scans(pieces: Iterable[Piece]) -> int:
    """
    See that every component is drawn by some scan, in a progressive JPEG to its last bit, and tell how many there are.

    Raises:
        Incomplete: A scan is missing.
    """
    missing: dict[int, list[int]] = {}
    components, progressive = 0, False
    for piece in pieces:
        if piece.kind[0] in FRAME_MARKERS and not missing:
            progressive = piece.kind[0] in {0xC2, 0xC6, 0xCA, 0xCE}
            components = piece.body[5]
            # The bits that are still to come of the first and the second to sixth coefficient: what the eye sees.
            missing = {piece.body[6 + 3 * number]: [99] * 6 for number in range(components)}
        elif piece.kind == b"\xda":
            count = piece.body[0]
            first, last, bits = struct.unpack_from(">3B", piece.body, 1 + 2 * count)
            for component in piece.body[1 : 1 + 2 * count : 2]:
                for coefficient in range(first, min(last, 5) + 1) if progressive else range(6):
                    missing.get(component, [0] * 6)[coefficient] = bits & 15 if progressive else 0
    if not missing or any(any(bits) for bits in missing.values()):
        raise Incomplete("a scan of the JPEG is missing")
    return components


# ---- PNG


def _png(data: bytes, header: Header) -> Drawing:
    pieces = list(png_chunks(data))
    depth, colour, _, _, interlaced = struct.unpack_from(">5B", pieces[0].body, 8)
    if colour not in _PNG_SAMPLES or depth not in {1, 2, 4, 8, 16}:
        raise Malformed("the PNG has an unknown kind of pixels")
    for piece in pieces:
        broken = (
            piece.end - piece.start == len(piece.body) + 12
            and zlib.crc32(piece.kind + piece.body) != (struct.unpack_from(">I", data, piece.end - 4)[0])
        )
        if broken and piece.kind in _PNG_CRITICAL:
            raise Incomplete("a PNG chunk is damaged")
    pixels, opaque, exact_rows = _rows(pieces, header, depth, colour, interlaced=bool(interlaced))
    kinds = {piece.kind for piece in pieces}
    left_out = _PNG_COLOURS if kinds & {b"iCCP", b"sRGB"} else frozenset[bytes]()
    kept: list[bytes] = []
    drawn = False
    for piece in pieces:
        if piece.kind == b"IDAT":
            if not drawn:
                kept.append(_png_chunk(b"IDAT", pixels))
            drawn = True
        elif piece.kind in _PNG_CHUNKS.keys() - left_out and not drawn:
            kept.append(_png_chunk(piece.kind, piece.body[: _PNG_CHUNKS[piece.kind]]))
    exact = not kinds & left_out and all(_PNG_CHUNKS.get(piece.kind, 0) in {None, len(piece.body)} for piece in pieces)
    clean = data[:8] + b"".join(kept) + _png_chunk(b"IEND", b"")
    if exact and pieces[-1].kind == b"IEND" and pieces[-1].end == len(data) and _joined(pieces) == pixels:
        clean = data  # the same bytes, however the pixels are cut into chunks
    transparency = next((piece.body for piece in pieces if piece.kind == b"tRNS"), None)
    return Drawing(
        clean,
        _png_profile(pieces),
        exact_rows,
        frames=any(piece.kind == b"acTL" for piece in pieces),
        see_through=not opaque
        or (transparency is not None and (colour != 3 or transparency.count(255) < len(transparency))),
        unusual="has 16 bits of grey" if depth == 16 and colour in {0, 4} else _odd_gamma(pieces, left_out),
    )


def _odd_gamma(pieces: Iterable[Piece], left_out: Container[bytes]) -> str | None:
    values = [struct.unpack(">I", piece.body[:4])[0] for piece in pieces if piece.kind == b"gAMA"]
    odd = values and b"gAMA" not in left_out and unlike_srgb(values[0] / 100_000)
    return "is meant for a display of another gamma" if odd else None


def unlike_srgb(gamma: float) -> bool:
    """Whether a PNG says with a gAMA chunk that it is not meant for a display's usual 1/2.2."""
    return gamma > 0 and abs(gamma * 2.2 - 1) > 0.05


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png_profile(pieces: Iterable[Piece]) -> bytes | None:
    for piece in pieces:
        if piece.kind == b"iCCP":
            _, _, packed = piece.body.partition(b"\0")
            try:
                return zlib.decompressobj().decompress(packed[1:], 4 * 1024 * 1024)
            except zlib.error:
                return None
    return None


def _joined(pieces: Iterable[Piece]) -> bytes:
    return b"".join(piece.body for piece in pieces if piece.kind == b"IDAT")


def _rows(
    pieces: Iterable[Piece], header: Header, depth: int, colour: int, *, interlaced: bool
) -> tuple[bytes, bool, bool]:
    """
    The packed pixels without what follows them, whether every pixel is opaque, and whether there are no rows too many.

    Raises:
        Incomplete: Rows are missing.
    """
    packed = _joined(pieces)
    bits = depth * _PNG_SAMPLES[colour]
    unpacker = zlib.decompressobj()
    rest, opaque, above = packed, True, False
    unpacked = bytearray()
    for width, height in _passes(header, interlaced=interlaced):
        size = 1 + (width * bits + 7) // 8
        above = False
        for _ in range(height):
            while len(unpacked) < size:
                try:
                    more = unpacker.decompress(rest, max(size, 1 << 20) - len(unpacked))
                except zlib.error:
                    more = b""
                rest = unpacker.unconsumed_tail
                if not more:
                    raise Incomplete("rows are missing")
                unpacked += more
            if colour in {4, 6} and opaque:
                opaque = _opaque(unpacked[:size], depth // 8, bits // 8, above=above)
            del unpacked[:size]
            above = True
    # The checksum follows the rows; a file that breaks off just there is whole for every viewer.
    try:
        surplus = bool(unpacked or unpacker.decompress(rest, 1))
    except zlib.error:
        raise Incomplete("the pixels of the PNG are damaged") from None
    return packed[: len(packed) - len(unpacker.unused_data)], opaque, not surplus


def _passes(header: Header, *, interlaced: bool) -> Iterator[tuple[int, int]]:
    width, height = header.stored_width, header.stored_height
    for left, top, across, down in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -((left - width) // across), -((top - height) // down)
        if columns > 0 and rows > 0:
            yield columns, rows


def _opaque(row: bytes | bytearray, depth_bytes: int, pixel_bytes: int, *, above: bool) -> bool:
    """
    Whether the alpha of a filtered row is full, when that of the row above it is.

    A filter works on each sample by itself, so a full row has the same few bytes for each (PNG, section 9.2).
    """
    alphas = [row[1 + pixel_bytes - depth_bytes + number :: pixel_bytes] for number in range(depth_bytes)]
    # None, Sub, Up, Average, Paeth: the first pixel of the row, and all others.
    sub, up = (255, 0), (0, 0) if above else (255, 255)
    average = (128, 0) if above else (255, 128)
    expected = ((255, 255), sub, up, average, up if above else sub)
    first, others = expected[row[0]] if row[0] < len(expected) else (1, 1)
    return all(alpha[0] == first and alpha.count(others, 1) == len(alpha) - 1 for alpha in alphas)


# ---- WebP


def _webp(data: bytes) -> Drawing:
    pieces = list(webp_chunks(data))
    profile = next((piece.body for piece in pieces if piece.kind == b"ICCP"), None)
    animated = any(piece.kind == b"ANMF" for piece in pieces)
    if animated:
        # Its first picture is redrawn; the file itself stays here.
        return Drawing(data, profile, frames=True, unusual="is an animation")
    kinds = {piece.kind for piece in pieces}
    if not kinds & {b"VP8 ", b"VP8L"}:
        raise Incomplete("the WebP has no picture")
    kept: list[bytes] = []
    see_through = b"ALPH" in kinds
    for piece in pieces:
        if piece.kind == b"VP8X":
            flags = piece.body[0] & _WEBP_ALPHA
            see_through = see_through or bool(flags)
            kept.append(_webp_chunk(b"VP8X", bytes((flags, 0, 0, 0)) + piece.body[4:10]))
        elif piece.kind in _WEBP_CHUNKS:
            kept.append(_webp_chunk(piece.kind, piece.body))
        if piece.kind == b"VP8L":
            see_through = see_through or bool(piece.body[4] & 0x10)
    return Drawing(_riff(kept), profile, see_through=see_through)


def _webp_chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def _riff(chunks: Iterable[bytes]) -> bytes:
    body = b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


# ---- GIF


def _gif(data: bytes) -> Drawing:
    """The first picture: header, palette, how it is shown, its descriptor and its pixels."""
    at = 13 + _palette_bytes(data[10])
    kept, see_through = [data[:at]], False
    while data[at] == 0x21:
        end = _after_blocks(data, at + 2)
        if data[at + 1] == 0xF9:
            see_through = bool(data[at + 3] & 1)
            # Only the transparent colour of it draws; delays and disposal are for animations.
            kept[1:] = [b"\x21\xf9\x04" + bytes((data[at + 3] & 1, 0, 0, data[at + 6])) + b"\0"]
        at = end
    if data[at] != 0x2C:
        raise Incomplete("the GIF has no picture")
    flags = data[at + 9]
    start = at + 10 + _palette_bytes(flags)
    width, height = struct.unpack_from("<HH", data, at + 5)
    # What the picture leaves free of the screen has no colour.
    see_through = see_through or (width, height) != struct.unpack_from("<HH", data, 6)
    end = _lzw_end(data, start, width * height)
    kept += [data[at:start], _blocks(data, start, end), b"\x3b"]
    further = _after_blocks(data, start + 1) if end else len(data)
    return Drawing(
        b"".join(kept),
        frames=data[further : further + 1] in {b"\x21", b"\x2c"} and b"\x2c" in data[further:],
        see_through=see_through,
    )


def _palette_bytes(flags: int) -> int:
    return 3 * 2 ** (flags % 8 + 1) if flags & 0x80 else 0


def _after_blocks(data: bytes, at: int) -> int:
    """Where a row of sub-blocks ends; one that breaks off ends with the file."""
    while at < len(data) and data[at]:
        at += 1 + data[at]
    return at + 1


def _content(data: bytes, start: int) -> bytes:
    parts: list[bytes] = []
    at = start + 1
    while at < len(data) and data[at]:
        parts.append(data[at + 1 : at + 1 + data[at]])
        at += 1 + data[at]
    return b"".join(parts)


def _blocks(data: bytes, start: int, size: int) -> bytes:
    content = _content(data, start)[:size]
    parts = [content[at : at + 255] for at in range(0, len(content), 255)]
    return data[start : start + 1] + b"".join(bytes((len(part),)) + part for part in parts) + b"\0"


def _lzw_end(data: bytes, start: int, pixels: int) -> int:
    """
    After how many bytes of codes all *pixels* are drawn (GIF89a, appendix F). Only lengths are followed, no colours.

    Raises:
        Incomplete: There are too few codes.
    """
    smallest = data[start]
    content = _content(data, start)
    if not 1 <= smallest <= 11:
        raise Malformed("the GIF has an impossible code size")
    clear, stop = 1 << smallest, (1 << smallest) + 1
    lengths = [1] * (clear + 2)
    width, previous, drawn = smallest + 1, 0, 0
    buffer, held = 0, 0
    for position, byte in enumerate(content, 1):
        buffer |= byte << held
        held += 8
        while held >= width:
            code = buffer & ((1 << width) - 1)
            buffer >>= width
            held -= width
            if code == clear:
                del lengths[clear + 2 :]
                width, previous = smallest + 1, 0
                continue
            if code == stop or code > len(lengths):
                raise Incomplete("rows are missing")
            length = previous + 1 if code == len(lengths) else lengths[code]
            if previous and len(lengths) < 4096:
                lengths.append(previous + 1)
                if len(lengths) == 1 << width and width < 12:
                    width += 1
            drawn += length
            previous = length
            if drawn >= pixels:
                # The end code, which some writers leave out, is in the next bytes.
                return position + 2
    raise Incomplete("rows are missing")
