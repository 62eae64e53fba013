"""
Taking out of a picture what tells about the person who took it, without touching a pixel.

What is uploaded becomes a public link. Cameras write the place, the time, the device and sometimes a second picture
into the file, so these go; the colour profile stays, because the picture looks different without it.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

from kling_mcp.media.headers import EXIF, Header, Malformed, Piece, jpeg_segments, png_chunks, webp_chunks

__all__ = ["without_metadata"]

_PNG_METADATA: Final = frozenset({b"eXIf", b"tEXt", b"zTXt", b"iTXt", b"tIME"})
_WEBP_METADATA: Final = frozenset({b"EXIF", b"XMP "})
_WEBP_METADATA_FLAGS: Final = 0x08 | 0x04
_WEBP_EXIF_FLAG: Final = 0x08


def without_metadata(data: bytes, header: Header) -> bytes:
    """
    *data* without EXIF, XMP, IPTC, comments and whatever follows the picture; the same bytes when there is none.

    An orientation is kept in an EXIF block that holds nothing else. GIF and AVIF come back as they are.

    Raises:
        Malformed: The file is damaged after its header.
    """
    try:
        match header.format:
            case "jpeg":
                return _jpeg(data, header.orientation)
            case "png":
                return _png(data, header.orientation)
            case "webp":
                return _webp(data, header.orientation)
            case _:
                return data
    except struct.error as error:
        raise Malformed("the picture is cut off") from error


def _jpeg(data: bytes, orientation: int) -> bytes:
    pieces = list(jpeg_segments(data))
    kept = [piece for piece in pieces if _stays_in_jpeg(piece)]
    if len(kept) == len(pieces) and pieces[-1].end == len(data):
        return data
    body = EXIF + _orientation_only(orientation)
    turned = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body if orientation != 1 else b""
    return data[:2] + turned + b"".join(data[piece.start : piece.end] for piece in kept)


def _stays_in_jpeg(segment: Piece) -> bool:
    kind = segment.kind[0]
    if kind == 0xE2:
        return segment.body.startswith(b"ICC_PROFILE\0")
    # JFIF and Adobe's colour transform say how to read the pixels; every other application segment and comment goes.
    return kind in {0xE0, 0xEE} or not (0xE0 <= kind <= 0xEF or kind == 0xFE)


def _png(data: bytes, orientation: int) -> bytes:
    pieces = list(png_chunks(data))
    kept = [data[piece.start : piece.end] for piece in pieces if piece.kind not in _PNG_METADATA]
    if len(kept) == len(pieces) and pieces[-1].end == len(data):
        return data
    if orientation != 1:
        chunk = b"eXIf" + _orientation_only(orientation)
        kept.insert(1, struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)))
    return data[:8] + b"".join(kept)


def _webp(data: bytes, orientation: int) -> bytes:
    pieces = list(webp_chunks(data))
    kept = [data[piece.start : piece.end] for piece in pieces if piece.kind not in _WEBP_METADATA]
    if len(kept) == len(pieces) and pieces[-1].end == len(data):
        return data
    if pieces[0].kind == b"VP8X":
        flags = pieces[0].body[0] & ~_WEBP_METADATA_FLAGS
        if orientation != 1:
            flags |= _WEBP_EXIF_FLAG
            body = _orientation_only(orientation)
            kept.append(b"EXIF" + struct.pack("<I", len(body)) + body)
        kept[0] = kept[0][:8] + bytes((flags,)) + kept[0][9:]
    chunks = b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks


def _orientation_only(orientation: int) -> bytes:
    """A TIFF block with one directory with one entry: tag 0x0112, one SHORT."""
    return b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
