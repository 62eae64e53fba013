"""Frames: the colours that were put into a video come out again, in order, with times and shots."""

from __future__ import annotations

import io
import math
import random
import subprocess
import sys
from typing import TYPE_CHECKING

import av
import pytest
from PIL import Image, ImageChops, ImageStat

from kling_mcp.errors import NotAvailable
from kling_mcp.media.frames import MAX_SHEET_BYTES, VideoUnreadable, contact_sheet, last_frame
from kling_mcp.media.optional import installed, need

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

COLOURS = ((200, 40, 40), (40, 180, 60), (50, 60, 200), (210, 190, 40))
INVISIBLE = (24, 24, 24)
BT709, UNTAGGED = 1, 2


def film(
    path: Path,
    pictures: Sequence[Image.Image],
    *,
    each: int = 10,
    colorspace: int | None = None,
    tagged: bool = True,
    title: str = "",
) -> Path:
    """A video that shows each of *pictures* for *each* frames."""
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        container.metadata["title"] = title
        stream = container.add_stream(codec, rate=10, options={"crf": "12", "preset": "veryfast"})
        stream.width, stream.height = pictures[0].size
        stream.pix_fmt = "yuv420p"
        if colorspace is not None and tagged:
            stream.codec_context.colorspace = colorspace
        for picture in pictures:
            for _ in range(each):
                frame = av.VideoFrame.from_image(picture)
                if colorspace is not None:
                    frame = frame.reformat(format="yuv420p", dst_colorspace=colorspace)
                    frame.colorspace = colorspace if tagged else UNTAGGED
                container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def plain(size: tuple[int, int], colours: Sequence[tuple[int, int, int]] = COLOURS) -> list[Image.Image]:
    return [Image.new("RGB", size, colour) for colour in colours]


def shown(data: bytes, kind: str = "JPEG") -> Image.Image:
    image = Image.open(io.BytesIO(data))
    assert image.format == kind
    return image


def last(video: Path) -> Image.Image:
    return shown(last_frame(video), "PNG")


