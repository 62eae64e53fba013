"""What the rooms that read recordings share: a file that can be read anywhere, and what is found in it."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from fractions import Fraction

__all__ = ["Bytes", "Inseparable", "Measured", "Patch", "Scrubbed", "Unreadable", "rounded"]


class Unreadable(Exception):
    """The file is damaged, ends before its time, or counts more than can be."""


class Inseparable(Exception):
    """What is in the file cannot be told apart well enough to take anything out of it."""


class Bytes(Protocol):
    """A file that can be read anywhere."""

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    def read(self, offset: int, count: int, /) -> bytes:
        """At most *count* bytes from *offset* on, fewer at the end of the file only."""
        ...


class Patch(NamedTuple):
    """*data* for the bytes from *offset* on, and zeros up to *size* of them."""

    offset: int
    size: int
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """
    What to overwrite.

    Args:
        patches: In order, none over another.
        told: The contents of what goes and may say something, to be looked through.
    """

    patches: tuple[Patch, ...]
    told: bytes


@dataclass(frozen=True, slots=True)
class Measured:
    """Length, and what is seen; a recording without pictures has no width."""

    seconds: Decimal
    width: int | None = None
    height: int | None = None
    fps: Decimal | None = None
    sound: bool = True


def rounded(value: Fraction, places: int = 3) -> Decimal:
    """*value* with so many places, and no more of them than it needs."""
    return Decimal(round(value * 10**places)).scaleb(-places)
