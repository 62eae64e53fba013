"""
Schemas: the input of each tool that takes the arguments of a job, derived from the catalog.

Hosts understand little of JSON Schema: no references, no combinators, no lists
of types; some drop defaults and limits. So every property is flat and typed,
and its description has the limits and the default in words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from kling_mcp.catalog.plan import modes_of
from kling_mcp.catalog.values import span
from kling_mcp.json_types import members_of
from kling_mcp.media.optional import SHOWS_VIDEOS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kling_mcp.catalog.models import Argument, Catalog, Endpoint, Tool

__all__ = [
    "LONGEST_WAIT_SECONDS",
    "MOST_TAKES",
    "WAIT",
    "Schema",
    "estimate_schema",
    "in_words",
    "job_schema",
    "object_schema",
]

Schema = dict[str, Any]


LONGEST_WAIT_SECONDS: Final = 45
"""Several hosts cut a call at 60 seconds."""

MOST_TAKES: Final = 99

_SOURCES: Final[Mapping[str, str]] = {
    "picture": "https URL, path, data: URI or kling://jobs/{job_id}/last-frame."
    if SHOWS_VIDEOS
    else "https URL, path or data: URI.",
    "video": "https URL, path, data: URI or kling://jobs/{job_id}/video.",
    "audio": "https URL, path or data: URI.",
}

_SHORT_SOURCES: Final[Mapping[str, str]] = {
    "picture": "URL or path.",
    "video": "URL, path or job_id.",
    "audio": "URL or path.",
}


WAIT: Final = f"0 (default) to {LONGEST_WAIT_SECONDS}."
"""Of `wait_seconds`, which has no limits in numbers: a call that asks for more waits the longest."""

_OURS: Final[dict[str, Schema]] = {
    "max_cost_usd": {"type": "number", "description": "Most the user agreed to, in USD."},
    "take": {
        "type": "integer",
        "description": f"1 (default) to {MOST_TAKES}: another is a new charge.",
    },
    "wait_seconds": {"type": "integer", "description": WAIT},
}
"""Arguments of every job that are not sent to fal.ai."""

_OURS_IN_SHORT: Final[dict[str, Schema]] = {"max_cost_usd": {"type": "number", "description": "USD agreed to."}}


def object_schema(properties: Mapping[str, Schema], required: Iterable[str] = ()) -> Schema:
    """
    An object with *properties*.

    `additionalProperties` is left out: it crashes google-genai, and unknown names are refused by us.
    """
    needed = list(required)
    return {"type": "object", "properties": dict(properties), **({"required": needed} if needed else {})}


def job_schema(catalog: Catalog, tool: Tool, *, short: bool = False) -> Schema:
    """
    The input of a tool that starts a job, over all models that it can use.

    Args:
        short: Whether to leave out optional arguments that only some modes take, and ``take`` and ``wait_seconds``.
            They are accepted all the same.
    """
    suitable = _endpoints_for(catalog, tool)
    usual = catalog.default_of(*modes_of(catalog, tool)).model
    properties: dict[str, Schema] = {}
    required: list[str] = []
    said: set[str] = set()
    models = f"Default {usual}"
    for name, accepting in _arguments(suitable).items():
        accepting = [one for one in accepting if tool in one.arguments[name].tools]
        if not accepting:
            continue
        argument = accepting[0].arguments[name]
        if short and not argument.required and len(accepting) < len(suitable):
            continue
        always = len(accepting) == len(suitable) and all(one.arguments[name].required for one in accepting)
        words: list[str] = []
        if argument.kind in _SOURCES and argument.kind not in said and not argument.many:
            words.append((_SHORT_SOURCES if short else _SOURCES)[argument.kind])
            said.add(argument.kind)
        if argument.required and not always:
            words.append(_instead_of(argument, suitable, accepting))
        if tool == argument.tools[0]:
            words += _accepted_by(catalog, suitable, accepting)
        else:
            # The first tool says which models take each argument; here, which one takes all.
            models = f"Default {usual}; {_most_capable(suitable, tool)} takes every argument"
        properties[name] = _property(catalog, name, accepting, words)
        if always:
            required.append(name)
    if len(_models(suitable)) > 1:
        properties["model"] = {"type": "string", "description": f"{_tiers(suitable)}. {models}."}
    ours = _OURS_IN_SHORT if short else _OURS
    return object_schema(properties | _OWN.get(tool, {}) | ours, required)


def _instead_of(argument: Argument, suitable: list[Endpoint], accepting: list[Endpoint]) -> str:
    """What a call is without an argument that only one of a tool's modes needs."""
    others = {one.when for one in suitable if one not in accepting and one.when}
    if others:
        return f"Or {' and '.join(sorted(others))}."
    return "Left out: from text alone." if argument.kind == "picture" else ""


