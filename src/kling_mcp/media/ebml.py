"""
Matroska and WebM (RFC 9559): elements of which only those that make the picture and the sound leave.

As in `boxes.py`, what goes is overwritten where it stands, by an element that means nothing (Void, RFC 8794) of the
same size, so that nothing moves.
"""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import TYPE_CHECKING, Final, NamedTuple

from kling_mcp.media.measured import Measured, Patch, Scrubbed, Unreadable, rounded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kling_mcp.media.measured import Bytes

__all__ = ["measure", "scrub"]

_MAX_ELEMENTS: Final = 2_000_000
_MAX_LOOKED_AT: Final = 4 * 1024 * 1024
_MAX_READ: Final = 16 * 1024 * 1024
_EBML, _SEGMENT, _SEEK, _INFO, _TRACKS, _CUES = 0x1A45DFA3, 0x18538067, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B
_CLUSTER, _VOID, _CHECKSUM = 0x1F43B675, 0xEC, 0xBF
_SIMPLE_BLOCK, _BLOCK_GROUP, _BLOCK = 0xA3, 0xA0, 0xA1
# Of a cluster: its time, position, size before, and blocks.
_IN_CLUSTERS: Final = frozenset({0xE7, 0xA7, 0xAB, _SIMPLE_BLOCK, _BLOCK_GROUP})
_KEPT: Final = frozenset({_SEEK, _TRACKS, _CUES, _CLUSTER})
# Of the information: the unit and the length. The names of programs must be there, and are emptied.
_INFO_KEPT: Final = frozenset({0x2AD7B1, 0x4489})
_PROGRAMS: Final = frozenset({0x4D80, 0x5741})
_TRACK_ENTRY, _TRACK_NUMBER, _TRACK_TYPE, _TRACK_NAME, _ATTACHED = 0xAE, 0xD7, 0x83, 0x536E, 0x7446
_VIDEO, _WIDTH, _HEIGHT, _FRAME_NANOSECONDS = 0xE0, 0xB0, 0xBA, 0x23E383
_PICTURES, _SOUND = 1, 2


class _Element(NamedTuple):
    id: int
    start: int
    content: int
    end: int | None
    """None where the size is not said: it ends where another of its level begins."""


def scrub(file: Bytes) -> Scrubbed:
    """
    What of *file* has to be overwritten, so that it tells nothing about its owner.

    Raises:
        Unreadable: The elements are not in order, or it ends before its time.
    """
    patches: list[Patch] = []
    told = bytearray()
    gone: set[int] | None = None
    for element in _below_the_segment(file):
        end = element.end if element.end is not None else element.content
        if end > file.size:
            raise Unreadable
        if element.id in {_INFO, _TRACKS}:
            data = _whole(file, element)
            if element.id == _INFO:
                patches += _patches_of_info(data, element.content)
            else:
                found, gone = _patches_of_tracks(data, element.content)
                patches += found
        elif element.id in {_SIMPLE_BLOCK, _BLOCK_GROUP}:
            if _track_of(file, element) in (gone or ()):
                patches += _voided(element.start, end)
        elif element.id not in _KEPT and element.id not in _IN_CLUSTERS:
            content = file.read(element.content, min(_MAX_LOOKED_AT, end - element.content))
            if element.id not in {_VOID, _CHECKSUM}:
                told += content[: _MAX_LOOKED_AT - len(told)]
            patches += _voided(element.start, end)
    if gone is None:
        raise Unreadable
    return Scrubbed(tuple(patches), bytes(told))


def measure(file: Bytes) -> Measured | None:
    """
    What the head of *file* says of it; None where that does not tell the length.

    Raises:
        Unreadable: The elements are not in order.
    """
    length = Fraction(0)
    tracks: list[dict[int, bytes]] | None = None
    for element in _below_the_segment(file):
        if element.id == _INFO:
            values = {inner.id: data for inner, data in _inside(_whole(file, element))}
            duration = values.get(0x4489, b"")
            if len(duration) in {4, 8}:
                ticks: float = struct.unpack(">f" if len(duration) == 4 else ">d", duration)[0]
                unit = int.from_bytes(values.get(0x2AD7B1, b"\x0f\x42\x40"))
                length = Fraction(ticks) * unit / 10**9 if 0 < ticks < 1e15 else length
        elif element.id == _TRACKS:
            entries = (data for inner, data in _inside(_whole(file, element)) if inner.id == _TRACK_ENTRY)
            tracks = [{inner.id: data for inner, data in _inside(entry)} for entry in entries]
        elif element.id == _CLUSTER:
            break
        if length and tracks is not None:
            break
    if not length:
        return None
    kinds = {int.from_bytes(track.get(_TRACK_TYPE, b"")): track for track in reversed(tracks or [])}
    width = height = fps = None
    if (pictures := kinds.get(_PICTURES)) is not None:
        sides = {inner.id: int.from_bytes(data) for inner, data in _inside(pictures.get(_VIDEO, b""))}
        width, height = sides.get(_WIDTH), sides.get(_HEIGHT)
        nanoseconds = int.from_bytes(pictures.get(_FRAME_NANOSECONDS, b""))
        fps = rounded(Fraction(10**9, nanoseconds), 2) if nanoseconds else None
    return Measured(rounded(length), width, height, fps, _SOUND in kinds)


