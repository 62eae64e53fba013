"""
JSON as the standard has it, and nothing that only looks like it.

The standard parser accepts ``NaN``, keeps the last of two equal keys, reads
``1e999`` as infinity, and fails in four different ways. Here there is one.
"""

from __future__ import annotations

import json
import math
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Final, NoReturn, cast

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["NotJson", "items", "members", "parse", "text"]

_MAX_DEPTH: Final = 64


class NotJson(Exception):
    """The bytes are not one JSON value in UTF-8."""


def parse(body: bytes, *, exact: bool = False) -> object:
    """
    Read one JSON value.

    Args:
        body: The bytes as received.
        exact: Read fractions as `Decimal`, for money.

    Raises:
        NotJson: Not JSON, not UTF-8, NaN or infinity, a key twice, half a surrogate pair, or nested too deeply.
    """
    try:
        value: object = json.loads(
            body.decode("utf-8"),
            parse_constant=_refused,
            parse_float=_decimal if exact else _finite,
            object_pairs_hook=_unique,
        )
        if not _sound(value):
            raise NotJson
    except (ValueError, InvalidOperation, RecursionError):
        # ValueError covers syntax, UTF-8, and integers with more digits than Python reads.
        raise NotJson from None
    return value


def members(value: object) -> Mapping[str, object]:
    """The members of *value* if it is an object, else none."""
    return cast("Mapping[str, object]", value) if isinstance(value, dict) else {}


def items(value: object) -> Sequence[object]:
    """The items of *value* if it is an array, else none."""
    return cast("Sequence[object]", value) if isinstance(value, list) else ()


def text(value: object) -> str:
    """*value* if it is a string, else an empty one."""
    return value if isinstance(value, str) else ""


def _refused(name: str) -> NoReturn:
    raise ValueError(name)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _decimal(text: str) -> Decimal:
    return Decimal(text)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _sound(value: object) -> bool:
    """Whether what was read can be written again: no half surrogates, and shallow enough for any reader."""
    level: list[object] = [value]
    for _ in range(_MAX_DEPTH):
        if not level:
            return True
        below: list[object] = []
        for item in level:
            if isinstance(item, str):
                item.encode("utf-8")
            below += members(item).keys()
            below += members(item).values()
            below += items(item)
        level = below
    return not level