_OWN: Final[Mapping[str, dict[str, Schema]]] = {
    "edit_video": {
        "mode": {
            "type": "string",
            "description": "edit (default) or reference: a new shot; takes duration, aspect_ratio.",
        }
    },
    "create_voice": {"name": {"type": "string", "description": "Its name in voice_ids and voice_id."}},
}
"""Arguments of one tool that are not sent to fal.ai."""


def estimate_schema(catalog: Catalog) -> Schema:
    """The arguments of `estimate_cost` that set the price; it accepts any other argument of a job too."""
    accepting = _arguments(catalog.of(*modes_of(catalog, "multi_shot_video")))
    tools = {"type": "string", "description": "Default by the arguments."}
    model = {"type": "string", "description": f"Such as {catalog.default.model}; omit to compare all."}
    properties = {name: _property(catalog, name, accepting[name]) for name in _SETS_THE_PRICE if name in accepting}
    if "voice_ids" in properties:
        properties["voice_ids"]["description"] = "1 or 2; cost extra."
    if "shots" in properties:
        shot = properties["shots"]["items"]
        properties["shots"]["items"] = object_schema({"duration": shot["properties"]["duration"]})
    return object_schema({"tool": tools, "model": model} | properties)


_SETS_THE_PRICE: Final = ("duration", "shots", "generate_audio", "voice_ids")


def _endpoints_for(catalog: Catalog, tool: Tool) -> list[Endpoint]:
    """The endpoints that *tool* can use."""
    able = catalog.of(*modes_of(catalog, tool))
    return [one for one in able if one.when or _needed(catalog.default_of(one.mode), tool) <= set(one.arguments)]


def _needed(endpoint: Endpoint, tool: Tool) -> set[str]:
    return {name for name, argument in endpoint.arguments.items() if argument.required and tool in argument.tools}


def _most_capable(suitable: list[Endpoint], tool: Tool) -> str:
    return max(suitable, key=lambda one: sum(tool in argument.tools for argument in one.arguments.values())).model


def _arguments(endpoints: Iterable[Endpoint]) -> dict[str, list[Endpoint]]:
    """Every argument of any of *endpoints* with the endpoints that accept it, the default model's first."""
    found: dict[str, list[Endpoint]] = {}
    for endpoint in sorted(endpoints, key=lambda endpoint: not endpoint.default):
        for name in endpoint.arguments:
            found.setdefault(name, []).append(endpoint)
    return dict(sorted(found.items(), key=lambda item: not item[1][0].arguments[item[0]].required))


def _property(catalog: Catalog, name: str, accepting: list[Endpoint], words: Iterable[str] = ()) -> Schema:
    arguments = [endpoint.arguments[name] for endpoint in accepting]
    schema = _typed(arguments)
    if len(schema.get("enum", ())) > _MOST_LISTED:
        del schema["enum"]
    said = [arguments[0].description, *_exceptions(catalog, name, accepting), *words]
    return {**schema, "description": " ".join(said)}


_MOST_LISTED: Final = 12
"""How many choices of an argument the list of tools has; `list_models` has all."""


def _accepted_by(catalog: Catalog, suitable: list[Endpoint], accepting: list[Endpoint]) -> list[str]:
    """Which of *suitable* accept an argument, where not all do."""
    able = _models(accepting)
    others = [endpoint for endpoint in suitable if endpoint.model not in able]
    if not others:
        return []
    few = len(able) <= len(_models(others))
    return [f"Only {_names(catalog, accepting)}." if few else f"Not {_names(catalog, others)}."]


def _models(endpoints: Iterable[Endpoint]) -> set[str]:
    return {endpoint.model for endpoint in endpoints}


