"""What a caller may get wrong in the modes besides image-to-video, and the words that put it right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kling_mcp.catalog.models import load
from kling_mcp.catalog.plan import plan
from kling_mcp.errors import InvalidArguments, KlingError, UnknownModel

if TYPE_CHECKING:
    from kling_mcp.catalog.models import Tool

IMAGE, VIDEO, SOUND = "https://example.com/a.png", "https://example.com/a.mp4", "https://example.com/a.mp3"
FACE = {"frontal_image": IMAGE}
SHOTS = [{"prompt": "Wide.", "duration": 5}]
TEXT, REFERENCE, EDIT, MOTION = "text_to_video", "reference_to_video", "edit_video", "motion_control"
LIPS, AVATAR, VOICE, ESTIMATE = "lip_sync", "talking_avatar", "create_voice", "estimate_cost"
BASES: dict[Tool, dict[str, Any]] = {
    TEXT: {"prompt": "A vase."},
    REFERENCE: {"prompt": "A vase."},
    EDIT: {"video": VIDEO, "prompt": "Make it snow."},
    MOTION: {"image": IMAGE, "video": VIDEO, "orientation": "video"},
    LIPS: {"video": VIDEO, "audio": SOUND},
    AVATAR: {"image": IMAGE, "audio": SOUND},
    VOICE: {"sample": SOUND},
    ESTIMATE: {},
    "image_to_video": {"image": IMAGE, "prompt": "A vase."},
    "multi_shot_video": {"image": IMAGE, "shots": SHOTS},
}
NEW: dict[str, Any] = {"mode": "reference"}
SAID: dict[str, Any] = {"audio": None, "text": "Hello.", "voice": "uk_boy1"}
ANY_VIDEO = "an https URL, a path on this machine, a data: URI, or kling://jobs/{job_id}/video"
EDITORS, DANCERS = "o3-standard, o3-pro, o1-standard, o1-pro", "v3-standard, v3-pro, v2.6-standard, v2.6-pro"

CASES: list[tuple[Tool, dict[str, Any], str, tuple[str, ...]]] = [
    # From text alone
    (TEXT, {"prompt": None}, "prompt", ("prompt is empty; text_to_video needs it",)),
    (TEXT, {"prompt": "x" * 2501}, "prompt", ("2,501 characters", "up to 2,500")),
    (TEXT, {"duration": 16}, "duration", ("Allowed: 3 to 15 seconds",)),
    (TEXT, {"model": "v2.6-pro", "duration": 8}, "duration", ("5 or 10 seconds", "o3-standard")),
    (TEXT, {"aspect_ratio": "21:9"}, "aspect_ratio", ("Allowed: 16:9, 9:16, 1:1",)),
    (TEXT, {"ratio": "9:16"}, "ratio", ("The nearest is aspect_ratio",)),
    (TEXT, {"orientation": "9:16"}, "orientation", ("The nearest is aspect_ratio", "an argument of motion_control")),
    (TEXT, {"generate_audio": "loud"}, "generate_audio", ("true or false is expected",)),
    (TEXT, {"cfg_scale": 2, "model": "v3-pro"}, "cfg_scale", ("at least 0 and at most 1",)),
    (TEXT, {"end_image": IMAGE}, "end_image", ("text_to_video does not take end_image", "reference_to_video does")),
    (TEXT, {"images": [IMAGE]}, "images", ("reference_to_video does", "call reference_to_video")),
    (TEXT, {"shots": SHOTS}, "shots", ("multi_shot_video does", "call multi_shot_video")),
    (TEXT, {"model": "o1-standard"}, "model", ("o1-standard is for image_to_video, reference_to_video",)),
    (TEXT, {"model": "v2.6-standard"}, "model", ("The nearest is v2.6-pro.", "is for motion_control")),
    (TEXT, {"resolution": "4k"}, "resolution", ("the nearest are o3-4k, v3-4k.",)),
    # With references
    (REFERENCE, {"images": IMAGE}, "images", ("a list is expected", "7 at most")),
    (REFERENCE, {"images": [IMAGE] * 8}, "images", ("8 entries", "Give at most 7")),
    (REFERENCE, {"images": [VIDEO, 3]}, "images[1]", ("3; an https URL",)),
    (REFERENCE, {"elements": [{"voice_id": "v"}]}, "elements[0]", ("none of frontal_image, reference_images, video",)),
    (REFERENCE, {"elements": [{"video": "kling://jobs/kj_a/last-frame"}]}, "elements[0].video", ("kj_a/video",)),
    (REFERENCE, {"prompt": "@Image1"}, "prompt", ("the call has 0 in images", "add to images")),
    (REFERENCE, {"shots": SHOTS}, "shots", ("prompt and shots are both given", "Give either prompt or shots")),
    (REFERENCE, {"model": "o1-pro", "generate_audio": True}, "generate_audio", ("o1-pro makes no sound", "o3-pro")),
    (REFERENCE, {"model": "o1-pro", "duration": 12}, "duration", ("3 to 10 seconds", "o3-standard")),
    (REFERENCE, {"model": "v3-standard"}, "model", ("Models that it can use: o3-standard",)),
    (REFERENCE, {"reference_images": [IMAGE]}, "reference_images", ("The nearest is images.",)),
    (REFERENCE, {"video": VIDEO}, "video", ("reference_to_video does not take video; edit_video does",)),
    # Changing a video: the video
    (EDIT, {"video": None}, "video", ("video is empty; edit_video needs it", "3 to 15 s")),
    (EDIT, {"video": 5}, "video", ("5; an https URL", ANY_VIDEO)),
    (EDIT, {"video": [VIDEO]}, "video", (ANY_VIDEO,)),
    (EDIT, {"video": {"url": VIDEO}}, "video", (ANY_VIDEO,)),
    (EDIT, {"video": "kling://jobs/kj_abc/last-frame"}, "video", ("this is a picture", "kling://jobs/kj_abc/video is")),
    (EDIT, {"video": "data:image/png;base64,AAAA"}, "video", ("data:image/png (1 kB)", "a video is expected")),
    (EDIT, {"video_url": VIDEO}, "video_url", ("The nearest is video.",)),
    (EDIT, {"source_video": VIDEO}, "source_video", ("The nearest is video.",)),
    (EDIT, {"prompt": " "}, "prompt", ("prompt is empty; edit_video needs it",)),
    (EDIT, {"prompt": ["snow"]}, "prompt", ("a text is expected",)),
    # Changing a video: what is given besides
    (EDIT, {"images": [IMAGE] * 5}, "images", ("5 entries in all", "at most four", "Give at most 4")),
    (EDIT, {"images": [IMAGE] * 3, "elements": [FACE] * 2}, "images", ("5 entries in all", "Give at most 4")),
    (EDIT, {"elements": [FACE] * 5}, "elements", ("5 entries in all", "Give at most 4")),
    (EDIT, {"model": "o1-pro", "images": [IMAGE] * 5}, "images", ("Give at most 4",)),
    (EDIT, {"images": "a cat"}, "images", ("a list is expected", "4 at most")),
    (EDIT, {"images": ["kling://jobs/kj_abc/video"]}, "images[0]", ("kling://jobs/kj_abc/last-frame",)),
    (EDIT, {"image": IMAGE}, "image", ("The nearest is images.", "image is an argument of image_to_video")),
    (EDIT, {"image_urls": [IMAGE]}, "image_urls", ("The nearest is images.",)),
    (EDIT, {"elements": FACE}, "elements", ("a list is expected",)),
    (EDIT, {"elements": ["a cat"]}, "elements[0]", ("an object is expected", "frontal_image, reference_images")),
    (EDIT, {"elements": [{"video": VIDEO}]}, "elements[0].video", ("Allowed: frontal_image, reference_images",)),
    (EDIT, {"elements": [{**FACE, "voice_id": "v"}]}, "elements[0].voice_id", ("Allowed: frontal_image",)),
    (EDIT, {"elements": [{"reference_images": [IMAGE] * 4}]}, "elements[0].reference_images", ("Give at most 3",)),
    (EDIT, {"elements": [{}, FACE]}, "elements[0]", ("elements[0] is empty",)),
    (
        EDIT,
        {"model": "o1-pro", "elements": [{"reference_images": [IMAGE]}]},
        "elements[0].frontal_image",
        ("elements[0].frontal_image is missing", "Models that take it: o3-standard, o3-pro"),
    ),
    (EDIT, {"prompt": "@Video2"}, "prompt", ("the call has 1 in video", "Allowed here: @Video1")),
    (EDIT, {"prompt": "@Image1"}, "prompt", ("the call has 0 in images",)),
    (EDIT, {"prompt": "@Image2", "images": [IMAGE]}, "prompt", ("Allowed here: @Image1",)),
    (EDIT, {"prompt": "@Element1"}, "prompt", ("the call has 0 in elements",)),
    (EDIT, {"prompt": "<<<voice_1>>>"}, "prompt", ("takes nothing that it could name", "image_to_video")),
    # Changing a video: the sound, the length, and the rest
    (EDIT, {"keep_audio": "yes"}, "keep_audio", ("true or false is expected",)),
    (EDIT, {"keep_audio": 1}, "keep_audio", ("true or false is expected",)),
    (EDIT, {"keep_original_sound": True}, "keep_original_sound", ("The nearest is keep_audio.",)),
    (EDIT, {"sound": True}, "sound", ("The nearest is keep_audio.",)),
    (EDIT, {"generate_audio": True}, "generate_audio", ("keeps or drops the sound of its input, as keep_audio says",)),
    (EDIT, {"audio": SOUND}, "audio", ("edit_video does not take audio; lip_sync does",)),
    (EDIT, {"mode": "change"}, "mode", ("Allowed: edit, reference",)),
    (EDIT, {"mode": "references"}, "mode", ("The nearest is reference.",)),
    (EDIT, {"duration": 7}, "duration", ("With mode edit", "set mode to reference")),
    (EDIT, {"aspect_ratio": "1:1"}, "aspect_ratio", ("With mode edit", "set mode to reference")),
    (EDIT, {**NEW, "duration": 16}, "duration", ("3 to 15 seconds",)),
    (EDIT, {**NEW, "duration": "5s"}, "duration", ("whole number of seconds",)),
    (EDIT, {**NEW, "model": "o1-pro", "duration": 11}, "duration", ("3 to 10 seconds", "o3-standard, o3-pro")),
    (EDIT, {**NEW, "aspect_ratio": "4:3"}, "aspect_ratio", ("Allowed: auto, 16:9, 9:16, 1:1",)),
    (EDIT, {**NEW, "aspect_ratio": "16x9"}, "aspect_ratio", ("The nearest is 16:9.",)),
    (EDIT, {**NEW, "shots": SHOTS}, "shots", ("edit_video does not take shots",)),
    (EDIT, {"shot_type": "auto"}, "shot_type", ("Allowed: customize, intelligent",)),
    (EDIT, {"model": "o1-pro", "shot_type": "intelligent"}, "shot_type", ("takes it: o3-standard, o3-pro.",)),
    (EDIT, {"orientation": "video"}, "orientation", ("motion_control does", "call motion_control")),
    (EDIT, {"negative_prompt": "blur"}, "negative_prompt", ("edit_video does not take negative_prompt",)),
    (EDIT, {"strength": 0.5}, "strength", ("Arguments of edit_video with o3-standard: video, prompt, images",)),
    (EDIT, {"model": "v3-pro"}, "model", ("which edit_video cannot use", EDITORS)),
    (EDIT, {"model": "o3-4k"}, "model", ("The nearest is o3-standard.", EDITORS)),
    (EDIT, {"model": "kling o1"}, "model", ("The nearest is o1-standard.", EDITORS)),
    (EDIT, {"model": "fal-ai/kling-video/o1/video-to-video/edit"}, "model", ("The nearest is o1-pro.",)),
    # A person moves as in a video
    (MOTION, {"image": None}, "image", ("image is empty; motion_control needs it",)),
    (MOTION, {"video": None}, "video", ("video is empty; motion_control needs it",)),
    (MOTION, {"orientation": None}, "orientation", ("orientation is empty", "up to 10 s", "up to 30 s")),
    (MOTION, {"orientation": "left"}, "orientation", ("Allowed: image, video",)),
    (MOTION, {"orientation": "vide"}, "orientation", ("The nearest is video.",)),
    (MOTION, {"character_orientation": "video"}, "character_orientation", ("The nearest is orientation.",)),
    (MOTION, {"image": "kling://jobs/kj_abc/video"}, "image", ("kling://jobs/kj_abc/last-frame",)),
    (MOTION, {"images": [IMAGE]}, "images", ("The nearest is image.", "reference_to_video")),
    (MOTION, {"reference_video": VIDEO}, "reference_video", ("The nearest is video.",)),
    (MOTION, {"elements": [FACE, FACE]}, "elements", ("2 entries", "Motion control takes one", "Give at most 1")),
    (MOTION, {"orientation": "image", "elements": [FACE]}, "orientation", ("elements needs orientation to be video",)),
    (MOTION, {"model": "v2.6-pro", "elements": [FACE]}, "elements", ("takes it: v3-standard, v3-pro.",)),
    (MOTION, {"elements": [{"video": VIDEO}]}, "elements[0].video", ("Allowed: frontal_image, reference_images",)),
    (MOTION, {"prompt": "@Element1 dances"}, "prompt", ("the call has 0 in elements",)),
    (MOTION, {"model": "v2.6-pro", "prompt": "@Element1"}, "prompt", ("a model that takes it: v3-standard, v3-pro",)),
    (MOTION, {"prompt": "x" * 2501}, "prompt", ("2,501 characters",)),
    (MOTION, {"keep_audio": "no"}, "keep_audio", ("true or false is expected",)),
    (MOTION, {"duration": 7}, "duration", ("makes a video that is as long as video",)),
    (MOTION, {"mode": "pro"}, "mode", ("the nearest are v3-pro, v2.6-pro.",)),
    (MOTION, {"model": "v3-turbo-pro"}, "model", ("The nearest is v3-pro.", DANCERS)),
    (MOTION, {"model": "o3-standard"}, "model", ("which motion_control cannot use", DANCERS)),
    # A person in a video says something
    (LIPS, {"video": None}, "video", ("video is empty; lip_sync needs it",)),
    (LIPS, {"audio": None}, "audio", ("audio is empty; lip_sync needs it", "Or give text instead.")),
    (LIPS, {"audio": 5}, "audio", ("an https URL, a path on this machine, or a data: URI",)),
    (LIPS, {"audio": "data:image/png;base64,AA"}, "audio", ("this is a picture, and sound is expected",)),
    (LIPS, {"audio": "kling://jobs/kj_abc/last-frame"}, "audio", ("this is a picture, and sound is expected",)),
    (LIPS, {"audio": SOUND, "text": "Hello.", "voice": "uk_boy1"}, "audio", ("With text", "audio instead of text")),
    (LIPS, {"voice": "uk_boy1"}, "voice", ("With audio, lip_sync does not take voice", "text instead of audio")),
    (LIPS, {"voice_speed": 1.5}, "voice_speed", ("With audio", "text instead of audio")),
    (LIPS, {**SAID, "text": None}, "text", ("text is empty", "Up to 120 characters", "Or give audio instead.")),
    (LIPS, {**SAID, "text": "x" * 121}, "text", ("121 characters", "up to 120")),
    (LIPS, {**SAID, "text": ["a"]}, "text", ("a text is expected",)),
    (LIPS, {**SAID, "voice": None}, "voice", ("voice is empty; lip_sync needs it", "uk_boy1")),
    (LIPS, {**SAID, "voice": "uk_boy2"}, "voice", ("The nearest is uk_boy1.", "AOT")),
    (
        LIPS,
        {**SAID, "voice": "reader_en_m-v1"},
        "voice",
        ("voice is reader_en_m-v1", "not found", "Give another voice"),
    ),
    (LIPS, {**SAID, "voice_id": "uk_boy1"}, "voice_id", ("The nearest is voice.",)),
    (LIPS, {**SAID, "voice_language": "de"}, "voice_language", ("Allowed: zh, en",)),
    (LIPS, {**SAID, "voice_speed": 3}, "voice_speed", ("at least 0.8 and at most 2",)),
    (LIPS, {**SAID, "voice_speed": "fast"}, "voice_speed", ("a number is expected",)),
    (LIPS, {**SAID, "speed": 1.2}, "speed", ("The nearest is voice_speed.",)),
    (LIPS, {"speech": SOUND}, "speech", ("The nearest is audio.",)),
    (LIPS, {"prompt": "Hello."}, "prompt", ("The nearest is text",)),
    (LIPS, {"image": IMAGE}, "image", ("lip_sync does not take image; talking_avatar does",)),
    (LIPS, {"model": "avatar-pro"}, "model", ("Models that it can use: lipsync. avatar-pro is for talking_avatar",)),
    (LIPS, {"model": "lip-sync"}, "model", ("The nearest is lipsync.",)),
    # A person in a picture says something
    (AVATAR, {"image": None}, "image", ("image is empty; talking_avatar needs it",)),
    (AVATAR, {"audio": {}}, "audio", ("audio is empty; talking_avatar needs it", "Up to 300 s")),
    (AVATAR, {"audio": True}, "audio", ("true; an https URL",)),
    (AVATAR, {"image": "kling://jobs/kj_abc"}, "image", ("kling://jobs/kj_abc/last-frame",)),
    (AVATAR, {"portrait": IMAGE}, "portrait", ("The nearest is image.",)),
    (AVATAR, {"sound": SOUND}, "sound", ("The nearest is audio.",)),
    (AVATAR, {"text": "Hello."}, "text", ("text is an argument of lip_sync",)),
    (AVATAR, {"voice": "uk_boy1"}, "voice", ("talking_avatar does not take voice; lip_sync does",)),
    (AVATAR, {"video": VIDEO}, "video", ("talking_avatar does not take video; lip_sync does",)),
    (AVATAR, {"generate_audio": False}, "generate_audio", ("avatar-standard always makes sound",)),
    (AVATAR, {"duration": 7}, "duration", ("makes a video that is as long as audio",)),
    (AVATAR, {"prompt": "@Element1 nods"}, "prompt", ("avatar-standard takes nothing that it could name",)),
    (AVATAR, {"model": "ai-avatar/v2/pro"}, "model", ("The nearest is avatar-pro.",)),
    (AVATAR, {"model": "lipsync"}, "model", ("Models that it can use: avatar-standard, avatar-pro.",)),
    # A voice
    (VOICE, {"sample": None}, "sample", ("sample is empty; create_voice needs it", "5 to 30 s")),
    (VOICE, {"sample": [SOUND]}, "sample", ("an https URL, a path on this machine, or a data: URI",)),
    (VOICE, {"sample": "data:image/png;base64,AA"}, "sample", ("sound is expected",)),
    (VOICE, {"audio": SOUND}, "audio", ("The nearest is sample.",)),
    (VOICE, {"voice_url": SOUND}, "voice_url", ("The nearest is sample.",)),
    (VOICE, {"prompt": "Hello."}, "prompt", ("create_voice does not take prompt",)),
    (VOICE, {"model": "lipsync"}, "model", ("Models that it can use: create-voice.",)),
    # What it would cost
    (ESTIMATE, {"tool": "lipsync"}, "tool", ("The nearest is lip_sync.",)),
    (ESTIMATE, {"tool": MOTION, "duration": "long"}, "duration", ("as the length of video: 1 to 30 seconds",)),
    (ESTIMATE, {"tool": MOTION, "orientation": "image", "duration": 12}, "duration", ("1 to 10 seconds",)),
    (ESTIMATE, {"tool": AVATAR, "duration": 301}, "duration", ("as the length of audio: 1 to 300 seconds",)),
    (ESTIMATE, {"tool": LIPS, "duration": 0}, "duration", ("1 to 10 seconds",)),
    (ESTIMATE, {"tool": VOICE, "model": "o3-pro"}, "model", ("which create_voice cannot use",)),
    (ESTIMATE, {"tool": EDIT, "mode": "references"}, "mode", ("The nearest is reference.",)),
    # The new names where they do not belong
    ("image_to_video", {"audio": True}, "audio", ("The nearest is generate_audio", "an argument of lip_sync")),
    ("image_to_video", {"audio": SOUND}, "audio", ("image_to_video does not take audio; talking_avatar does",)),
    ("image_to_video", {"video": VIDEO}, "video", ("image_to_video does not take video",)),
    ("image_to_video", {"images": [IMAGE]}, "images", ("The nearest is image.", "reference_to_video")),
    ("image_to_video", {"images": [IMAGE] * 2}, "images", ("reference_to_video does",)),
    ("image_to_video", {"quality": "pro"}, "quality", ("v2.1-pro, v1.6-pro. Arguments",)),
    ("image_to_video", {"model": "v2.6-standard"}, "model", ("The nearest is v2.6-pro.", "is for motion_control")),
    ("multi_shot_video", {"model": "lipsync"}, "model", ("which multi_shot_video cannot use", "is for lip_sync")),
]


def test_the_table_has_at_least_120_mistakes_and_some_in_every_mode() -> None:
    assert len(CASES) >= 120
    assert {case[0] for case in CASES} == set(BASES)


@pytest.mark.parametrize(
    ("tool", "change", "field", "words"),
    CASES,
    ids=[f"{index}-{case[0]}-{case[2]}" for index, case in enumerate(CASES)],
)
def test_a_mistake_is_refused_with_its_place_its_value_and_what_would_work(
    tool: Tool, change: dict[str, Any], field: str, words: tuple[str, ...]
) -> None:
    call = {**BASES[tool], **change}

    with pytest.raises(KlingError) as caught:
        plan(load(), tool, call)

    error = caught.value
    assert isinstance(error, InvalidArguments | UnknownModel)
    assert error.field == field
    for word in (*words, "Nothing was charged."):
        assert word in str(error)
    assert len(str(error)) < 1400
    fault = next(fault for fault in error.faults if fault.path == field)
    assert fault.next_step
    given = call.get(field.partition("[")[0].partition(".")[0])
    if given and "is empty" not in fault.what and "is missing" not in fault.what:
        assert fault.value is not None


def test_what_a_refusal_allows_is_data_too() -> None:
    def fault(tool: Tool, change: dict[str, Any]) -> Any:
        with pytest.raises(KlingError) as caught:
            plan(load(), tool, {**BASES[tool], **change})
        (found,) = caught.value.faults
        return found

    assert fault(EDIT, {"images": [IMAGE] * 5}).allowed == ("up to 4 in all",)
    assert fault(EDIT, {"mode": "references"}).nearest == "reference"
    assert fault(EDIT, {"model": "o1-pro", "shot_type": "intelligent"}).models == ("o3-standard", "o3-pro")
    assert fault(MOTION, {"orientation": "left"}).allowed == ("image", "video")
    assert fault(MOTION, {"model": "v3-4k"}).nearest == "v3-standard"
    assert "reader_en_m-v1" not in fault(LIPS, {**SAID, "voice": "reader_en_m-v1"}).allowed
    assert len(fault(LIPS, {**SAID, "voice": "reader_en_m-v1"}).allowed) == 45
    assert len(fault(LIPS, {**SAID, "voice": "nobody"}).allowed) == 46
    assert fault(EDIT, {"generate_audio": False}).nearest == "keep_audio"
