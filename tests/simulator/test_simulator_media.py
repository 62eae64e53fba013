"""Pictures, videos and sounds that are given: looked at, and refused as fal does; what is made of them and billed."""

from __future__ import annotations

import base64
import io
import wave
from typing import TYPE_CHECKING, Any, cast

import av
import pytest
from PIL import Image

from kling_mcp.catalog.models import load
from kling_mcp.json_types import items_of
from kling_mcp.simulator.queue import Shot
from kling_mcp.simulator.render import draw, shaped

from .calls import ENDPOINT, fal

if TYPE_CHECKING:
    import httpx

    from .calls import Fal

pytestmark = pytest.mark.anyio

PREFIX = "fal-ai/kling-video"
V3 = f"{PREFIX}/v3/pro/image-to-video"
EDIT = f"{PREFIX}/o3/pro/video-to-video/edit"
MOTION = f"{PREFIX}/v3/pro/motion-control"
LIPS = f"{PREFIX}/lipsync/audio-to-video"
AVATAR = f"{PREFIX}/ai-avatar/v2/pro"
VOICE = f"{PREFIX}/create-voice"
TEXT = f"{PREFIX}/o3/standard/text-to-video"
ELSEWHERE = "https://example.com/file"


def picture(width: int, height: int, kind: str = "PNG", turned: bool = False) -> bytes:
    file = io.BytesIO()
    exif = Image.Exif()
    if turned:
        exif[0x0112] = 6
    Image.new("RGB", (width, height)).save(file, kind, exif=exif)
    return file.getvalue()


def video(seconds: float, *, sound: bool = False) -> bytes:
    return draw((Shot("A boat.", seconds),), shaped(9 / 16), None, sound=sound)


def speech(seconds: float) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(1)
        sound.setframerate(1000)
        sound.writeframes(b"\x80" * round(seconds * 1000))
    return file.getvalue()


async def stored(it: Fal, data: bytes) -> str:
    asked = {"file_name": "file", "content_type": "application/octet-stream"}
    granted = (await it.http.post(f"{it.urls.rest}/storage/upload/initiate", json=asked)).json()
    await it.http.put(granted["upload_url"], content=data)
    return granted["file_url"]


async def result(it: Fal, endpoint_id: str, body: dict[str, Any]) -> httpx.Response:
    """The result of a job; bytes in *body*, also inside, are uploaded."""

    async def uploaded(value: Any) -> Any:
        if isinstance(value, bytes):
            return await stored(it, value)
        if isinstance(value, dict):
            return {name: await uploaded(member) for name, member in cast("dict[str, Any]", value).items()}
        return [await uploaded(member) for member in cast("list[Any]", value)] if isinstance(value, list) else value

    job = (await it.http.post(f"{it.urls.queue}/{endpoint_id}", json=await uploaded(body))).json()
    it.clock.advance(3000)
    return await it.get(job["response_url"])


