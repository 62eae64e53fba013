"""
The packets of a recording: how long it is and what it shows, and a copy that has nothing else. PyAV decodes none.

It blocks, so callers run it in a thread. What it may read, count and allocate has an end whatever the file says.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final, cast

from kling_mcp.media.measured import Measured, Unreadable, rounded
from kling_mcp.media.private_file import FULL, no_room

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from decimal import Decimal
    from typing import BinaryIO

    from av.codec.context import CodecContext
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.stream import VideoStream

    from kling_mcp.media.measured import Bytes
    from kling_mcp.media.recording_probe import Format

__all__ = ["copied", "measure"]

# Other formats that FFmpeg reads are lists of further files and addresses.
_DEMUXERS: Final[dict[Format, str]] = {
    "mp4": "mov",
    "mov": "mov",
    "m4a": "mov",
    "webm": "matroska",
    "mkv": "matroska",
    "mp3": "mp3",
    "wav": "wav",
    "aac": "aac",
    "ogg": "ogg",
    "flac": "flac",
}
_MUXERS: Final[dict[Format, str]] = {"ogg": "ogg"}
_SHOWN: Final = frozenset({"video", "audio"})
_TECHNICAL: Final = frozenset({"encoder", "language", "duration", "handler_name", "vendor_id", "number_of_frames"})
_MAX_PACKETS: Final = 2_000_000
_BUFFER_BYTES: Final = 256 * 1024
_MOST_READ: Final = 8
"""How many times its size a file may be read: what is stored out of order is read more than once."""


def measure(file: Bytes, kind: Format) -> Measured:
    """
    Measure *file*.

    Raises:
        Unreadable: It is damaged, holds nothing, or is beyond all measure.
    """
    with _opened(file, kind) as container:
        return _measured(container)


def copied(file: Bytes, kind: Format) -> tuple[BinaryIO, bytes]:
    """
    The packets of *file*'s pictures and sound in a new file without anything else, and what the old one says besides.

    Raises:
        Unreadable: It cannot be read, or its packets do not fit into a new file.
        NotAvailable: The disk has no room for it.
    """
    import av

    copy = cast("BinaryIO", tempfile.TemporaryFile(prefix="kling-mcp-"))  # noqa: SIM115 - the caller's
    try:
        made: Any = av.open(_Writer(copy), "w", format=_MUXERS[kind], options={"fflags": "+bitexact"})
        with made, _opened(file, kind) as container:
            streams = [stream for stream in container.streams if stream.type in _SHOWN]
            copies = {stream.index: made.add_stream_from_template(stream, opaque=True) for stream in streams}
            said = [container.metadata, *(stream.metadata for stream in container.streams)]
            for packet in _packets(container):
                if packet.stream_index in copies and packet.dts is not None:
                    packet.stream = copies[packet.stream_index]
                    made.mux(packet)
    except BaseException as error:
        copy.close()
        if isinstance(error, OSError) and error.errno in FULL:
            raise no_room() from None
        raise
    names = (f"{name}={value}" for values in said for name, value in values.items() if name not in _TECHNICAL)
    return copy, "\n".join(names).encode()


@contextmanager
def _opened(file: Bytes, kind: Format) -> Generator[InputContainer]:
    import av
    from av.error import FFmpegError

    try:
        # Without decoders, what the packets and the file's own index say is known, and that is all that counts. Only
        # AAC without a container says nowhere else how many samples a second has.
        decoders = "aac" if kind == "aac" else "none"
        options = {"codec_whitelist": decoders, "format_whitelist": _DEMUXERS[kind]}
        # Until PyAV 19, which has no such option, a title that is not UTF-8 makes a whole file unreadable.
        arguments: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
        arguments |= {"format": _DEMUXERS[kind], "container_options": options, "buffer_size": _BUFFER_BYTES}
        with cast("InputContainer", av.open(_Reader(file), **arguments)) as container:
            yield container
    except (FFmpegError, ValueError, OverflowError):
        raise Unreadable from None


def _packets(container: InputContainer) -> Iterator[Packet[Stream]]:
    for number, packet in enumerate(container.demux()):
        if number > _MAX_PACKETS:
            raise Unreadable
        yield packet


def _measured(container: InputContainer) -> Measured:
    streams = {stream.index: _Track(stream) for stream in container.streams if stream.type in _SHOWN}
    for packet in _packets(container):
        track = streams.get(packet.stream_index)
        if track is not None and packet.size and not packet.is_discard:
            at = packet.pts if packet.pts is not None else packet.dts
            if at is not None:
                track.note(at * packet.time_base, (packet.duration or 0) * packet.time_base)
    tracks = [track for track in streams.values() if track.packets]
    if not tracks:
        raise Unreadable
    pictures = next((track for track in tracks if track.stream.type == "video"), None)
    width = height = fps = None
    if pictures is not None:
        stream = cast("VideoStream", pictures.stream)
        if cast("CodecContext | None", stream.codec_context) is None:  # coded in a way that is not known here
            raise Unreadable
        width, height = stream.width or None, stream.height or None
        fps = pictures.rate
    seconds = max(track.end for track in tracks) - max(Fraction(0), min(track.begin for track in tracks))
    return Measured(rounded(seconds, 3), width, height, fps, any(track.stream.type == "audio" for track in tracks))


class _Track:
    """What the packets of one stream add up to, in seconds."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.packets = 0
        self.begin = Fraction(0)
        self.end = Fraction(0)
        self._last = Fraction(0)

    def note(self, at: Fraction, length: Fraction) -> None:
        """One more packet."""
        self.begin = at if not self.packets else min(self.begin, at)
        self.end = max(self.end, at + length)
        self._last = max(self._last, at)
        self.packets += 1

    @property
    def rate(self) -> Decimal | None:
        """Packets per second; None for one alone."""
        if self.packets < 2 or self._last == self.begin:
            return None
        return rounded((self.packets - 1) / (self._last - self.begin), 2)


class _Writer:
    """*file* as FFmpeg writes it, which takes a name for the path of the file."""

    def __init__(self, file: BinaryIO) -> None:
        self.read = file.read
        self.write = file.write
        self.seek = file.seek
        self.tell = file.tell


class _Reader:
    """*file* as FFmpeg reads it: at a position, and at most so often."""

    def __init__(self, file: Bytes) -> None:
        self._file = file
        self._at = 0
        self._left = file.size * _MOST_READ + _BUFFER_BYTES * 64

    def read(self, count: int) -> bytes:
        is_inside = 0 <= self._at < self._file.size
        piece = self._file.read(self._at, count) if is_inside and self._left > 0 else b""
        self._at += len(piece)
        self._left -= len(piece)
        return piece

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + {0: 0, 1: self._at, 2: self._file.size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at
