"""
What a video or sound file is, by its first bytes.

Names and endings say nothing here: what fal.ai reads are the bytes.
"""

from __future__ import annotations

import re
from typing import Final, Literal

__all__ = ["HEAD_BYTES", "Format", "format_of", "tag_size", "what_else"]

HEAD_BYTES: Final = 4096

Format = Literal["mp4", "mov", "webm", "mkv", "mp3", "wav", "m4a", "aac", "ogg", "flac"]

# ISO/IEC 14496-12 and QuickTime: what a file of boxes begins with.
_FIRST_BOXES: Final = frozenset({b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})
_STILL_BRANDS: Final = frozenset({b"avif", b"avis", b"heic", b"heix", b"hevc", b"mif1", b"msf1"})
_SOUND_BRANDS: Final = frozenset({b"M4A ", b"M4B ", b"M4P "})
_EBML: Final = b"\x1a\x45\xdf\xa3"
_OTHERS: Final[tuple[tuple[str, str], ...]] = (
    (r"\xff\xd8\xff|\x89PNG|GIF8|RIFF....WEBP|BM.{8}|II\*\x00|MM\x00\*", "a picture"),
    (r"RIFF....AVI ", "an AVI"),
    (r"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a Windows Media file"),
    (r"FLV\x01", "a Flash video"),
    (r"\x00\x00\x01[\xba\xb3]", "an MPEG-1 or MPEG-2 file"),
    (r"FORM....AIF[FC]", "an AIFF"),
    (r"caff\x00", "a Core Audio file"),
    (r"#!AMR", "an AMR"),
    (r"MThd", "a MIDI file"),
    (r"%PDF", "a PDF"),
    (r"PK\x03\x04|Rar!|7z\xbc\xaf|\x1f\x8b", "an archive"),
    (r"\s*(?:<!doctype|<html|<\?xml|\{|\[)", "text and no recording"),
)


def format_of(head: bytes) -> Format | None:
    """
    What the file that begins with *head* (`HEAD_BYTES` of it) is; None where it is nothing that is known.

    What has a video's form but holds sound alone cannot be told from its head: it is called mp4.
    """
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        if brand in _STILL_BRANDS:
            return None
        return "mov" if brand == b"qt  " else "m4a" if brand in _SOUND_BRANDS else "mp4"
    if head[4:8] in _FIRST_BOXES:
        return "mov"
    if head.startswith(_EBML):
        return "webm" if b"webm" in head[:64] else "mkv"
    if head[:4] in {b"RIFF", b"RF64"} and head[8:12] == b"WAVE":
        return "wav"
    if head.startswith(b"OggS"):
        return "ogg"
    if head.startswith(b"fLaC"):
        return "flac"
    if len(head) > 3 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        # The two bits of the layer: none is AAC in ADTS (ISO/IEC 13818-7), 1 is layer III (ISO/IEC 11172-3).
        layer = head[1] >> 1 & 3
        return "aac" if layer == 0 else "mp3" if layer == 1 else None
    return None


def tag_size(head: bytes) -> int:
    """The bytes of the ID3 version 2 tag that *head* begins with: 7 bits in each of 4 bytes, and its own ten."""
    if not head.startswith(b"ID3") or len(head) < 10:
        return 0
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 0x7F
    return size + 10 + (10 if head[5] & 0x10 else 0)


def what_else(head: bytes) -> str:
    """What a file that is no recording seems to be, with its article."""
    if head[4:8] == b"ftyp":
        return "a picture"
    for pattern, name in _OTHERS:
        if re.match(pattern.encode("latin-1"), head, re.DOTALL | re.IGNORECASE):
            return name
    return "of a kind that is not known here"
