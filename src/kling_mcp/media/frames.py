"""
Still pictures of a video: a contact sheet to judge it by, and the last frame to continue it from.

PyAV decodes and Pillow draws; both are imported on first use. The functions block, so callers run them in threads.
What a video holds is read from its packets first, which costs next to nothing. Decoding then begins at the key frame
before each picture that is wanted.
"""

from __future__ import annotations

import io
import math
import struct
from bisect import bisect_right
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, groupby, pairwise
from typing import TYPE_CHECKING, Any, Final, cast

from kling_mcp.errors import NotAvailable
from kling_mcp.media.optional import need

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from av import VideoFrame
    from av.buffer import Buffer
    from av.codec.context import CodecContext
    from av.container import InputContainer
    from av.video.stream import VideoStream
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
# A third of the time that the default takes, for a tenth more bytes.
_PNG_EFFORT: Final = 3
# Video without a colour tag is read as HD television's (BT.709) from this height on, as players do.
_HD_HEIGHT: Final = 720
# ITU-T H.273, table 4: the matrices that FFmpeg's `scale` has a name for.
_MATRICES: Final = {1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020", 10: "bt2020"}
_FULL_RANGE: Final = 2
# Without these, each conversion darkens a picture by one or two of 255, and clips that continue each other add it up.
_EXACT: Final = "lanczos+accurate_rnd+full_chroma_int+full_chroma_inp"
# Other formats that FFmpeg reads are lists of further files and addresses.
_FORMATS: Final = "mov,matroska,webm"
_MAX_PIXELS: Final = 8192 * 4352
_MAX_PICTURES: Final = 100_000
_WIDEST_PIXEL: Final = 4
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
    The last picture of *video* as a PNG in full size, upright: the next video begins with it, and loses nothing.

    Raises:
        NotAvailable: PyAV or Pillow is not installed, or the video is unreadable (`VideoUnreadable`).
    """
    need("av", "PIL", purpose="The last frame of a video")
    ((_, image),) = _pictures(video, lambda packets: [packets.times[-1]])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=_PNG_EFFORT)
    return buffer.getvalue()


def _evenly_spread(video: Path, count: int) -> list[tuple[float, Image.Image]]:
    """What is to be seen in the middle of each of *count* equal parts, with the picture's own time in seconds."""

    def middles(packets: _Packets) -> list[int]:
        begin, length = packets.times[0], packets.end - packets.times[0]
        wanted = [begin + length * (2 * number + 1) / (2 * count) for number in range(count)]
        return [packets.times[bisect_right(packets.times, time) - 1] for time in wanted]

    return _pictures(video, middles, longest_side=_SHEET_WIDTH)


@dataclass(frozen=True, slots=True)
class _Packets:
    """What a video holds, in units of its time base."""

    times: list[int]
    """When each picture is shown, in order; never empty."""
    keys: list[int]
    """The pictures that can be decoded without those before them; never empty."""
    end: int


def _pictures(
    video: Path, choose: Callable[[_Packets], list[int]], *, longest_side: int | None = None
) -> list[tuple[float, Image.Image]]:
    """
    The pictures at the times that *choose* picks, ascending, each with its time from the beginning in seconds.

    Decoding begins at the key frames as the file has them. If that does not lead to the very pictures, because the
    file is wrong about its key frames, it begins once more at the first.

    Raises:
        VideoUnreadable: The file is missing, is no video, or ends before its time.
    """
    for trusting in (True, False):
        try:
            with _opened(video) as (container, stream):
                packets = _packets(container, stream)
                wanted = choose(packets)
                keys = packets.keys if trusting else packets.keys[:1]
                late = 0 if trusting else _PATIENCE_SECONDS / _unit(stream)
                found = [
                    ((frame.pts - packets.times[0]) * _unit(stream), _image(frame, stream, longest_side))
                    for time, frame in zip(wanted, _decoded(container, stream, wanted, keys), strict=False)
                    if frame.pts is not None and time - frame.pts <= late and not frame.is_corrupt
                ]
        except VideoUnreadable:
            if not trusting:
                raise
        else:
            if len(found) == len(wanted):
                return found
    raise _not_whole()


@contextmanager
def _opened(video: Path) -> Generator[tuple[InputContainer, VideoStream]]:
    """
    The first stream of pictures in *video*, while it is open.

    Raises:
        VideoUnreadable: The file is missing, is no video, or cannot be decoded.
    """
    import av
    from av.error import FFmpegError

    limits = {"max_pixels": str(_MAX_PIXELS)}
    try:
        # Until PyAV 19, which has no such option, a title that is not UTF-8 makes a whole video unreadable.
        lenient: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
        with cast(
            "InputContainer",
            av.open(str(video), container_options={"format_whitelist": _FORMATS}, options=limits, **lenient),
        ) as container:
            if not container.streams.video:
                raise VideoUnreadable("it holds no pictures")
            stream = container.streams.video[0]
            if cast("CodecContext | None", stream.codec_context) is None:
                raise VideoUnreadable("its pictures are coded in a way that is not known here")
            stream.thread_type = "AUTO"
            stream.codec_context.options = limits
            yield container, stream
    except (FFmpegError, ValueError):
        raise VideoUnreadable("the file is damaged, too large, or not there") from None


def _packets(container: InputContainer, stream: VideoStream) -> _Packets:
    """
    Read the file to its end without decoding anything.

    Raises:
        VideoUnreadable: It ends before its time, or is too long.
    """
    shown: list[tuple[int, int]] = []
    keys: list[int] = []
    all_end, cut = 0.0, False
    for packet in container.demux():
        if packet.pts is None or not packet.size:
            continue
        end = packet.pts + (packet.duration or 0)
        all_end = max(all_end, float(end * packet.time_base))
        cut = cut or packet.is_corrupt
        if packet.stream_index != stream.index:
            continue
        if packet.is_corrupt:
            raise _not_whole()
        if packet.is_keyframe:
            keys.append(packet.pts)
        if not packet.is_discard:
            shown.append((packet.pts, end))
        if len(shown) > _MAX_PICTURES:
            raise VideoUnreadable(f"it has more than {_MAX_PICTURES:,} pictures")
    if not shown or not keys:
        raise _not_whole()
    times, last = sorted({begin for begin, _ in shown}), max(end for _, end in shown)
    longest = max((after - before for before, after in pairwise(times)), default=last - times[-1])
    if stream.duration is not None:
        missing = (stream.duration - (last - times[0])) * _unit(stream)
    else:
        missing = (container.duration or 0) / 1_000_000 - all_end
    # A file that ends in the middle of something lacks what comes later; another may only count otherwise.
    if missing > longest * _unit(stream) * (0.5 if cut else 1):
        raise _not_whole()
    return _Packets(times, sorted(keys), last if last > times[-1] else times[-1] + longest)


def _unit(stream: VideoStream) -> float:
    return float(stream.time_base or 0)


def _not_whole() -> VideoUnreadable:
    return VideoUnreadable("it ends before its time, so it is not whole")


def _decoded(
    container: InputContainer, stream: VideoStream, wanted: list[int], keys: list[int]
) -> Iterator[VideoFrame]:
    """What is on the screen at each of the times *wanted*, decoded from the last of *keys* before it."""
    for key, times in groupby(wanted, lambda time: keys[max(0, bisect_right(keys, time) - 1)]):
        container.seek(key, stream=stream)
        yield from _shown(container.decode(stream), list(times))


def _shown(frames: Iterable[VideoFrame], times: list[int]) -> Iterator[VideoFrame]:
    shown: VideoFrame | None = None
    for following in chain(frames, (None,)):
        while shown is not None and times and (following is None or (following.pts or 0) > times[0]):
            times.pop(0)
            yield shown
        if not times:
            return
        shown = following


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
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _image(frame: VideoFrame, stream: VideoStream, longest_side: int | None) -> Image.Image:
    """The picture as a player shows it: its colours, the shape of its pixels, and the right side up."""
    from av.filter import Graph
    from PIL import Image

    width, height = _square(frame, stream)
    if longest_side is not None and max(width, height) > longest_side:
        share = longest_side / max(width, height)
        width, height = max(1, round(width * share)), max(1, round(height * share))
    graph = Graph()
    graph.link_nodes(
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=stream.time_base),
        graph.add("scale", f"w={width}:h={height}:flags={_EXACT}{_colours(frame)}"),
        graph.add("format", "pix_fmts=rgb24"),
        graph.add("buffersink"),
    ).configure()
    graph.vpush(frame)
    drawn = graph.vpull()
    plane = drawn.planes[0]
    image = Image.frombytes("RGB", (drawn.width, drawn.height), bytes(plane), "raw", "RGB", plane.line_size)
    turn = _turn(frame)
    return image if turn is None else image.transpose(turn)


