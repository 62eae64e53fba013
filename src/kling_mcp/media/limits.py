"""What an endpoint accepts as a picture, a video or sound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection
    from decimal import Decimal

__all__ = ["MAX_PIXELS", "NO_LIMITS", "Limits", "MediaLimits", "accepts"]

MAX_PIXELS: Final = 256_000_000
"""Phones make 200 megapixels; a small file can claim any number."""


class Limits(Protocol):
    """What an endpoint accepts; None where it does not say. The catalog has such a value for each file."""

    @property
    def max_bytes(self) -> int | None:
        """Bytes of the file."""
        ...

    @property
    def min_width(self) -> int | None:
        """Pixels per row."""
        ...

    @property
    def min_height(self) -> int | None:
        """Rows."""
        ...

    @property
    def max_width(self) -> int | None:
        """Pixels per row."""
        ...

    @property
    def max_height(self) -> int | None:
        """Rows."""
        ...

    @property
    def min_aspect_ratio(self) -> float | Decimal | None:
        """Width divided by height."""
        ...

    @property
    def max_aspect_ratio(self) -> float | Decimal | None:
        """Width divided by height."""
        ...

    @property
    def min_seconds(self) -> Decimal | None:
        """Length."""
        ...

    @property
    def max_seconds(self) -> Decimal | None:
        """Length."""
        ...

    @property
    def min_fps(self) -> int | Decimal | None:
        """Pictures per second."""
        ...

    @property
    def max_fps(self) -> int | Decimal | None:
        """Pictures per second."""
        ...

    @property
    def formats(self) -> Collection[str] | None:
        """Names such as ``jpeg`` or ``image/jpeg``."""
        ...


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """What an endpoint accepts: bytes, pixels, width divided by height, length, and names such as ``jpeg``."""

    max_bytes: int | None = None
    min_width: int | None = None
    min_height: int | None = None
    min_aspect_ratio: float | Decimal | None = None
    max_aspect_ratio: float | Decimal | None = None
    formats: tuple[str, ...] | None = None
    max_width: int | None = None
    max_height: int | None = None
    min_seconds: Decimal | None = None
    max_seconds: Decimal | None = None
    min_fps: int | Decimal | None = None
    max_fps: int | Decimal | None = None


NO_LIMITS: Final = MediaLimits()


def accepts(limits: Limits, name: str) -> bool:
    """Whether the endpoint takes pictures of the format *name*; its list may say ``jpg`` or ``image/jpeg`` for one."""
    if not limits.formats:
        return True
    plain = {entry.lower().removeprefix("image/").removeprefix(".") for entry in limits.formats}
    return name in plain or (name == "jpeg" and "jpg" in plain)
