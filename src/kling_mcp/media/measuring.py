"""
How long a recording is and what it shows, from its packets: PyAV reads them all and decodes none.

It blocks, so callers run it in a thread. What it may read, count and allocate has an end whatever the file says.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.stream import Stream
    from av.video.stream import VideoStream

    from kling_mcp.media.recording_probe import Format

__all__ = ["Bytes", "Measured", "Unreadable", "measured"]

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
_MAX_PACKETS: Final = 2_000_000
_BUFFER_BYTES: Final = 256 * 1024
_MOST_READ: Final = 8
"""How many times its size a file may be read: what is stored out of order is read more than once."""


class Bytes(Protocol):
    """A file that can be read anywhere."""

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    def read(self, offset: int, count: int, /) -> bytes:
        """At most *count* bytes from *offset* on."""
        ...


@dataclass(frozen=True, slots=True)
class Measured:
    """What the packets of a file say; no pictures, no width."""

    seconds: Decimal
    width: int | None
    height: int | None
    fps: Decimal | None
    sound: bool


class Unreadable(Exception):
    """The file cannot be read as what it says it is."""


def measured(file: Bytes, kind: Format) -> Measured:
    """
    Measure *file*.

    Raises:
        Unreadable: It is damaged, holds nothing, or is beyond all measure.
    """
    import av
    from av.error import FFmpegError

    try:
        # Without decoders, what the packets and the file's own index say is known, and that is all that counts. Only
        # AAC without a container says nowhere else how many samples a second has.
        decoders = "aac" if kind == "aac" else "none"
        options = {"codec_whitelist": decoders, "format_whitelist": _DEMUXERS[kind]}
        lenient: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
        with cast(
            "InputContainer",
            av.open(
                _Reader(file),
                format=_DEMUXERS[kind],
                container_options=options,
                buffer_size=_BUFFER_BYTES,
                **lenient,
            ),
        ) as container:
            return _measured(container)
    except (FFmpegError, ValueError, OverflowError):
        raise Unreadable from None


def _measured(container: InputContainer) -> Measured:
    streams = {stream.index: _Track(stream) for stream in container.streams if stream.type in {"video", "audio"}}
    for number, packet in enumerate(container.demux()):
        if number > _MAX_PACKETS:
            raise Unreadable
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
        width, height = stream.width or None, stream.height or None
        fps = pictures.rate
    seconds = max(track.end for track in tracks) - max(Fraction(0), min(track.begin for track in tracks))
    return Measured(_decimal(seconds, 3), width, height, fps, any(track.stream.type == "audio" for track in tracks))


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
        return _decimal((self.packets - 1) / (self._last - self.begin), 2)


def _decimal(value: Fraction, places: int) -> Decimal:
    return Decimal(round(value * 10**places)).scaleb(-places)


class _Reader:
    """*file* as FFmpeg reads it: at a position, and at most so often."""

    def __init__(self, file: Bytes) -> None:
        self._file = file
        self._at = 0
        self._left = file.size * _MOST_READ + _BUFFER_BYTES * 64

    def read(self, count: int) -> bytes:
        piece = self._file.read(self._at, count) if self._left > 0 else b""
        self._at += len(piece)
        self._left -= len(piece)
        return piece

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + {0: 0, 1: self._at, 2: self._file.size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at
