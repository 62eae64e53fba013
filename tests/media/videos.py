"""
Videos of every kind that a player shows: a known picture, and in it the number of each frame.

A video is a row of a table; what PyAV cannot write (a display matrix, another edit list) is set in the file's boxes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

import av
from av.filter import Graph
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["MATRICES", "Video", "number_in", "picture", "write"]

_BITS: Final = 8
_COLOURS: Final = ((200, 40, 40), (40, 180, 60), (50, 60, 200), (210, 190, 40), (128, 128, 128), (235, 120, 180))
_ONE: Final = 1 << 16
# a, b, c, d of a track's matrix, y pointing down, and what it does.
MATRICES: Final[dict[str, tuple[tuple[int, int, int, int], Image.Transpose]]] = {
    "a quarter to the right": ((0, 1, -1, 0), Image.Transpose.ROTATE_270),
    "half": ((-1, 0, 0, -1), Image.Transpose.ROTATE_180),
    "a quarter to the left": ((0, -1, 1, 0), Image.Transpose.ROTATE_90),
    "mirrored": ((-1, 0, 0, 1), Image.Transpose.FLIP_LEFT_RIGHT),
    "upside down": ((1, 0, 0, -1), Image.Transpose.FLIP_TOP_BOTTOM),
    "mirrored and a quarter to the left": ((0, 1, 1, 0), Image.Transpose.TRANSPOSE),
    "mirrored and a quarter to the right": ((0, -1, -1, 0), Image.Transpose.TRANSVERSE),
}
_H264: Final = {"crf": "4", "preset": "veryfast"}


@dataclass(frozen=True)
class Video:
    """A video to be written; what is not said is a plain H.264 in MP4 of two seconds."""

    codec: str = "libx264"
    options: Mapping[str, str] = field(default_factory=lambda: _H264)
    ending: str = "mp4"
    mov: str = "faststart"
    size: tuple[int, int] = (320, 192)
    pixels: str = "yuv420p"
    rate: int = 10
    times: Sequence[int] = tuple(range(20))
    """When each frame is shown, in frames."""
    matrix: tuple[str, int] | None = None
    """How colours are written: FFmpeg's name, and H.273's number; None leaves it to the player."""
    full: bool = False
    turned: tuple[int, int, int, int] | None = None
    pixel_shape: Fraction | None = None
    sound_seconds: float = 0
    edit: tuple[float, float] | None = None
    """From where to where the edit list shows, in seconds."""


def picture(size: tuple[int, int], number: int) -> Image.Image:
    """Six fields of colour, and in the upper left half the number in squares, black or white."""
    width, height = size
    image = Image.new("RGB", size)
    for place, colour in enumerate(_COLOURS):
        left, top = place % 3 * width // 3, place // 3 * height // 2
        image.paste(colour, (left, top, left + width // 3 + 1, top + height // 2 + 1))
    side = width // (2 * _BITS)
    for bit in range(_BITS):
        image.paste((255,) * 3 if number >> bit & 1 else (0,) * 3, (bit * side, 0, (bit + 1) * side, side))
    return image


def number_in(image: Image.Image) -> int:
    """The number that is drawn in *image*."""
    side = image.width // (2 * _BITS)
    grey = image.convert("L")
    levels = [grey.getpixel((bit * side + side // 2, side // 2)) for bit in range(_BITS)]
    assert all(isinstance(level, int) and (level < 100 or level > 150) for level in levels), levels
    return sum(1 << bit for bit, level in enumerate(levels) if isinstance(level, int) and level > 128)


def write(video: Video, folder: Path) -> Path:
    """*video* as a file in *folder*."""
    path = folder / f"video.{video.ending}"
    options = {"movflags": video.mov} if video.ending == "mp4" else {}
    with av.open(str(path), "w", options=options) as container:
        stream: Any = container.add_stream(video.codec, rate=video.rate, options=dict(video.options))
        stream.width, stream.height = video.size
        stream.pix_fmt = video.pixels
        context = stream.codec_context
        context.color_range = 2 if video.full else 1
        if video.matrix is not None:
            context.colorspace = video.matrix[1]
        if video.pixel_shape is not None:
            context.sample_aspect_ratio = video.pixel_shape
        sound: Any = container.add_stream("libopus", rate=48_000) if video.sound_seconds else None
        for number, time in enumerate(video.times):
            frame = _written(video, picture(video.size, number))
            frame.pts, frame.time_base = time, Fraction(1, video.rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        for number in range(int(video.sound_seconds * 48_000 / 960)):
            silence = av.AudioFrame(format="s16", layout="stereo", samples=960)
            silence.sample_rate, silence.pts = 48_000, number * 960
            silence.planes[0].update(bytes(silence.planes[0].buffer_size))
            container.mux(sound.encode(silence))
        if sound is not None:
            container.mux(sound.encode())
    data = bytearray(path.read_bytes())
    if video.turned is not None:
        _turn(data, video.turned)
    if video.edit is not None:
        _edit(data, *video.edit)
    path.write_bytes(data)
    return path


def _written(video: Video, image: Image.Image) -> av.VideoFrame:
    """The picture in the colours of the video, without the loss of FFmpeg's quick conversion."""
    name = (video.matrix or ("bt601", 0))[0]
    colours = f"out_color_matrix={name}:out_range={'full' if video.full else 'limited'}"
    graph = Graph()
    graph.link_nodes(
        graph.add_buffer(
            width=image.width, height=image.height, format=av.VideoFormat("rgb24"), time_base=Fraction(1, video.rate)
        ),
        graph.add("scale", f"flags=lanczos+accurate_rnd+full_chroma_int+full_chroma_inp:{colours}"),
        graph.add("format", f"pix_fmts={video.pixels}"),
        graph.add("buffersink"),
    ).configure()
    graph.vpush(av.VideoFrame.from_image(image))
    frame = graph.vpull()
    frame.colorspace = 2 if video.matrix is None else video.matrix[1]
    return frame


def _turn(data: bytearray, to: tuple[int, int, int, int]) -> None:
    """Set the matrix of the first track: ISO/IEC 14496-12, 8.3.2, version 0."""
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value * _ONE for value in to)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)


def _edit(data: bytearray, begin: float, end: float) -> None:
    """Set the one edit of the first track: ISO/IEC 14496-12, 8.6.6, version 0."""
    (movie_scale,) = struct.unpack_from(">I", data, data.index(b"mvhd") + 16)
    (media_scale,) = struct.unpack_from(">I", data, data.index(b"mdhd") + 16)
    at = data.index(b"elst") + 12
    (first,) = struct.unpack_from(">i", data, at + 4)
    struct.pack_into(">Ii", data, at, round((end - begin) * movie_scale), first + round(begin * media_scale))
