"""The bundled files, and what is said of a file that cannot be used."""

from __future__ import annotations

import ast
import copy
import itertools
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import pytest
from jsonschema import Draft202012Validator

import kling_mcp.catalog
from kling_mcp.catalog.models import ArgumentKind, CatalogError, Endpoint, Mode, load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kling_mcp.catalog.models import Argument

FOLDER = Path(kling_mcp.catalog.__file__).parent
FILES = sorted((FOLDER / "endpoints").glob("*.json"))
MODELS = (
    *("o3-standard", "o3-pro", "o3-4k", "v3-standard", "v3-pro", "v3-4k"),
    *("v3-turbo-standard", "v3-turbo-pro", "o1-standard", "o1-pro", "v2.6-pro", "v2.5-turbo-standard"),
    *("v2.5-turbo-pro", "v2.1-standard", "v2.1-pro", "v2.1-master", "v1.6-standard", "v1.6-pro"),
)
OTHER_MODELS = ("v2.6-standard", "lipsync", "avatar-standard", "avatar-pro", "create-voice")
"""Those without image-to-video."""
MEASURED = (
    *("o3/standard/image-to-video", "o3/pro/image-to-video", "v3/standard/image-to-video", "v3/pro/image-to-video"),
    *("v2.6/pro/image-to-video", "v1.6/standard/image-to-video", "v3/pro/motion-control", "lipsync/audio-to-video"),
)
"""The endpoints whose time is known."""
MEDIA = ("picture", "video", "audio")
every_endpoint = pytest.mark.parametrize("endpoint", load().endpoints, ids=lambda it: it.endpoint_id)


def test_the_models_are_there_in_order_and_o3_standard_is_the_default() -> None:
    assert load().models == (*MODELS, *OTHER_MODELS)
    assert load().default.model == "o3-standard"
    assert tuple(endpoint.model for endpoint in load().of("image-to-video")) == MODELS


def test_a_file_is_named_after_its_model_and_mode_and_modes_are_shown_one_after_another() -> None:
    named = sorted(f"{it.model}.{it.mode}{f'-{it.when}' if it.when else ''}.json" for it in load().endpoints)
    assert named == [file.name for file in FILES]
    modes = [endpoint.mode for endpoint in load().endpoints]
    assert len(list(itertools.groupby(modes))) == len(set(modes))


def test_a_model_is_named_after_its_endpoint() -> None:
    for endpoint in load().endpoints:
        short = endpoint.endpoint_id.removeprefix("fal-ai/kling-video/").replace("ai-avatar/v2/", "avatar/")
        short = re.sub(r"/([a-z]+-to-video(/edit|/reference)?|motion-control)$", "", short)
        # fal.ai's id of the dearer o1 has no tier in it.
        assert endpoint.model == {"o1": "o1-pro"}.get(short, short.replace("/", "-"))


def test_an_endpoint_is_found_by_its_id() -> None:
    for endpoint in load().endpoints:
        assert load().by_endpoint_id(endpoint.endpoint_id) is endpoint
    assert load().by_endpoint_id("fal-ai/kling-video/v9/image-to-video") is None


def test_the_bundled_catalog_is_read_once() -> None:
    assert load() is load()


@every_endpoint
def test_schemas_are_valid_and_stand_alone(endpoint: Endpoint) -> None:
    for schema in (endpoint.input_schema, endpoint.output_schema):
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        Draft202012Validator.check_schema(dict(schema))
        assert not [node for node in objects(schema) if "$ref" in node]
    for node in objects(endpoint.input_schema):
        if node.get("type") == "object":
            assert node["additionalProperties"] is False


@every_endpoint
def test_every_field_of_the_schema_can_be_reached_by_an_argument_and_is_described(endpoint: Endpoint) -> None:
    def fields(arguments: Any) -> list[str]:
        return sorted(name for it in arguments.values() for name in (it.field, *fields(it.items)))

    assert fields(endpoint.arguments) == sorted(field_names(endpoint.input_schema))
    assert all(
        property_["description"] for node in objects(endpoint.input_schema) for property_ in properties(node).values()
    )