def _typed(arguments: list[Argument]) -> Schema:
    """The type of an argument that several models accept, with the widest of their limits."""
    first = arguments[0]
    schema: Schema
    match first.kind:
        case "length":
            lengths = [length for argument in arguments for length in argument.lengths]
            schema = {"type": "integer", "minimum": min(lengths), "maximum": max(lengths)}
        case "number":
            schema = {"type": "number"} | {
                limit: widest(cast("float", argument.value_schema[limit]) for argument in arguments)
                for limit, widest in (("minimum", min), ("maximum", max))
                if all(limit in argument.value_schema for argument in arguments)
            }
        case "sound" | "keep_sound" | "flag":
            schema = {"type": "boolean"}
        case "choice":
            schema = {
                "type": "string",
                "enum": list(dict.fromkeys(choice for argument in arguments for choice in argument.choices)),
            }
        case "object" | "shot":
            items = {name: _typed([item]) | {"description": item.description} for name, item in first.items.items()}
            schema = object_schema(items, [name for name, item in first.items.items() if item.required])
        case "json":
            schema = _of_any_json(first.value_schema)
        case "picture" | "video" | "audio" | "https_url" | "text" | "voice":
            schema = {"type": "string"}
    return {"type": "array", "items": schema} if first.many else schema


def _of_any_json(schema: Mapping[str, object]) -> Schema:
    """One type for what may be of several, or hosts drop the tool: a text, in which JSON is read as such."""
    kind = schema.get("type")
    if kind == "array":
        return {"type": "array", "items": _of_any_json(members_of(schema.get("items")))}
    return {"type": kind if isinstance(kind, str) else "string"}


def _exceptions(catalog: Catalog, name: str, accepting: list[Endpoint]) -> list[str]:
    """Where some models differ from the first, whose figures are in the description."""
    first = _figures(accepting[0].arguments[name])
    others: dict[str, list[Endpoint]] = {}
    for endpoint in accepting[1:]:
        words = [figure for figure in _figures(endpoint.arguments[name]) if figure not in first]
        if words:
            others.setdefault(", ".join(words), []).append(endpoint)
    return [f"{_names(catalog, endpoints)}: {words}." for words, endpoints in others.items()]


def _figures(argument: Argument) -> list[str]:
    """The range and the default of an argument, in words."""
    schema = argument.value_schema
    words: list[str] = []
    if argument.kind == "length":
        words.append(span(argument.lengths))
    elif argument.choices:
        words.append(" or ".join(argument.choices))
    if "minimum" in schema and "maximum" in schema:
        words.append(f"{schema['minimum']} to {schema['maximum']}")
    if "maxLength" in schema:
        words.append(f"up to {schema['maxLength']:,} characters")
    if (default := schema.get("default")) is not None:
        words.append(f"default {'on' if default is True else 'off' if default is False else default}")
    return words


def _names(catalog: Catalog, endpoints: list[Endpoint]) -> str:
    """Model names in short: a whole family as ``o1-*``, a part of one as ``v3-standard/pro``."""
    names: list[str] = []
    for family, tiers in _families(endpoints).items():
        members = {other.model for other in catalog.endpoints if other.model.startswith(f"{family}-")}
        whole = len(members) > 1 and members <= _models(endpoints)
        names.append(f"{family}-{'*' if whole else '/'.join(tiers)}" if family else tiers[0])
    return ", ".join(names)


def _tiers(endpoints: list[Endpoint]) -> str:
    """Every model name, with those of a family as ``v3-standard/pro``."""
    return ", ".join(f"{family}-{'/'.join(tiers)}".lstrip("-") for family, tiers in _families(endpoints).items())


def _families(endpoints: list[Endpoint]) -> dict[str, list[str]]:
    families: dict[str, list[str]] = {}
    for model in dict.fromkeys(one.model for one in sorted(endpoints, key=lambda endpoint: endpoint.order)):
        family, _, tier = model.rpartition("-")
        families.setdefault(family, []).append(tier)
    return families


def in_words(schema: Schema) -> Schema:
    """
    *schema* without numbers and choices that its descriptions have in words.

    This keeps the list of tools short; every call is checked against the whole schema.
    """
    bare = {name: value for name, value in schema.items() if name not in {"minimum", "maximum"}}
    if "items" in bare:
        bare["items"] = in_words(bare["items"])
    if "properties" in bare:
        bare["properties"] = {
            name: {key: value for key, value in in_words(member).items() if key != "enum" or not _said(member)}
            for name, member in bare["properties"].items()
        }
    return bare


def _said(schema: Schema) -> bool:
    return all(str(choice) in schema.get("description", "") for choice in schema["enum"])
