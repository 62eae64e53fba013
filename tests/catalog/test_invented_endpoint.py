"""A new Kling version is a new file: an endpoint that nobody has seen is planned and priced by the same code."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from kling_mcp.catalog.models import Catalog, load
from kling_mcp.catalog.plan import plan
from kling_mcp.catalog.pricing import quote
from kling_mcp.errors import InvalidArguments

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = "https://example.com/first.png"

INVENTED: dict[str, Any] = {
    "model": "v9-opera",
    "endpoint_id": "fal-ai/kling-video/v9/opera/image-to-video",
    "title": "Kling 9 Opera",
    "summary": "Sings.",
    "mode": "image-to-video",
    "order": 1,
    "sound": "switchable",
    "arguments": {
        "image": {
            "field": "stage_url",
            "kind": "picture",
            "required": True,
            "limits": "stage",
            "description": "Stage.",
        },
        "prompt": {"field": "libretto", "kind": "text", "description": "The libretto.", "tools": ["image_to_video"]},
        "shots": {
            "field": "acts",
            "kind": "shot",
            "many": True,
            "tools": ["multi_shot_video"],
            "description": "The acts.",
            "items": {
                "prompt": {"field": "libretto", "kind": "text", "required": True, "description": "Of this act."},
                "duration": {"field": "seconds", "kind": "length", "description": "Of this act."},
            },
        },
        "duration": {"field": "seconds", "kind": "length", "description": "Length."},
        "generate_audio": {"field": "orchestra", "kind": "sound", "description": "Orchestra."},
        "singers": {"field": "cast", "kind": "voice", "many": True, "description": "Singers."},
        "seed": {"field": "seed", "kind": "number", "description": "Seed."},
        "key": {"field": "key", "kind": "choice", "description": "Key.", "send_default_with": "singers"},
        "programme": {
            "field": "booklet",
            "kind": "object",
            "description": "The booklet.",
            "items": {"cover": {"field": "cover_url", "kind": "picture", "description": "Its cover."}},
        },
    },
    "rules": [
        {"kind": "exactly_one", "of": ["prompt", "shots"]},
        {"kind": "together", "of": ["seed", "singers"], "say": "Singers do not follow a seed."},
        {"kind": "text_length", "of": ["prompt"], "max": 20},
        {"kind": "needs", "of": ["singers[]"], "argument": "key", "value": "C"},
        {"kind": "given", "of": ["programme"], "say": "Booklets are out of print."},
        {"kind": "exactly_one", "level": "warn", "of": ["prompt", "seed"], "say": "A seed goes with acts."},
    ],
    "limits": {"stage": {"max_bytes": 1000, "formats": ["png"], "basis": "Invented."}},
    "prices": [
        {"as_of": "2030", "source": "poster", "usd_per_second": {"audio_off": "1", "audio_on": "3"}},
        {"as_of": "2031-05-01", "source": "website", "usd_per_second": {"audio_off": "2", "audio_on": "2.5"}},
    ],
    "timing": {"seconds": 60, "for_video_seconds": 20, "guess": True, "basis": "Invented."},
    "input_schema": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "stage_url": {"type": "string"},
            "libretto": {"type": "string", "pattern": "[a-m]"},
            "acts": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "libretto": {"type": "string", "pattern": "[a-m]"},
                        "seconds": {"type": "integer", "enum": [10, 20, 30], "default": 10},
                    },
                    "required": ["libretto"],
                    "additionalProperties": False,
                },
            },
            "seconds": {"type": "integer", "enum": [20, 40], "default": 20},
            "orchestra": {"type": "boolean", "default": False},
            "cast": {"type": "array", "items": {"type": "string"}},
            "seed": {"type": "integer"},
            "key": {"enum": ["C", 7], "default": "C"},
            "booklet": {"type": "object", "properties": {"cover_url": {"type": "string"}}},
        },
        "required": ["stage_url"],
        "additionalProperties": False,
        "minProperties": 4,
    },
    "output_schema": {"type": "object", "properties": {"video": {"type": "object"}}},
    "sources": ["poster", "website"],
    "conflicts": [],
    "notes": [],
}


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    (tmp_path / "v9-opera.json").write_text(json.dumps(INVENTED), encoding="utf-8")
    return load(tmp_path)


def test_it_is_listed_among_the_others_in_its_order(catalog: Catalog) -> None:
    assert catalog.models == ("v9-opera", *load().models)
    assert catalog.default is load().default
    assert catalog.model("v9-opera").expected_seconds(40) == 120


def test_a_single_shot_is_planned_and_priced(catalog: Catalog) -> None:
    it = plan(
        catalog,
        "image_to_video",
        {"model": "v9-opera", "image": IMAGE, "prompt": "An aria.", "duration": "40", "generate_audio": True},
    )
    cost = quote(it.endpoint, seconds=it.seconds, audio=it.audio, voice=it.voice)

    assert it.body == {"stage_url": IMAGE, "libretto": "An aria.", "seconds": 40, "orchestra": True}
    assert [(slot.argument, slot.path) for slot in it.pictures] == [("image", ("stage_url",))]
    assert (cost.estimated_usd, cost.ceiling_usd) == (Decimal("100.0"), Decimal(120))
    assert cost.basis == "40 s \N{MULTIPLICATION SIGN} $2.5/s (audio on); list price 2031-05-01, website"


def test_shots_are_planned_and_priced(catalog: Catalog) -> None:
    acts = [{"prompt": "A duel.", "duration": 30}, {"prompt": "A wedding."}]
    it = plan(catalog, "multi_shot_video", {"model": "v9-opera", "image": IMAGE, "shots": acts, "singers": ["Maria"]})
    cost = quote(it.endpoint, seconds=it.seconds, audio=it.audio, voice=it.voice)

    assert it.body == {
        "stage_url": IMAGE,
        "acts": [{"libretto": "A duel.", "seconds": 30}, {"libretto": "A wedding.", "seconds": 10}],
        "seconds": 40,
        "orchestra": False,
        "cast": ["Maria"],
        "key": "C",
    }
    # No tier for voices: they cost what sound costs.
    assert (it.voice, cost.estimated_usd, cost.ceiling_usd) == (True, Decimal(100), Decimal(120))


def test_an_object_that_is_no_list_is_read_also_from_json_text(catalog: Catalog) -> None:
    arguments = {"model": "v9-opera", "image": IMAGE, "prompt": "An aria.", "key": "7"}
    with pytest.raises(InvalidArguments, match=r"Booklets are out of print\.") as caught:
        plan(catalog, "image_to_video", {**arguments, "programme": '{"cover": "/cover.png"}'})
    assert caught.value.field == "programme"

    with pytest.raises(InvalidArguments, match="an object is expected"):
        plan(catalog, "image_to_video", {**arguments, "programme": "a booklet"})
    assert plan(catalog, "image_to_video", arguments).body["key"] == 7


BROKEN: list[tuple[dict[str, Any], str | None, str]] = [
    ({"prompt": None}, "prompt", "Neither prompt nor shots is given."),
    ({"prompt": "An aria of more than twenty"}, "prompt", "prompt has 27 characters."),
    ({"singers": ["Maria"], "key": 7}, "key", "singers[0] needs key to be C."),
    ({"singers": ["Maria"], "seed": 4}, "seed", "Singers do not follow a seed."),
    (
        {"seed": 4.5},
        "seed",
        "seed is 4.5; v9-opera does not accept that. Nothing was charged. Its schema asks for type",
    ),
    ({"prompt": "Zoo."}, "prompt", 'prompt is "Zoo."; v9-opera does not accept that.'),
    ({"duration": 30}, "duration", "Allowed: 20 or 40 seconds."),
]


@pytest.mark.parametrize(("change", "field", "said"), BROKEN)
def test_its_own_rules_and_schema_hold(catalog: Catalog, change: dict[str, Any], field: str, said: str) -> None:
    call = {"model": "v9-opera", "image": IMAGE, "prompt": "An aria.", **change}

    with pytest.raises(InvalidArguments) as caught:
        plan(catalog, "image_to_video", call)

    assert caught.value.field == field
    assert said in str(caught.value)


def test_what_only_its_schema_asks_is_refused_with_the_callers_path(catalog: Catalog) -> None:
    acts = [{"prompt": "A duel."}, {"prompt": "Out."}]

    with pytest.raises(InvalidArguments, match=r'shots\[1\]\.prompt is "Out\."') as caught:
        plan(catalog, "multi_shot_video", {"model": "v9-opera", "image": IMAGE, "shots": acts})

    assert caught.value.field == "shots[1].prompt"
    assert caught.value.allowed == ('pattern "[a-m]"',)


def test_a_demand_on_the_whole_request_is_refused_without_a_path(catalog: Catalog) -> None:
    with pytest.raises(InvalidArguments, match="The request is") as caught:
        plan(catalog, "estimate_cost", {"model": "v9-opera"})

    assert caught.value.field is None


def test_a_length_that_only_it_makes_names_it(catalog: Catalog) -> None:
    acts = [{"prompt": "A duel.", "duration": 10}, {"prompt": "A feast.", "duration": 10}]

    with pytest.raises(InvalidArguments, match=r"add up to 20 s.*Models that take it: v9-opera\."):
        plan(catalog, "multi_shot_video", {"image": IMAGE, "shots": acts})
