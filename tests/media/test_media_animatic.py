"""Film, acceptance 8: what a film will be like, before it is paid for."""

from __future__ import annotations

import io
from decimal import Decimal
from typing import TYPE_CHECKING

import av
import pytest
from PIL import Image, ImageChops, ImageStat

from kling_mcp.media.animatic import AnimaticShot, animatic, small_animatic
from kling_mcp.simulator.render import sample_picture

if TYPE_CHECKING:
    from pathlib import Path

    from kling_mcp.media.animatic import Shape


def _still(*, mirrored: bool = False) -> bytes:
    image = Image.open(io.BytesIO(sample_picture()))
    buffer = io.BytesIO()
    (image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else image).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


NINE_SECONDS = [
    AnimaticShot("Clip 1", "A fox waits at the edge of a snowy wood, then turns its head to us.", Decimal(3), _still()),
    AnimaticShot("Clip 2", "It leaps. " * 60, Decimal(3), _still(mirrored=True)),
    AnimaticShot("Clip 3 · shot 1", "", Decimal(3), _still()),
]


def _images(data: bytes) -> list[Image.Image]:
    with av.open(io.BytesIO(data), "r") as container:
        return [frame.to_image() for frame in container.decode(video=0)]


def _coding(data: bytes) -> tuple[str, int, int, float]:
    with av.open(io.BytesIO(data), "r") as container:
        stream = container.streams.video[0]
        return stream.codec_context.name, stream.width, stream.height, float(stream.average_rate or 0)


def _sharpness(image: Image.Image) -> float:
    """How much neighbours differ, above the caption."""
    upper = image.convert("L").crop((0, 0, image.width, image.height // 2))
    return ImageStat.Stat(ImageChops.difference(upper, ImageChops.offset(upper, 1, 0))).mean[0]


def test_nine_seconds_of_three_stills_are_216_pictures_in_a_small_file(tmp_path: Path) -> None:
    path = animatic(NINE_SECONDS, tmp_path / "animatic.mp4")

    data = path.read_bytes()
    assert _coding(data) == ("h264", 1280, 720, 24)
    assert len(_images(data)) == 216
    assert len(data) <= 300_000
    assert [file.name for file in tmp_path.iterdir()] == ["animatic.mp4"]


def test_the_one_that_is_sent_is_smaller_and_the_same_each_time() -> None:
    data = small_animatic(NINE_SECONDS)

    assert _coding(data) == ("h264", 640, 360, 12)
    assert len(_images(data)) == 108
    assert len(data) <= 100_000
    assert small_animatic(NINE_SECONDS) == data


@pytest.mark.parametrize(("shape", "size"), [("portrait", (360, 640)), ("square", (360, 360))])
def test_it_has_the_shape_of_the_film(shape: Shape, size: tuple[int, int]) -> None:
    data = small_animatic([AnimaticShot("Clip 1", "A fox.", Decimal(1), _still())], shape=shape)

    assert _coding(data)[1:3] == size


def test_a_clip_without_a_picture_shows_the_one_before_out_of_focus_and_the_first_a_plain_ground() -> None:
    shots = [
        AnimaticShot("Clip 1", "A fox.", Decimal(1)),
        AnimaticShot("Clip 2", "It waits.", Decimal(1), _still()),
        AnimaticShot("Clip 3", "It leaps.", Decimal(1)),
        AnimaticShot("Clip 4", "It is gone.", Decimal(1), b"no picture"),
    ]

    images = _images(small_animatic(shots))

    plain, sharp, blurred, still_blurred = (images[12 * number + 6] for number in range(4))
    assert _sharpness(plain) < 0.1
    assert _sharpness(sharp) > 2 * _sharpness(blurred) > 0.2
    assert abs(_sharpness(still_blurred) - _sharpness(blurred)) < 0.1


def test_lengths_that_are_no_whole_pictures_do_not_add_up_to_another_length() -> None:
    shots = [AnimaticShot(f"Clip {number}", "", Decimal("1.04")) for number in range(5)]

    assert len(_images(small_animatic(shots))) == round(5 * 1.04 * 12)
