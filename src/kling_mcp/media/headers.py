"""
What kind of picture some bytes are and how large, from the header alone.

No decoder runs on a picture that nobody has judged yet: decoders have had holes, and a small file can unpack to
gigabytes. Five formats are known by their first bytes; SVG, HTML, archives and the rest are none of them.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["EXIF", "Format", "Header", "Malformed", "Piece", "inspect", "jpeg_segments", "png_chunks", "webp_chunks"]

Format = Literal["jpeg", "png", "webp", "gif", "avif"]

EXIF: Final = b"Exif\0\0"
"""What stands before the TIFF block in a JPEG segment, and sometimes elsewhere."""

_ORIENTATION: Final = 0x0112
_GPS: Final = 0x8825
# ITU-T T.81, table B.1: the frame headers, without the tables and the reserved one between them.
_FRAME_MARKERS: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN: Final = 0xDA
_END_OF_IMAGE: Final = 0xD9
_STANDALONE_MARKERS: Final = frozenset({0x01, *range(0xD0, 0xD9)})
# Inside a scan a marker is an FF that is followed by neither stuffing, nor a restart, nor fill.
_MARKER_IN_SCAN: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
# ISO/IEC 23008-12: quarter turns anticlockwise, as the EXIF orientation that means the same.
_ORIENTATION_OF_TURNS: Final = (1, 8, 3, 6)


class Malformed(ValueError):
    """The bytes are not a picture of a known format, or its header is damaged."""


@dataclass(frozen=True, slots=True)
class Header:
    """
    What the first bytes of a picture say.

    Args:
        format: Which of the five formats it is.
        stored_width: Pixels per row as stored.
        stored_height: Rows as stored.
        orientation: The EXIF orientation, 1 to 8; from 5 on the picture lies on its side.
        metadata: Whether EXIF data was met.
        location: Whether that holds a place (GPS).
    """

    format: Format
    stored_width: int
    stored_height: int
    orientation: int = 1
    metadata: bool = False
    location: bool = False

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
        Malformed: It is no JPEG, PNG, WebP, GIF or AVIF, or the header is damaged.
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
        if data[4:8] == b"ftyp":
            return _avif(data)
    except (struct.error, IndexError) as error:
        raise Malformed("the header is cut off") from error
    raise Malformed("not JPEG, PNG, WebP, GIF or AVIF")


def jpeg_segments(data: bytes) -> Iterator[Piece]:
    """
    The segments of a JPEG after its first marker; a scan has its coded pixels in ``start`` to ``end``.

    Raises:
        Malformed: A marker or a length is wrong.
    """
    start = 2
    while start < len(data):
        marker = start
        while data[marker : marker + 1] == b"\xff":
            marker += 1
        if marker == start or marker >= len(data):
            raise Malformed("a JPEG marker is missing")
        kind = data[marker]
        if kind in _STANDALONE_MARKERS or kind == _END_OF_IMAGE:
            yield Piece(bytes((kind,)), start, marker + 1, b"")
            if kind == _END_OF_IMAGE:
                return
            start = marker + 1
            continue
        (length,) = struct.unpack_from(">H", data, marker + 1)
        end = marker + 1 + length
        if length < 2 or end > len(data):
            raise Malformed("a JPEG segment has a wrong length")
        body = data[marker + 3 : end]
        if kind == _START_OF_SCAN:
            following = _MARKER_IN_SCAN.search(data, end)
            end = following.start() if following else len(data)
        yield Piece(bytes((kind,)), start, end, body)
        start = end


def png_chunks(data: bytes) -> Iterator[Piece]:
    """
    The chunks of a PNG, up to and with IEND.

    Raises:
        Malformed: A length is wrong.
    """
    start = 8
    while start < len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        if end > len(data):
            raise Malformed("a PNG chunk is cut off")
        yield Piece(kind, start, end, data[start + 8 : end - 4])
        if kind == b"IEND":
            return
        start = end


def webp_chunks(data: bytes) -> Iterator[Piece]:
    """
    The chunks of a WebP, as far as its RIFF size goes.

    Raises:
        Malformed: A length is wrong.
    """
    (size,) = struct.unpack_from("<I", data, 4)
    if size + 8 > len(data):
        raise Malformed("the WebP is cut off")
    start = 12
    while start < size + 8:
        kind, length = struct.unpack_from("<4sI", data, start)
        body_end = start + 8 + length
        if body_end > len(data):
            raise Malformed("a WebP chunk is cut off")
        # RIFF pads to an even length.
        end = min(body_end + length % 2, len(data))
        yield Piece(kind, start, end, data[start + 8 : body_end])
        start = end


def _jpeg(data: bytes) -> Header:
    orientation, metadata, location = 1, False, False
    for segment in jpeg_segments(data):
        if segment.kind == b"\xe1" and segment.body.startswith(EXIF) and not metadata:
            metadata = True
            orientation, location = _exif(segment.body)
        if segment.kind[0] in _FRAME_MARKERS:
            height, width = struct.unpack_from(">HH", segment.body, 1)
            return Header("jpeg", width, height, orientation, metadata, location)
    raise Malformed("the JPEG has no frame")


def _png(data: bytes) -> Header:
    chunks = png_chunks(data)
    first = next(chunks, None)
    if first is None or first.kind != b"IHDR":
        raise Malformed("the PNG does not begin with its header")
    width, height = struct.unpack_from(">II", first.body)
    exif = next((chunk.body for chunk in chunks if chunk.kind == b"eXIf"), None)
    return Header("png", width, height, *_exif_facts(exif))


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
    exif = next((chunk.body for chunk in chunks if chunk.kind == b"EXIF"), None)
    return Header("webp", width, height, *_exif_facts(exif))


def _avif(data: bytes) -> Header:
    boxes = dict(_boxes(data, 0, len(data)))
    start, end = boxes[b"ftyp"]
    brands = {data[start : start + 4], *(data[at : at + 4] for at in range(start + 8, end, 4))}
    if not brands & {b"avif", b"avis"}:
        raise Malformed("the file is of the MP4 family, but no AVIF")
    meta_start, meta_end = _inner(boxes, b"meta")
    meta = dict(_boxes(data, meta_start + 4, meta_end))
    properties = dict(_boxes(data, *_inner(meta, b"iprp")))
    sizes: list[tuple[int, int]] = []
    turns = 0
    for kind, (body, _) in _boxes(data, *_inner(properties, b"ipco")):
        if kind == b"ispe":
            sizes.append(struct.unpack_from(">II", data, body + 4))
        elif kind == b"irot":
            turns = data[body] & 3
    if not sizes:
        raise Malformed("the AVIF has no size")
    # Tiles and thumbnails have sizes too; the picture is the largest.
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    metadata = b"Exif" in data[meta_start:meta_end] or b"application/rdf+xml" in data[meta_start:meta_end]
    return Header("avif", width, height, _ORIENTATION_OF_TURNS[turns], metadata)


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """ISO/IEC 14496-12 boxes between two offsets: the kind, and where the body begins and ends."""
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        body = start + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, body)
            body += 8
        box_end = end if size == 0 else start + size
        if not body <= box_end <= end:
            raise Malformed("a box has a wrong length")
        yield kind, (body, box_end)
        start = box_end


def _inner(boxes: dict[bytes, tuple[int, int]], kind: bytes) -> tuple[int, int]:
    if kind not in boxes:
        raise Malformed("the AVIF lacks a box")
    return boxes[kind]


def _exif_facts(body: bytes | None) -> tuple[int, bool, bool]:
    """Orientation, whether there is metadata, whether it holds a place."""
    if body is None:
        return 1, False, False
    orientation, location = _exif(body)
    return orientation, True, location


def _exif(body: bytes) -> tuple[int, bool]:
    """The orientation, and whether there is a place; a damaged block has neither (TIFF 6.0, section 2)."""
    tiff = body.removeprefix(EXIF)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1, False
    orientation, location = 1, False
    try:
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, directory)
        for number in range(count):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, directory + 2 + 12 * number)
            if tag == _ORIENTATION and 1 <= value <= 8:
                orientation = value
            location = location or tag == _GPS
    except struct.error:
        return orientation, location
    return orientation, location
