"""
The tools' input schemas, derived from the catalogue.

Hosts read little of JSON Schema: no references, no combinators, no lists of
types; some drop defaults and limits. So every property is flat and typed, and
its description says in words what the schema says in numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kling_mcp.catalog.endpoint import Argument, Catalog, Endpoint, Tool

__all__ = ["LONGEST_WAIT_SECONDS", "MOST_TAKES", "WAIT", "Schema", "estimate_schema", "job_schema", "object_schema"]

Schema = dict[str, Any]

_AS_THERE: Final = "As in image_to_video."
_ALL_MODELS: Final = "Omit it to compare all models, cheapest first."

LONGEST_WAIT_SECONDS: Final = 45
"""Several hosts cut a call at 60 seconds."""

MOST_TAKES: Final = 99

_SOURCES: Final = "https URL, file path in an input folder, data: URI, or kling://jobs/{job_id}/last-frame."


WAIT: Final[Schema] = {
    "type": "integer",
    "minimum": 0,
    "maximum": LONGEST_WAIT_SECONDS,
    "description": f"Seconds to wait: 0 (default) to {LONGEST_WAIT_SECONDS}.",
}
"""How long a call may wait for its job."""

_OF_OURS: Final[dict[str, Schema]] = {
    "max_cost_usd": {
        "type": "number",
        "description": "Most the user agreed to pay, in USD; nothing is sent above it.",
    },
    "take": {
        "type": "integer",
        "minimum": 1,
        "maximum": MOST_TAKES,
        "description": "1 (default): the same call is the same job. 2 to 99: the same job once more, a new charge.",
    },
    "wait_seconds": WAIT,
}
"""Arguments of every job that fal never sees."""


def object_schema(properties: Mapping[str, Schema], required: Iterable[str] = ()) -> Schema:
    """An object with exactly *properties*."""
    needed = list(required)
    return {
        "type": "object",
        "properties": dict(properties),
        **({"required": needed} if needed else {}),
        "additionalProperties": False,
    }


def job_schema(catalog: Catalog, tool: Tool) -> Schema:
    """What a tool that starts a job takes, over all models."""
    properties: dict[str, Schema] = {}
    required: list[str] = []
    for name, takers in _arguments(catalog).items():
        argument = takers[0].arguments[name]
        if tool not in argument.tools:
            continue
        whole = _property(catalog, name, takers)
        # What two tools share is described once, in the tool that is listed first.
        properties[name] = whole if tool == argument.tools[0] else _bare(_brief(whole, _pointer(catalog, name, takers)))
        if argument.required:
            required.append(name)
    properties["model"] = _model(catalog)
    first = tool == "image_to_video"
    properties |= _OF_OURS if first else {name: _bare(_brief(schema, _AS_THERE)) for name, schema in _OF_OURS.items()}
    return object_schema(properties | {"wait_seconds": WAIT}, required)


def estimate_schema(catalog: Catalog) -> Schema:
    """What `estimate_cost` takes: everything that a job takes, and nothing of it required."""
    properties: dict[str, Schema] = {"model": {"type": "string", "description": _ALL_MODELS}}
    for name, takers in _arguments(catalog).items():
        whole = _property(catalog, name, takers)
        # Length and sound make the price; the rest is there to see the whole request.
        brief = _bare(_brief(whole, _pointer(catalog, name, takers)))
        properties[name] = whole if whole["type"] == "integer" else brief
    properties |= {name: _bare(_brief(schema, _AS_THERE)) for name, schema in _OF_OURS.items()}
    return object_schema(properties)


def _arguments(catalog: Catalog) -> dict[str, list[Endpoint]]:
    """Every argument of any model with the models that take it, the default model's first."""
    endpoints = sorted(catalog.endpoints, key=lambda endpoint: not endpoint.is_default)
    found: dict[str, list[Endpoint]] = {}
    for endpoint in endpoints:
        for name in endpoint.arguments:
            found.setdefault(name, []).append(endpoint)
    return dict(sorted(found.items(), key=lambda item: not item[1][0].arguments[item[0]].required))


def _property(catalog: Catalog, name: str, takers: list[Endpoint]) -> Schema:
    arguments = [endpoint.arguments[name] for endpoint in takers]
    schema = _typed(arguments)
    words = [arguments[0].description]
    if arguments[0].kind == "picture":
        words.append(_SOURCES if arguments[0].required else "Given like image.")
    words += _exceptions(catalog, name, takers)
    others = [endpoint for endpoint in catalog.endpoints if endpoint not in takers]
    if others:
        few = len(takers) <= len(others)
        words.append(f"Only {_names(catalog, takers)}." if few else f"Not {_names(catalog, others)}.")
    schema["description"] = " ".join(words)
    return schema


