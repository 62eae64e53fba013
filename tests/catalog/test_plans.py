"""Calls that are accepted, and the body that each endpoint gets."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from kling_mcp.catalog.models import load
from kling_mcp.catalog.plan import InputSlot, Shot, plan, wish
from kling_mcp.errors import InvalidArguments

if TYPE_CHECKING:
    from kling_mcp.catalog.models import Tool

IMAGE = "https://example.com/first.png"
ONE: dict[str, Any] = {"image": IMAGE, "prompt": "The camera circles the vase."}
SHOTS = [{"prompt": "Wide.", "duration": 5}, {"prompt": "Close.", "duration": 3}]
TWO: dict[str, Any] = {"image": IMAGE, "shots": SHOTS}
FACE = {"frontal_image": "/pictures/face.png", "reference_images": ["/pictures/left.png", "/pictures/right.png"]}
FACE_FIELDS = {"frontal_image_url": FACE["frontal_image"], "reference_image_urls": FACE["reference_images"]}
CLIP = {"video": "https://example.com/element.mp4"}
V3: dict[str, Any] = {**ONE, "model": "v3-standard"}
FILLED: dict[str, Any] = {
    "end_image": "",
    "shots": [],
    "shot_type": "customize",
    "negative_prompt": "blur, distort, and low quality",
    "cfg_scale": 0.5,
    "aspect_ratio": "16:9",
    "elements": [{"frontal_image": "", "reference_images": [], "video": "", "voice_id": ""}],
    "voice_ids": [],
    "take": 1,
    "wait_seconds": 0,
}
"""What a host sends whose models have to fill in every argument."""

MULTI_PROMPT = [{"prompt": "Wide.", "duration": "5"}, {"prompt": "Close.", "duration": "3"}]

BODIES: list[tuple[str, Tool, dict[str, Any], dict[str, Any]]] = [
    (
        "o3 sends the first frame as image_url, and length and sound explicitly",
        "image_to_video",
        ONE,
        {"image_url": IMAGE, "prompt": ONE["prompt"], "duration": "5", "generate_audio": False},
    ),
    (
        "v3 sends the first frame as start_image_url, and makes sound unless told not to",
        "image_to_video",
        {**ONE, "model": "v3-pro"},
        {"start_image_url": IMAGE, "prompt": ONE["prompt"], "duration": "5", "generate_audio": True},
    ),
    (
        "turbo has no switch for sound, so none is sent",
        "image_to_video",
        {**ONE, "model": "v3-turbo-pro", "duration": 3},
        {"image_url": IMAGE, "prompt": ONE["prompt"], "duration": "3"},
    ),
    (
        "o1 names its frames in the prompt",
        "image_to_video",
        {"model": "o1-pro", "image": IMAGE, "end_image": "b.png", "prompt": "From @Image1 to @Image2.", "duration": 10},
        {
            "start_image_url": IMAGE,
            "end_image_url": "b.png",
            "prompt": "From @Image1 to @Image2.",
            "duration": "10",
        },
    ),
    (
        "2.6 has voices, and names its frames as v3 does",
        "image_to_video",
        {"model": "v2.6-pro", "image": IMAGE, "end_image": "b.png", "prompt": "<<<voice_1>>>: hi.", "voice_ids": ["v"]},
        {
            "start_image_url": IMAGE,
            "end_image_url": "b.png",
            "prompt": "<<<voice_1>>>: hi.",
            "duration": "5",
            "generate_audio": True,
            "voice_ids": ["v"],
        },
    ),
    (
        "2.5 and older send the last frame as tail_image_url",
        "image_to_video",
        {**ONE, "model": "v2.1-pro", "end_image": "b.png", "duration": 10, "cfg_scale": 0.3},
        {
            "image_url": IMAGE,
            "tail_image_url": "b.png",
            "prompt": ONE["prompt"],
            "duration": "10",
            "cfg_scale": 0.3,
        },
    ),
    (
        "shots become multi_prompt with their sum and the default shot type",
        "multi_shot_video",
        TWO,
        {
            "image_url": IMAGE,
            "multi_prompt": MULTI_PROMPT,
            "duration": "8",
            "shot_type": "customize",
            "generate_audio": False,
        },
    ),
    (
        "turbo has no shot type, so none is sent",
        "multi_shot_video",
        {**TWO, "model": "v3-turbo-standard"},
        {"image_url": IMAGE, "multi_prompt": MULTI_PROMPT, "duration": "8"},
    ),
    (
        "text alone has a shape, and no picture",
        "text_to_video",
        {"prompt": "A vase.", "model": "v2.6-pro", "aspect_ratio": "9:16", "duration": "10", "cfg_scale": 0.3},
        {
            "prompt": "A vase.",
            "duration": "10",
            "aspect_ratio": "9:16",
            "generate_audio": True,
            "cfg_scale": 0.3,
        },
    ),
    (
        "shots without a picture are made from text alone",
        "multi_shot_video",
        {**TWO, "image": None, "aspect_ratio": "1:1"},
        {
            "multi_prompt": MULTI_PROMPT,
            "duration": "8",
            "shot_type": "customize",
            "generate_audio": False,
            "aspect_ratio": "1:1",
        },
    ),
    (
        "references stand beside a first and a last frame",
        "reference_to_video",
        {
            "prompt": "@Element1 in the style of @Image1.",
            "image": IMAGE,
            "end_image": "b.png",
            "images": ["c.png"],
            "elements": [{**FACE, "voice_id": "v"}, CLIP],
            "generate_audio": True,
        },
        {
            "prompt": "@Element1 in the style of @Image1.",
            "start_image_url": IMAGE,
            "end_image_url": "b.png",
            "image_urls": ["c.png"],
            "elements": [
                {**FACE_FIELDS, "voice_id": "v"},
                {"video_url": CLIP["video"]},
            ],
            "duration": "5",
            "generate_audio": True,
        },
    ),
    (
        "references with shots have their sum too",
        "reference_to_video",
        {**TWO, "images": ["c.png"], "image": None},
        {
            "multi_prompt": MULTI_PROMPT,
            "image_urls": ["c.png"],
            "duration": "8",
            "shot_type": "customize",
            "generate_audio": False,
        },
    ),
    (
        "o1 takes references, and neither frames nor sound",
        "reference_to_video",
        {"model": "o1-pro", "prompt": "@Element1 walks.", "elements": [FACE], "duration": 10},
        {
            "prompt": "@Element1 walks.",
            "elements": [FACE_FIELDS],
            "duration": "10",
        },
    ),
    (
        "a shot without a length has fal.ai's default, sent explicitly",
        "multi_shot_video",
        {**TWO, "shots": [{"prompt": "Wide."}], "shot_type": "intelligent", "generate_audio": True},
        {
            "image_url": IMAGE,
            "multi_prompt": [{"prompt": "Wide.", "duration": "5"}],
            "duration": "5",
            "shot_type": "intelligent",
            "generate_audio": True,
        },
    ),
    (
        "elements, voices and the rest get fal.ai's names",
        "image_to_video",
        {
            "model": "v3-standard",
            "image": IMAGE,
            "prompt": "@Element1 and @Element2 talk; <<<voice_1>>> answers.",
            "elements": [{**FACE, "voice_id": "a"}, CLIP],
            "voice_ids": [" b "],
            "negative_prompt": "blur",
            "cfg_scale": 0,
            "aspect_ratio": "9:16",
        },
        {
            "start_image_url": IMAGE,
            "prompt": "@Element1 and @Element2 talk; <<<voice_1>>> answers.",
            "duration": "5",
            "generate_audio": True,
            "negative_prompt": "blur",
            "cfg_scale": 0,
            "aspect_ratio": "9:16",
            "elements": [
                {
                    "frontal_image_url": "/pictures/face.png",
                    "reference_image_urls": ["/pictures/left.png", "/pictures/right.png"],
                    "voice_id": "a",
                },
                {"video_url": "https://example.com/element.mp4"},
            ],
            "voice_ids": ["b"],
        },
    ),
]


@pytest.mark.parametrize(("tool", "arguments", "body"), [case[1:] for case in BODIES], ids=[case[0] for case in BODIES])
def test_a_call_becomes_the_body_of_its_endpoint(tool: Tool, arguments: dict[str, Any], body: dict[str, Any]) -> None:
    assert body == plan(load(), tool, arguments).body


@pytest.mark.parametrize(
    ("tool", "arguments", "same_as"),
    [
        ("image_to_video", {**ONE, "duration": "7"}, {**ONE, "duration": 7}),
        ("image_to_video", {**ONE, "duration": " 07 "}, {**ONE, "duration": 7}),
        ("image_to_video", {**ONE, "duration": 7.0}, {**ONE, "duration": 7}),
        ("image_to_video", {**ONE, "model": " o3-standard "}, ONE),
        ("image_to_video", {**ONE, "model": "", "duration": None, "end_image": "", "generate_audio": None}, ONE),
        ("image_to_video", {**ONE, "take": "", "wait_seconds": None, "max_cost_usd": None}, ONE),
        ("image_to_video", {**ONE, "shots": None, "elements": [], "negative_prompt": "", "voice_ids": None}, ONE),
        ("image_to_video", {**ONE, "image": f" {IMAGE}\n"}, ONE),
        (
            "image_to_video",
            {**ONE, "model": "v3-pro", "cfg_scale": "0.25"},
            {**ONE, "model": "v3-pro", "cfg_scale": 0.25},
        ),
        (
            "image_to_video",
            {**ONE, "model": "v3-pro", "elements": "null", "negative_prompt": None, "cfg_scale": None},
            {**ONE, "model": "v3-pro"},
        ),
        (
            "image_to_video",
            {**ONE, "model": "v3-pro", "elements": json.dumps([FACE])},
            {**ONE, "model": "v3-pro", "elements": [FACE]},
        ),
        (
            "image_to_video",
            {**ONE, "model": "v3-pro", "elements": [{"reference_images": '["/a.png"]', "video": None}]},
            {**ONE, "model": "v3-pro", "elements": [{"reference_images": ["/a.png"]}]},
        ),
        ("multi_shot_video", {**TWO, "shots": json.dumps(SHOTS)}, TWO),
        ("multi_shot_video", {**TWO, "shots": [json.dumps(shot) for shot in SHOTS]}, TWO),
        ("multi_shot_video", {**TWO, "shots": [{"prompt": "Wide.", "duration": "5"}, SHOTS[1]]}, TWO),
        ("multi_shot_video", {**TWO, "shots": [{"prompt": "Wide.", "duration": None}, SHOTS[1]]}, TWO),
        ("multi_shot_video", {**TWO, "shot_type": "customize"}, TWO),
        ("multi_shot_video", {**TWO, "duration": None, "prompt": ""}, TWO),
        # Texts for other types, and other types for texts
        ("image_to_video", {**ONE, "duration": "7.0"}, {**ONE, "duration": 7}),
        ("image_to_video", {**ONE, "duration": '"7"'}, {**ONE, "duration": 7}),
        ("image_to_video", {**ONE, "generate_audio": "True"}, {**ONE, "generate_audio": True}),
        ("image_to_video", {**ONE, "generate_audio": " false "}, {**ONE, "generate_audio": False}),
        ("image_to_video", {**ONE, "prompt": 7.0}, {**ONE, "prompt": "7"}),
        ("image_to_video", {**V3, "voice_ids": [829]}, {**V3, "voice_ids": ["829"]}),
        ("multi_shot_video", {**TWO, "shots": json.dumps(json.dumps(SHOTS))}, TWO),
        # Names and ids in quotes, and texts in other forms
        ("image_to_video", {**ONE, "model": "`V3-Standard`"}, V3),
        ("image_to_video", {**V3, "voice_ids": ["`a`"]}, {**V3, "voice_ids": ["a"]}),
        ("image_to_video", {**ONE, "image": f"`{IMAGE}`"}, ONE),
        (
            "image_to_video",
            {**ONE, "image": "`kling://jobs/abc/last-frame`"},
            {**ONE, "image": "kling://jobs/abc/last-frame"},
        ),
        ("image_to_video", {**ONE, "prompt": " Cafe\u0301\r\n\ufeff"}, {**ONE, "prompt": "Caf\u00e9"}),
        ("image_to_video", {**ONE, "prompt": "\u2003\u200b\u2060Fox.\x00 \u2028"}, {**ONE, "prompt": "Fox."}),
        ("image_to_video", {**V3, "cfg_scale": "7e-1"}, {**V3, "cfg_scale": 0.7}),
        ("multi_shot_video", {**TWO, "shot_type": "Customize "}, TWO),
        # Words for nothing
        ("image_to_video", {**V3, "voice_ids": ["null"]}, V3),
        ("image_to_video", {**V3, "voice_ids": '["None"]'}, V3),
        ("image_to_video", {**V3, "voice_ids": ["a", "n/a"]}, {**V3, "voice_ids": ["a"]}),
        ("image_to_video", {**V3, "voice_ids": ["-", "NULL;", "<voice_id>", "Nothing", "#N/A"]}, V3),
        ("image_to_video", {**V3, "negative_prompt": "None", "cfg_scale": "NaN", "aspect_ratio": "Undefined"}, V3),
        ("image_to_video", {**V3, "elements": [{}]}, V3),
        ("image_to_video", {**V3, "elements": [{"frontal_image": "", "video": "null", "voice_id": "None"}]}, V3),
        ("image_to_video", {**V3, "elements": "[object Object]"}, V3),
        (
            "image_to_video",
            {**V3, "elements": [{**FACE, "voice_id": "None", "video": "undefined"}]},
            {**V3, "elements": [FACE]},
        ),
        (
            "image_to_video",
            {**V3, "elements": [{"reference_images": ["/a.png", "", "null"]}]},
            {**V3, "elements": [{"reference_images": ["/a.png"]}]},
        ),
        ("image_to_video", {**ONE, "take": "NaN", "max_cost_usd": "n/a", "wait_seconds": "null"}, ONE),
        ("multi_shot_video", {**TWO, "shots": [*SHOTS, None, "null"]}, TWO),
        # Every argument filled
        ("image_to_video", {**ONE, **FILLED, "generate_audio": False}, ONE),
        ("image_to_video", {**ONE, "model": "o1-pro", **FILLED, "generate_audio": False}, {**ONE, "model": "o1-pro"}),
        (
            "image_to_video",
            {**ONE, "model": "v3-turbo-pro", **FILLED, "generate_audio": True},
            {**ONE, "model": "v3-turbo-pro"},
        ),
        ("multi_shot_video", {**TWO, "duration": 8}, TWO),
        ("multi_shot_video", {**TWO, "duration": "5"}, TWO),
    ],
)
def test_what_hosts_write_differently_means_the_same(
    tool: Tool, arguments: dict[str, Any], same_as: dict[str, Any]
) -> None:
    assert plan(load(), tool, same_as).body == plan(load(), tool, arguments).body


def test_a_plan_says_what_sets_the_price() -> None:
    silent = plan(load(), "image_to_video", {**ONE, "duration": 9, "generate_audio": False})
    default = plan(load(), "image_to_video", {**ONE, "model": "v3-pro"})
    turbo = plan(load(), "image_to_video", {**ONE, "model": "v3-turbo-pro"})
    voices = plan(load(), "image_to_video", {**ONE, "model": "v3-standard", "voice_ids": ["a", "b"]})
    element = plan(load(), "image_to_video", {**ONE, "model": "v3-pro", "elements": [FACE, {**CLIP, "voice_id": "a"}]})

    def price_parts(it: Any) -> tuple[int, bool | None, bool]:
        return it.seconds, it.audio, it.voice

    assert price_parts(silent) == (9, False, False)
    assert price_parts(default) == (5, True, False)
    assert price_parts(turbo) == (5, None, False)
    assert price_parts(voices) == (5, True, True)
    assert price_parts(element) == (5, True, True)


def test_the_length_of_shots_is_their_sum() -> None:
    it = plan(load(), "multi_shot_video", TWO)

    assert (Shot("Wide.", 5), Shot("Close.", 3)) == it.shots
    assert it.seconds == 8


def test_six_shots_of_together_fifteen_seconds_are_accepted() -> None:
    six = [{"prompt": "x", "duration": seconds} for seconds in (1, 1, 1, 1, 1, 10)]

    assert plan(load(), "multi_shot_video", {**TWO, "shots": six}).seconds == 15


def test_every_picture_is_listed_with_its_place_and_its_limits() -> None:
    it = plan(
        load(),
        "image_to_video",
        {**ONE, "model": "v3-pro", "end_image": "kling://jobs/kj_1/last-frame", "elements": [CLIP, FACE]},
    )
    frame, element = it.endpoint.limits["frame"], it.endpoint.limits["element_picture"]

    assert it.pictures == (
        InputSlot("image", ("start_image_url",), IMAGE, frame),
        InputSlot("end_image", ("end_image_url",), "kling://jobs/kj_1/last-frame", frame),
        InputSlot("elements[1].frontal_image", ("elements", 1, "frontal_image_url"), "/pictures/face.png", element),
        InputSlot(
            "elements[1].reference_images[0]", ("elements", 1, "reference_image_urls", 0), "/pictures/left.png", element
        ),
        InputSlot(
            "elements[1].reference_images[1]",
            ("elements", 1, "reference_image_urls", 1),
            "/pictures/right.png",
            element,
        ),
    )
    assert element.max_bytes == 10 * 1024 * 1024
    assert not element.inferred


def test_a_picture_slot_points_at_its_value_in_the_body() -> None:
    it = plan(load(), "image_to_video", {**ONE, "model": "v3-pro", "elements": [FACE]})

    for slot in it.pictures:
        found: Any = it.body
        for step in slot.path:
            found = found[step]
        assert slot.value == found


def test_the_programs_own_arguments_stay_out_of_the_body() -> None:
    it = plan(load(), "image_to_video", {**ONE, "take": "2", "max_cost_usd": "1.50", "wait_seconds": 0})
    plain = plan(load(), "image_to_video", {**ONE, "max_cost_usd": 0.1})

    assert (2, Decimal("1.50"), 0) == (it.take, it.max_cost_usd, it.wait_seconds)
    assert (1, Decimal("0.1"), None) == (plain.take, plain.max_cost_usd, plain.wait_seconds)
    assert plain.body == it.body


@pytest.mark.parametrize(
    ("given", "waited"),
    [(46, 45), ("120", 45), (10**30, 45), (float("inf"), 45), (-1, 0), ("-5.0", 0), ("7.9", 7), ("null", None)],
)
def test_a_wait_that_is_too_long_is_the_longest(given: object, waited: int | None) -> None:
    assert plan(load(), "image_to_video", {**ONE, "wait_seconds": given}).wait_seconds == waited


WISHES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (V3, {**V3, "cfg_scale": 0.5}),
    (V3, {**V3, "cfg_scale": "0.50"}),
    (V3, {**V3, "aspect_ratio": "16:9", "negative_prompt": " blur, distort, and low quality\n"}),
    (V3, {**V3, "duration": 5, "generate_audio": True}),
    ({**V3, "cfg_scale": 1}, {**V3, "cfg_scale": 1.0}),
    (ONE, {**ONE, "prompt": f"\n{ONE['prompt']}  "}),
]


@pytest.mark.parametrize(("call", "same"), WISHES)
def test_the_same_wish_is_the_same_however_it_is_spelt(call: dict[str, Any], same: dict[str, Any]) -> None:
    assert spelt(call) == spelt(same)


@pytest.mark.parametrize(
    "change",
    [
        {"cfg_scale": 0.4},
        {"aspect_ratio": "1:1"},
        {"negative_prompt": "blur"},
        {"duration": 6},
        {"prompt": "The  camera"},
    ],
)
def test_another_wish_is_another(change: dict[str, Any]) -> None:
    assert spelt(V3) != spelt({**V3, **change})


def spelt(call: dict[str, Any]) -> str:
    it = plan(load(), "image_to_video", call)
    return json.dumps(wish(it.endpoint, it.body), sort_keys=True)


WARNINGS: list[tuple[Tool, dict[str, Any], tuple[str, ...]]] = [
    ("image_to_video", ONE, ()),
    ("multi_shot_video", TWO, ()),
    ("image_to_video", {**ONE, "cfg_scale": 0.5}, ("o3-standard does not take cfg_scale; 0.5 is its usual value",)),
    ("image_to_video", {**ONE, "model": "v3-turbo-pro", "generate_audio": "true"}, ("v3-turbo-pro always makes sou",)),
    ("image_to_video", {**ONE, "model": "o1-pro", "generate_audio": False}, ("o1-pro makes no sound",)),
    ("multi_shot_video", {**TWO, "duration": 5}, ("duration 5 was left out: the length is the sum of the shots, 8 s",)),
    ("multi_shot_video", {**TWO, "end_image": IMAGE}, ("end_image and shots are given together",)),
    ("multi_shot_video", {**TWO, "shots": [{"prompt": "x" * 513}]}, ("shots[0].prompt has 513 characters",)),
    ("multi_shot_video", {**TWO, "shots": [{"prompt": "x" * 512}]}, ()),
    ("image_to_video", {**ONE, "model": "v3-pro", "elements": [FACE] * 3}, ()),
    ("image_to_video", {**ONE, "model": "v3-pro", "elements": [FACE] * 4}, ("elements has 4 entries",)),
    (
        "image_to_video",
        {**ONE, "model": "v3-4k", "elements": [FACE, {"frontal_image": IMAGE}, CLIP]},
        ("elements[1] has frontal_image without reference_images.",),
    ),
    ("image_to_video", {**ONE, "model": "v3-pro", "elements": [{"reference_images": [IMAGE]}]}, ()),
    ("image_to_video", {**ONE, "model": "v3-pro", "elements": [{**FACE, **CLIP}]}, ("elements[0] has members of sev",)),
    ("image_to_video", {**ONE, "model": "v3-standard", "voice_ids": ["a"]}, ("voice_ids is in the older document",)),
    ("image_to_video", {**ONE, "model": "v3-standard", "aspect_ratio": "1:1"}, ("aspect_ratio is in the older doc",)),
    (
        "image_to_video",
        {**ONE, "model": "v3-pro", "prompt": "@element1 waves.", "elements": [FACE]},
        ("prompt says @element1; only @Element1 is read as a reference.",),
    ),
    ("text_to_video", {"prompt": "A vase.", "model": "v2.6-pro"}, ()),
    ("reference_to_video", {"prompt": "A vase.", "images": [IMAGE] * 7}, ()),
    (
        "reference_to_video",
        {"prompt": "A vase.", "images": [IMAGE] * 7, "image": IMAGE},
        ("image and images and elem",),
    ),
    (
        "reference_to_video",
        {"prompt": "A vase.", "elements": [CLIP]},
        ("No source says whether a video among the ele",),
    ),
    (
        "reference_to_video",
        {"prompt": "A vase.", "model": "o3-4k", "elements": [CLIP], "generate_audio": True},
        ("elements[0].video needs generate_audio to be false.",),
    ),
    (
        "reference_to_video",
        {"prompt": "A vase.", "model": "o1-pro", "elements": [{"frontal_image": IMAGE}]},
        ("elements[0] has frontal_image without reference_images.",),
    ),
    ("reference_to_video", {**TWO, "end_image": IMAGE}, ("end_image and shots are given together",)),
]


@pytest.mark.parametrize(("tool", "arguments", "starts"), WARNINGS)
def test_what_may_go_wrong_at_fal_is_a_warning_and_no_refusal(
    tool: Tool, arguments: dict[str, Any], starts: tuple[str, ...]
) -> None:
    warnings = plan(load(), tool, arguments).warnings

    assert len(starts) == len(warnings)
    for start, warning in zip(starts, warnings, strict=True):
        assert warning.startswith(start)


MISSING: list[tuple[dict[str, Any], tuple[str, ...], int]] = [
    ({}, ("image", "prompt"), 5),
    ({"duration": 12}, ("image", "prompt"), 12),
    ({"prompt": "x"}, ("image",), 5),
    (ONE, (), 5),
    ({"shots": SHOTS}, ("image",), 8),
    ({"shots": SHOTS, "duration": 8}, ("image",), 8),
    ({"shots": [{"duration": 4}, {}]}, ("image", "shots[0].prompt", "shots[1].prompt"), 9),
    ({"model": "o1-pro", "prompt": "From @Image1."}, ("image",), 5),
    ({"model": "v3-pro", "elements": [{"voice_id": "a"}]}, ("image", "prompt", "elements[0].frontal_image"), 5),
]


@pytest.mark.parametrize(("arguments", "missing", "seconds"), MISSING)
def test_an_estimate_needs_nothing_and_names_what_a_job_would_need(
    arguments: dict[str, Any], missing: tuple[str, ...], seconds: int
) -> None:
    it = plan(load(), "estimate_cost", arguments)

    assert (missing, seconds) == (it.missing, it.seconds)


@pytest.mark.parametrize(("tool", "arguments"), [("image_to_video", ONE), ("multi_shot_video", TWO)])
def test_an_estimate_shows_the_body_that_the_job_would_send(tool: Tool, arguments: dict[str, Any]) -> None:
    assert plan(load(), tool, arguments).body == plan(load(), "estimate_cost", arguments).body


@pytest.mark.parametrize(
    ("given", "name"),
    [("Anna", "Anna"), (" `Anna  Maria` ", "Anna Maria"), ("null", None), (None, None), ("voice 7", "voice 7")],
)
def test_the_name_of_a_new_voice_is_no_part_of_the_request(given: object, name: str | None) -> None:
    it = plan(load(), "create_voice", {"sample": "https://example.com/a.mp3", "name": given})

    assert it.name == name
    assert list(it.body) == ["voice_url"]


@pytest.mark.parametrize("given", ["829826751244537879", "kj_anna", "x" * 61, ["Anna"]])
def test_a_voice_is_not_called_what_could_be_an_id(given: object) -> None:
    with pytest.raises(InvalidArguments) as refused:
        plan(load(), "create_voice", {"sample": "https://example.com/a.mp3", "name": given})

    assert refused.value.field == "name"
