"""
The check of a body against an endpoint's schema, complaining as fal's runners do.

fal puts a request in line first and checks it on the runner, so a wrong field
name costs the caller the wait; the complaint is pydantic's, with fal's words for
what fal has its own words for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from kling_mcp.json_types import items_of, members_of
from kling_mcp.simulator.outcomes import docs_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from jsonschema.exceptions import ValidationError

    from kling_mcp.catalog.models import Endpoint

__all__ = ["Complaint", "complaints", "entry"]

Complaint = dict[str, object]


def complaints(endpoint: Endpoint, body: Mapping[str, object]) -> list[Complaint]:
    """What is wrong with *body* for *endpoint*, as the entries of fal's ``detail``; empty when nothing is."""
    from jsonschema import Draft202012Validator

    schema = dict(endpoint.input_schema)
    errors_in = cast("Callable[[object], Iterable[ValidationError]]", Draft202012Validator(schema).iter_errors)  # pyright: ignore[reportUnknownMemberType]
    errors = sorted(errors_in(body), key=_place)
    return [one for error in errors for one in _entries(error)] or _neither(endpoint, body)


def _neither(endpoint: Endpoint, body: Mapping[str, object]) -> list[Complaint]:
    """The one rule across fields that fal's runners are known to check: a prompt or shots, in pydantic's old form."""
    for rule in endpoint.rules:
        fields = [endpoint.arguments[name].field for name in rule.of if name in endpoint.arguments]
        if (rule.kind, rule.level) == ("exactly_one", "refuse") and not any(body.get(field) for field in fields):
            return [entry(["body", "root"], "value_error", f"One of {' and '.join(fields)} is required", None)]
    return []


def _place(error: ValidationError) -> str:
    return "/".join(str(part) for part in error.absolute_path)


def _entries(error: ValidationError) -> list[Complaint]:
    keyword = str(error.validator)
    if keyword in {"anyOf", "oneOf"} and error.context:
        # A nullable field is a choice with null in it; what it says of the other choice is what matters.
        others = [inner for inner in error.context if inner.validator_value != "null"]
        return [one for inner in others for one in _entries(inner)]
    location: list[object] = ["body", *error.absolute_path]
    expected = error.validator_value
    if keyword == "required":
        names = [name for name in items_of(expected) if name not in members_of(error.instance)]
        return [entry([*location, name], "missing", "Field required", error.instance) for name in names]
    if keyword == "additionalProperties":
        known = members_of(members_of(error.schema).get("properties"))
        extra = [name for name in members_of(error.instance) if name not in known]
        return [entry([*location, name], "extra_forbidden", "Extra inputs are not permitted", None) for name in extra]
    make = _BY_KEYWORD.get(keyword)
    kind, message, context = ("value_error", error.message, {}) if make is None else make(expected)
    return [entry(location, kind, message, error.instance, context)]


def entry(
    location: list[object], kind: str, message: str, given: object, context: Complaint | None = None
) -> Complaint:
    """One entry of fal's ``detail``."""
    found: Complaint = {"loc": location, "msg": message, "type": kind, "url": docs_url(kind), "input": given}
    return {**found, "ctx": context} if context else found


def _choice(values: Any) -> tuple[str, str, Complaint]:
    words = [f"'{value}'" if isinstance(value, str) else str(value) for value in values]
    text = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
    return "literal_error", f"Input should be {text}", {"expected": text}


def _type(name: Any) -> tuple[str, str, Complaint]:
    kinds = {"string": "string", "integer": "int", "number": "float", "boolean": "bool", "array": "list"}
    kind = kinds.get(str(name), "model")
    return f"{kind}_type", f"Input should be a valid {'dictionary' if kind == 'model' else str(name)}", {}


_BY_KEYWORD: Final[Mapping[str, Callable[[Any], tuple[str, str, Complaint]]]] = {
    "enum": _choice,
    "const": lambda value: _choice([value]),
    "type": _type,
    "minimum": lambda n: ("greater_than_equal", f"Input should be greater than or equal to {n}", {"ge": n}),
    "maximum": lambda n: ("less_than_equal", f"Input should be less than or equal to {n}", {"le": n}),
    "exclusiveMinimum": lambda n: ("greater_than", f"Input should be greater than {n}", {"gt": n}),
    "exclusiveMaximum": lambda n: ("less_than", f"Input should be less than {n}", {"lt": n}),
    "multipleOf": lambda n: ("multiple_of", f"Input should be a multiple of {n}", {"multiple_of": n}),
    "minLength": lambda n: ("string_too_short", f"String should have at least {n} characters", {"min_length": n}),
    "maxLength": lambda n: ("string_too_long", f"String should have at most {n} characters", {"max_length": n}),
    "minItems": lambda n: ("sequence_too_short", f"List should have at least {n} items", {"min_length": n}),
    "maxItems": lambda n: ("sequence_too_long", f"List should have at most {n} items", {"max_length": n}),
}
