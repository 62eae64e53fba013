"""The finished video: real, of the right length, and readable by a test."""

from __future__ import annotations

import base64
import io
import itertools
from array import array
from typing import Any, cast

import av
import pytest
from PIL import Image

from kling_mcp.simulator.queue import Shot
from kling_mcp.simulator.render import MARKERS, TONES, default_renderer, draw, sample_picture, sample_video

from .calls import BODY, fal


def picture(colour: tuple[int, int, int], size: tuple[int, int] = (640, 360)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def frames(video: bytes) -> list[Image.Image]:
    container: Any = av.open(io.BytesIO(video))
    with container:
        return [frame.to_image() for frame in container.decode(video=0)]


def near(seen: Any, wanted: tuple[int, int, int]) -> bool:
    return all(abs(a - b) < 24 for a, b in zip(seen, wanted, strict=True))


def test_a_video_is_as_long_as_its_shots_and_each_shot_shows_its_colour() -> None:
    shots = tuple(Shot(f"Shot {number}", seconds) for number, seconds in enumerate((2, 1, 3), start=1))

    video = draw(shots, None, None)

    pictures = frames(video)
    assert len(pictures) == 6 * 24
    for index, shot in ((0, 0), (47, 0), (48, 1), (71, 1), (72, 2), (143, 2)):
        assert near(pictures[index].getpixel((30, 30)), MARKERS[shot]), index
    assert len(video) < 600_000


def test_the_first_frame_becomes_the_last() -> None:
    pictures = frames(draw((Shot("fade", 2),), picture((200, 30, 30)), picture((30, 30, 200))))

    first, middle, last = (pictures[index].getpixel((800, 300)) for index in (0, 24, 47))
    assert near(first, (200, 30, 30))
    assert near(middle, (115, 30, 115))
    assert near(last, (30, 30, 200))


@pytest.mark.parametrize(
    ("size", "expected"),
    [((640, 360), (1280, 720)), ((720, 1280), (720, 1280)), ((500, 500), (720, 720)), ((3000, 300), (1800, 720))],
)
def test_a_video_has_the_shape_of_its_first_frame(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert frames(draw((Shot("p", 1),), picture((9, 90, 9), size), None))[0].size == expected


def test_a_picture_that_cannot_be_read_does_not_stop_the_show() -> None:
    assert len(frames(draw((Shot("日本 é", 1),), b"no picture", b"nor this"))) == 24


def test_the_bundled_sample_is_a_small_real_video_and_picture() -> None:
    video = sample_video((Shot("anything", 15),), None, None)

    assert len(frames(video)) == 120
    assert len(video) < 60_000
    assert Image.open(io.BytesIO(sample_picture())).size == (1280, 720)
    assert len(sample_picture()) < 60_000


def test_videos_are_drawn_where_the_parts_are_installed() -> None:
    assert default_renderer() is draw


def heard(video: bytes) -> list[float | None]:
    """The tone in Hertz of each second of *video*; None for silence."""
    container: Any = av.open(io.BytesIO(video))
    with container:
        samples: list[float] = []
        for frame in container.decode(audio=0):
            samples += array("f", bytes(frame.planes[0]))[: frame.samples]
        rate = container.streams.audio[0].rate
    seconds = [samples[start : start + rate] for start in range(0, len(samples) - rate // 2, rate)]
    return [
        sum(before < 0 <= after for before, after in itertools.pairwise(second)) * rate / len(second)
        if max(second) > 0.05
        else None
        for second in seconds
    ]


def test_each_shot_is_heard_as_a_tone_where_there_is_sound() -> None:
    shots = (Shot("a", 2), Shot("b", 1.5))

    video = draw(shots, None, None, sound=True)

    assert heard(video) == [pytest.approx(TONES[number], abs=10) for number in (0, 0, 1, 1)]
    with cast("Any", av.open(io.BytesIO(video))) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        lengths = [float(stream.duration * stream.time_base) for stream in container.streams]
    assert lengths == pytest.approx([3.5, 3.5], abs=0.03)
    assert not cast("Any", av.open(io.BytesIO(draw(shots, None, None)))).streams.audio


@pytest.mark.anyio
async def test_a_video_is_made_once_from_the_uploaded_picture() -> None:
    made: list[tuple[tuple[Shot, ...], bytes | None, bytes | None]] = []

    def renderer(shots: tuple[Shot, ...], first: bytes | None, last: bytes | None, /, *, sound: bool = False) -> bytes:
        made.append((shots, first, last))
        return b"mp4"

    async with fal(renderer=renderer) as it:
        red = picture((200, 0, 0))
        asked = {"file_name": "a.png", "content_type": "image/png"}
        granted = (await it.http.post(f"{it.urls.rest}/storage/upload/initiate", json=asked)).json()
        await it.http.put(granted["upload_url"], content=red)
        blue = picture((0, 0, 200))
        data_uri = f"data:image/png;base64,{base64.b64encode(blue).decode()}"
        body = {**BODY, "image_url": granted["file_url"], "end_image_url": data_uri, "duration": "7"}

        job = await it.finished(body)
        assert made == []
        first, second = [(await it.get(job["response_url"])).json()["video"] for _ in range(2)]

        assert first == second
        assert (await it.http.get(first["url"])).content == b"mp4"
        assert made == [((Shot("The boat drifts.", 7),), red, blue)]
