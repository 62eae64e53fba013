"""
JSON as it comes from outside: what can be read is read, and what cannot be meant is left out.

A job that is paid for must not be lost to half an emoji in a log line. So a
byte order mark is passed over, half a surrogate pair becomes a replacement
character, and `NaN`, infinity, endless numbers and what is nested too deeply
become null, each alone. Nothing that comes out can break whoever writes it again.
"""

from __future__ import annotations

import json
import math
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["NotJson", "items", "members", "parse", "text"]

_MAX_DEPTH: Final = 64
_MAX_DIGITS: Final = 1000
_SINGLE: Final = "request_id"
"""Of two values for this, neither is believed: it decides which job is followed."""


class NotJson(Exception):
    """The bytes do not begin with a JSON value."""


def parse(body: bytes, *, exact: bool = False) -> object:
    """
    Read one JSON value; what follows it is passed over.

    Args:
        body: The bytes as received.
        exact: Read fractions as `Decimal`, and no value where a name stands twice with different ones: for money.

    Raises:
        NotJson: There is no JSON value.
    """

    def joined(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found: dict[str, object] = {}
        for name, value in pairs:
            twice = name in found and found[name] != value
            found[name] = None if twice and (exact or name == _SINGLE) else value
        return found

    decoder = json.JSONDecoder(
        strict=False,
        parse_constant=lambda _: None,
        parse_float=_decimal if exact else _finite,
        parse_int=_integer,
        object_pairs_hook=joined,
    )
    try:
        readable = body.decode(json.detect_encoding(body), "replace").lstrip("\ufeff \t\r\n")
        value, _ = decoder.raw_decode(readable)
    except (ValueError, RecursionError):
        raise NotJson from None
    return _sound(value, _MAX_DEPTH)


def members(value: object) -> Mapping[str, object]:
    """The members of *value* if it is an object, else none."""
    return cast("Mapping[str, object]", value) if isinstance(value, dict) else {}


def items(value: object) -> Sequence[object]:
    """The items of *value* if it is an array, else none."""
    return cast("Sequence[object]", value) if isinstance(value, list) else ()


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


def _sound(value: object, depth: int) -> object:
    """*value* as it can be written again: no half surrogates, and shallow enough for any reader."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if depth == 0:
        return None
    if isinstance(value, dict):
        return {
            str(_sound(name, depth)): _sound(item, depth - 1) for name, item in members(cast("object", value)).items()
        }
    if isinstance(value, list):
        return [_sound(item, depth - 1) for item in items(cast("object", value))]
    return value
