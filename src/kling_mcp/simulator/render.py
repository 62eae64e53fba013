"""
The finished video.

With PyAV and Pillow it is drawn: the first frame fades into the last, each shot
names itself and its prompt, and carries a square of a colour of its own, by
which a test or a person knows which shot is on the screen. Without them it is
the bundled sample, whatever was asked for.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import textwrap
from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from kling_mcp.simulator.queue import Shot

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["MARKERS", "Renderer", "default_renderer", "draw", "sample_picture", "sample_video"]

Renderer: TypeAlias = Callable[[tuple[Shot, ...], bytes | None, bytes | None], bytes]
"""Shots, first frame and last frame (bytes of a picture, or None) → an mp4."""

MARKERS: Final = ((214, 40, 57), (26, 147, 111), (17, 138, 178), (255, 183, 3), (131, 56, 236), (251, 86, 7))
"""The colour of each shot's square in the upper left corner, red, green, blue; after the last it starts again."""

_LONG_SIDE, _FPS, _MARKER = 640, 10, 72


def default_renderer() -> Renderer:
    """`draw` where PyAV and Pillow are installed, else `sample_video`."""
    drawn = all(importlib.util.find_spec(name) is not None for name in ("av", "PIL"))
    return draw if drawn else sample_video


def sample_video(shots: tuple[Shot, ...], first: bytes | None, last: bytes | None) -> bytes:
    """The bundled five seconds of video."""
    return _bundled("sample.mp4")


def sample_picture() -> bytes:
    """The bundled picture, a JPEG of 1280x720."""
    return _bundled("sample.jpg")


@cache
def _bundled(name: str) -> bytes:
    return resources.files("kling_mcp.simulator").joinpath(name).read_bytes()


def draw(shots: tuple[Shot, ...], first: bytes | None, last: bytes | None) -> bytes:
    """
    An mp4 of *shots* in the shape of the first frame, ten frames a second, as long as they are together.

    A picture that cannot be read is replaced by the bundled one: what a runner
    says of a broken picture is not this function's matter.
    """
    from PIL import Image

    # PyAV's own types are incomplete.
    av: Any = importlib.import_module("av")
    opening = _picture(first)
    size = _size(opening)
    opening = _fitted(opening, size)
    closing = None if last is None else _fitted(_picture(last), size)
    captions = [_caption(number, len(shots), shot, size) for number, shot in enumerate(shots, start=1)]
    plan = [number for number, shot in enumerate(shots) for _ in range(shot.seconds * _FPS)]
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        stream = container.add_stream(codec, rate=_FPS)
        stream.options = {"preset": "ultrafast", "crf": "30"} if codec == "libx264" else {}
        stream.width, stream.height = size
        stream.pix_fmt, stream.bit_rate = "yuv420p", 400_000
        for index, number in enumerate(plan):
            share = index / max(1, len(plan) - 1)
            frame = _nearer(opening, share) if closing is None else Image.blend(opening, closing, share)
            frame.paste(captions[number], (0, 0), captions[number])
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode(None))
    return file.getvalue()


def _picture(data: bytes | None) -> Image.Image:
    from PIL import Image, ImageOps

    try:
        picture = Image.open(io.BytesIO(data if data is not None else sample_picture()))
        return ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return _picture(None)


def _size(picture: Image.Image) -> tuple[int, int]:
    """The video's width and height: the picture's shape within Kling's bounds, in the even numbers that H.264 needs."""
    shape = min(2.5, max(0.4, picture.width / picture.height))
    width, height = (_LONG_SIDE, _LONG_SIDE / shape) if shape >= 1 else (_LONG_SIDE * shape, _LONG_SIDE)
    return round(width / 2) * 2, round(height / 2) * 2


def _fitted(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    from PIL import ImageOps

    return ImageOps.fit(picture, size)


def _nearer(picture: Image.Image, share: float) -> Image.Image:
    """*picture* with the camera moved in, by a sixth at the end."""
    from PIL import Image

    width, height = picture.size
    edge_x, edge_y = width * share / 12, height * share / 12
    resize = cast("Callable[..., Image.Image]", picture.resize)  # pyright: ignore[reportUnknownMemberType]
    return resize(picture.size, Image.Resampling.BILINEAR, box=(edge_x, edge_y, width - edge_x, height - edge_y))


def _caption(number: int, count: int, shot: Shot, size: tuple[int, int]) -> Image.Image:
    from PIL import Image, ImageDraw, ImageFont

    width, height = size
    layer = Image.new("RGBA", size)
    pen = ImageDraw.Draw(layer)
    pen.rectangle((0, 0, _MARKER - 1, _MARKER - 1), (*MARKERS[(number - 1) % len(MARKERS)], 255))
    pen.rectangle((0, height - 84, width, height), (0, 0, 0, 150))
    font, small = ImageFont.load_default(22), ImageFont.load_default(15)
    pen.text((16, height - 78), f"Shot {number} of {count} - {shot.seconds} s", (255, 255, 255, 255), font)
    # The bundled font has Latin letters only; anything else would be boxes.
    words = shot.prompt.encode("latin-1", "replace").decode("latin-1")
    for line, text in enumerate(textwrap.wrap(words, width // 8)[:2]):
        pen.text((16, height - 48 + 18 * line), text, (225, 225, 225, 255), small)
    return layer
