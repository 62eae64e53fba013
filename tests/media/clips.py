"""Clips whose every picture says its number, and whose sound clicks each second; and what a joined film holds."""

from __future__ import annotations

import math
import subprocess
from array import array
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

import av
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Clip", "clicks_by_ffmpeg", "clicks_by_pyav", "numbers_in", "packets_in", "write"]

BITS: Final = 12
_CLICK_SECONDS: Final = 0.02


@dataclass(frozen=True)
class Clip:
    """A clip to be written; what is not said is like the others."""

    frames: int = 24
    begins_with: int = 0
    """The number of its first picture."""
    rate: int = 24
    size: tuple[int, int] = (192, 112)
    codec: str = "libx264"
    options: Mapping[str, str] = field(default_factory=lambda: {"crf": "12", "preset": "veryfast"})
    pixels: str = "yuv420p"
    sound: tuple[int, str] | None = (44_100, "stereo")
    """Samples per second, and the layout."""
    sound_seconds: float | None = None
    """As long as the pictures where it is None."""
    loudness: float = 0.5
    tone: bool = False
    """A tone all the time instead of a click each second."""


def write(path: Path, clip: Clip) -> Path:
    """Write *clip* to *path*."""
    opened: Any = av.open(str(path), "w")
    with opened as container:
        video = container.add_stream(clip.codec, rate=clip.rate, options=dict(clip.options))
        video.width, video.height = clip.size
        video.pix_fmt = clip.pixels
        track = None
        if clip.sound is not None:
            track = container.add_stream("aac", rate=clip.sound[0])
            track.layout, track.bit_rate = clip.sound[1], 128_000
        for number in range(clip.frames):
            frame: Any = av.VideoFrame.from_image(_picture(clip.size, clip.begins_with + number))
            frame = frame.reformat(format=clip.pixels)
            frame.pts, frame.time_base = number, Fraction(1, clip.rate)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if track is not None and clip.sound is not None:
            rate, layout = clip.sound
            seconds = clip.frames / clip.rate if clip.sound_seconds is None else clip.sound_seconds
            data = _heard(clip, rate, round(seconds * rate))
            kind: Any = av.AudioFrame
            for begin in range(0, len(data), 1024):
                part = data[begin : begin + 1024]
                sound = kind(format="fltp", layout=layout, samples=len(part))
                sound.sample_rate, sound.pts, sound.time_base = rate, begin, Fraction(1, rate)
                for plane in sound.planes:
                    plane.update(part.tobytes().ljust(plane.buffer_size, b"\0"))
                container.mux(track.encode(sound))
            container.mux(track.encode(None))
    return path


def _heard(clip: Clip, rate: int, samples: int) -> array[float]:
    if clip.tone:
        return array("f", (clip.loudness * math.sin(2 * math.pi * 440 * at / rate) for at in range(samples)))
    # A quarter of a second after each full one: away from the eases at the ends of a clip.
    data = array("f", bytes(4 * samples))
    for begin in range(rate // 4, samples, rate):
        for at in range(begin, min(samples, begin + round(_CLICK_SECONDS * rate))):
            data[at] = clip.loudness * math.sin(2 * math.pi * 2000 * (at - begin) / rate)
    return data


def _picture(size: tuple[int, int], number: int) -> Image.Image:
    image = Image.new("RGB", size, (90, 90, 90))
    side = size[0] // BITS
    for bit in range(BITS):
        colour = (235,) * 3 if number >> bit & 1 else (16,) * 3
        image.paste(colour, (bit * side, size[1] // 4, (bit + 1) * side, size[1] * 3 // 4))
    return image


def numbers_in(path: Path) -> list[tuple[int, Fraction]]:
    """The number in each picture of *path*, with the time at which it is shown."""
    found = list[tuple[int, Fraction]]()
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            grey = frame.reformat(format="gray")
            plane: Any = grey.planes[0]
            row = bytes(plane)[grey.height // 2 * plane.line_size :][: grey.width]
            # A clip of another shape stands between bars as wide as they are high; it fills the width or the height.
            side = grey.width / BITS
            number = sum(1 << bit for bit in range(BITS) if row[int((bit + 0.5) * side)] > 128)
            assert frame.pts is not None
            found.append((number, frame.pts * Fraction(frame.time_base or 0)))
    return found


def packets_in(path: Path) -> list[bytes]:
    """The packets of the pictures, as they are."""
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def clicks_by_pyav(path: Path) -> list[float]:
    """When clicks begin in *path*, in seconds, as PyAV decodes it."""
    data = array("f")
    begin = None
    with av.open(str(path)) as container:
        rate = container.streams.audio[0].rate
        for frame in container.decode(audio=0):
            if begin is None:
                assert frame.pts is not None
                begin = float(frame.pts * Fraction(frame.time_base or 0))
            plane: Any = frame.planes[0]
            data.frombytes(bytes(plane)[: frame.samples * 4])
    return [(begin or 0) + at for at in _clicks(data, rate)]


def clicks_by_ffmpeg(path: Path) -> list[float]:
    """The same, as the ffmpeg program decodes it."""
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-map", "0:a", "-f", "f32le", "-ac", "1", "-ar", "48000", "-"]
    data = array("f")
    data.frombytes(subprocess.run(command, check=True, capture_output=True).stdout)
    return _clicks(data, 48_000)


def _clicks(data: array[float], rate: int) -> list[float]:
    """A click has begun where a quarter of its height is reached; two are never within a fifth of a second."""
    found = list[float]()
    level = max((abs(value) for value in data), default=0.0) / 4
    for at, value in enumerate(data):
        if abs(value) > level and (not found or at / rate - found[-1] > 0.2):
            found.append(at / rate)
    return found