def _pointer(catalog: Catalog, name: str, takers: list[Endpoint]) -> str:
    """Where an argument is described; of sound also the default, because it is paid for."""
    argument = takers[0].arguments[name]
    if argument.kind != "audio":
        return f"As in {argument.tools[0]}."
    default = "On" if argument.schema.get("default") else "Off"
    return " ".join([f"{default} unless given.", *_exceptions(catalog, name, takers)])


def _typed(arguments: list[Argument]) -> Schema:
    """The type of an argument that several models take, as wide as the widest of them."""
    first = arguments[0]
    schema: Schema
    match first.kind:
        case "length":
            lengths = [length for argument in arguments for length in argument.lengths]
            schema = {"type": "integer", "minimum": min(lengths), "maximum": max(lengths)}
        case "number":
            schema = {"type": "number"} | {
                limit: first.schema[limit] for limit in ("minimum", "maximum") if limit in first.schema
            }
        case "audio":
            schema = {"type": "boolean"}
        case "choice":
            schema = {
                "type": "string",
                "enum": list(dict.fromkeys(choice for argument in arguments for choice in argument.choices)),
            }
        case "object" | "shot":
            items = {name: _typed([item]) | {"description": item.description} for name, item in first.items.items()}
            schema = object_schema(items, [name for name, item in first.items.items() if item.required])
        case "picture" | "https_url" | "text" | "voice":
            schema = {"type": "string"}
    return {"type": "array", "items": schema} if first.many else schema


def _exceptions(catalog: Catalog, name: str, takers: list[Endpoint]) -> list[str]:
    """What some models say otherwise than the first of them, where the words hold figures."""
    first = takers[0].arguments[name]
    others: dict[str, list[Endpoint]] = {}
    for endpoint in takers[1:]:
        argument = endpoint.arguments[name]
        if argument.kind == "length" and argument.lengths != first.lengths:
            others.setdefault(f"{argument.lengths[0]} to {argument.lengths[-1]}", []).append(endpoint)
        if argument.kind == "audio" and argument.schema.get("default") != first.schema.get("default"):
            others.setdefault("on unless given" if argument.schema.get("default") else "off unless given", []).append(
                endpoint
            )
    return [f"{_names(catalog, endpoints)}: {words}." for words, endpoints in others.items()]


def _names(catalog: Catalog, endpoints: list[Endpoint]) -> str:
    """Model names in short: a whole family as ``o1-*``, a part of one as ``v3-standard/pro``."""
    families: dict[str, list[str]] = {}
    for endpoint in sorted(endpoints, key=lambda endpoint: endpoint.order):
        family, _, tier = endpoint.model.rpartition("-")
        families.setdefault(family, []).append(tier)
    names: list[str] = []
    for family, tiers in families.items():
        members = [other for other in catalog.endpoints if other.model.startswith(f"{family}-")]
        whole = len(members) > 1 and all(other in endpoints for other in members)
        names.append(f"{family}-{'*' if whole else '/'.join(tiers)}" if family else tiers[0])
    return ", ".join(names)


def _model(catalog: Catalog) -> Schema:
    return {
        "type": "string",
        "enum": list(catalog.models),
        "description": f"Kling model (default {catalog.default.model}).",
    }


def _brief(schema: Schema, description: str) -> Schema:
    """The same type with one short description, inside as well."""
    brief = {**schema, "description": description}
    if "items" in schema:
        brief["items"] = _brief_inside(schema["items"])
    return brief


def _bare(schema: Schema) -> Schema:
    """The same without limits, inside as well; the tool that it refers to has them, and every call is checked."""
    bare = {name: value for name, value in schema.items() if name not in {"enum", "minimum", "maximum"}}
    if "items" in bare:
        bare["items"] = _bare(bare["items"])
    if "properties" in bare:
        bare["properties"] = {name: _bare(member) for name, member in bare["properties"].items()}
    return bare


def _brief_inside(schema: Schema) -> Schema:
    if schema["type"] != "object":
        return schema
    inside = {
        name: {**_brief_items(member), "description": name.replace("_", " ").capitalize() + "."}
        for name, member in schema["properties"].items()
    }
    return {**schema, "properties": inside}


def _brief_items(schema: Schema) -> Schema:
    return {**schema, "items": _brief_inside(schema["items"])} if "items" in schema else schema
