"""
The five published documents that the catalog must not contradict, as tables of facts.

Per document: fields with what it says of them, each price, each price example,
and each example request and answer. A field's default or values are None where
the document says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from kling_mcp.catalog.models import Endpoint, load
from kling_mcp.catalog.plan import plan
from kling_mcp.catalog.pricing import quote

FILES = "https://v3b.fal.media/files/b"
V3_FRAME = "https://storage.googleapis.com/falserverless/example_inputs/kling-v3/standard-i2v/start_image.png"
O3_FRAME = f"{FILES}/0a8cfd5a/8ABMp4n9rh3kfD2Rq8fHd_start_frame.png"
O1_FRAME = f"{FILES}/rabbit/NaslJIC7F2WodS6DFZRRJ.png"


@dataclass(frozen=True)
class Field:
    name: str
    type: str
    required: bool = False
    default: object = None
    values: tuple[str, ...] | None = None
    bounds: tuple[float, float] | None = None


@dataclass(frozen=True)
class Document:
    endpoint_id: str
    fields: tuple[Field, ...]
    requests: tuple[dict[str, Any], ...]
    answers: tuple[dict[str, Any], ...]
    rates: tuple[tuple[str, str], ...] = ()
    """Tier and US dollars per second."""
    examples: tuple[tuple[int, bool | None, bool, str], ...] = ()
    """Seconds, audio, voice control, US dollars."""
    closed: bool = True
    """Whether the document lists every field that the endpoint takes."""
    newer_values: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Values that newer documents add to those of this one."""
    expected_seconds: int | None = None
    """Measured for a clip of 5 seconds."""


def seconds(first: int, last: int) -> tuple[str, ...]:
    return tuple(str(number) for number in range(first, last + 1))


def answer(size: int, name: str, url: str) -> dict[str, Any]:
    return {"video": {"file_size": size, "file_name": name, "content_type": "video/mp4", "url": url}}


LONG = Field("duration", "string", default="5", values=seconds(3, 15))
SHOTS = Field("multi_prompt", "array")
SHOT_TYPE = Field("shot_type", "string", default="customize", values=("customize",))
NEWER = {"shot_type": ("intelligent",)}
START, END = "https://example.com/start-frame.png", "https://example.com/end-frame.png"

