"""
MP4 and QuickTime (ISO/IEC 14496-12): a tree of boxes, of which only those that make the picture and the sound leave.

What goes is overwritten where it stands: a box that is not known to be needed becomes an empty one of the same size,
dates and names become zeros. So nothing moves, and what is shown stays what it was to the last bit, with every edit
of the phone that made it. Tracks that are neither picture nor sound (positions, subtitles, time codes) go with their
samples.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_left
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from kling_mcp.media.measured import Inseparable, Measured, Patch, Scrubbed, Unreadable, rounded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kling_mcp.media.measured import Bytes

__all__ = ["is_turned", "measure", "scrub"]

_MAX_INDEX_BYTES: Final = 64 * 1024 * 1024
_MAX_BOXES: Final = 200_000
_MAX_SAMPLES: Final = 2_000_000
_MAX_LOOKED_AT: Final = 4 * 1024 * 1024

_KEPT: Final[Mapping[bytes, frozenset[bytes]]] = {
    parent: frozenset(names.split(b" "))
    for parent, names in {
        b"": b"ftyp styp moov mdat moof mfra sidx ssix wide",
        b"moov": b"mvhd trak mvex",
        b"trak": b"tkhd edts mdia tapt",
        b"edts": b"elst",
        b"mdia": b"mdhd hdlr minf elng",
        b"minf": b"vmhd smhd nmhd hdlr dinf stbl",
        b"dinf": b"dref",
        b"stbl": b"stsd stts ctts cslg stsc stsz stz2 stco co64 stss stsh stps sdtp sbgp sgpd subs saiz saio padb stdp",
        b"mvex": b"mehd trex leva trep",
        b"moof": b"mfhd traf",
        b"traf": b"tfhd tfdt trun sdtp sbgp sgpd subs saiz saio senc",
    }.items()
}
_SILENT: Final = frozenset({b"free", b"skip", b"iods", b"tref"})
# In the description of a picture's samples: the name of the camera's encoder (ISO/IEC 14496-12, 12.1.3).
_COMPRESSOR: Final = range(42, 74)
_HANDLERS: Final = frozenset({b"vide", b"soun"})
_NAME: Final = re.compile(rb"[ -~\xa9]{4}")


class _Box(NamedTuple):
    kind: bytes
    start: int
    content: int
    end: int


def scrub(file: Bytes) -> Scrubbed:
    """
    What of *file* has to be overwritten, so that it tells nothing about its owner.

    Raises:
        Unreadable: The boxes are not in order, or it ends before its time.
        Inseparable: It is not plain what belongs to the picture and the sound.
    """
    scrubber = _Scrubber()
    for box in _outermost(file):
        if box.kind in {b"moov", b"moof"}:
            if box.end - box.start > _MAX_INDEX_BYTES:
                raise Unreadable
            scrubber.tree(file.read(box.start, box.end - box.start), box)
        elif box.kind not in _KEPT[b""]:
            scrubber.drop(box, file.read(box.content, min(_MAX_LOOKED_AT, box.end - box.content)))
    return Scrubbed(tuple(scrubber.in_order()), bytes(scrubber.told))


def measure(file: Bytes) -> Measured | None:
    """
    What the index of *file* says of it; None where it has none, or one that does not tell the length.

    Raises:
        Unreadable: The boxes are not in order.
    """
    return None if (index := _index(file)) is None else _measured(index)


def is_turned(file: Bytes) -> bool:
    """
    Whether its pictures are stored lying on their side.

    Raises:
        Unreadable: The boxes are not in order.
    """
    index = _index(file)
    pictures = next((track for track in _tracks(index or b"") if track.handler == b"vide"), None)
    return pictures is not None and pictures.is_turned


def _index(file: Bytes) -> bytes | None:
    for box in _outermost(file, cut=True):
        if box.kind == b"moov":
            if box.end > file.size or box.end - box.start > _MAX_INDEX_BYTES:
                raise Unreadable
            return file.read(box.start, box.end - box.start)
    return None


def _outermost(file: Bytes, *, cut: bool = False) -> Iterator[_Box]:
    """The outermost boxes; of a file that is *cut*, those that have begun."""
    at = boxes = 0
    while at + 8 <= file.size:
        box = _box(head := file.read(at, 16), at, file.size)
        boxes += 1
        if boxes > _MAX_BOXES:
            raise Unreadable
        if boxes > 1 and not _NAME.fullmatch(head[4:8]):
            # What programs put after the last box.
            box = _Box(b"", at, at, file.size)
        if box.end > file.size and not cut:
            raise Unreadable
        yield box
        at = box.end


def _box(head: bytes, at: int, end: int) -> _Box:
    if len(head) < 8:
        raise Unreadable
    size, content = int.from_bytes(head[:4]), at + 8
    if size == 1:
        size, content = int.from_bytes(head[8:16]), at + 16
    box = _Box(head[4:8], at, content, at + size if size else end)
    if box.end < box.content:
        raise Unreadable
    return box


def _inside(data: bytes, start: int, end: int) -> Iterator[_Box]:
    """The boxes in *data* from *start* to *end*; QuickTime may end a list with four zeros."""
    at = start
    while at + 8 <= end:
        box = _box(data[at : min(at + 16, end)], at, end)
        if box.end > end:
            raise Unreadable
        yield box
        at = box.end


def _child(data: bytes, parent: _Box, *path: bytes) -> _Box | None:
    """The first box at *path* below *parent*."""
    for kind in path:
        found = next((box for box in _inside(data, parent.content, parent.end) if box.kind == kind), None)
        if found is None:
            return None
        parent = found
    return parent


class _Scrubber:
    """Collects what to overwrite."""

    def __init__(self) -> None:
        self.told = bytearray()
        self._patches: list[Patch] = []
        self._gone: list[tuple[int, int]] = []
        self._chunks: list[int] = []
        self._handler = b""
        self._samples = 0

    def in_order(self) -> Iterator[Patch]:
        """The patches, with the samples of tracks that go, where they are not those of one that stays as well."""
        kept = sorted(self._chunks)
        last = 0
        for start, end in sorted(self._gone):
            nearest = bisect_left(kept, start)
            if nearest < len(kept) and kept[nearest] < end:
                raise Inseparable
            self._blank(max(start, last), end)
            last = max(last, end)
        last = 0
        for patch in sorted(self._patches):
            if patch.offset < last:
                raise Inseparable
            last = patch.offset + patch.size
            yield patch

    def drop(self, box: _Box, content: bytes) -> None:
        """Make an empty box of *box*, whose content begins with *content*."""
        if box.kind:
            self._patches.append(Patch(box.start + 4, 4, b"free"))
        self._blank(box.content, box.end)
        if box.kind not in _SILENT:
            self.told += content[: _MAX_LOOKED_AT - len(self.told)]

    def _blank(self, start: int, end: int) -> None:
        if end > start:
            self._patches.append(Patch(start, end - start))

    def tree(self, data: bytes, outer: _Box) -> None:
        """Go through the index or a fragment, whose bytes are *data*."""
        whole = _Box(outer.kind, 0, outer.content - outer.start, len(data))
        self._walk(data, whole, outer.start)

    def _walk(self, data: bytes, parent: _Box, base: int) -> None:
        for box in _inside(data, parent.content, parent.end):
            placed = _Box(box.kind, base + box.start, base + box.content, base + box.end)
            content = data[box.content : box.end]
            track = _Track(data, box) if box.kind == b"trak" else None
            if track is not None and track.handler not in _HANDLERS:
                self._gone += track.samples()
                self.drop(placed, content)
            elif box.kind not in _KEPT[parent.kind]:
                if box.kind == b"cmov":
                    raise Unreadable
                self.drop(placed, content)
            elif box.kind in _KEPT:
                if track is not None:
                    # What is told is believed by those who read it next, and each sample takes memory there.
                    self._count(track.most_samples)
                    self._handler = track.handler
                    self._chunks += track.chunks
                self._walk(data, box, base)
            else:
                self._within(box.kind, content, placed)

    def _count(self, samples: int) -> None:
        self._samples += samples
        if self._samples > _MAX_SAMPLES:
            raise Unreadable

    def _within(self, kind: bytes, content: bytes, placed: _Box) -> None:
        """Overwrite what tells something inside a box that stays."""
        at, end = placed.content, placed.end
        if kind in {b"mvhd", b"tkhd", b"mdhd"} and content:
            # When it was made and changed.
            self._blank(at + 4, min(end, at + (20 if content[0] == 1 else 12)))
        elif kind == b"hdlr":
            self._blank(at + 24, end)
        elif kind == b"trun":
            self._count(int.from_bytes(content[4:8]))
        elif kind == b"stsd":
            for entry in _inside(content, 8, len(content)):
                if self._handler == b"vide" and entry.end - entry.content >= _COMPRESSOR.stop:
                    self._blank(at + entry.content + _COMPRESSOR.start, at + entry.content + _COMPRESSOR.stop)
        elif kind == b"dref":
            for entry in _inside(content, 8, len(content)):
                # A path on the machine that it was made on, without meaning where the data is in the file itself.
                if entry.content + 4 > entry.end or not content[entry.content + 3] & 1:
                    raise Inseparable
                self._blank(at + entry.content + 4, at + entry.end)


class _Track:
    """One track of the index."""

    def __init__(self, data: bytes, box: _Box) -> None:
        self._data = data
        self._box = box

    def _content(self, *path: bytes) -> bytes:
        box = _child(self._data, self._box, *path)
        return b"" if box is None else self._data[box.content : box.end]

    def _table(self, name: bytes) -> bytes:
        return self._content(b"mdia", b"minf", b"stbl", name)

    @property
    def handler(self) -> bytes:
        """What it holds."""
        return self._content(b"mdia", b"hdlr")[8:12]

    @property
    def chunks(self) -> tuple[int, ...]:
        """Where its chunks begin."""
        for name, letter, size in ((b"stco", "I", 4), (b"co64", "Q", 8)):
            if table := self._table(name):
                count = _entries(table, size)
                return struct.unpack_from(f">{count}{letter}", table, 8)
        return ()

    def samples(self) -> list[tuple[int, int]]:
        """Where its chunks begin and end."""
        sizes, runs = self._table(b"stsz"), self._table(b"stsc")
        chunks = self.chunks
        if not chunks:
            return []
        if len(sizes) < 12 or len(runs) < 8:
            raise Unreadable
        every, count = struct.unpack_from(">II", sizes, 4)
        if count > _MAX_SAMPLES or (not every and len(sizes) < 12 + 4 * count):
            raise Unreadable
        ends = (
            range(0, every * (count + 1), every)
            if every
            else (0, *accumulate(struct.unpack_from(f">{count}I", sizes, 12)))
        )
        firsts = [struct.unpack_from(">II", runs, 8 + 12 * number) for number in range(_entries(runs, 12))]
        found: list[tuple[int, int]] = []
        sample = 0
        for (first, each), (after, _) in pairwise([*firsts, (len(chunks) + 1, 0)]):
            if not 0 < first < after:
                raise Unreadable
            for chunk in chunks[first - 1 : after - 1]:
                upto = min(count, sample + each)
                found.append((chunk, chunk + ends[upto] - ends[sample]))
                sample = upto
        return found

    @property
    def most_samples(self) -> int:
        """The most samples that one of its tables counts."""
        counts = [self.sample_count]
        for name in (b"stts", b"ctts"):
            table = self._table(name)
            count = _entries(table, 8)
            counts.append(sum(struct.unpack_from(f">{2 * count}I", table, 8)[::2]) if count else 0)
        return max(counts)

    @property
    def length(self) -> tuple[int, int] | None:
        """How long its samples are, in how many units to a second."""
        head = self._content(b"mdia", b"mdhd")
        scale = int.from_bytes(head[20:24] if head[:1] == b"\1" else head[12:16])
        times = self._table(b"stts")
        count = _entries(times, 8)
        if not scale or count > _MAX_SAMPLES:
            return None
        numbers = struct.unpack_from(f">{2 * count}I", times, 8) if count else ()
        return sum(many * each for many, each in zip(numbers[::2], numbers[1::2], strict=True)), scale

    @property
    def sample_count(self) -> int:
        """How many samples it has."""
        return int.from_bytes((self._table(b"stsz") or self._table(b"stz2"))[8:12])

    @property
    def shown(self) -> int:
        """How long its edits are together, in units of the movie; 0 where it has none."""
        edits = self._content(b"edts", b"elst")
        wide = edits[:1] == b"\1"
        size = 20 if wide else 12
        starts = range(8, 8 + size * _entries(edits, size), size)
        return sum(int.from_bytes(edits[at : at + (8 if wide else 4)]) for at in starts)

    @property
    def is_turned(self) -> bool:
        """Whether its matrix turns it by a quarter, so that the first row runs down and the first column across."""
        head = self._content(b"tkhd")
        at = 52 if head[:1] == b"\1" else 40
        if len(head) < at + 44:
            return False
        a, b, _, _, d = struct.unpack_from(">5i", head, at)
        return not a and not d and bool(b)

    @property
    def sides(self) -> tuple[int, int] | None:
        """Width and height as seen."""
        head = self._content(b"tkhd")
        if len(head) < 8:
            return None
        width, height = (value >> 16 for value in struct.unpack_from(">II", head, len(head) - 8))
        return (height, width) if self.is_turned else (width, height)


def _entries(table: bytes, size: int) -> int:
    """How many entries of *size* bytes the table has; it may say more than there are."""
    return max(0, min(int.from_bytes(table[4:8]), (len(table) - 8) // size))


def _tracks(index: bytes) -> list[_Track]:
    """The tracks of pictures and sound in *index*."""
    if not index:
        return []
    whole = _box(index[:16], 0, len(index))
    tracks = (_Track(index, box) for box in _inside(index, whole.content, whole.end) if box.kind == b"trak")
    return [track for track in tracks if track.handler in _HANDLERS]


def _measured(index: bytes) -> Measured | None:
    whole = _box(index[:16], 0, len(index))
    head = _child(index, whole, b"mvhd")
    content = b"" if head is None else index[head.content : head.end]
    scale = int.from_bytes(content[20:24] if content[:1] == b"\1" else content[12:16])
    tracks = _tracks(index)
    lengths: list[Fraction] = []
    for track in tracks:
        if (length := track.length) is None or track.most_samples > _MAX_SAMPLES:
            raise Unreadable
        shown = track.shown
        lengths.append(Fraction(shown, scale) if shown and scale else Fraction(*length))
    if (extended := _child(index, whole, b"mvex", b"mehd")) is not None and scale:
        lengths.append(Fraction(int.from_bytes(index[extended.content + 4 : extended.end]), scale))
    if not any(lengths):
        return None
    pictures = next((track for track in tracks if track.handler == b"vide"), None)
    width = height = fps = None
    if pictures is not None:
        width, height = pictures.sides or (None, None)
        units, each = pictures.length or (0, 1)
        fps = rounded(Fraction(pictures.sample_count * each, units), 2) if units else None
    sound = any(track.handler == b"soun" for track in tracks)
    return Measured(rounded(max(lengths)), width, height, fps, sound)
