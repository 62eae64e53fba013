"""
Videos and sound without what tells about their owner: the place, the device, dates, names, pictures of covers.

What is uploaded becomes a public link. As with pictures, lists name what stays. Videos are overwritten in place
(`boxes.py`, `ebml.py`); of sound files only the sound is copied (`sound_files.py`); the packets of Ogg go into a new
file. No picture and no sound is coded anew.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kling_mcp.media import boxes, ebml, packets, sound_files
from kling_mcp.media.measured import Inseparable, Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import BinaryIO

    from kling_mcp.media.measured import Bytes, Patch, Scrubbed
    from kling_mcp.media.recording_probe import Format
    from kling_mcp.media.sound_files import Stretch

__all__ = ["PIECE_BYTES", "Cleaned", "clean", "pieces_of", "tells_a_place"]

PIECE_BYTES: Final = 1024 * 1024
_IN_PLACE: Final[Mapping[Format, Callable[[Bytes], Scrubbed]]] = {
    "mp4": boxes.scrub,
    "mov": boxes.scrub,
    "m4a": boxes.scrub,
    "webm": ebml.scrub,
    "mkv": ebml.scrub,
}
_SOUND: Final = frozenset({"wav", "mp3", "flac", "aac"})
# ISO 6709 as in «+51.4779-000.0015/», Exif in XMP, NMEA 0183, and the positions of action cameras.
_PLACE: Final = re.compile(
    rb"[+-]\d{2}\.\d{2,}[+-]\d{3}\.\d{2,}|exif:GPS|\$G[PNL](?:RMC|GGA),|GoPro MET|ISO6709[^A-Za-z]|LOCATION=[+-]?\d"
)
# The same, and what is too short to be looked for in pictures and sound.
_PLACE_IN_WORDS: Final = re.compile(_PLACE.pattern + rb"|GPS|\xa9xyz|loci|gpmd|camm")
# What programs write of themselves is not worth a word.
_WORDS: Final = re.compile(rb"[ -~]{5,}")
# Names that are there in any case; in Matroska, the number of a track that a tag is about, and a checksum.
_STRUCTURE: Final = re.compile(
    rb"c\xc5\x88.{8}|\xbf\x84.{4}|\0|meta|hdlr|mdir|mdta|appl|ilst|data|keys|\xa9too|\xa9swr|INFOISFT|TSSE", re.DOTALL
)
_OF_PROGRAMS: Final = re.compile(
    rb"Lav[fc]\d|LAME ?\d|encoder|^\d\d:\d\d:\d\d|DURATION|^_STATISTICS|NUMBER_OF_", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What leaves, to be read once, and what was changed, one phrase each."""

    pieces: Iterator[bytes]
    changes: tuple[str, ...]


def clean(file: Bytes, form: Format, *, av: bool) -> Cleaned:
    """
    *file* without what tells about its owner; *av* is whether PyAV may be used.

    Raises:
        Unreadable: It is damaged, or ends before its time.
        Inseparable: What is in it cannot be told apart, or not without PyAV.
        NotAvailable: The disk has no room for a copy.
    """
    if form in _IN_PLACE:
        scrubbed = _IN_PLACE[form](file)
        return Cleaned(_patched(pieces_of(file), scrubbed.patches), _changes(scrubbed.told))
    if form in _SOUND:
        kept, told = sound_files.stretches(file, form)
        return Cleaned(_joined(file, kept), _changes(told))
    if not av:
        raise Inseparable
    before = packets.measure(file, form)
    try:
        copy, told = packets.copied(file, form)
    except Unreadable:
        raise Inseparable from None
    after = packets.measure(_Copy(copy), form)
    if abs(after.seconds - before.seconds) > 1 or (after.width, after.sound) != (before.width, before.sound):
        copy.close()
        raise Inseparable
    return Cleaned(_emptied(copy), _changes(told))


def pieces_of(file: Bytes, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """The bytes of *file* from *start* to *end*, a megabyte at a time."""
    at, end = start, file.size if end is None else end
    while at < end and (piece := file.read(at, min(PIECE_BYTES, end - at))):
        yield piece
        at += len(piece)


def tells_a_place(file: Bytes) -> bool:
    """Whether a place is written anywhere in *file*, as far as can be told without knowing what is what in it."""
    end = b""
    for piece in pieces_of(file):
        if _PLACE.search(end + piece):
            return True
        end = piece[-64:]
    return False


def _changes(told: bytes) -> tuple[str, ...]:
    if _PLACE_IN_WORDS.search(told):
        return ("the place where it was taken (GPS) and other metadata removed",)
    words = _WORDS.findall(_STRUCTURE.sub(b"", told))
    return ("metadata removed",) if any(not _OF_PROGRAMS.search(word) for word in words) else ()


def _patched(pieces: Iterator[bytes], patches: Sequence[Patch]) -> Iterator[bytes]:
    at = following = 0
    for piece in pieces:
        end, changed = at + len(piece), bytearray(piece)
        while following < len(patches) and (patch := patches[following]).offset < end:
            first, last = max(at, patch.offset), min(end, patch.offset + patch.size)
            given = patch.data.ljust(patch.size, b"\0") if patch.data else bytes(last - first)
            if patch.data:
                given = given[first - patch.offset : last - patch.offset]
            changed[first - at : last - at] = given
            if patch.offset + patch.size > end:
                break
            following += 1
        yield bytes(changed)
        at = end


def _joined(file: Bytes, kept: Sequence[Stretch]) -> Iterator[bytes]:
    for stretch in kept:
        if stretch.before:
            yield stretch.before
        yield from pieces_of(file, stretch.offset, stretch.offset + stretch.size)


class _Copy:
    """A file of our own as one that can be read anywhere."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, 2)

    def read(self, offset: int, count: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(count)


def _emptied(copy: BinaryIO) -> Iterator[bytes]:
    with copy:
        yield from pieces_of(_Copy(copy))