def alike(one: object, other: tuple[int, int, int]) -> bool:
    assert isinstance(one, tuple)
    return all(abs(a - b) <= 10 for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def four_colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds, one colour each."""
    return film(tmp_path_factory.mktemp("film") / "four.mp4", plain((320, 180)))


def test_the_frames_of_a_contact_sheet_are_the_videos_in_reading_order(four_colours: Path) -> None:
    data = contact_sheet(four_colours, 4, [(0.0, "shot 1"), (2.0, "shot 2")])

    sheet = shown(data)
    centres = [
        (x, y) for y in (sheet.height // 4, sheet.height * 3 // 4) for x in (sheet.width // 4, sheet.width * 3 // 4)
    ]
    assert len(data) <= MAX_SHEET_BYTES
    for centre, colour in zip(centres, COLOURS, strict=True):
        assert alike(sheet.getpixel(centre), colour)


@pytest.mark.parametrize(
    ("count", "columns", "rows"),
    [(1, 1, 1), (2, 2, 1), (3, 2, 2), (4, 2, 2), (5, 3, 2), (6, 3, 2), (7, 3, 3), (9, 3, 3)],
)
def test_one_to_nine_frames_fill_a_grid(four_colours: Path, count: int, columns: int, rows: int) -> None:
    sheet = shown(contact_sheet(four_colours, count, []))

    for number in range(columns * rows):
        x = sheet.width * (2 * (number % columns) + 1) // (2 * columns)
        y = sheet.height * (2 * (number // columns) + 1) // (2 * rows)
        middle = 4 * (number + 0.5) / count
        expected = COLOURS[int(middle)] if number < count else INVISIBLE
        # A middle that falls on a cut may show either side of it.
        assert alike(sheet.getpixel((x, y)), expected) or alike(sheet.getpixel((x, y)), COLOURS[int(middle - 0.15) % 4])


def test_time_and_shot_are_written_under_each_frame(four_colours: Path) -> None:
    """The strip under a frame differs where time or shot differ, and is the same where they are the same."""
    shots = [(2.0, "shot 2"), (0.0, "shot 1")]
    strips = [_strips(contact_sheet(four_colours, 4, labels)) for labels in (shots, shots, [(0.0, "shot 1")], [])]

    assert strips[0] == strips[1]
    assert [one == other for one, other in zip(strips[0], strips[2], strict=True)] == [True, True, False, False]
    assert all(one != other for one, other in zip(strips[0], strips[3], strict=True))
    assert len(set(strips[3])) == 4


def _strips(data: bytes) -> list[bytes]:
    sheet = shown(data).convert("L")
    width, height = sheet.width // 2, sheet.height // 2
    return [
        sheet.crop((x, y + height - 40, x + width - 8, y + height - 6)).tobytes()
        for y in (0, height - 2)
        for x in (6, width + 3)
    ]


def test_a_label_that_is_too_long_is_shortened(four_colours: Path) -> None:
    long = contact_sheet(four_colours, 9, [(0.0, "shot " * 100)])

    assert shown(long).size == shown(contact_sheet(four_colours, 9, [])).size


def test_a_sheet_of_noise_still_fits(tmp_path: Path) -> None:
    dice = random.Random(3)
    pictures = [Image.frombytes("RGB", (1280, 720), dice.randbytes(1280 * 720 * 3)) for _ in range(2)]

    data = contact_sheet(film(tmp_path / "noise.mp4", pictures, each=2), 9, [])

    assert len(data) <= MAX_SHEET_BYTES
    assert shown(data).width >= 400


@pytest.mark.parametrize("size", [(180, 320), (64, 1280)])
def test_an_upright_video_makes_no_tower(tmp_path: Path, size: tuple[int, int]) -> None:
    sheet = shown(contact_sheet(film(tmp_path / "upright.mp4", plain(size), each=2), 4, [(0.0, "shot 1")]))

    assert sheet.height <= 1400
    assert sheet.height > sheet.width


@pytest.mark.parametrize("frames", [0, 10, -1])
def test_another_number_of_frames_is_a_defect_of_the_caller(four_colours: Path, frames: int) -> None:
    with pytest.raises(ValueError, match="1 to 9"):
        contact_sheet(four_colours, frames, [])


def test_the_last_frame_has_full_size_and_the_last_colour(four_colours: Path) -> None:
    frame = last(four_colours)

    assert frame.size == (320, 180)
    assert alike(frame.getpixel((160, 90)), COLOURS[-1])


@pytest.mark.parametrize("tagged", [True, False])
def test_hd_video_keeps_its_colours_with_and_without_a_tag(tmp_path: Path, tagged: bool) -> None:
    """Read as the colours of standard television, this orange would turn red."""
    orange = (200, 100, 50)
    video = film(tmp_path / "hd.mp4", plain((1280, 720), [orange]), each=3, colorspace=BT709, tagged=tagged)
    with av.open(str(video)) as container:
        assert next(container.decode(video=0)).colorspace == (BT709 if tagged else UNTAGGED)

    assert alike(last(video).getpixel((640, 360)), orange)


def scene(size: tuple[int, int]) -> Image.Image:
    """Soft colours from dark to bright, as a photo has them."""
    down = Image.linear_gradient("L").resize(size)
    across = Image.linear_gradient("L").rotate(90).resize(size)
    return Image.merge("RGB", (across, down, Image.radial_gradient("L").resize(size)))


def test_eight_videos_that_each_begin_with_the_last_frame_of_the_one_before_keep_its_colours(tmp_path: Path) -> None:
    """Acceptance 7 of the films: no model is involved, so every difference is ours or the encoder's."""
    first = picture = scene((640, 360))
    for number in range(8):
        video = film(tmp_path / f"{number}.mp4", [picture], each=12, colorspace=BT709)
        picture = Image.open(io.BytesIO(last_frame(video))).convert("RGB")

    before, after = ImageStat.Stat(first).mean, ImageStat.Stat(picture).mean
    assert max(abs(a - b) for a, b in zip(before, after, strict=True)) <= 1.5
    counts = ImageChops.difference(first, picture).histogram()
    noise = sum(count * (level % 256) ** 2 for level, count in enumerate(counts)) / sum(counts)
    assert 10 * math.log10(255**2 / noise) >= 38


def test_a_title_that_is_no_text_spoils_no_video(tmp_path: Path) -> None:
    video = film(tmp_path / "titled.mp4", plain((320, 180)), title="a title")
    whole = video.read_bytes()
    assert whole.count(b"a title") == 1
    video.write_bytes(whole.replace(b"a title", b"\xff\xfe\xff\xfe\xff\xfe\xff"))

    assert last(video).size == (320, 180)


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.6, 0.9])
def test_a_video_that_is_not_whole_is_said_to_be_so(four_colours: Path, tmp_path: Path, share: float) -> None:
    whole = four_colours.read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole[: int(len(whole) * share)])

    for view in (last_frame, lambda video: contact_sheet(video, 9, [])):
        with pytest.raises(VideoUnreadable, match=r"^not_available: The saved video cannot be shown: .*get_job"):
            view(cut)


