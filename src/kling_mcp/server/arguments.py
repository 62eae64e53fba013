"""
Arguments of the tools that start no job, read against the tool's own schema.

Small on purpose: the schemas here are flat, with strings, whole numbers and
enums. Jobs are checked by `kling_mcp.catalog.arguments`.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from kling_mcp.errors import InvalidArguments

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["read"]


def read(arguments: Mapping[str, object], schema: Mapping[str, Any]) -> dict[str, object]:
    """
    The given *arguments*, checked; null and empty ones are left out.

    Raises:
        InvalidArguments: One is unknown, missing, or not what the schema allows.
    """
    properties: dict[str, dict[str, Any]] = schema["properties"]
    given = {name: value for name, value in arguments.items() if value is not None and value != ""}
    for name in given:
        if name not in properties:
            near = difflib.get_close_matches(name, properties, n=1)
            hint = f"The nearest is {near[0]}. " if near else ""
            raise InvalidArguments(
                f"{name[:60]!r} is not an argument of this tool.",
                f"{hint}It takes: {', '.join(properties)}.",
                field=name[:60],
                allowed=tuple(properties),
            )
    for name in schema.get("required", ()):
        if name not in given:
            raise InvalidArguments(f"{name} is missing.", properties[name]["description"], field=name)
    return {name: _checked(name, value, properties[name]) for name, value in given.items()}


def _checked(name: str, value: object, schema: Mapping[str, Any]) -> object:
    if schema["type"] == "integer":
        number = _whole(value)
        low, high = schema["minimum"], schema["maximum"]
        if number is None or not low <= number <= high:
            raise InvalidArguments(
                f"{name} is {str(value)[:40]!r}.", f"It takes a whole number from {low} to {high}.", field=name
            )
        return number
    if not isinstance(value, str):
        raise InvalidArguments(f"{name} is {str(value)[:40]!r}.", "It takes a text.", field=name)
    allowed: list[str] = schema.get("enum", [])
    if allowed and value not in allowed:
        near = difflib.get_close_matches(value, allowed, n=1)
        hint = f"The nearest is {near[0]}. " if near else ""
        raise InvalidArguments(
            f"{name} is {value[:40]!r}.",
            f"{hint}It takes one of: {', '.join(allowed)}.",
            field=name,
            allowed=tuple(allowed),
        )
    return value


def _whole(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        digits = value.strip()
        return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int) else None
