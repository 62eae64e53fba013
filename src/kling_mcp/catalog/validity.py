"""Whether a JSON Schema accepts a value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["accepts"]


def accepts(schema: Mapping[str, object], value: object) -> bool:
    """Whether *value* is one that *schema* describes."""
    # Not at the top: importing jsonschema takes longer than reading the whole catalog.
    from jsonschema import Draft202012Validator

    return cast("_Validator", Draft202012Validator(dict(schema))).is_valid(value)


class _Validator(Protocol):
    def is_valid(self, instance: object) -> bool: ...
