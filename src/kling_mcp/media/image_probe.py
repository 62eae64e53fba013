"""
What kind of picture some bytes are and how large, from the header alone.

No decoder runs on a picture that nobody has judged yet: decoders have had holes, and a small file can unpack to
gigabytes. Six formats are known by their first bytes; the commonest others are named in the refusal.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "EXIF",
    "FRAME_MARKERS",
    "Format",
    "Header",
    "Incomplete",
    "Malformed",
    "Piece",
    "inspect",
    "jpeg_segments",
    "png_chunks",
    "webp_chunks",
]

Format = Literal["jpeg", "png", "webp", "gif", "avif", "heic"]

EXIF: Final = b"Exif\0\0"
"""What stands before the TIFF block in a JPEG segment, and sometimes elsewhere."""

FRAME_MARKERS: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""ITU-T T.81, table B.1: the frame headers, without the tables and the reserved one between them."""

_XMP_SEGMENT: Final = b"http://ns.adobe.com/xap/1.0/\0"
_XMP_KEYWORD: Final = b"XML:com.adobe.xmp"
# ImageMagick and ExifTool put metadata that PNG had no chunk for into texts, in hexadecimal after a name and a length.
_RAW_PROFILES: Final = frozenset(b"Raw profile type " + kind for kind in (b"exif", b"APP1", b"xmp"))
_MAX_TEXT_BYTES: Final = 4 * 1024 * 1024
_XMP_ORIENTATION: Final = re.compile(rb"""tiff:Orientation\s*(?:=\s*["']|>)\s*([1-8])\b""")
_ORIENTATION: Final = 0x0112
_GPS: Final = 0x8825
# TIFF 6.0, section 2, and the signed types of its supplement: how a whole number is stored.
_NUMBERS: Final = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}
_START_OF_SCAN: Final = 0xDA
_END_OF_IMAGE: Final = 0xD9
_STANDALONE_MARKERS: Final = frozenset({0x01, *range(0xD0, 0xD9)})
# Inside a scan a marker is an FF that is followed by neither stuffing, nor a restart, nor fill.
_MARKER_IN_SCAN: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_MARKER: Final = re.compile(rb"\xff+[^\x00\xff]")
# ISO/IEC 23008-12, annexes B and D; AV1 Image File Format, section 8. mif1 says only that there is a picture.
_BRANDS: Final[tuple[tuple[frozenset[bytes], Format], ...]] = (
    (frozenset({b"avif", b"avis"}), "avif"),
    (frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"}), "heic"),
)
# A download whose room was reserved before its bytes came ends in zeros, or in ones where flash was erased, and one
# that comes in several parts has holes. Coded pixels have neither, but for WebP: libwebp writes a zero for each 40
# macroblocks of one colour.
_TAIL_BYTES: Final = 512
_HOLE_BYTES: Final = 4096
_FLAT_PIXELS_PER_ZERO: Final = 1024
_METADATA_ITEMS: Final = frozenset({b"Exif", b"mime", b"uri "})
_OTHERS: Final = (
    (re.compile(rb"\0{16}"), "a file of zeros, as a download is before its bytes arrive"),
    (re.compile(rb"BM"), "a BMP"),
    (re.compile(rb"II\*\0|MM\0\*|II\+\0|MM\0\+|IIU\0|FUJIFILM"), "a TIFF or a camera's raw file"),
    (re.compile(rb"8BPS"), "a Photoshop file"),
    (re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"), "a JPEG 2000"),
    (re.compile(rb"\0\0\0\x0cJXL |\xff\x0a"), "a JPEG XL"),
    (re.compile(rb"\0\0[\x01\x02]\0"), "an icon"),
    (re.compile(rb"%PDF"), "a PDF"),
    (
        re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)?(?:<!doctype svg[^>]*>\s*)?<svg", re.I | re.S),
        "an SVG drawing",
    ),
    (re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype|html|head|\?xml)", re.I), "a web page"),
    (re.compile(rb"PK\x03\x04|Rar!|7z\xbc\xaf|\x1f\x8b"), "an archive"),
    (re.compile(rb".{4}ftyp|.{4}moov|\x1aE\xdf\xa3|RIFF.{4}AVI |\0\0\x01[\xb3\xba]", re.S), "a video"),
    (re.compile(rb"ID3|\xff[\xfb\xf3]|RIFF.{4}WAVE|OggS|fLaC", re.S), "a sound file"),
    (re.compile(rb"version https://git-lfs"), "a Git LFS pointer and not the file itself"),
)


class Malformed(ValueError):
    """The bytes are not a picture of a known format, or its header is damaged."""


class Incomplete(Malformed):
    """It begins as a picture does, and not all of it is here."""


@dataclass(frozen=True, slots=True)
class Header:
    """
    What the first bytes of a picture say.

    Args:
        format: Which of the six formats it is.
        stored_width: Pixels per row as stored.
        stored_height: Rows as stored.
        orientation: The EXIF orientation, 1 to 8; from 5 on the picture lies on its side.
        location: Whether its EXIF data holds a place (GPS).
        end: Where the picture ends, where its format says so before anything is decoded.
    """

    format: Format
    stored_width: int
    stored_height: int
    orientation: int = 1
    location: bool = False
    end: int | None = None

    def __post_init__(self) -> None:
        if not (self.stored_width and self.stored_height):
            raise Malformed("a side has no pixels")

    @property
    def width(self) -> int:
        """Pixels per row as seen."""
        return self.stored_height if self.orientation >= 5 else self.stored_width

    @property
    def height(self) -> int:
        """Rows as seen."""
        return self.stored_width if self.orientation >= 5 else self.stored_height


@dataclass(frozen=True, slots=True)
class Piece:
    """A segment or chunk: its kind, where it begins and ends with everything that belongs to it, and its content."""

    kind: bytes
    start: int
    end: int
    body: bytes


def inspect(data: bytes) -> Header:
    """
    Read the header of the picture *data*.

    Raises:
        Malformed: It is no picture of a known format, or the header is damaged.
        Incomplete: It is cut off.
    """
    try:
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg(data)
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return _png(data)
        if data.startswith((b"GIF87a", b"GIF89a")):
            return _gif(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data)
        kind = _heif_kind(data)
        if kind is not None:
            return _heif(data, kind)
    except (struct.error, IndexError) as error:
        raise Incomplete("the header is cut off") from error
    other = next((name for pattern, name in _OTHERS if pattern.match(data[:1024])), "no picture that is known here")
    raise Malformed(f"it is {other}" if data else "it is empty")


def jpeg_segments(data: bytes) -> Iterator[Piece]:
    """
    The segments of a JPEG after its first marker; a scan has its coded pixels in ``start`` to ``end``.

    Stray bytes between two segments are left out, as decoders do.

    Raises:
        Incomplete: A segment is cut off.
    """
    start = 2
    while marker := _MARKER.search(data, start):
        start, after = marker.start(), marker.end()
        kind = data[after - 1]
        if kind in _STANDALONE_MARKERS or kind == _END_OF_IMAGE:
            yield Piece(bytes((kind,)), start, after, b"")
            if kind == _END_OF_IMAGE:
                return
            start = after
            continue
        (length,) = struct.unpack_from(">H", data, after)
        end = after + length
        if length < 2:
            raise Malformed("a JPEG segment has a wrong length")
        if end > len(data):
            raise Incomplete("a JPEG segment is cut off")
        body = data[after + 2 : end]
        if kind == _START_OF_SCAN:
            following = _MARKER_IN_SCAN.search(data, end)
            end = following.start() if following else len(data)
        yield Piece(bytes((kind,)), start, end, body)
        start = end


def png_chunks(data: bytes) -> Iterator[Piece]:
    """The chunks of a PNG, up to and with IEND; one that is cut off is as long as it is here."""
    start = 8
    while start + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        yield Piece(kind, start, min(end, len(data)), data[start + 8 : end - 4])
        if kind == b"IEND":
            return
        start = end


def webp_chunks(data: bytes) -> Iterator[Piece]:
    """
    The chunks of a WebP, as far as its RIFF size goes.

    Raises:
        Incomplete: It is cut off.
    """
    (size,) = struct.unpack_from("<I", data, 4)
    whole = size + 8
    # The last byte may be the padding of an odd chunk, which some writers count and leave out.
    if whole > len(data) + 1:
        raise Incomplete("the WebP is cut off")
    start = 12
    while start + 8 <= min(whole, len(data)):
        kind, length = struct.unpack_from("<4sI", data, start)
        body_end = start + 8 + length
        if body_end > len(data):
            raise Incomplete("a WebP chunk is cut off")
        # RIFF pads to an even length.
        end = min(body_end + length % 2, len(data))
        yield Piece(kind, start, end, data[start + 8 : body_end])
        start = end


def _jpeg(data: bytes) -> Header:
    exif: bytes | None = None
    xmp: bytes | None = None
    size: tuple[int, int] | None = None
    for segment in jpeg_segments(data):
        if segment.kind == b"\xe1":
            exif = exif or (segment.body if segment.body.startswith(EXIF) else None)
            xmp = xmp or (segment.body if segment.body.startswith(_XMP_SEGMENT) else None)
        elif segment.kind[0] in FRAME_MARKERS and size is None:
            size = struct.unpack_from(">HH", segment.body, 1)
        elif segment.kind[0] == _START_OF_SCAN:
            break
    if size is None:
        raise Incomplete("the JPEG has no frame")
    return Header("jpeg", size[1], size[0], *_facts(exif, xmp))


def _png(data: bytes) -> Header:
    chunks = png_chunks(data)
    first = next(chunks, None)
    if first is None or first.kind != b"IHDR":
        raise Malformed("the PNG does not begin with its header")
    width, height = struct.unpack_from(">II", first.body)
    exif: bytes | None = None
    raw: bytes | None = None
    xmp: bytes | None = None
    for chunk in chunks:
        if chunk.kind == b"eXIf":
            exif = exif or chunk.body
        elif chunk.kind in {b"iTXt", b"tEXt", b"zTXt"}:
            text = _metadata_text(chunk)
            raw = raw or (text if text.startswith((EXIF, b"II*\0", b"MM\0*")) else None)
            xmp = xmp or (text if b"tiff:Orientation" in text else None)
    return Header("png", width, height, *_facts(exif or raw, xmp))


def _metadata_text(chunk: Piece) -> bytes:
    """The EXIF or XMP block that a text chunk of a PNG holds, or nothing (PNG, third edition, section 11.3.3)."""
    keyword, _, text = chunk.body.partition(b"\0")
    if keyword != _XMP_KEYWORD and keyword not in _RAW_PROFILES:
        return b""
    packed = chunk.kind == b"zTXt" or (chunk.kind == b"iTXt" and text[:1] == b"\1")
    text = {b"tEXt": text, b"zTXt": text[1:], b"iTXt": text[2:].split(b"\0", 2)[-1]}[chunk.kind]
    try:
        text = zlib.decompressobj().decompress(text, _MAX_TEXT_BYTES) if packed else text
        return text if keyword == _XMP_KEYWORD else bytes.fromhex(b"".join(text.split()[2:]).decode("ascii"))
    except (zlib.error, ValueError):
        return b""


def _gif(data: bytes) -> Header:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    colours = 3 * 2 ** (flags % 8 + 1) if flags & 0x80 else 0
    # An extension, an image or the end has to follow; a text that begins with the letters GIF89a has none there.
    if data[13 + colours] not in b"\x21\x2c\x3b":
        raise Malformed("the GIF has no block after its header")
    return Header("gif", width, height)


def _webp(data: bytes) -> Header:
    chunks = list(webp_chunks(data))
    if not chunks:
        raise Malformed("the WebP is empty")
    body = chunks[0].body
    match chunks[0].kind:
        case b"VP8X":
            width, height = int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", body, 1)
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8 ":
            if body[3:6] != b"\x9d\x01\x2a":
                raise Malformed("the WebP has no key frame")
            width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", body, 6))
        case _:
            raise Malformed("the WebP begins with an unknown chunk")
    bodies = {chunk.kind: chunk.body for chunk in reversed(chunks)}
    _see_written(data[: chunks[-1].end], width * height // _FLAT_PIXELS_PER_ZERO, hole=False)
    _see_written(bodies.get(b"VP8 ", b""), width * height // _FLAT_PIXELS_PER_ZERO)
    return Header("webp", width, height, *_facts(bodies.get(b"EXIF"), bodies.get(b"XMP ")))


def _heif_kind(data: bytes) -> Format | None:
    if data[4:8] != b"ftyp":
        return None
    (size,) = struct.unpack_from(">I", data)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, min(size, 1024), 4))}
    return next((kind for known, kind in _BRANDS if brands & known), None)