def _square(frame: VideoFrame, stream: VideoStream) -> tuple[int, int]:
    """The size in square pixels, of which none is lost."""
    ratio = float(stream.sample_aspect_ratio or 1)
    if not 1 / _WIDEST_PIXEL <= ratio <= _WIDEST_PIXEL:
        ratio = 1
    return round(frame.width * max(1, ratio)), round(frame.height / min(1, ratio))


def _colours(frame: VideoFrame) -> str:
    """How the colours are written in the video, for FFmpeg's `scale`."""
    if frame.format.is_rgb:
        return ""
    untagged = "bt709" if frame.height >= _HD_HEIGHT else "bt601"
    full = frame.color_range == _FULL_RANGE or frame.format.name.startswith("yuvj")
    matrix = _MATRICES.get(frame.colorspace, untagged)
    return f":in_color_matrix={matrix}:in_range={'full' if full else 'limited'}"


def _turn(frame: VideoFrame) -> Image.Transpose | None:
    """What brings the picture into the position that the video's display matrix asks for."""
    from PIL import Image

    try:
        matrix = cast("Mapping[str, Buffer]", frame.side_data)["DISPLAYMATRIX"]
    except KeyError:
        return None
    # ISO/IEC 14496-12, 8.3.2: x' = ax + cy and y' = bx + dy, y pointing down; u and v are perspective.
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(matrix))
    # Where the first row and the first column of the picture go.
    upright = abs(a) + abs(d) >= abs(b) + abs(c)
    first, second = (a, d) if upright else (b, c)
    how = Image.Transpose
    return {
        (True, True, True): None,
        (True, False, True): how.FLIP_LEFT_RIGHT,
        (True, True, False): how.FLIP_TOP_BOTTOM,
        (True, False, False): how.ROTATE_180,
        (False, True, True): how.TRANSPOSE,
        (False, True, False): how.ROTATE_270,
        (False, False, True): how.ROTATE_90,
        (False, False, False): how.TRANSVERSE,
    }[upright, first >= 0, second >= 0]