SIZE = {"min_height": 300, "min_width": 300}
RATIO = {"min_aspect_ratio": 0.4, "max_aspect_ratio": 2.5}
MOVE = {"image_url": ELSEWHERE, "video_url": ELSEWHERE, "character_orientation": "image"}
REFUSED: dict[str, tuple[str, dict[str, Any], str, str, dict[str, Any] | None]] = {
    "a small picture": (V3, {"start_image_url": picture(400, 200)}, "start_image_url", "image_too_small", SIZE),
    "a wide picture": (
        V3,
        {"start_image_url": picture(1000, 390)},
        "start_image_url",
        "image_aspect_ratio_error",
        RATIO,
    ),
    "a wide picture by its orientation": (
        V3,
        {"start_image_url": picture(390, 1000, "JPEG", turned=True)},
        "start_image_url",
        "image_aspect_ratio_error",
        RATIO,
    ),
    "a large picture": (
        MOTION,
        {**MOVE, "image_url": picture(4000, 3000)},
        "image_url",
        "image_too_large",
        {"max_height": 3850, "max_width": 3850},
    ),
    "a heavy picture": (
        V3,
        {"start_image_url": picture(500, 500) + bytes(10_485_760)},
        "start_image_url",
        "file_too_large",
        {"max_size": 10_485_760},
    ),
    "a picture of an odd kind": (
        V3,
        {"start_image_url": picture(500, 500, "BMP")},
        "start_image_url",
        "unsupported_image_format",
        {"supported_formats": ["jpeg", "png", "webp", "gif", "avif"]},
    ),
    "no picture at all": (V3, {"start_image_url": b"text"}, "start_image_url", "image_load_error", None),
    "a small picture inside": (
        V3,
        {
            "start_image_url": picture(500, 500),
            "elements": [{"frontal_image_url": ELSEWHERE, "reference_image_urls": [ELSEWHERE, picture(10, 10)]}],
        },
        "elements.0.reference_image_urls.1",
        "image_too_small",
        SIZE,
    ),
    "a short video": (
        EDIT,
        {"video_url": video(2), "prompt": "Snow."},
        "video_url",
        "video_duration_too_short",
        {"min_duration": 3.0, "provided_duration": 2.0},
    ),
    "a video too long for the picture's orientation": (
        MOTION,
        {**MOVE, "video_url": video(11)},
        "video_url",
        "video_duration_too_long",
        {"max_duration": 10.0, "provided_duration": 11.0},
    ),
    "a sound where a video belongs": (
        EDIT,
        {"video_url": speech(5), "prompt": "Snow."},
        "video_url",
        "unsupported_video_format",
        {"supported_formats": ["mp4", "mov"]},
    ),
    "a text where a sound belongs": (
        VOICE,
        {"voice_url": b"hello"},
        "voice_url",
        "unsupported_audio_format",
        {"supported_formats": ["mp3", "wav", "mp4", "mov"]},
    ),
    "a long sound": (
        LIPS,
        {"video_url": ELSEWHERE, "audio_url": speech(61)},
        "audio_url",
        "audio_duration_too_long",
        {"max_duration": 60.0, "provided_duration": 61.0},
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_breaks_a_limit_is_refused_by_the_runner_in_fals_words(name: str) -> None:
    endpoint_id, body, place, kind, context = REFUSED[name]
    async with fal() as it:
        refused = await result(it, endpoint_id, {"prompt": "A boat.", **body} if endpoint_id == V3 else body)

    assert refused.status_code == 422
    (entry,) = refused.json()["detail"]
    assert ".".join(map(str, entry["loc"])) == f"body.{place}"
    assert (entry["type"], entry.get("ctx")) == (kind, context)


@pytest.mark.parametrize(
    "given",
    [
        ELSEWHERE,
        picture(300, 750),
        picture(750, 300, "WEBP"),
        f"data:image/png;base64,{base64.b64encode(picture(300, 300)).decode()}",
    ],
    ids=["elsewhere", "the tallest", "the widest", "in the request"],
)
async def test_what_fits_or_cannot_be_fetched_is_taken(given: str | bytes) -> None:
    async with fal() as it:
        assert (await result(it, V3, {"start_image_url": given, "prompt": "A boat."})).status_code == 200


async def test_a_picture_in_the_request_is_looked_at_and_not_shown_again() -> None:
    given = f"data:image/png;base64,{base64.b64encode(picture(100, 100)).decode()}"
    async with fal() as it:
        refused = await result(it, V3, {"start_image_url": given, "prompt": "A boat."})

    (entry,) = refused.json()["detail"]
    assert (entry["type"], entry["input"]) == ("image_too_small", "data:")


# ---- what is made, and what it costs

IMAGE_BODY = {"image_url": ELSEWHERE, "prompt": "A boat.", "duration": "3"}
LANDSCAPE, PORTRAIT = (1280, 720), (720, 1280)
MADE: dict[str, tuple[str, dict[str, Any], float, bool, tuple[int, int], str]] = {
    "sound that was not asked for": (ENDPOINT, IMAGE_BODY, 3, False, LANDSCAPE, "1.8"),
    "sound that was asked for": (ENDPOINT, {**IMAGE_BODY, "generate_audio": True}, 3, True, LANDSCAPE, "2.4"),
    "sound by default": (V3, {"start_image_url": ELSEWHERE, "prompt": "A boat."}, 5, True, LANDSCAPE, "6"),
    "text in portrait": (
        TEXT,
        {"prompt": "A boat.", "duration": "3", "aspect_ratio": "9:16"},
        3,
        False,
        PORTRAIT,
        "1.8",
    ),
    "an edit": (EDIT, {"video_url": video(3.5, sound=True), "prompt": "Snow."}, 3.5, True, PORTRAIT, "4"),
    "an edit of what is silent": (EDIT, {"video_url": video(3), "prompt": "Snow."}, 3, False, PORTRAIT, "3"),
    "an edit without its sound": (
        EDIT,
        {"video_url": video(3, sound=True), "prompt": "Snow.", "keep_audio": False},
        3,
        False,
        PORTRAIT,
        "3",
    ),
    "an edit of what is elsewhere": (EDIT, {"video_url": ELSEWHERE, "prompt": "Snow."}, 5, True, LANDSCAPE, "5"),
    "a movement": (MOTION, {**MOVE, "video_url": video(4, sound=True)}, 4, True, LANDSCAPE, "4"),
    "lips, in steps of five seconds": (
        LIPS,
        {"video_url": video(6), "audio_url": speech(4)},
        6,
        True,
        PORTRAIT,
        "10",
    ),
    "a speaker": (AVATAR, {"image_url": picture(500, 500), "audio_url": speech(2.5)}, 2.5, True, (720, 720), "3"),
}


@pytest.mark.parametrize("name", MADE)
async def test_a_video_is_as_long_and_heard_and_billed_as_its_mode_has_it(name: str) -> None:
    endpoint_id, body, seconds, sound, size, units = MADE[name]
    async with fal(renderer=None) as it:
        answer = await result(it, endpoint_id, body)
        made = (await it.http.get(answer.json()["video"]["url"])).content
        (price,) = (await it.get(f"{it.urls.api}/models/pricing", endpoint_id=endpoint_id)).json()["prices"]

    with cast("Any", av.open(io.BytesIO(made))) as container:
        (pictures,) = container.streams.video
        assert float(container.duration / 1_000_000) == pytest.approx(seconds, abs=0.05)
        assert bool(container.streams.audio) is sound
        assert (pictures.width, pictures.height) == size
    assert answer.headers["x-fal-billable-units"] == units
    assert price["unit"] == "seconds"
    assert answer.json().get("duration") == (seconds if endpoint_id == AVATAR else None)


async def test_a_voice_is_an_id_that_costs_a_call() -> None:
    async with fal() as it:
        answers = [await result(it, VOICE, {"voice_url": data}) for data in (speech(6), video(5, sound=True))]
        (price,) = (await it.get(f"{it.urls.api}/models/pricing", endpoint_id=VOICE)).json()["prices"]

    ids = [answer.json().pop("voice_id") for answer in answers]
    assert len(set(ids)) == 2
    assert all(one.isdigit() for one in ids)
    assert [answer.headers["x-fal-billable-units"] for answer in answers] == ["1", "1"]
    assert price == {"endpoint_id": VOICE, "unit_price": 0.007, "unit": "generations", "currency": "USD"}


async def test_the_body_of_every_endpoint_is_checked() -> None:
    async with fal() as it:
        for endpoint in load().endpoints:
            refused = await result(it, endpoint.endpoint_id, {"nonsense": 1})

            found = {(str(entry["loc"][-1]), entry["type"]) for entry in refused.json()["detail"]}
            missing = {(str(name), "missing") for name in items_of(endpoint.input_schema["required"])}
            assert (refused.status_code, found) == (422, missing | {("nonsense", "extra_forbidden")})
