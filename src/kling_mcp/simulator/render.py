"""
The finished video.

With PyAV and Pillow it is drawn: the first frame fades into the last, each shot
names itself and its prompt, and carries a square of a colour of its own, by
which a test or a person knows which shot is on the screen; where there is sound,
it is a tone of its own for each shot. Without them it is the bundled sample,
whatever was asked for.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import math
import textwrap
from array import array
from functools import cache
from importlib import resources
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from PIL import Image

    from kling_mcp.simulator.queue import Shot

__all__ = ["MARKERS", "TONES", "Renderer", "default_renderer", "draw", "sample_picture", "sample_video", "shaped"]


class Renderer(Protocol):
    """What makes an mp4 of shots, the first and the last frame (a picture, or None), with sound or without."""

    def __call__(
        self, shots: tuple[Shot, ...], first: bytes | None, last: bytes | None, /, *, sound: bool = False
    ) -> bytes:
        """The mp4."""
        ...


MARKERS: Final = ((214, 40, 57), (26, 147, 111), (17, 138, 178), (255, 183, 3), (131, 56, 236), (251, 86, 7))
"""The colour of each shot's square in the upper left corner, red, green, blue; after the last it starts again."""

TONES: Final = (262, 330, 392, 523, 659, 784)
"""The tone of each shot in Hertz, in whole numbers so that a second of it can be repeated."""

_SHORT_SIDE, _FPS, _MARKER = 720, 24, 144
"""As small as Kling's own: a video that is given to another endpoint has to have so much."""
_BT709, _LIMITED = 1, 1
_REPEATED: Final = 6
"""How many frames show the same picture: drawing takes longer than encoding."""
_SAMPLES_PER_SECOND, _SAMPLES_PER_FRAME, _LOUDNESS = 44_100, 1024, 0.2


def default_renderer() -> Renderer:
    """`draw` where PyAV and Pillow are installed, else `sample_video`."""
    drawn = all(importlib.util.find_spec(name) is not None for name in ("av", "PIL"))
    return draw if drawn else sample_video


def sample_video(shots: tuple[Shot, ...], first: bytes | None, last: bytes | None, /, *, sound: bool = False) -> bytes:
    """The bundled five seconds of video."""
    return _bundled("sample.mp4")


def sample_picture() -> bytes:
    """The bundled picture, a JPEG of 1280x720."""
    return _bundled("sample.jpg")


@cache
def _bundled(name: str) -> bytes:
    return resources.files("kling_mcp.simulator").joinpath(name).read_bytes()


def shaped(shape: float) -> bytes:
    """The bundled picture cut to *shape*, width by height; as it is where Pillow is not installed."""
    if importlib.util.find_spec("PIL") is None:
        return sample_picture()
    from PIL import Image, ImageOps

    file, picture = io.BytesIO(), Image.open(io.BytesIO(sample_picture()))
    ImageOps.fit(picture, _sides(shape)).save(file, "JPEG")
    return file.getvalue()


def draw(shots: tuple[Shot, ...], first: bytes | None, last: bytes | None, /, *, sound: bool = False) -> bytes:
    """
    An mp4 of *shots* in the shape of the first frame, 24 frames a second, as long as they are together.

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
    plan = [number for number, shot in enumerate(shots) for _ in range(round(shot.seconds * _FPS))]
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        stream = container.add_stream(codec, rate=_FPS)
        stream.options = {"preset": "ultrafast", "crf": "30"} if codec == "libx264" else {}
        stream.width, stream.height = size
        stream.pix_fmt, stream.bit_rate = "yuv420p", 400_000
        # Said in the file too: some readers take what says nothing for the colours of older television.
        stream.codec_context.colorspace, stream.codec_context.color_range = _BT709, _LIMITED
        # Both streams must be there before the first packet is written.
        tones = _tones(shots) if sound else iter(())
        track = container.add_stream("aac", rate=_SAMPLES_PER_SECOND) if sound else None
        if track is not None:
            track.layout, track.bit_rate = "mono", 48_000
        frame: Any = None
        for index, number in enumerate(plan):
            if track is not None and index % _FPS == 0:
                # A second of sound goes before a second of pictures.
                for tone in islice(tones, _SAMPLES_PER_SECOND // _SAMPLES_PER_FRAME + 1):
                    container.mux(track.encode(tone))
            # A shot begins with a picture of its own.
            if index % _REPEATED == 0 or number != plan[index - 1]:
                share = index / max(1, len(plan) - 1)
                drawn = _nearer(opening, share) if closing is None else Image.blend(opening, closing, share)
                drawn.paste(captions[number], (0, 0), captions[number])
                frame = av.VideoFrame.from_image(drawn).reformat(format=stream.pix_fmt, dst_colorspace="ITU709")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if track is not None:
            for tone in tones:
                container.mux(track.encode(tone))
            container.mux(track.encode(None))
    return file.getvalue()


def _tones(shots: tuple[Shot, ...]) -> Iterator[Any]:
    """The sound of *shots* in frames of an encoder."""
    av: Any = importlib.import_module("av")
    pcm = b"".join(
        _second(TONES[number % len(TONES)]) * int(shot.seconds)
        + _second(TONES[number % len(TONES)])[: round(shot.seconds % 1 * _SAMPLES_PER_SECOND) * 4]
        for number, shot in enumerate(shots)
    )
    for start in range(0, len(pcm), _SAMPLES_PER_FRAME * 4):
        part = pcm[start : start + _SAMPLES_PER_FRAME * 4]
        frame = av.AudioFrame(format="fltp", layout="mono", samples=len(part) // 4)
        # A plane is longer than its samples: it is aligned.
        frame.planes[0].update(part.ljust(frame.planes[0].buffer_size, b"\0"))
        frame.sample_rate, frame.pts = _SAMPLES_PER_SECOND, start // 4
        yield frame


@cache
def _second(hertz: int) -> bytes:
    """A second of a tone, as 32-bit numbers."""
    step = 2 * math.pi * hertz / _SAMPLES_PER_SECOND
    return array("f", [_LOUDNESS * math.sin(step * index) for index in range(_SAMPLES_PER_SECOND)]).tobytes()


def _picture(data: bytes | None) -> Image.Image:
    from PIL import Image, ImageOps

    try:
        picture = Image.open(io.BytesIO(data if data is not None else sample_picture()))
        return ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return _picture(None)


def _size(picture: Image.Image) -> tuple[int, int]:
    """The video's width and height: the picture's shape within Kling's bounds."""
    return _sides(picture.width / picture.height)


def _sides(shape: float) -> tuple[int, int]:
    """Width and height, in the even numbers that H.264 needs."""
    shape = min(2.5, max(0.4, shape))
    width, height = (_SHORT_SIDE * shape, _SHORT_SIDE) if shape >= 1 else (_SHORT_SIDE, _SHORT_SIDE / shape)
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
    pen.rectangle((0, height - 168, width, height), (0, 0, 0, 150))
    font, small = ImageFont.load_default(44), ImageFont.load_default(30)
    pen.text((32, height - 156), f"Shot {number} of {count} - {shot.seconds:g} s", (255, 255, 255, 255), font)
    # The bundled font has Latin letters only; anything else would be boxes.
    words = shot.prompt.encode("latin-1", "replace").decode("latin-1")
    for line, text in enumerate(textwrap.wrap(words, width // 16)[:2]):
        pen.text((32, height - 96 + 36 * line), text, (225, 225, 225, 255), small)
    return layer
