"""
JSON from outside: what can be read is read, and the rest is left out.

A job that is paid for must not be lost to half an emoji in a log line. So a byte order mark is skipped, half a
surrogate pair becomes a replacement character, and `NaN`, infinity, endless numbers and what is nested too deeply
become null, each alone. Whatever is returned can be written as JSON again.
"""

from __future__ import annotations

import json
import math
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Final

from kling_mcp.json_types import is_list, is_object

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["NotJson", "items", "members", "parse", "text"]

_MAX_DEPTH: Final = 64
_MAX_DIGITS: Final = 1000
_ID: Final = "request_id"
"""Where this stands twice with two values, neither is believed: it decides which job is followed."""


class NotJson(Exception):
    """The bytes do not begin with a JSON value."""


def parse(body: bytes, *, exact: bool = False) -> object:
    """
    Read one JSON value; what follows it is ignored.

    Args:
        body: The bytes as received.
        exact: For money: read fractions as `Decimal`, and a name that stands twice with two values as null.

    Raises:
        NotJson: There is no JSON value.
    """
    try:
        readable = body.decode(json.detect_encoding(body), "replace").lstrip("\ufeff \t\r\n")
        value, _ = (_EXACT if exact else _USUAL).raw_decode(readable)
    except (ValueError, RecursionError):
        raise NotJson from None
    # Surrogates and depth are looked for only where the text can have them; most answers are short and plain.
    plain = readable.isascii() and "\\u" not in readable and readable.count("[") + readable.count("{") < _MAX_DEPTH
    return value if plain else _sound(value, _MAX_DEPTH)


def members(value: object) -> Mapping[str, object]:
    """The members of *value* if it is an object, else none."""
    return value if is_object(value) else {}


def items(value: object) -> Sequence[object]:
    """The items of *value* if it is an array, else none."""
    return value if is_list(value) else ()


def text(value: object) -> str:
    """*value* if it is a string, else an empty one."""
    return value if isinstance(value, str) else ""


def _integer(digits: str) -> int | None:
    return int(digits) if len(digits) <= _MAX_DIGITS else None


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


def _decimal(digits: str) -> Decimal | None:
    try:
        return Decimal(digits)
    except InvalidOperation:
        return None


def _joined(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs) and _ID in found:
        values = [value for name, value in pairs if name == _ID]
        found[_ID] = values[0] if all(value == values[0] for value in values) else None
    return found


def _joined_exactly(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        found[name] = value if found.get(name, value) == value else None
    return found


def _decoder(*, exact: bool) -> json.JSONDecoder:
    return json.JSONDecoder(
        strict=False,
        parse_constant=lambda _: None,
        parse_float=_decimal if exact else _finite,
        parse_int=_integer,
        object_pairs_hook=_joined_exactly if exact else _joined,
    )


_USUAL: Final = _decoder(exact=False)
_EXACT: Final = _decoder(exact=True)


def _sound(value: object, depth: int) -> object:
    """*value* as it can be written again: no half surrogates, and shallow enough for any reader."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if depth == 0:
        return None
    if is_object(value):
        return {str(_sound(name, depth)): _sound(item, depth - 1) for name, item in value.items()}
    if is_list(value):
        return [_sound(item, depth - 1) for item in value]
    return value