def _heif(data: bytes, kind: Format) -> Header:
    """An AVIF or HEIC; how it is turned is the decoder's matter, for it may be said of each part of the picture."""
    boxes: dict[bytes, tuple[int, int]] = {}
    try:
        for _ in _boxes(data, 0, len(data), boxes):
            pass
    except (Incomplete, struct.error):
        # What follows a whole picture is skipped.
        if not {b"meta", b"mdat"} <= boxes.keys():
            raise Incomplete("the file is cut off") from None
    end = max(box_end for _, box_end in boxes.values())
    meta_start, meta_end = _inner(boxes, b"meta")
    meta = dict(_boxes(data, meta_start + 4, meta_end))
    for coded in _coded_items(data, meta):
        _see_written(coded)
    properties = dict(_boxes(data, *_inner(meta, b"iprp")))
    sizes = [
        struct.unpack_from(">II", data, body + 4)
        for name, (body, _) in _boxes(data, *_inner(properties, b"ipco"))
        if name == b"ispe"
    ]
    if not sizes:
        raise Malformed("the picture has no size")
    # Tiles and thumbnails have sizes too; the picture is the largest.
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return Header(kind, width, height, end=end)


def _boxes(
    data: bytes, start: int, end: int, met: dict[bytes, tuple[int, int]] | None = None
) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """ISO/IEC 14496-12 boxes between two offsets: the kind, and where the body begins and ends; *met* collects them."""
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        body = start + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, body)
            body += 8
        if size == 0 and kind == b"\0\0\0\0":
            raise Incomplete("zeros follow the last box")
        box_end = end if size == 0 else start + size
        if not body <= box_end <= end:
            raise Incomplete("a box has a wrong length")
        if met is not None:
            met[kind] = body, box_end
        yield kind, (body, box_end)
        start = box_end


