"""Whatever kind of video it is: its pictures come out exact and upright, and the last one is the last."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
import pytest
from PIL import Image, ImageChops, ImageStat

from kling_mcp.media.frames import VideoUnreadable, contact_sheet, last_frame
from tests.media.videos import MATRICES, Video, number_in, picture, write

if TYPE_CHECKING:
    from pathlib import Path

BT709, BT601, BT2020 = ("bt709", 1), ("bt601", 6), ("bt2020", 9)
X265 = "log-level=none:qp=4:keyint={}:min-keyint={}"
HEVC: dict[str, Any] = {"codec": "libx265", "options": {"preset": "ultrafast", "x265-params": X265.format(6, 6)}}
VP9: dict[str, Any] = {
    "codec": "libvpx-vp9",
    "options": {"crf": "4", "b": "0", "cpu-used": "8", "deadline": "realtime"},
}
AV1: dict[str, Any] = {"codec": "libsvtav1", "options": {"crf": "4", "preset": "10"}}
MPEG4: dict[str, Any] = {"codec": "mpeg4", "options": {"qmin": "1", "qmax": "2", "bf": "2", "b": "20000000"}}


def h264(**more: str) -> dict[str, Any]:
    return {"options": {"crf": "4", "preset": "veryfast", **more}}


VIDEOS: dict[str, Video] = {
    "h264": Video(),
    "h264, one key frame": Video(**h264(g="1000")),
    "h264, key frames only": Video(**h264(g="1")),
    "h264, no b-frames": Video(**h264(bf="0", g="7")),
    "h264, many b-frames": Video(**h264(bf="8", g="12", b_strategy="0")),
    "h264, open gop": Video(**h264(bf="3", g="6", **{"x264-params": "open-gop=1:keyint=6:min-keyint=6"})),
    "h264, no key frame after the first": Video(**h264(**{"x264-params": "intra-refresh=1:keyint=8"})),
    "h264, header at the end": Video(mov="use_metadata_tags"),
    "h264, fragments": Video(**h264(g="5"), mov="frag_keyframe+empty_moov"),
    "h264, a fragment for each frame": Video(mov="frag_every_frame+empty_moov+default_base_moof+skip_trailer"),
    "h264, 4:4:4": Video(pixels="yuv444p"),
    "h264, ten bits": Video(pixels="yuv420p10le"),
    "h264, full range": Video(pixels="yuvj420p", full=True),
    "hevc": Video(**HEVC),
    "hevc, open gop": Video(codec="libx265", options={"x265-params": X265.format(6, 6) + ":open-gop=1:bframes=4"}),
    "hevc, ten bits": Video(**HEVC, pixels="yuv420p10le", matrix=BT2020),
    "vp9": Video(**VP9),
    "vp9 in webm": Video(**VP9, ending="webm"),
    "vp9 in webm with longer sound": Video(**VP9, ending="webm", sound_seconds=3),
    "av1": Video(**AV1),
    "av1, ten bits": Video(**AV1, pixels="yuv420p10le"),
    "mpeg4": Video(**MPEG4),
    "one frame a second": Video(rate=1, times=range(5)),
    "sixty frames a second": Video(rate=60, times=range(90)),
    "frames of different lengths": Video(times=(0, 1, 2, 8, 9, 30, 31)),
    "a single frame": Video(times=(0,)),
    "it begins late": Video(times=range(12, 24)),
    "longer sound": Video(sound_seconds=4),
    "shorter sound": Video(sound_seconds=0.5),
    "odd sizes": Video(size=(321, 193), pixels="yuv444p"),
    "odd sizes, vp9": Video(**VP9, size=(321, 193)),
    "hd, untagged": Video(size=(1280, 720), times=range(4), matrix=("bt709", 2)),
    "hd, as standard television": Video(size=(1280, 720), times=range(4), matrix=BT601),
    "bt.709": Video(matrix=BT709),
    "bt.709, full range": Video(matrix=BT709, full=True, pixels="yuvj420p"),
}


def last(video: Path) -> Image.Image:
    return shown(last_frame(video), "PNG")


def shown(data: bytes, kind: str) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    assert image.format == kind
    return image.convert("RGB")


def error(one: Image.Image, other: Image.Image) -> tuple[float, float]:
    """How much lighter the whole is in the mean, and how far the pixels are apart, of 255."""
    assert one.size == other.size
    lighter = max(abs(a - b) for a, b in zip(ImageStat.Stat(one).mean, ImageStat.Stat(other).mean, strict=True))
    return lighter, sum(ImageStat.Stat(ImageChops.difference(one, other)).mean) / 3


@pytest.mark.parametrize("name", VIDEOS)
def test_the_last_frame_is_the_last_and_as_light_as_it_was(name: str, tmp_path: Path) -> None:
    video = VIDEOS[name]

    frame = last(write(video, tmp_path))

    number = len(video.times) - 1
    assert number_in(frame) == number
    lighter, apart = error(frame, picture(video.size, number))
    # Into full range, FFmpeg itself cuts the fractions off: the way back is exact.
    assert lighter < (1.1 if video.full else 1)
    assert apart < 2.5


@pytest.mark.parametrize("name", MATRICES)
def test_a_turned_or_mirrored_video_is_upright(name: str, tmp_path: Path) -> None:
    matrix, how = MATRICES[name]
    video = Video(turned=matrix, times=range(6))

    frame = last(write(video, tmp_path))

    assert max(error(frame, picture(video.size, 5).transpose(how))) < 2.5


@pytest.mark.parametrize(
    ("shape", "size"), [(Fraction(4, 3), (427, 192)), (Fraction(1, 2), (320, 384)), (Fraction(99, 1), (320, 192))]
)
def test_pixels_that_are_not_square_are_made_so(shape: Fraction, size: tuple[int, int], tmp_path: Path) -> None:
    frame = last(write(Video(pixel_shape=shape, times=range(3)), tmp_path))

    assert frame.size == size
    assert number_in(frame.resize((320, 192))) == 2


@pytest.mark.parametrize(
    ("edit", "numbers"), [((0, 1.2), range(12)), ((0.7, 2), range(7, 20)), ((0.55, 1.5), range(5, 15))]
)
def test_an_edit_list_decides_what_is_shown(edit: tuple[float, float], numbers: range, tmp_path: Path) -> None:
    video = write(Video(edit=edit, **h264(g="6")), tmp_path)

    assert number_in(last(video)) == numbers[-1]
    assert seen(video, 1)[0] in numbers


def seen(video: Path, count: int) -> list[int]:
    """The numbers on a contact sheet of one or four."""
    sheet = shown(contact_sheet(video, count, []), "JPEG")
    columns = 1 if count == 1 else 2
    width = (sheet.width - 6 * (columns + 1)) // columns
    height = round(width * 192 / 320)
    strip = max(16, width // 16)
    return [
        number_in(sheet.crop((left, top, left + width, top + height)))
        for top in (6 + row * (height + strip + 6) for row in range(columns))
        for left in (6 + column * (width + 6) for column in range(columns))
    ]


@pytest.mark.parametrize(
    "name", [name for name, video in VIDEOS.items() if len(video.times) == 20 and video.size == (320, 192)]
)
def test_the_frames_of_a_sheet_are_those_in_the_middle_of_each_part(name: str, tmp_path: Path) -> None:
    assert seen(write(VIDEOS[name], tmp_path), 4) == [2, 7, 12, 17]


@pytest.mark.parametrize("name", ["h264", "h264, key frames only", "h264, fragments", "vp9 in webm", "longer sound"])
@pytest.mark.parametrize("missing", [1, 50, 0.02, 0.1, 0.5])
def test_a_video_without_its_end_never_shows_another_frame_as_the_last(
    name: str, missing: float, tmp_path: Path
) -> None:
    path = write(VIDEOS[name], tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: -missing if isinstance(missing, int) else int(len(whole) * (1 - missing))])

    try:
        number = number_in(last(path))
    except VideoUnreadable:
        return
    assert number == 19


def test_a_list_of_other_files_is_no_video(tmp_path: Path) -> None:
    """FFmpeg would open what a playlist names: other files, and addresses in the network."""
    film = write(Video(ending="mp4"), tmp_path)
    for name, text in {
        "list.mp4": f"ffconcat version 1.0\nfile '{film.name}'\n",
        "play.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{film.as_uri()}\n#EXT-X-ENDLIST\n",
    }.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(VideoUnreadable, match="damaged"):
            last_frame(tmp_path / name)


def test_a_picture_that_fills_the_memory_is_not_decoded(tmp_path: Path) -> None:
    path = tmp_path / "huge.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 8208, 8192, "yuvj420p"
        container.mux(stream.encode(av.VideoFrame(8208, 8192, "yuvj420p")))
        container.mux(stream.encode())

    with pytest.raises(VideoUnreadable, match="too large"):
        last_frame(path)