@every_endpoint
def test_prices_are_dated_and_sourced_and_the_newest_comes_last(endpoint: Endpoint) -> None:
    assert [price.as_of for price in endpoint.prices] == sorted(price.as_of for price in endpoint.prices)
    assert all(price.source for price in endpoint.prices)
    assert endpoint.sources


@every_endpoint
def test_a_time_that_nobody_measured_is_marked_as_a_guess(endpoint: Endpoint) -> None:
    if endpoint.timing is None:
        assert endpoint.expected_seconds(5) is None
    else:
        assert endpoint.timing.guess is (endpoint.endpoint_id.removeprefix("fal-ai/kling-video/") not in MEASURED)
        assert endpoint.expected_seconds(2 * endpoint.timing.for_video_seconds) == 2 * endpoint.timing.seconds


@every_endpoint
def test_every_picture_video_and_sound_has_limits_with_a_reason(endpoint: Endpoint) -> None:
    def media(arguments: Any) -> list[Argument]:
        return [one for it in arguments.values() for one in ([it] if it.kind in MEDIA else media(it.items))]

    given = media(endpoint.arguments)

    assert bool(given) is (endpoint.mode != "text-to-video")
    assert all(it.limits is not None and it.limits.basis for it in given)
    assert all(limits.inferred is ("nferred" in limits.basis) for limits in endpoint.limits.values())


def test_the_same_argument_reads_alike_on_every_model_of_a_mode() -> None:
    kinds: dict[tuple[str, ...], set[tuple[Any, ...]]] = {}
    for endpoint in load().endpoints:
        for it in endpoint.arguments.values():
            kinds.setdefault((it.name,), set()).add((it.kind, it.many))
            kinds.setdefault((endpoint.mode, it.name), set()).add((it.required, it.tools, tuple(it.items)))

    # O1 takes no shots in place of the prompt, and elements as pictures only.
    assert {name for name, found in kinds.items() if len(found) != 1} == {
        ("reference-to-video", "prompt"),
        ("reference-to-video", "elements"),
    }


def test_no_field_value_or_price_of_an_endpoint_stands_in_python() -> None:
    """
    A field, a listed value, a default, an id, a model or a price belongs to a data file.

    Names with an underscore are looked for inside longer texts as well, the others as whole texts. Words of this
    program's own, such as the kinds of arguments, and a dot are no sign of an endpoint.
    """
    data = set[str]()
    for endpoint in load().endpoints:
        schemas = list(objects(endpoint.input_schema))
        data |= set(field_names(endpoint.input_schema)) | {endpoint.model, endpoint.endpoint_id}
        data |= {str(value) for node in schemas for value in node.get("enum", [])}
        data |= {node["default"] for node in schemas if isinstance(node.get("default"), str)}
        data |= {rule.marker for rule in endpoint.rules if rule.marker}
        data |= {str(rate) for price in endpoint.prices for rate in price.usd_per_second.values()}
    assert {"multi_prompt", "start_image_url", "customize", "16:9", "15", "0.308", "@Element{n}"} <= data
    data -= {".", *get_args(ArgumentKind), *get_args(Mode)}
    parts = {name for name in data if "_" in name}

    found = [
        (file.name, text, name)
        for file in sorted(FOLDER.glob("*.py"))
        for text in texts(file)
        for name in data
        if text == name or (name in parts and re.search(rf"\b{re.escape(name)}\b", text))
    ]

    assert found == []