def _coded_items(data: bytes, meta: dict[bytes, tuple[int, int]]) -> Iterator[bytes]:
    """The bytes of the items that hold pixels, piece by piece (ISO/IEC 14496-12, sections 8.11.3 and 8.11.6)."""
    at, end = _inner(meta, b"iinf")
    others: set[int] = set()
    for _, (body, _) in _boxes(data, at + (8 if data[at] else 6), end):
        number, kind = struct.unpack_from(">IxxI" if data[body] > 2 else ">HxxI", data, body + 4)
        if kind.to_bytes(4) in _METADATA_ITEMS:
            others.add(number)
    at, _ = _inner(meta, b"iloc")
    version, sizes = data[at], struct.unpack_from(">H", data, at + 4)[0]
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    at += 6

    def take(size: int) -> int:
        nonlocal at
        at += size
        return int.from_bytes(data[at - size : at])

    for _ in range(take(4 if version > 1 else 2)):
        number = take(4 if version > 1 else 2)
        in_file = not (version and take(2) & 15)
        at += 2
        base = take(base_size)
        for _ in range(take(2)):
            at += index_size if version else 0
            start, length = base + take(offset_size), take(length_size)
            if in_file and number not in others:
                yield data[start : start + length] if length else data[start:]


def _see_written(coded: bytes, flat: int = 0, *, hole: bool = True) -> None:
    """
    See that *coded* has been written to its end; what is of one colour may have *flat* zeros in a row.

    Raises:
        Incomplete: A part of it is still what the disk had there.
    """
    tail = max(_TAIL_BYTES, flat)
    if coded.endswith((bytes(tail), b"\xff" * tail)) or (hole and bytes(max(_HOLE_BYTES, flat)) in coded):
        raise Incomplete("a part of the picture is missing")


