"""
WAV, MP3, FLAC and AAC: which stretches of a file are the sound, and how long it is.

What else is in it (names, places, pictures, the notes of a recorder) stands before, behind or between these, so they
are copied without being touched.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from kling_mcp.media.measured import Measured, Unreadable, rounded
from kling_mcp.media.recording_probe import tag_size

if TYPE_CHECKING:
    from decimal import Decimal

    from kling_mcp.media.measured import Bytes
    from kling_mcp.media.recording_probe import Format

__all__ = ["Stretch", "measure", "stretches"]

_MAX_CHUNKS: Final = 1_000
_MAX_LOOKED_AT: Final = 256 * 1024
_WINDOW_BYTES: Final = 64 * 1024
_NOT_SAID: Final = frozenset({0, 0xFFFF_FFFF})
_WAVE_KEPT: Final = frozenset({b"fmt ", b"fact"})
_FLAC_KEPT: Final = frozenset({0, 3})
"""STREAMINFO and SEEKTABLE: RFC 9639, section 8.1."""
_FLAC_LAST: Final = 0x80
# ISO/IEC 11172-3 and 13818-3: by the version's two bits; kilobits of layer III, samples of a second and of a frame.
_KILOBITS: Final = {
    1: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES: Final = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_FRAMES_SEEN: Final = 40


@dataclass(frozen=True, slots=True)
class Stretch:
    """Bytes of the file from *offset* on, after *before*, which is new."""

    offset: int
    size: int
    before: bytes = b""


def stretches(file: Bytes, form: Format) -> tuple[list[Stretch], bytes]:
    """
    What of *file* is its sound, and the contents of the rest, to be looked through.

    Raises:
        Unreadable: It is not put together as *form* is, or ends before its time.
    """
    if form == "wav":
        return _wave(file)
    start, end = _start(file), _end(file, _start(file))
    told = file.read(0, min(start, _MAX_LOOKED_AT)) + file.read(end, min(file.size - end, _MAX_LOOKED_AT))
    if form != "flac":
        return [Stretch(start, end - start)], told
    blocks, sound, others = _flac_blocks(file, start)
    kept = [Stretch(start, 4)]
    for number, (kind, offset, size) in enumerate(blocks):
        last = _FLAC_LAST if number == len(blocks) - 1 else 0
        kept.append(Stretch(offset, size, bytes([kind | last]) + size.to_bytes(3)))
    return [*kept, Stretch(sound, end - sound)], told + others


def measure(file: Bytes, form: Format) -> Measured | None:
    """
    How long *file* is as its head says; None where that says nothing certain.

    Raises:
        Unreadable: It is not put together as *form* is.
    """
    seconds: Decimal | None = None
    if form == "wav":
        seconds = _wave_seconds(file)
    elif form == "flac":
        seconds = _flac_seconds(file)
    elif form == "mp3":
        seconds = _mp3_seconds(file)
    elif form == "ogg":
        seconds = _ogg_seconds(file)
    return None if seconds is None else Measured(seconds)


# ---- WAV


def _chunks(file: Bytes) -> list[tuple[bytes, int, int]]:
    """Name, offset and size of each chunk up to the samples, and of those behind them."""
    found: list[tuple[bytes, int, int]] = []
    at, wide = 12, 0
    while at + 8 <= file.size:
        head = file.read(at, 8)
        kind, size = head[:4], int.from_bytes(head[4:8], "little")
        if kind == b"ds64":
            # EBU Tech 3306: the sizes of a file that may be larger than 4 GB.
            wide = int.from_bytes(file.read(at + 16, 8), "little")
        if kind == b"data" and size in _NOT_SAID:
            size = wide or file.size - at - 8
        found.append((kind, at + 8, size))
        if len(found) > _MAX_CHUNKS:
            raise Unreadable
        at += 8 + size + size % 2
    return found


def _wave(file: Bytes) -> tuple[list[Stretch], bytes]:
    kept: list[tuple[bytes, int, int]] = []
    told = b""
    for kind, offset, size in _chunks(file):
        if kind == b"data" and offset + size > file.size:
            raise Unreadable
        if kind in _WAVE_KEPT or kind == b"data":
            kept.append((kind, offset, size))
        elif kind not in {b"JUNK", b"PAD ", b"FLLR", b"ds64"}:
            told += kind + file.read(offset, min(size, _MAX_LOOKED_AT))
    if not {b"fmt ", b"data"} <= {kind for kind, _, _ in kept}:
        raise Unreadable
    whole = 4 + sum(8 + size + size % 2 for _, _, size in kept)
    head, found = b"RIFF" + whole.to_bytes(4, "little") + b"WAVE", list[Stretch]()
    for kind, offset, size in kept:
        found.append(Stretch(offset, size, head + kind + size.to_bytes(4, "little")))
        head = b"\0" * (size % 2)
    return [*found, Stretch(0, 0, head)], told


def _wave_seconds(file: Bytes) -> Decimal | None:
    sizes: dict[bytes, tuple[int, int]] = {}
    for kind, offset, size in _chunks(file):
        sizes.setdefault(kind, (offset, size))
    if b"fmt " not in sizes or b"data" not in sizes:
        return None
    a_second = int.from_bytes(file.read(sizes[b"fmt "][0] + 8, 4), "little")
    return rounded(Fraction(sizes[b"data"][1], a_second)) if a_second else None


# ---- what stands before and behind the others


def _start(file: Bytes) -> int:
    """Where what comes after the tags before the sound begins."""
    at = 0
    while size := tag_size(file.read(at, 10)):
        at += size
        if at >= file.size:
            raise Unreadable
    return at


def _end(file: Bytes, start: int) -> int:
    """Where the sound ends, before the tags behind it: ID3 version 1, APE, Lyrics3."""
    end = file.size
    while True:
        tail = file.read(max(start, end - 128), 128)
        size = 0
        if tail[:3] == b"TAG" and len(tail) == 128:
            size = 128
        elif tail[-32:-24] == b"APETAGEX":
            # APEv2: the footer's size leaves out the header, which a bit tells of.
            size = int.from_bytes(tail[-20:-16], "little") + (32 if tail[-9] & 0x80 else 0)
        elif tail.endswith(b"LYRICS200") and tail[-15:-9].isdigit():
            size = int(tail[-15:-9]) + 15
        if not size or size > end - start:
            return end
        end -= size


# ---- FLAC


def _flac_blocks(file: Bytes, start: int) -> tuple[list[tuple[int, int, int]], int, bytes]:
    """Kind, offset and size of each block that is kept, where the frames begin, and the other blocks."""
    kept: list[tuple[int, int, int]] = []
    at, told = start + 4, b""
    for _ in range(_MAX_CHUNKS):
        head = file.read(at, 4)
        if len(head) < 4:
            raise Unreadable
        kind, size = head[0] & ~_FLAC_LAST, int.from_bytes(head[1:])
        if kind in _FLAC_KEPT:
            kept.append((kind, at + 4, size))
        elif kind != 1:  # padding
            told += file.read(at + 4, min(size, _MAX_LOOKED_AT))
        at += 4 + size
        if head[0] & _FLAC_LAST:
            if not kept or at > file.size:
                raise Unreadable
            return kept, at, told
    raise Unreadable


def _flac_seconds(file: Bytes) -> Decimal | None:
    start = _start(file)
    info = file.read(start + 8, 34)
    if len(info) < 34:
        return None
    # RFC 9639, section 8.2: 20 bits of rate, 3 and 5 of channels and bits, 36 of samples.
    numbers = int.from_bytes(info[10:18])
    rate, samples = numbers >> 44, numbers & 0xF_FFFF_FFFF
    return rounded(Fraction(samples, rate)) if rate and samples else None


# ---- MP3


def _mp3_seconds(file: Bytes) -> Decimal | None:
    start = _start(file)
    window = file.read(start, _WINDOW_BYTES)
    at = next(
        (at for at in range(min(4096, len(window))) if _frame(window, at) and _frame(window, at + _size(window, at))),
        None,
    )
    if at is None:
        return None
    kilobits, rate, samples, size = _frame(window, at) or (0, 1, 0, 0)
    first = window[at : at + size]
    if (found := re.search(rb"Xing|Info", first[:64])) and first[found.start() + 7] & 1:
        frames = int.from_bytes(first[found.end() + 4 : found.end() + 8])
        return rounded(Fraction(frames * samples, rate)) if frames else None
    if (at_vbri := first.find(b"VBRI")) >= 0:
        frames = int.from_bytes(first[at_vbri + 14 : at_vbri + 18])
        return rounded(Fraction(frames * samples, rate)) if frames else None
    # Without a list, only a bit rate that stays the same tells the length by the size.
    position = at
    for _ in range(_FRAMES_SEEN):
        frame = _frame(window, position)
        if frame is None:
            break
        if frame[0] != kilobits:
            return None
        position += frame[3]
    return rounded(Fraction((_end(file, start) - start - at) * 8, kilobits * 1000))


def _size(window: bytes, at: int) -> int:
    return (_frame(window, at) or (0, 0, 0, 0))[3]


def _frame(window: bytes, at: int) -> tuple[int, int, int, int] | None:
    """Kilobits, samples of a second, samples and bytes of the frame that begins at *at*."""
    head = window[at : at + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return None
    version, rate, bits = head[1] >> 3 & 3, head[2] >> 2 & 3, head[2] >> 4
    if version not in _RATES or rate == 3 or bits in {0, 15}:
        return None
    kilobits = _KILOBITS[1 if version == 3 else 2][bits]
    samples, a_second = 1152 if version == 3 else 576, _RATES[version][rate]
    return kilobits, a_second, samples, samples // 8 * kilobits * 1000 // a_second + (head[2] >> 1 & 1)


# ---- Ogg


def _ogg_seconds(file: Bytes) -> Decimal | None:
    """By the position of the last page (RFC 3533), whose unit the first page gives."""
    head = file.read(0, 512)
    if (at := head.find(b"OpusHead")) >= 0:
        rate, skip = 48_000, int.from_bytes(head[at + 10 : at + 12], "little")
    elif (at := head.find(b"\x01vorbis")) >= 0:
        rate, skip = int.from_bytes(head[at + 12 : at + 16], "little"), 0
    else:
        return None
    end = file.read(max(0, file.size - _WINDOW_BYTES), _WINDOW_BYTES)
    last = end.rfind(b"OggS")
    position = int.from_bytes(end[last + 6 : last + 14], "little")
    if last < 0 or position >> 63 or not rate or end[last + 14 : last + 18] != head[14:18]:
        return None
    return rounded(Fraction(max(0, position - skip), rate))
