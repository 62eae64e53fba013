"""What JSON can hold, told apart for the type checker: nothing is known of an object's members or a list's items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import TypeIs

__all__ = ["is_list", "is_object", "items_of", "members_of"]


def is_object(value: object) -> TypeIs[Mapping[str, object]]:
    """Whether *value* is a JSON object."""
    return isinstance(value, Mapping)


def is_list(value: object) -> TypeIs[list[object]]:
    """Whether *value* is a JSON list."""
    return isinstance(value, list)


def members_of(value: object) -> Mapping[str, object]:
    """The members of a JSON object; none where *value* is something else."""
    return value if is_object(value) else {}


def items_of(value: object) -> list[object]:
    """The items of a JSON list; none where *value* is something else."""
    return value if is_list(value) else []
