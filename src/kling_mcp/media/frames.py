"""
Still pictures of a video: a contact sheet to judge it by, and the last frame to continue it from.

PyAV decodes and Pillow draws; both are optional and imported on use. The functions block, so callers run them in
threads. A video is decoded once from its beginning: Kling's are short, and their key frames are far apart.
"""

from __future__ import annotations

import io
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, cast

from kling_mcp.errors import NotAvailable
from kling_mcp.media.optional import need

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    from av import VideoFrame
    from av.container import InputContainer
    from PIL import Image, ImageFont

__all__ = ["MAX_SHEET_BYTES", "VideoUnreadable", "contact_sheet", "last_frame"]

MAX_SHEET_BYTES: Final = 300_000
MAX_FRAMES: Final = 9

_SHEET_WIDTH: Final = 1280
_GAP: Final = 6
_INK: Final = (240, 240, 240)
_GROUND: Final = (24, 24, 24)
# From what looks untouched to what still shows what happens.
_SHEET_QUALITIES: Final = (88, 80, 70, 60, 50, 40)
_SHEET_SMALLER: Final = 0.8
_LAST_FRAME_QUALITY: Final = 95
# Video without a colour tag is read as HD television's (BT.709) from this height on, as players do.
_HD_HEIGHT: Final = 720
_UNTAGGED: Final = 2
_BT709: Final = 1
_PATIENCE_SECONDS: Final = 0.5


class VideoUnreadable(NotAvailable):
    """The saved video is damaged or gone, so that it shows no pictures."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"The saved video cannot be shown: {what}.",
            "get_job has the link to the original.",
        )


def contact_sheet(video: Path, frames: int, shots: Sequence[tuple[float, str]]) -> bytes:
    """
    One JPEG of at most `MAX_SHEET_BYTES` with *frames* pictures of *video* in reading order.

    The video is divided into as many equal parts, and each picture is from the middle of its part. Under each stand
    its time in seconds and the label of its shot.

    Args:
        video: The file.
        frames: How many pictures, 1 to 9.
        shots: When each shot begins, in seconds, and what it is called; in any order.

    Raises:
        NotAvailable: PyAV or Pillow is not installed, or the video is unreadable (`VideoUnreadable`).
    """
    if not 1 <= frames <= MAX_FRAMES:
        msg = f"frames is {frames}; it takes 1 to {MAX_FRAMES}"
        raise ValueError(msg)
    need("av", "PIL", purpose="A picture of a video")
    pictures = _evenly_spread(video, frames)
    labels = [_label(seconds, shots) for seconds, _ in pictures]
    return _fitting_jpeg(_sheet([picture for _, picture in pictures], labels))


def last_frame(video: Path) -> bytes:
    """
    The last picture of *video* as a JPEG in full size, good enough to begin the next video with.

    Raises:
        NotAvailable: PyAV or Pillow is not installed, or the video is unreadable (`VideoUnreadable`).
    """
    need("av", "PIL", purpose="The last frame of a video")
    with _decoded(video) as (_, stream):
        last = None
        for _, frame in stream:
            last = frame
        # The stream is never empty: see `_timed`.
        return _jpeg(_image(cast("VideoFrame", last)), _LAST_FRAME_QUALITY)


def _evenly_spread(video: Path, count: int) -> list[tuple[float, Image.Image]]:
    """What is to be seen in the middle of each of *count* equal parts, with the picture's own time in seconds."""
    with _decoded(video) as (duration, stream):
        middles = [duration * (number + 0.5) / count for number in range(count)]
        found: list[tuple[float, Image.Image]] = []
        shown = next(stream)
        for following in stream:
            while len(found) < count and following[0] > middles[len(found)]:
                found.append((shown[0], _small_image(shown[1])))
            if len(found) == count:
                return found
            shown = following
        return found + [(shown[0], _small_image(shown[1]))] * (count - len(found))