def _inner(boxes: dict[bytes, tuple[int, int]], kind: bytes) -> tuple[int, int]:
    if kind not in boxes:
        raise Incomplete("a box is missing")
    return boxes[kind]


def _facts(exif: bytes | None, xmp: bytes | None) -> tuple[int, bool]:
    """The orientation, and whether there is a place."""
    orientation, location = (None, False) if exif is None else _exif(exif)
    if orientation is None and xmp is not None and (said := _XMP_ORIENTATION.search(xmp)):
        # macOS and Windows read it where EXIF says nothing.
        orientation = int(said[1])
    return orientation or 1, location


def _exif(body: bytes) -> tuple[int | None, bool]:
    """The orientation, and whether there is a place; a damaged block has neither (TIFF 6.0, section 2)."""
    tiff = body.removeprefix(EXIF)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    orientation, location = None, False
    if order is None:
        return orientation, location
    try:
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, number, _ = struct.unpack_from(f"{order}HHI", tiff, entry)
            if tag == _ORIENTATION and number in _NUMBERS:
                (value,) = struct.unpack_from(order + _NUMBERS[number], tiff, entry + 8)
                orientation = value if 1 <= value <= 8 else orientation
            location = location or tag == _GPS
    except struct.error:
        return orientation, location
    return orientation, location
