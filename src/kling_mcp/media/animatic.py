"""
Animatic: a preview of a film before it is paid for. Its stills with a slow zoom, and names, prompts and times.

The same stills and texts give the same bytes. A clip without a picture of its own shows the picture before it blurred,
because that is where it begins; the first clip then has a plain background.

The functions block for seconds and need tens of megabytes. Callers run them in threads: Pillow and PyAV release the
interpreter lock while they draw and encode.
"""

from __future__ import annotations

import io
import textwrap
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final, Literal

from kling_mcp.media.optional import need
from kling_mcp.media.partial_file import write_new

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from PIL import Image

__all__ = ["AnimaticShot", "Shape", "animatic", "small_animatic"]

Shape = Literal["landscape", "portrait", "square"]


@dataclass(frozen=True, slots=True)
class AnimaticShot:
    """
    A clip, or a shot of one.

    Args:
        name: Such as ``Clip 2`` or ``Clip 2 · shot 1``.
        prompt: Its prompt.
        seconds: Its length.
        still: The bytes of the picture that it begins with, or None. A picture that cannot be read counts as None.
    """

    name: str
    prompt: str
    seconds: Decimal
    still: bytes | None = None


@dataclass(frozen=True, slots=True)
class _Kind:
    sizes: dict[Shape, tuple[int, int]]
    fps: int
    options: dict[str, str]
    every: int
    """How many pictures in a row are the same drawing, because drawing takes longer than encoding."""


# One thread: with more of them, what is encoded depends on how many there are.
_FILE: Final = _Kind(
    {"landscape": (1280, 720), "portrait": (720, 1280), "square": (720, 720)},
    24,
    {"preset": "veryfast", "crf": "30", "threads": "1"},
    2,
)
_SMALL: Final = _Kind(
    {"landscape": (640, 360), "portrait": (360, 640), "square": (360, 360)},
    12,
    {"preset": "veryfast", "crf": "33", "threads": "1"},
    1,
)
_BACKGROUND: Final = (32, 36, 44)
_INK: Final = (245, 245, 245)
_SHADE: Final = (0, 0, 0, 150)
_ZOOM: Final = 0.06
_BLUR_SHARE: Final = 1 / 40
_SMALLEST_TEXT: Final = 12
_PROMPT_LINES: Final = 2
_BT709, _LIMITED = 1, 1
_MAX_PIXELS: Final = 256_000_000


def animatic(shots: Sequence[AnimaticShot], target: Path, *, shape: Shape = "landscape") -> Path:
    """
    Write an mp4 of *shots*, 720 pixels at the short side and 24 pictures a second.

    Returns:
        The file: *target*, or with `` (2)`` where that is taken.

    Raises:
        NotAvailable: PyAV or Pillow is missing.
        DownloadError: The disk refuses.
    """
    data = _made(shots, _FILE, shape)
    return write_new(target, lambda file: file.write(data))


def small_animatic(shots: Sequence[AnimaticShot], *, shape: Shape = "landscape") -> bytes:
    """
    An mp4 of *shots* that is small enough to be sent: 360 pixels at the short side, 12 pictures a second.

    Raises:
        NotAvailable: PyAV or Pillow is missing.
    """
    return _made(shots, _SMALL, shape)


def _made(shots: Sequence[AnimaticShot], kind: _Kind, shape: Shape) -> bytes:
    need("av", "PIL", purpose="An animatic")
    import av

    size = kind.sizes[shape]
    file = io.BytesIO()
    opened: Any = av.open(file, "w", format="mp4", options={"fflags": "+bitexact"})
    with opened as container:
        stream = container.add_stream("libx264", rate=kind.fps, options=dict(kind.options))
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = _BT709, _LIMITED
        for number, frame in enumerate(_frames(shots, kind, size)):
            frame.pts, frame.time_base = number, Fraction(1, kind.fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def _frames(shots: Sequence[AnimaticShot], kind: _Kind, size: tuple[int, int]) -> Iterator[Any]:
    import av
    from PIL import Image

    background, sharp = Image.new("RGB", size, _BACKGROUND), False
    whole, ended = sum(shot.seconds for shot in shots), Decimal(0)
    for shot in shots:
        still = _still(shot.still, size)
        if still is not None:
            background, sharp = still, True
        elif sharp:
            background, sharp = _blurred(background), False
        # From the running total, so that rounding does not change the length of the film.
        first, ended = round(ended * kind.fps), ended + shot.seconds
        last = round(ended * kind.fps)
        caption = _caption(shot, f"{ended - shot.seconds:.1f}-{ended:.1f} of {whole:.1f} s", size)
        kind_of_frame: Any = av.VideoFrame
        frame: Any = None
        for number in range(last - first):
            if frame is None or (still is not None and number % kind.every == 0):
                share = number / max(1, last - first - 1)
                drawn = _zoomed(background, share) if still is not None else background.copy()
                drawn.paste(caption, (0, size[1] - caption.height), caption)
                frame = kind_of_frame.from_image(drawn).reformat(format="yuv420p", dst_colorspace="ITU709")
            yield frame


def _still(data: bytes | None, size: tuple[int, int]) -> Image.Image | None:
    """The picture cut to *size*, a little larger where it has more to show; None where it cannot be read."""
    if data is None:
        return None
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as opened:
            if opened.width * opened.height > _MAX_PIXELS:
                return None
            opened.draft("RGB", (size[0] * 2, size[1] * 2))
            upright = ImageOps.exif_transpose(opened).convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return ImageOps.fit(upright, size, Image.Resampling.LANCZOS)


def _blurred(image: Image.Image) -> Image.Image:
    from PIL import Image, ImageFilter

    # The same look as at full size, in a sixteenth of the time.
    small = image.resize((image.width // 4, image.height // 4))  # pyright: ignore[reportUnknownMemberType]
    blurred = small.filter(ImageFilter.GaussianBlur(min(small.size) * _BLUR_SHARE))
    return blurred.resize(image.size, Image.Resampling.BICUBIC)  # pyright: ignore[reportUnknownMemberType]


def _zoomed(image: Image.Image, share: float) -> Image.Image:
    from PIL import Image

    dx, dy = (side * _ZOOM * share / 2 for side in image.size)
    box = (dx, dy, image.width - dx, image.height - dy)
    # The box is in fractions of pixels, so that the zoom does not jitter.
    return image.resize(image.size, Image.Resampling.BILINEAR, box=box)  # pyright: ignore[reportUnknownMemberType]


def _caption(shot: AnimaticShot, times: str, size: tuple[int, int]) -> Image.Image:
    """A band with the name and the times, and under them the prompt."""
    from PIL import Image, ImageDraw, ImageFont

    text = max(_SMALLEST_TEXT, min(size) // 24)
    font = ImageFont.load_default(text)
    margin, line = text // 2, text * 4 // 3
    letters = max(8, int((size[0] - 2 * margin) / font.getlength("abcdefghij nopqrstuv") * 20))
    prompt = textwrap.wrap(" ".join(shot.prompt.split()), letters, max_lines=_PROMPT_LINES, placeholder=" …")
    band = Image.new("RGBA", (size[0], line * (1 + len(prompt)) + margin), _SHADE)
    pen = ImageDraw.Draw(band)
    pen.text(
        (margin, margin // 2), textwrap.shorten(shot.name, max(8, letters - 24), placeholder=" …"), fill=_INK, font=font
    )
    pen.text((size[0] - margin - font.getlength(times), margin // 2), times, fill=_INK, font=font)
    for number, words in enumerate(prompt, start=1):
        pen.text((margin, margin // 2 + number * line), words, fill=_INK, font=font)
    return band