@contextmanager
def _decoded(video: Path) -> Generator[tuple[float, Iterator[tuple[float, VideoFrame]]]]:
    """
    The length of *video* in seconds, and its pictures with their times, while it is open.

    Raises:
        VideoUnreadable: The file is missing, is no video, or ends before its time.
    """
    import av
    from av.error import FFmpegError

    try:
        # Until PyAV 19, which has no such option, a title that is not UTF-8 makes a whole video unreadable.
        lenient: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
        with cast("InputContainer", av.open(str(video), **lenient)) as container:
            if not container.streams.video:
                raise VideoUnreadable("it holds no pictures")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            if stream.duration is not None and stream.time_base is not None:
                duration = float(stream.duration * stream.time_base)
            else:
                duration = (container.duration or 0) / av.time_base
            yield duration, _timed(container.decode(stream), duration)
    except (FFmpegError, ValueError):
        raise VideoUnreadable("the file is damaged, or is not there") from None


def _timed(frames: Iterable[VideoFrame], duration: float) -> Iterator[tuple[float, VideoFrame]]:
    """Each frame with its time from the beginning; never empty, and never cut short in silence."""
    seconds, begin = -math.inf, 0.0
    for frame in frames:
        if seconds < 0:
            begin = frame.time or 0.0
        seconds = (frame.time or 0.0) - begin
        yield seconds, frame
    if seconds + _PATIENCE_SECONDS < duration or seconds < 0:
        raise VideoUnreadable("it ends before its time, so it is not whole")


def _label(seconds: float, shots: Sequence[tuple[float, str]]) -> str:
    """The time, and the shot that began last before it."""
    begun = [shot for shot in shots if shot[0] <= seconds]
    return f"{seconds:.1f} s" + (f"  {max(begun)[1]}" if begun else "")


def _sheet(pictures: Sequence[Image.Image], labels: Sequence[str]) -> Image.Image:
    from PIL import Image, ImageDraw, ImageFont

    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    width = (_SHEET_WIDTH - _GAP * (columns + 1)) // columns
    height = max(1, round(width * pictures[0].height / pictures[0].width))
    if height > width:  # upright video: keep the sheet from growing as tall as it is wide times three
        width, height = max(1, round(width * width / height)), width
    strip = max(16, width // 16)
    font = ImageFont.load_default(strip * 0.7)
    sheet = Image.new("RGB", (columns * (width + _GAP) + _GAP, rows * (height + strip + _GAP) + _GAP), _GROUND)
    pen = ImageDraw.Draw(sheet)
    for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        left = _GAP + number % columns * (width + _GAP)
        top = _GAP + number // columns * (height + strip + _GAP)
        sheet.paste(picture.resize((width, height)), (left, top))  # pyright: ignore[reportUnknownMemberType]
        pen.text((left + 2, top + height), _shortened(label, font, width - 4), fill=_INK, font=font)
    return sheet


def _shortened(label: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    label = label[:80]
    while len(label) > 1 and font.getlength(label) > width:
        label = label.rstrip("…")[:-1] + "…"
    return label


def _fitting_jpeg(sheet: Image.Image) -> bytes:
    """The best JPEG of *sheet* that is small enough."""
    while True:
        for quality in _SHEET_QUALITIES:
            data = _jpeg(sheet, quality)
            if len(data) <= MAX_SHEET_BYTES:
                return data
        width, height = (max(1, round(side * _SHEET_SMALLER)) for side in sheet.size)
        sheet = sheet.resize((width, height))  # pyright: ignore[reportUnknownMemberType]


def _jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    # Full colour resolution where a next video begins from the picture.
    image.save(buffer, "JPEG", quality=quality, subsampling=0 if quality >= _LAST_FRAME_QUALITY else 2)
    return buffer.getvalue()


def _image(frame: VideoFrame) -> Image.Image:
    untagged_hd = frame.colorspace == _UNTAGGED and frame.height >= _HD_HEIGHT
    colours = {"src_colorspace": _BT709} if untagged_hd else {}
    return cast("Image.Image", frame.to_image(**colours))  # pyright: ignore[reportUnknownMemberType] - PyAV has no type for it


def _small_image(frame: VideoFrame) -> Image.Image:
    """No larger than the sheet, so that nine pictures of a 4K video are no burden."""
    image = _image(frame)
    image.thumbnail((_SHEET_WIDTH, _SHEET_WIDTH))
    return image