def test_no_number_of_an_endpoint_stands_in_python() -> None:
    """Not the prompt's 2,500 characters, the shot's 512, the 10 MiB, 94 s or 318 s."""
    data = {2500, 512, 10 * 1024 * 1024, 50 * 1024 * 1024, 300, 94, 318, 15}

    found = {
        (file.name, node.value)
        for file in sorted(FOLDER.glob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and type(node.value) in (int, float) and node.value in data
    }

    assert found == set()


O1 = cast("dict[str, Any]", json.loads((FOLDER / "endpoints" / "o1-pro.image-to-video.json").read_bytes()))
V3 = cast("dict[str, Any]", json.loads((FOLDER / "endpoints" / "v3-standard.image-to-video.json").read_bytes()))
DROP = object()

WRONG: list[tuple[str, dict[str, Any], tuple[str | int, ...], object, str]] = [
    # what is wrong, the file, the place, the value there, and what is said
    ("the file", O1, (), [], "the file: an object expected, found []"),
    ("a name that nobody reads", O1, ("prise",), 1, "prise: unknown name; known are model"),
    ("no model", O1, ("model",), DROP, "model: is missing"),
    ("a model with a space", O1, ("model",), "o9 pro", "model: a text like"),
    ("a number for a model", O1, ("model",), 9, "model: a text expected, found 9"),
    ("an id that is no path", O1, ("endpoint_id",), "kling", "endpoint_id: a text like"),
    ("an unknown mode", O1, ("mode",), "dream-to-video", "mode: one of image-to-video, text-to-video"),
    ("an unknown sound", O1, ("sound",), "loud", "sound: one of switchable, always, none, kept, unknown expected"),
    ("an order below zero", O1, ("order",), -1, "order: a whole number expected"),
    ("an order of true", O1, ("order",), True, "order: a whole number expected"),
    ("a default that is a text", O1, ("default",), "yes", "default: true or false expected"),
    ("prices as an object", O1, ("prices",), {}, "prices: a list expected"),
    ("a price without a date", O1, ("prices", 0, "as_of"), "May", "prices[0].as_of: a text like"),
    ("a price as a float", O1, ("prices", 0, "usd_per_second", "flat"), 0.1, "usd_per_second.flat: a text expected"),
    ("a price in words", O1, ("prices", 0, "usd_per_second", "flat"), "ten", "flat: a decimal number as text expected"),
    ("a price of nothing", O1, ("prices", 0, "usd_per_second", "flat"), "0", "flat: a number above zero as text"),
    ("a price that is no number", O1, ("prices", 0, "usd_per_second", "flat"), "NaN", "flat: a number above zero"),
    ("a flat price with a tier", O1, ("prices", 0, "usd_per_second", "audio_on"), "1", "flat alone, or audio_off"),
    ("half of the tiers", V3, ("prices", 0, "usd_per_second", "audio_on"), DROP, "flat alone, or audio_off"),
    ("an unknown tier", V3, ("prices", 0, "usd_per_second", "hd"), "1", "usd_per_second: flat alone, or audio_off"),
    ("an unknown kind of rule", O1, ("rules", 0, "kind"), "maybe", "rules[0].kind: one of exactly_one, count"),
    ("an unknown level of a rule", O1, ("rules", 0, "level"), "shout", "rules[0].level: one of refuse, warn"),
    ("a rule on no argument", O1, ("rules", 0, "of"), ["promt"], "rules[0]: promt names no argument"),
    ("a rule on no path", O1, ("rules", 0, "of"), ["prompt[0]"], "rules[0]: prompt[0] names no argument"),
    ("a rule that counts no list", O1, ("rules", 0, "counts"), ["image[]"], "rules[0]: image[] takes image for a list"),
    ("a rule on an item of no list", V3, ("rules", 0, "of"), ["prompt.x"], "rules[0]: prompt.x names no argument"),
    ("a marker without a number", O1, ("rules", 0, "marker"), "@Image", "rules[0].marker: a text with {n} expected"),
    ("a count without a number", V3, ("rules", 1, "max"), DROP, "rules[1].max: a whole number expected"),
    ("a need without a value", V3, ("rules", 11, "value"), DROP, "rules[11]: an argument and its value expected"),
    ("an unknown field", O1, ("arguments", "image", "field"), "picture", "arguments.image.field: one of prompt"),
    ("an unknown kind", O1, ("arguments", "image", "kind"), "photo", "arguments.image.kind: one of picture"),
    ("an unknown tool", O1, ("arguments", "prompt", "tools"), ["sing"], "prompt.tools[0]: one of image_to_video"),
    ("unknown limits", O1, ("arguments", "image", "limits"), "frame", "limits: one of first_frame, last_frame"),
    ("a required field without an argument", O1, ("arguments", "image", "required"), False, "start_image_url"),
    ("a choice without values", O1, ("arguments", "prompt", "kind"), "choice", "prompt lists no values"),
    ("a sound without a default", O1, ("arguments", "prompt", "kind"), "sound", "no default of true or false"),
    ("no length", O1, ("arguments", "duration"), DROP, "billed: it must say what is paid for"),
    ("a length in words", O1, ("input_schema", "properties", "duration", "enum"), ["a"], "values that are not seconds"),
    ("a default that is no length", O1, ("input_schema", "properties", "duration", "default"), "11", "a default that"),
    ("a default that is not there", O1, ("arguments", "prompt", "send_default_with"), "image", "no default to send"),
    ("shots without a length", V3, ("arguments", "shots", "items", "duration"), DROP, "of kind text and length"),
    ("two kinds of shots", V3, ("arguments", "elements", "kind"), "shot", "of kind text and length"),
    ("two switches", V3, ("arguments", "sound"), V3["arguments"]["generate_audio"], "at most one argument"),
    ("a schema of a list", O1, ("input_schema", "type"), "array", "input_schema.type: one of object expected"),
    ("a schema without properties", O1, ("output_schema", "properties"), DROP, "properties: an object expected"),
    ("a limit that is a float", O1, ("limits", "first_frame", "max_bytes"), 1.5, "max_bytes: a whole number expected"),
    ("an unknown limit", O1, ("limits", "first_frame", "weight"), 1, "limits.first_frame.weight: unknown name"),
    ("a time in words", O1, ("timing", "seconds"), "long", "timing.seconds: a whole number expected"),
    ("a time for no video", O1, ("timing", "for_video_seconds"), 0, "timing.for_video_seconds: a whole number"),
    (
        "an unknown name in a price",
        O1,
        ("prices", 0, "usd"),
        "1",
        "prices[0].usd: unknown name; known are as_of, source",
    ),
    ("items of a text", O1, ("arguments", "prompt", "items"), V3["arguments"]["elements"]["items"], "field: one of"),
    ("a conflict in words", O1, ("conflicts",), ["none"], "conflicts[0]: an object expected"),
]


@pytest.mark.parametrize(("base", "place", "value", "said"), [case[1:] for case in WRONG], ids=[it[0] for it in WRONG])
def test_a_file_that_cannot_be_used_is_named_with_the_place_in_it(
    base: dict[str, Any], place: tuple[str | int, ...], value: object, said: str, tmp_path: Path
) -> None:
    (tmp_path / "new.json").write_text(json.dumps(changed(base, place, value)), encoding="utf-8")

    with pytest.raises(CatalogError) as caught:
        load(tmp_path)

    assert str(caught.value).startswith("new.json: ")
    assert said in str(caught.value)


def test_a_file_that_is_not_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")

    with pytest.raises(CatalogError, match=r"^broken\.json: not JSON"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"endpoint_id": "fal-ai/kling-video/o9/image-to-video"},
            "two endpoint files have model and mode o1-pro image-to-video",
        ),
        ({"model": "o9-pro"}, "two endpoint files have endpoint_id fal-ai/kling-video/o1/image-to-video"),
        (
            {"model": "o9-pro", "endpoint_id": "fal-ai/kling-video/o9/image-to-video", "default": True},
            "exactly one endpoint file must say that it is the default",
        ),
    ],
)
def test_files_that_contradict_each_other_are_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    (tmp_path / "new.json").write_text(json.dumps({**O1, **changes}), encoding="utf-8")

    with pytest.raises(CatalogError, match=said):
        load(tmp_path)


def changed(base: dict[str, Any], place: tuple[str | int, ...], value: object) -> object:
    if not place:
        return value
    whole = copy.deepcopy(base)
    holder: Any = whole
    for step in place[:-1]:
        holder = holder[step]
    if value is DROP:
        del holder[place[-1]]
    else:
        holder[place[-1]] = value
    return whole


def objects(node: object) -> Iterator[dict[str, Any]]:
    if isinstance(node, list):
        for member in cast("list[object]", node):
            yield from objects(member)
    elif hasattr(node, "items"):
        holder = cast("dict[str, Any]", node)
        yield holder
        for member in holder.values():
            yield from objects(member)


def properties(node: dict[str, Any]) -> dict[str, Any]:
    return node["properties"] if node.get("type") == "object" else {}


def field_names(schema: object) -> list[str]:
    return [name for node in objects(schema) for name in properties(node)]


def texts(file: Path) -> list[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