O3_STANDARD = Document(
    endpoint_id="fal-ai/kling-video/o3/standard/image-to-video",
    fields=(
        Field("image_url", "string", required=True),
        Field("prompt", "string"),
        Field("end_image_url", "string"),
        LONG,
        Field("generate_audio", "boolean"),
        SHOTS,
        Field("shot_type", "string", default="customize"),
    ),
    requests=(
        {
            "image_url": START,
            "end_image_url": END,
            "prompt": "A walk, seen from behind.",
            "duration": "10",
            "generate_audio": False,
        },
        {"image_url": START, "end_image_url": END, "prompt": "A door opens.", "duration": "5"},
        {
            "image_url": START,
            "multi_prompt": [{"prompt": "The gate.", "duration": "5"}, {"prompt": "The hand.", "duration": "5"}],
            "shot_type": "customize",
            "duration": "10",
        },
    ),
    answers=(answer(12037975, "output.mp4", "https://v3b.fal.media/files/x"),),
    rates=(("audio_off", "0.084"), ("audio_on", "0.112")),
    examples=(
        (5, True, False, "0.56"),
        (5, False, False, "0.42"),
        (15, False, False, "1.26"),
        (15, True, False, "1.68"),
    ),
    expected_seconds=94,
)
O3_STANDARD_ON_PRO = Document(
    # The comparison table of the same page; it also promises custom elements, which no schema of o3/pro has.
    endpoint_id="fal-ai/kling-video/o3/pro/image-to-video",
    fields=(),
    requests=(),
    answers=(),
    rates=(("audio_off", "0.112"), ("audio_on", "0.168")),
    examples=((5, True, False, "0.84"),),
    closed=False,
    expected_seconds=318,
)
V3_STANDARD = Document(
    endpoint_id="fal-ai/kling-video/v3/standard/image-to-video",
    fields=(
        Field("prompt", "string"),
        SHOTS,
        Field("start_image_url", "string", required=True),
        LONG,
        Field("generate_audio", "boolean", default=True),
        Field("end_image_url", "string"),
        Field("voice_ids", "array"),
        Field("elements", "array"),
        SHOT_TYPE,
        Field("aspect_ratio", "string", default="16:9", values=("16:9", "9:16", "1:1")),
        Field("negative_prompt", "string", default="blur, distort, and low quality"),
        Field("cfg_scale", "number", default=0.5, bounds=(0, 1)),
    ),
    requests=(
        {"start_image_url": V3_FRAME},
        {
            "prompt": "The camera orbits a vase.",
            "multi_prompt": None,
            "start_image_url": V3_FRAME,
            "duration": "12",
            "generate_audio": True,
            "elements": [
                {
                    "reference_image_urls": [f"{FILES}/0a8cfd62/psPCmzrD1y9vDgdyNfKAL_glasses_back.png"],
                    "frontal_image_url": f"{FILES}/0a8cfd5f/-kZL-ha3Iuelku5IHXC-A_glasses.png",
                },
                {"video_url": f"{FILES}/0a8cfd66/b03SOiQvKLlFx_jqdNZ9z_child_video.mp4"},
            ],
            "shot_type": "customize",
            "aspect_ratio": "16:9",
            "negative_prompt": "blur, distort, and low quality",
            "cfg_scale": 0.5,
        },
    ),
    answers=(answer(3149129, "out.mp4", V3_FRAME.replace("inputs", "outputs")),),
    rates=(("audio_off", "0.168"), ("audio_on", "0.252"), ("voice_control", "0.308")),
    examples=((5, True, True, "1.54"),),
    newer_values=NEWER,
)
O3_PRO = Document(
    endpoint_id="fal-ai/kling-video/o3/pro/image-to-video",
    fields=(
        Field("prompt", "string"),
        Field("image_url", "string", required=True),
        Field("end_image_url", "string"),
        LONG,
        Field("generate_audio", "boolean", default=False),
        SHOTS,
        SHOT_TYPE,
    ),
    requests=(
        {"image_url": O3_FRAME},
        {
            "prompt": "A walk, seen from behind.",
            "image_url": O3_FRAME,
            "end_image_url": f"{FILES}/0a8d0248/S415GcxackjjLKom6f3jq_VTImWrNO.png",
            "duration": "10",
            "multi_prompt": None,
            "shot_type": "customize",
        },
    ),
    answers=(answer(12037975, "output.mp4", f"{FILES}/0a8d0278/pgIO9yOXTFCTetKBsqDwX_output.mp4"),),
    newer_values=NEWER,
)
O3_4K = Document(
    endpoint_id="fal-ai/kling-video/o3/4k/image-to-video",
    fields=(
        Field("image_url", "string", required=True),
        Field("end_image_url", "string"),
        Field("prompt", "string"),
        SHOTS,
        LONG,
        Field("generate_audio", "boolean", default=False),
        Field("shot_type", "string", default="customize"),
    ),
    requests=(
        {"image_url": "...", "prompt": "A walk, seen from behind.", "duration": "5", "generate_audio": False},
        {"image_url": "...", "end_image_url": "...", "prompt": "A transition.", "duration": "10"},
        {
            "image_url": "...",
            "multi_prompt": [
                {"prompt": "Wide.", "duration": "3"},
                {"prompt": "Eyes.", "duration": "3"},
                {"prompt": "Sprint.", "duration": "4"},
            ],
            "shot_type": "customize",
            "generate_audio": True,
        },
        {"image_url": "..."},
        {"image_url": "...", "prompt": "A walk, seen from behind.", "duration": "5"},
    ),
    answers=(answer(12037975, "output.mp4", "https://v3b.fal.media/files/x"),),
    rates=(("audio_off", "0.42"), ("audio_on", "0.42")),
    examples=((5, False, False, "2.10"), (5, True, False, "2.10"), (10, True, False, "4.20")),
)
O1_STANDARD = Document(
    endpoint_id="fal-ai/kling-video/o1/standard/image-to-video",
    fields=(
        Field("prompt", "string", required=True),
        Field("start_image_url", "string", required=True),
        Field("end_image_url", "string"),
        Field("duration", "string", default="5", values=seconds(3, 10)),
    ),
    requests=(
        {"prompt": "Winter turns into spring.", "start_image_url": O1_FRAME},
        {
            "prompt": "Winter turns into spring.",
            "start_image_url": O1_FRAME,
            "end_image_url": f"{FILES}/tiger/BwHi22qoQnqaTNMMhe533.png",
            "duration": "5",
        },
    ),
    answers=(answer(27588984, "output.mp4", f"{FILES}/koala/knryyyGF3ZVyMMrGr77CL_output.mp4"),),
)
DOCUMENTS = {
    "o3-standard": O3_STANDARD,
    "o3-standard on o3-pro": O3_STANDARD_ON_PRO,
    "v3-standard": V3_STANDARD,
    "o3-pro": O3_PRO,
    "o3-4k": O3_4K,
    "o1-standard": O1_STANDARD,
}
every_document = pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)


def endpoint_of(document: Document) -> Endpoint:
    endpoint = load().by_endpoint_id(document.endpoint_id)
    assert endpoint is not None
    return endpoint