def test_a_file_that_is_missing_or_something_else_is_said_to_be_so(tmp_path: Path) -> None:
    text, sound = tmp_path / "text.mp4", tmp_path / "sound.mp4"
    text.write_text("no video")
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        silence = av.AudioFrame(format="fltp", layout="stereo", samples=1024)
        silence.sample_rate = 44100
        for plane in silence.planes:
            plane.update(bytes(plane.buffer_size))
        container.mux(stream.encode(silence))
        container.mux(stream.encode())

    for path, words in ((tmp_path / "missing.mp4", "not there"), (text, "damaged"), (sound, "no pictures")):
        with pytest.raises(VideoUnreadable, match=words):
            last_frame(path)


@pytest.mark.parametrize("number", range(30))
def test_damaged_bytes_make_a_picture_or_the_typed_error(four_colours: Path, tmp_path: Path, number: int) -> None:
    dice = random.Random(number)
    damaged = bytearray(four_colours.read_bytes())
    for _ in range(20):
        damaged[dice.randrange(len(damaged))] = dice.randrange(256)
    video = tmp_path / "damaged.mp4"
    video.write_bytes(damaged)

    try:
        data = contact_sheet(video, 4, [(0.0, "shot 1")])
    except VideoUnreadable:
        return
    assert len(data) <= MAX_SHEET_BYTES


def test_where_a_part_is_missing_the_text_says_how_to_install_it() -> None:
    need("json", purpose="A picture of a video")
    assert installed("json")
    assert not installed("json", "a_module_that_nobody_has")
    with pytest.raises(NotAvailable, match=r"come with kling-mcp .* pip install av pillow"):
        need("a_module_that_nobody_has", purpose="A picture of a video")


@pytest.mark.parametrize("part", ["av", "PIL", "pi_heif"])
def test_a_part_that_is_there_but_cannot_be_loaded_counts_as_missing(part: str, tmp_path: Path) -> None:
    """A wheel of another machine, or a library of the system that it needs and that is gone."""
    (tmp_path / part).mkdir()
    (tmp_path / part / "__init__.py").write_text("raise ImportError('libc.so.6: version not found')")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from kling_mcp.media.optional import installed, need, usable\n"
        "from kling_mcp.errors import NotAvailable\n"
        "assert installed(sys.argv[2]) and not usable(sys.argv[2]) and usable('json')\n"
        "try: need(sys.argv[2], purpose='A picture of a video')\n"
        "except NotAvailable: sys.exit(7)"
    )

    assert subprocess.run([sys.executable, "-c", code, str(tmp_path), part], check=False).returncode == 7


def test_nothing_that_decodes_is_imported_before_it_is_used() -> None:
    code = (
        "import sys; from kling_mcp.media import allowed_paths, pictures, addresses, downloads, frames;"
        "assert not {'av', 'PIL', 'httpx', 'idna'} & set(sys.modules), set(sys.modules)"
    )

    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
