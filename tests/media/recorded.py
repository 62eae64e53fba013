"""
Small videos and sounds of every kind that people have, made by PyAV.

What PyAV does not write (a place, a track of positions) is put in where the table says so.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

import av

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Clip", "made"]

_VIDEO: Final = {
    "mp4": ("mp4", "libx264", "aac"),
    "mov": ("mov", "libx264", "aac"),
    "webm": ("webm", "libvpx", "libopus"),
    "mkv": ("matroska", "libx264", "aac"),
}
_SOUND: Final = {
    "mp3": ("mp3", "libmp3lame"),
    "wav": ("wav", "pcm_s16le"),
    "m4a": ("ipod", "aac"),
    "aac": ("adts", "aac"),
    "ogg": ("ogg", "libopus"),
    "flac": ("flac", "flac"),
}


@dataclass(frozen=True)
class Clip:
    """A recording to be made; *kind* is the ending that it usually has."""

    kind: str = "mp4"
    seconds: float = 2
    size: tuple[int, int] = (64, 48)
    rate: int = 10
    sound: bool = True
    words: bytes = b""
    """What a track of subtitles says, as drones write their positions."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)


def made(clip: Clip) -> bytes:
    """The bytes of *clip*."""
    buffer = io.BytesIO()
    form, *codecs = (_VIDEO | _SOUND)[clip.kind]
    with av.open(buffer, "w", format=form, options=dict(clip.options)) as container:
        container.metadata.update(clip.metadata)
        pictures: Any = None
        if clip.kind in _VIDEO:
            pictures = container.add_stream(codecs[0], rate=clip.rate)
            pictures.width, pictures.height = clip.size
            pictures.pix_fmt = "yuv420p"
        sound: Any = None
        if clip.sound:
            sound = container.add_stream(codecs[-1], rate=48_000)
            sound.layout = "stereo"
        words: Any = container.add_mux_stream("mov_text") if clip.words else None
        if pictures is not None:
            for number in range(round(clip.seconds * clip.rate)):
                frame = av.VideoFrame(*clip.size, "yuv420p")
                for plane in frame.planes:
                    plane.update(bytes([number * 7 % 256]) * plane.buffer_size)
                frame.pts, frame.time_base = number, Fraction(1, clip.rate)
                container.mux(pictures.encode(frame))
            container.mux(pictures.encode())
        if sound is not None:
            _sounded(container, sound, round(clip.seconds * 48_000))
        if words is not None:
            packet = av.Packet(len(clip.words).to_bytes(2) + clip.words)
            packet.stream, packet.time_base = words, Fraction(1, 1000)
            packet.pts = packet.dts = 0
            packet.duration = 1000
            container.mux(packet)
    return buffer.getvalue()


def _sounded(container: Any, stream: Any, samples: int) -> None:
    resampler = av.AudioResampler(
        format=stream.format, layout="stereo", rate=48_000, frame_size=stream.frame_size or 1024
    )
    at = 0
    while at < samples:
        count = min(960, samples - at)
        frame = av.AudioFrame(format="s16", layout="stereo", samples=count)
        frame.sample_rate, frame.pts = 48_000, at
        frame.planes[0].update(
            (bytes(range(64)) * 60)[: frame.planes[0].buffer_size].ljust(frame.planes[0].buffer_size)
        )
        for piece in resampler.resample(frame):
            container.mux(stream.encode(piece))
        at += count
    for piece in resampler.resample(None):
        container.mux(stream.encode(piece))
    container.mux(stream.encode())