def _below_the_segment(file: Bytes) -> Iterator[_Element]:
    """The elements of the first level, and those of clusters that need looking into, in the order of the file."""
    at, end = 0, file.size
    for _ in range(_MAX_ELEMENTS):
        if at + 2 > end:
            return
        element = _element(file.read(at, 12), at)
        if element.id in {_EBML, _SEGMENT}:
            at = element.content if element.id == _SEGMENT or element.end is None else element.end
            continue
        if element.end is None and element.id != _CLUSTER:
            raise Unreadable
        yield element
        at = element.content if element.id == _CLUSTER or element.end is None else element.end
    raise Unreadable


def _element(head: bytes, at: int) -> _Element:
    if not head or not head[0]:
        raise Unreadable
    id_size = 9 - head[0].bit_length()
    if id_size > 4 or len(head) <= id_size or not head[id_size]:
        raise Unreadable
    size_size = 9 - head[id_size].bit_length()
    if len(head) < id_size + size_size:
        raise Unreadable
    all_ones = (1 << 7 * size_size) - 1
    size = int.from_bytes(head[id_size : id_size + size_size]) & all_ones
    content = at + id_size + size_size
    return _Element(int.from_bytes(head[:id_size]), at, content, None if size == all_ones else content + size)


def _whole(file: Bytes, element: _Element) -> bytes:
    size = (element.end or 0) - element.content
    if not 0 <= size <= _MAX_READ:
        raise Unreadable
    return file.read(element.content, size)


def _inside(data: bytes) -> Iterator[tuple[_Element, bytes]]:
    at = 0
    while at < len(data):
        element = _element(data[at : at + 12], at)
        if element.end is None or element.end > len(data):
            raise Unreadable
        yield element, data[element.content : element.end]
        at = element.end


def _voided(start: int, end: int) -> Iterator[Patch]:
    """Make one element that means nothing of what is there from *start* to *end*: its size has one byte or eight."""
    size = end - start
    if size < 9:
        yield Patch(start, size, bytes([_VOID, 0x80 | size - 2]))
    else:
        yield Patch(start, 9, bytes([_VOID, 1]) + (size - 9).to_bytes(7))
        if size > 9:
            yield Patch(start + 9, size - 9)


def _patches_of_info(data: bytes, base: int) -> Iterator[Patch]:
    for element, content in _inside(data):
        if element.id in _PROGRAMS:
            if content:
                yield Patch(base + element.content, len(content))
        elif element.id not in _INFO_KEPT:
            yield from _voided(base + element.start, base + (element.end or 0))


def _patches_of_tracks(data: bytes, base: int) -> tuple[list[Patch], set[int]]:
    """What to overwrite in the list of tracks, and the numbers of those that are neither picture nor sound."""
    patches: list[Patch] = []
    gone: set[int] = set()
    for element, content in _inside(data):
        values = {inner.id: value for inner, value in _inside(content)} if element.id == _TRACK_ENTRY else {}
        if element.id == _TRACK_ENTRY and int.from_bytes(values.get(_TRACK_TYPE, b"")) in {_PICTURES, _SOUND}:
            start = base + element.content
            for inner, _ in _inside(content):
                if inner.id in {_TRACK_NAME, _ATTACHED, _CHECKSUM}:
                    patches += _voided(start + inner.start, start + (inner.end or 0))
            continue
        gone.add(int.from_bytes(values.get(_TRACK_NUMBER, b"")))
        patches += _voided(base + element.start, base + (element.end or 0))
    return patches, gone


def _track_of(file: Bytes, element: _Element) -> int:
    """The number of the track that a block is of."""
    if element.id == _BLOCK_GROUP:
        element = _element(file.read(element.content, 12), element.content)
    head = file.read(element.content, 8)
    size = 9 - head[0].bit_length() if head and head[0] else 1
    return int.from_bytes(head[:size]) & (1 << 7 * size) - 1
