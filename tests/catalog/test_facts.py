"""
Every bundled endpoint against `facts.json`, the figures of fal.ai's published schemas and prices.

The table was written from fal.ai's documents and not from the catalog, so a
slip in a data file is a difference here. A default, a list of values or a range
that the table lacks is one that fal.ai does not publish.
"""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kling_mcp.catalog.models import load
from kling_mcp.catalog.plan import plan

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kling_mcp.catalog.models import Argument, Endpoint

FACTS: dict[str, Any] = json.loads(Path(__file__).with_name("facts.json").read_text("utf-8"))
"""
By endpoint id: its fields, those of an older document that are kept besides, and its newest price; what a picture, a
video or a sound may be; how many images and elements it takes together; how long its video may be by a choice.
"""

ANY = "any"
"""Instead of a list of values: fal.ai takes any text, and the catalog the values that have a meaning."""

every_endpoint = pytest.mark.parametrize("endpoint", load().endpoints, ids=lambda it: it.endpoint_id)


def fields(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field of *schema* by its path, such as ``multi_prompt[].prompt``, with what the table has of it."""
    for name, field in schema["properties"].items():
        (type_,) = [one for one in _listed(field["type"]) if one != "null"]
        found = {"type": type_, **{name: field[name] for name in COMPARED if name in field}}
        if name in schema.get("required", ()):
            found["required"] = True
        yield path + name, found
        if field.get("items", {}).get("type") == "object":
            yield from fields(field["items"], f"{path}{name}[].")


COMPARED = ("default", "enum", "minimum", "maximum", "maxLength")
INFERRED = "maxLength"
"""What the catalog may limit also where fal.ai's own document of the endpoint does not: taken over from a sibling."""


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def arguments_at(endpoint: Endpoint, path: str) -> list[Argument]:
    """The arguments that become the field at *path*, the outermost first."""
    arguments = endpoint.arguments
    found: list[Argument] = []
    for step in path.removesuffix("[]").split("[]."):
        found.append(next(one for one in arguments.values() if one.field == step))
        arguments = found[-1].items
    return found


def most(endpoint: Endpoint, path: str) -> int | None:
    """How many members the list at *path* may have by the endpoint's rules."""
    selector = f"{'[].'.join(one.name for one in arguments_at(endpoint, path))}[]"
    limits = [rule.max for rule in endpoint.rules if rule.kind == "count" and selector in rule.of]
    return min(limits, default=None)


@every_endpoint
def test_each_field_has_the_type_need_default_values_and_range_that_fal_publishes(endpoint: Endpoint) -> None:
    facts = FACTS[endpoint.endpoint_id]
    found = {path: field for path, field in fields(endpoint.input_schema) if path not in facts.get("kept", ())}

    assert set(found) == set(facts["fields"])
    for path, published in facts["fields"].items():
        ours = dict(found[path])
        wanted = {name: value for name, value in published.items() if name != "maxItems"}
        if INFERRED not in wanted:
            ours.pop(INFERRED, None)
        if wanted.get("enum") == ANY:
            assert ours.pop("enum")
            del wanted["enum"]
        assert ours == wanted, path
        if "maxItems" in published:
            assert most(endpoint, path) == published["maxItems"], path


@every_endpoint
def test_the_newest_price_is_the_one_that_fal_publishes(endpoint: Endpoint) -> None:
    for form, figures in FACTS[endpoint.endpoint_id]["price"].items():
        newest = endpoint.prices[-1]
        if form == "usd_per_second":
            assert {tier: newest.rate(tier) for tier in figures} == {
                tier: Decimal(rate) for tier, rate in figures.items()
            }
        else:
            assert getattr(newest, form) == Decimal(figures)


@every_endpoint
def test_each_picture_video_and_sound_has_the_limits_that_are_published(endpoint: Endpoint) -> None:
    for path, published in FACTS[endpoint.endpoint_id].get("media", {}).items():
        limits = arguments_at(endpoint, path)[-1].limits
        assert limits is not None

        for name, figure in published.items():
            ours = getattr(limits, name)
            wanted = Decimal(figure) if isinstance(figure, str) else tuple(figure) if name == "formats" else figure
            assert ours == wanted, f"{path}: {name}"


@every_endpoint
def test_images_and_elements_are_counted_together(endpoint: Endpoint) -> None:
    together = FACTS[endpoint.endpoint_id].get("together")
    if together is None:
        return

    rules = [rule for rule in endpoint.rules if rule.kind == "total" and not rule.of and rule.level == "refuse"]
    assert [(set(rule.counts), rule.max) for rule in rules] == [({"images[]", "elements[]"}, together)]


@every_endpoint
def test_the_longest_video_depends_on_the_choice_that_is_published(endpoint: Endpoint) -> None:
    for path, lengths in FACTS[endpoint.endpoint_id].get("longest", {}).items():
        (choice,) = arguments_at(endpoint, path)
        call = {"model": endpoint.model, "image": "https://example.com/a.png", "video": "https://example.com/a.mp4"}

        for value, longest in lengths.items():
            it = plan(load(), choice.tools[0], {**call, choice.name: value})
            assert it.longest["video"] == longest


@every_endpoint
def test_a_field_that_is_kept_from_an_older_document_is_taken_with_a_warning(endpoint: Endpoint) -> None:
    def warned(argument: Argument) -> bool:
        return any(
            rule.kind == "given" and rule.level == "warn" and argument.name in rule.of for rule in endpoint.rules
        )

    for name in FACTS[endpoint.endpoint_id].get("kept", ()):
        assert warned(next(one for one in endpoint.arguments.values() if one.field == name)), name


def test_the_table_has_the_endpoints_that_the_program_is_to_have() -> None:
    modes = [endpoint_id.removeprefix("fal-ai/kling-video/") for endpoint_id in FACTS]
    counted = {
        mode: sum(mode in endpoint_id for endpoint_id in modes)
        for mode in (
            *("image-to-video", "text-to-video", "reference-to-video", "video-to-video/", "motion-control"),
            *("lipsync/", "ai-avatar/", "create-voice"),
        )
    }

    # Lip-sync by text is in two of these.
    assert counted == {
        "image-to-video": 18,
        "text-to-video": 12,
        "reference-to-video": 5,
        "video-to-video/": 8,
        "motion-control": 4,
        "lipsync/": 2,
        "ai-avatar/": 2,
        "create-voice": 1,
    }
    assert len(FACTS) == sum(counted.values()) - 1
    assert set(FACTS) == {endpoint.endpoint_id for endpoint in load().endpoints}
