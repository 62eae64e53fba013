"""An endpoint file derived from fal.ai's document: what is understood, what keeps fal.ai's name, what is refused."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kling_mcp.catalog import derive as module
from kling_mcp.catalog.derive import Derived, DeriveError, ListPrice, derive, plain_id
from kling_mcp.catalog.models import Catalog, load
from kling_mcp.catalog.openapi import schemas_of
from kling_mcp.catalog.plan import COMMON_ARGUMENTS, plan
from kling_mcp.errors import InvalidArguments
from tests.catalog.documents import KLING_4, document

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ID = "fal-ai/kling-video/v9/image-to-video"
PROMPT = {"type": "string", "required": True}
FIELDS: dict[str, dict[str, Any]] = {"prompt": PROMPT, "image_url": {"type": "string", "required": True}}
PRICE = ListPrice(Decimal("0.157"), "seconds", "USD")


def derived(fields: Mapping[str, Mapping[str, Any]], endpoint_id: str = ID, price: ListPrice | None = PRICE) -> Derived:
    return derive(endpoint_id, document(endpoint_id, fields), price, as_of="2026-11-25")


def test_kling_4_is_understood_as_far_as_it_is_known() -> None:
    it = derived(KLING_4["kling/v4/image-to-video"], "kling/v4/image-to-video")

    assert (it.endpoint.model, it.endpoint.mode) == ("kling-v4", "image-to-video")
    assert it.understood == (
        *("image (start_image_url)", "prompt", "shots (multi_prompt)", "end_image (end_image_url)", "duration"),
    )
    assert it.own == ("middle_image_urls: pictures.", "resolution: choice. 720p or 1080p (default 720p).")
    arguments = it.endpoint.arguments
    assert arguments["duration"].lengths == tuple(range(3, 31))
    assert arguments["middle_image_urls"].many
    assert arguments["shots"].items["duration"].lengths == tuple(range(1, 31))
    limits = arguments["image"].limits
    assert limits is not None
    assert (limits.max_bytes, limits.min_aspect_ratio) == (31_457_280, Decimal("0.4"))
    assert (it.endpoint.prices[0].usd_per_second, it.endpoint.tiers_known) == ({"flat": Decimal("0.157")}, False)
    assert any("twice the list price is held" in one for one in it.unknown)


MODES: list[tuple[str, dict[str, dict[str, Any]], str]] = [
    *((endpoint_id, fields, "") for endpoint_id, fields in KLING_4.items()),
    ("fal-ai/kling-video/v9/pro/image-to-video", FIELDS, "v9-pro image-to-video"),
    ("fal-ai/kling-video/v9/image-to-video", FIELDS, "v9 image-to-video"),
    ("fal-ai/other/v2/turbo", FIELDS, "fal-ai-other-v2-turbo image-to-video"),
    ("kling/v5", {"prompt": PROMPT}, "kling-v5 text-to-video"),
    (
        "fal-ai/kling-video/v1.6/pro/elements",
        {"prompt": PROMPT, "input_image_urls": {"type": "array", "required": True, "maxItems": 4}},
        "v1.6-pro-elements reference-to-video",
    ),
    (
        "fal-ai/kling-video/v1/pro/ai-avatar",
        {"image_url": PROMPT, "audio_url": PROMPT, "prompt": {"type": "string", "default": "."}},
        "v1-pro avatar",
    ),
    ("kling/sing", {"image_url": PROMPT, "audio_url": PROMPT}, "kling-sing avatar"),
    ("kling/talk", {"video_url": PROMPT, "audio_url": PROMPT}, "kling-talk lip-sync"),
    ("kling/say", {"video_url": PROMPT, "text": PROMPT, "voice_id": PROMPT}, "kling-say lip-sync"),
    ("kling/redo", {"video_url": PROMPT, "prompt": PROMPT}, "kling-redo edit"),
    ("kling/score", {**FIELDS, "audio_url": {"type": "string"}}, "kling-score image-to-video"),
    (
        "kling/move",
        {"image_url": PROMPT, "video_url": PROMPT, "character_orientation": {**PROMPT, "enum": ["image", "video"]}},
        "kling-move motion-control",
    ),
    ("fal-ai/kling-video/v2/create-voice", {"voice_url": PROMPT}, "v2 create-voice"),
]


@pytest.mark.parametrize(("endpoint_id", "fields", "name"), MODES, ids=[endpoint_id for endpoint_id, *_ in MODES])
def test_the_mode_is_found_by_the_id_or_by_the_required_inputs(
    endpoint_id: str, fields: dict[str, dict[str, Any]], name: str
) -> None:
    endpoint = derived(fields, endpoint_id).endpoint

    assert f"{endpoint.model} {endpoint.mode}" == (name or f"kling-v4 {endpoint_id.rpartition('/')[2]}")
    assert endpoint.order > max(one.order for one in load().endpoints)


NO_MODE: list[tuple[str, dict[str, dict[str, Any]], str]] = [
    (
        "fal-ai/kling-video/video-to-audio",
        {"video_url": PROMPT, "sound_effect_prompt": {"type": "string", "maxLength": 200}},
        "names no known mode, and its required inputs (video_url) fit none. An endpoint can be added that takes one of",
    ),
    ("kling/mask", {**FIELDS, "mask_url": PROMPT}, "required inputs (image_url, mask_url, prompt) fit none"),
    (ID, {"prompt": PROMPT}, "has no input that could be image, which image-to-video needs. Its inputs are prompt."),
    (
        "kling/v9/motion-control",
        {"image_url": PROMPT, "video_url": PROMPT},
        "has no input that could be orientation, which motion-control needs",
    ),
]


@pytest.mark.parametrize(("endpoint_id", "fields", "said"), NO_MODE)
def test_an_endpoint_that_fits_no_mode_is_refused_with_what_would_work(
    endpoint_id: str, fields: dict[str, dict[str, Any]], said: str
) -> None:
    with pytest.raises(DeriveError) as caught:
        derived(fields, endpoint_id)

    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


UNKNOWN: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # The field, and what its argument is.
    "seed": ({"type": "integer"}, {"kind": "number"}),
    "loop": ({"type": "boolean"}, {"kind": "flag"}),
    "style": ({"type": "string", "enum": ["a", "b"], "default": "b"}, {"kind": "choice", "default": "b"}),
    "fps": ({"type": "integer", "enum": [24, 30]}, {"kind": "choice"}),
    "note": ({"type": "string", "maxLength": 20}, {"kind": "text"}),
    "cover_image_url": ({"type": "string"}, {"kind": "picture"}),
    "depth_video_url": ({"type": "string"}, {"kind": "video"}),
    "music_url": ({"type": "string"}, {"kind": "audio"}),
    "key_frame_urls": ({"type": "array"}, {"kind": "picture", "many": True}),
    "guide_url": ({"type": "string", "description": "A video to follow."}, {"kind": "video"}),
    "hook_url": ({"type": "string", "description": "Where to report to."}, {"kind": "https_url"}),
    "backdrop": ({"type": "string", "ui": {"field": "image"}}, {"kind": "picture"}),
    "caption": ({"type": "string", "ui": {"field": "image"}, "maxLength": 20}, {"kind": "text"}),
    "words": ({"type": "array"}, {"kind": "text", "many": True}),
    "sizes": ({"type": "array", "items": {"type": "array", "items": {"type": "number"}}}, {"kind": "json"}),
    "size": ({"anyOf": [{"type": "string", "enum": ["hd"]}, {"type": "integer"}]}, {"kind": "json"}),
    "extras": ({"type": "object"}, {"kind": "json"}),
    "exact": ({"const": "yes"}, {"kind": "choice"}),
    "nothing": ({}, {"kind": "json"}),
}


@pytest.mark.parametrize(("name", "schema", "wanted"), [(name, *case) for name, case in UNKNOWN.items()], ids=UNKNOWN)
def test_an_unknown_field_keeps_its_name_and_is_read_by_its_type(
    name: str, schema: dict[str, Any], wanted: dict[str, Any]
) -> None:
    it = derived({**FIELDS, name: schema})

    argument = it.endpoint.arguments[name]
    assert {key: getattr(argument, key) for key in wanted} == wanted
    assert argument.field == name
    assert [one.partition(":")[0] for one in it.own] == [name]


def test_any_json_is_taken_as_it_stands_or_as_text_and_refused_with_its_place() -> None:
    box = {"type": "object", "properties": {"w": {"type": "integer"}}, "required": ["w"]}
    fields = {**FIELDS, "size": {"anyOf": [{"type": "string", "enum": ["hd"]}, box]}, "extras": {"type": "object"}}
    catalog = Catalog((*load().endpoints, derived(fields).endpoint))

    def body(**values: object) -> dict[str, object]:
        call = {"model": "v9", "image": "https://example.com/a.png", "prompt": "A door.", **values}
        return plan(catalog, "image_to_video", call).body

    assert body(size="hd")["size"] == "hd"
    assert body(size='{"w": 3}')["size"] == {"w": 3}
    assert body(extras={"": False, "b": [1]})["extras"] == {"": False, "b": [1]}
    assert body(extras='{"b": 1}')["extras"] == {"b": 1}
    with pytest.raises(InvalidArguments, match=r"size is \{.*\}; v9 does not accept that"):
        body(size={"w": "wide"})
    with pytest.raises(InvalidArguments, match=r'extras is "none of it"'):
        body(extras="none of it")


def test_an_unknown_object_is_read_member_by_member_also_through_references() -> None:
    it = derived(
        {
            **FIELDS,
            "cameras": {"type": "array"},
            "cameras[].pan": {"type": "number", "minimum": -10, "maximum": 10, "required": True},
            "cameras[].still_image_url": {"type": "string", "x-fal": {"max_file_size": 1000}},
            "cameras[].steps": {"type": "array"},
            "cameras[].steps[].zoom": {"type": "number"},
        }
    )

    cameras = it.endpoint.arguments["cameras"]
    assert (cameras.kind, cameras.many) == ("object", True)
    assert {name: item.kind for name, item in cameras.items.items()} == {
        "pan": "number",
        "still_image_url": "picture",
        "steps": "object",
    }
    assert cameras.items["pan"].required
    assert cameras.items["still_image_url"].limits is not None
    assert cameras.items["steps"].items["zoom"].kind == "number"


def test_a_field_with_the_name_of_an_argument_that_it_is_not_gets_another_name() -> None:
    it = derived({**FIELDS, "duration": {"type": "string", "enum": ["8s"]}, "model": {"type": "string"}}, price=None)

    assert {name: it.endpoint.arguments[name].field for name in ("fal_duration", "fal_model")} == {
        "fal_duration": "duration",
        "fal_model": "model",
    }


def test_the_names_that_are_not_free_are_the_programs_own() -> None:
    table = json.loads(Path(module.__file__).with_name("fields.json").read_bytes())

    assert {*COMMON_ARGUMENTS, "tool"} <= set(table["reserved"])


PRICES: list[tuple[ListPrice | None, dict[str, dict[str, Any]], str, str]] = [
    (ListPrice(Decimal("0.10"), "second", "USD"), {"duration": {"type": "string", "enum": ["5"]}}, "0.1 a second", ""),
    (ListPrice(Decimal("0.35"), "videos", "USD"), {}, "0.35 a call", ""),
    (None, {}, "", "its list price; it cannot run until its file has one."),
    (
        ListPrice(Decimal("0.10"), "seconds", "USD"),
        {},
        "",
        "fal.ai's is 0.1 USD for a unit (seconds), and its seconds are not known",
    ),
    (ListPrice(Decimal("0.10"), "credits", "USD"), {}, "", "fal.ai's is 0.1 USD for a unit (credits), which is not"),
    (ListPrice(Decimal("0.10"), "seconds", "EUR"), {}, "", "which is not understood"),
    (ListPrice(Decimal(0), "videos", "USD"), {}, "", "which is not understood"),
]


@pytest.mark.parametrize(("price", "fields", "found", "said"), PRICES)
def test_a_price_that_is_understood_is_in_the_file_and_any_other_is_said(
    price: ListPrice | None, fields: dict[str, dict[str, Any]], found: str, said: str
) -> None:
    it = derived({**FIELDS, **fields}, price=price)

    amounts = [
        f"{one.usd_per_call} a call" if one.usd_per_call else f"{one.rate('')} a second" for one in it.endpoint.prices
    ]
    assert amounts == ([found] if found else [])
    assert any(said in one for one in it.unknown)


def test_what_is_billed_by_its_inputs_has_a_longest_that_is_held() -> None:
    known = derived(KLING_4["kling/v4/video-to-video/edit"], "kling/v4/video-to-video/edit").endpoint
    unknown = derived({"image_url": PROMPT, "audio_url": PROMPT}, "kling/sing").endpoint

    assert [case.seconds_of for case in (*known.billed, *unknown.billed)] == [("video", "video"), ("audio",)]
    longest = [one.limits for one in (known.arguments["video"], unknown.arguments["audio"])]
    assert [one and one.max_seconds for one in longest] == [Decimal("30.05"), Decimal(300)]
    assert longest[0] is not None
    assert longest[0].min_fps == 23


def test_a_video_whose_seconds_may_be_billed_too_is_warned_of() -> None:
    endpoint = derived(KLING_4["kling/v4/reference-to-video"], "kling/v4/reference-to-video").endpoint
    call = {"model": "kling-v4", "prompt": "A door.", "video_urls": ["https://example.com/a.mp4"]}

    it = plan(Catalog((*load().endpoints, endpoint)), "reference_to_video", call)

    assert "What video_urls adds to the price is not known: the job may cost more than is held." in it.warnings


# ---- documents that cannot be used


def cycle() -> dict[str, Any]:
    return {"type": "object", "properties": {"again": {"$ref": "#/components/schemas/Again"}}, "required": ["again"]}


def changed(change: Callable[[dict[str, Any], dict[str, Any]], object]) -> dict[str, Any]:
    """A good document after *change*, which gets it and the schema of its request."""
    found = document(ID, FIELDS)
    request = next(schema for name, schema in found["components"]["schemas"].items() if name.endswith("Input"))
    change(found, request)
    return found


def properties(request: dict[str, Any], **more: Any) -> None:
    request["properties"].update(more)


BROKEN: dict[str, tuple[Callable[[dict[str, Any], dict[str, Any]], object], str]] = {
    "nothing": (lambda it, _: it.clear(), "has no schema of the request"),
    "no paths": (lambda it, _: it.update(paths=["x"]), "has no schema of the request"),
    "no components": (lambda it, _: it.pop("components"), "which is not in the document"),
    "a request that is a text": (lambda _, one: one.update(type="string", properties=None), "is no object with fields"),
    "no fields": (lambda _, one: one.update(properties={}, required=[]), "is no object with fields"),
    "a required field that is not there": (
        lambda _, one: one["required"].append("../../etc/passwd"),
        "it requires ../../etc/passwd, and has no such field",
    ),
    "a required field with no name for an argument": (
        lambda _, one: (properties(one, **{"a b": {"type": "string"}}), one["required"].append("a b")),
        "it requires a b, and an argument cannot have such a name",
    ),
    "a reference to elsewhere": (
        lambda _, one: properties(one, prompt={"$ref": "https://example.com/schema.json"}),
        "it requires prompt, and it refers to '', which is not in the document",
    ),
    "a reference to itself": (
        lambda it, one: (
            it["components"]["schemas"].update(Again={"$ref": "#/components/schemas/Again"}),
            properties(one, prompt={"$ref": "#/components/schemas/Again"}),
        ),
        "its references do not end",
    ),
    "a schema inside itself": (
        lambda it, one: (it["components"]["schemas"].update(Again=cycle()), properties(one, prompt=cycle())),
        "it requires again, and it requires again",
    ),
    "a schema that doubles": (
        lambda it, one: (
            it["components"]["schemas"].update(
                {
                    f"B{n}": {
                        "type": "object",
                        "properties": {name: {"$ref": f"#/components/schemas/B{n + 1}"} for name in "ab"},
                    }
                    for n in range(40)
                }
            ),
            properties(one, bomb={"$ref": "#/components/schemas/B0"}),
        ),
        "more than 1,000 schemas",
    ),
    "a document without end": (
        lambda it, _: it.update(note=["x" * 1000] * 1001),
        "is larger than 1,000,000 characters",
    ),
    "a document without bottom": (
        lambda it, _: it.update(note=json.loads("[" * 60 + "]" * 60)),
        "is nested deeper than 48 levels",
    ),
    "too many fields": (
        lambda _, one: properties(one, **{f"f{n}": {"type": "string"} for n in range(60)}),
        "it has more than 60 fields",
    ),
    "an answer without a video": (
        lambda it, _: next(one for name, one in it["components"]["schemas"].items() if name.endswith("Output")).update(
            properties={"image": {"type": "string"}}, required=["image"]
        ),
        "answers with no video, so its result could not be saved; its results are image.",
    ),
}


@pytest.mark.parametrize(("change", "said"), BROKEN.values(), ids=BROKEN)
def test_a_broken_document_is_refused_in_one_line(
    change: Callable[[dict[str, Any], dict[str, Any]], object], said: str
) -> None:
    with pytest.raises(DeriveError) as caught:
        derive(ID, changed(change), PRICE, as_of="2026-11-25")

    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(ID)


LEFT_OUT: dict[str, tuple[dict[str, Any], str]] = {
    "a/b": ({"type": "string"}, "an argument cannot have such a name"),
    "refers": ({"$ref": "#/components/schemas/Nobody"}, "which is not in the document"),
    "deep": (json.loads('{"items": ' * 20 + "{}" + "}" * 20), "it is nested too deeply"),
    "values": ({"enum": ["good", "bad\u202e"]}, "its list of values cannot be used"),
    "objects": ({"enum": [{}]}, "its list of values cannot be used"),
    "truth": (True, "it has no schema"),  # type: ignore[dict-item]
}


@pytest.mark.parametrize(("name", "schema", "why"), [(name, *case) for name, case in LEFT_OUT.items()], ids=LEFT_OUT)
def test_an_optional_field_that_cannot_be_used_is_left_out_and_said(
    name: str, schema: dict[str, Any], why: str
) -> None:
    it = derive(ID, changed(lambda _, one: properties(one, **{name: schema})), PRICE, as_of="2026-11-25")

    assert set(it.endpoint.arguments) == {"image", "prompt"}
    (said,) = it.left_out
    assert said.startswith(f"{name}: ")
    assert why in said


def test_texts_from_outside_are_one_short_visible_line_and_patterns_are_left_to_fal() -> None:
    text = "First\x1b[31m line\u200b.\n\nIgnore https://example.com " + "x" * 500
    field = {"type": "string", "description": text, "pattern": "(a+)+$", "default": "a\u202eb", "minLength": 2}
    it = derive(
        ID, changed(lambda _, one: properties(one, note=field)), PRICE, as_of="2026-11-25", title="T\n\x00" * 99
    )

    argument = it.endpoint.arguments["note"]
    assert argument.description.startswith("First line. Ignore xxx")
    assert len(argument.description) < 200
    assert set(argument.value_schema) == {"type", "description", "minLength"}
    assert it.endpoint.title.isprintable()
    assert len(it.endpoint.title) <= 80


IDS: list[tuple[str, str | None]] = [
    ("kling/v4/image-to-video", "kling/v4/image-to-video"),
    (" https://fal.ai/models/kling/v4/image-to-video/api?share=1 ", "kling/v4/image-to-video"),
    ("https://queue.fal.run/fal-ai/kling-video/v3/pro/image-to-video", "fal-ai/kling-video/v3/pro/image-to-video"),
    ("kling", None),
    ("../../etc/passwd", None),
    ("kling/../../x", None),
    ("kling/v4/..", None),
    ("kling\\v4", None),
    ("Kling/V4", None),
    ("kling/v4\nx", None),
    ("https://example.com/kling/v4", None),
    ("a/" * 200 + "b", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "endpoint_id"), IDS)
def test_only_an_id_of_an_endpoint_or_the_address_of_its_page_is_taken(text: str, endpoint_id: str | None) -> None:
    if endpoint_id is None:
        with pytest.raises(DeriveError, match="is not the id of an endpoint"):
            plain_id(text)
    else:
        assert plain_id(text) == endpoint_id


def test_the_requests_own_schema_is_the_one_that_its_operation_names() -> None:
    found = document(ID, FIELDS)
    found["components"]["schemas"] = {"ElementInput": {"type": "object"}, **found["components"]["schemas"]}

    request, result = schemas_of(ID, found)

    assert (str(request["$ref"])[-5:], str(result["$ref"])[-6:]) == ("Input", "Output")
    assert "Element" not in str(request["$ref"])