def properties(endpoint: Endpoint) -> dict[str, Any]:
    found: Any = endpoint.input_schema["properties"]
    return found


@every_document
def test_each_field_has_the_type_need_default_values_and_range_of_the_document(document: Document) -> None:
    endpoint = endpoint_of(document)
    required: Any = endpoint.input_schema["required"]

    for listed in document.fields:
        schema = properties(endpoint)[listed.name]
        types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        assert listed.type in types, listed.name
        assert listed.required is (listed.name in required), listed.name
        if listed.default is not None:
            assert listed.default == schema["default"], listed.name
        if listed.values is not None:
            newer = document.newer_values.get(listed.name, ())
            assert (*listed.values, *newer) == tuple(schema["enum"]), listed.name
        if listed.bounds is not None:
            assert listed.bounds == (schema["minimum"], schema["maximum"]), listed.name


@every_document
def test_the_endpoint_has_no_field_that_its_document_lacks(document: Document) -> None:
    if document.closed:
        assert {listed.name for listed in document.fields} == set(properties(endpoint_of(document)))


@every_document
def test_each_example_request_fits_the_schema(document: Document) -> None:
    validator = Draft202012Validator(dict(endpoint_of(document).input_schema))

    for request in document.requests:
        assert [error.message for error in validator.iter_errors(request)] == []


@every_document
def test_each_example_answer_fits_the_schema(document: Document) -> None:
    validator = Draft202012Validator(dict(endpoint_of(document).output_schema))

    for example in document.answers:
        assert [error.message for error in validator.iter_errors(example)] == []


@every_document
def test_each_rate_of_the_document_is_among_the_dated_prices(document: Document) -> None:
    prices = endpoint_of(document).prices

    for tier, rate in document.rates:
        assert Decimal(rate) in {price.rate(tier) for price in prices}


@every_document
def test_each_price_example_of_the_document_is_what_a_job_may_cost_at_most(document: Document) -> None:
    for length, audio, voice, usd in document.examples:
        assert Decimal(usd) == quote(endpoint_of(document), seconds=length, audio=audio, voice=voice).ceiling_usd


@every_document
def test_a_measured_time_is_what_a_five_second_clip_is_expected_to_take(document: Document) -> None:
    if document.expected_seconds is not None:
        endpoint = endpoint_of(document)
        assert document.expected_seconds == endpoint.expected_seconds(5)
        assert endpoint.timing is not None
        assert not endpoint.timing.guess


EXAMPLE_CALLS: list[tuple[Document, int, dict[str, Any]]] = [
    (O3_STANDARD, 0, {"image": START, "end_image": END, "duration": 10, "generate_audio": False}),
    (V3_STANDARD, 0, {"image": V3_FRAME}),
    (O1_STANDARD, 0, {"image": O1_FRAME}),
]


@pytest.mark.parametrize(("document", "index", "arguments"), EXAMPLE_CALLS)
def test_an_example_request_can_be_made_by_a_call(document: Document, index: int, arguments: dict[str, Any]) -> None:
    """Beside what the example leaves to fal.ai's defaults, which is sent explicitly."""
    request = document.requests[index]
    prompt = request.get("prompt", "Anything.")
    it = plan(load(), "image_to_video", {"model": endpoint_of(document).model, "prompt": prompt, **arguments})

    assert request.items() <= it.body.items()


def test_the_frames_of_o1_have_the_published_limits_and_the_last_frame_is_marked_as_inferred() -> None:
    limits = load().model("o1-standard").limits
    first, last = limits["first_frame"], limits["last_frame"]

    assert (first.max_bytes, first.min_width, first.min_height) == (10 * 1024 * 1024, 300, 300)
    assert (first.min_aspect_ratio, first.max_aspect_ratio) == (Decimal("0.40"), Decimal("2.50"))
    assert first.fetch_timeout_seconds == 20
    assert (first.inferred, last.inferred) == (False, True)


def test_the_upload_form_of_o3_names_the_picture_formats() -> None:
    assert load().model("o3-standard").limits["frame"].formats == ("jpeg", "png", "webp", "gif", "avif")


def test_two_voices_are_the_most_and_are_named_as_the_document_names_them() -> None:
    rules = load().model("v3-standard").rules

    assert [rule.max for rule in rules if rule.kind == "count" and rule.of == ("voice_ids[]",)] == [2]
    assert {"@Element{n}", "<<<voice_{n}>>>"} == {rule.marker for rule in rules if rule.kind == "reference"}


def test_o1_names_its_two_frames_as_the_document_names_them() -> None:
    (rule,) = [rule for rule in load().model("o1-standard").rules if rule.marker == "@Image{n}"]

    assert rule.counts == ("image", "end_image")
