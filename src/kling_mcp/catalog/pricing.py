"""
What a job will cost, from dated list prices.

fal.ai publishes no price per request; its pages, and copies of them from other
dates, name rates per second that do not always agree. The newest rate makes
the estimate, the highest makes the ceiling that a budget holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kling_mcp.money import exact_usd

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

    from kling_mcp.catalog.models import Endpoint, Price, Sound, Tier

__all__ = ["Quote", "quote"]


@dataclass(frozen=True, slots=True)
class Quote:
    """
    What a job is expected to cost, and what it may cost at most, in US dollars.

    Attributes:
        estimated_usd: At the newest rate.
        ceiling_usd: At the highest rate that any source names.
        basis: The sum behind the estimate, in words.
        sources: Every price that was considered, the newest first.
        warnings: Where the sources disagree.

    """

    estimated_usd: Decimal
    ceiling_usd: Decimal
    basis: str
    sources: tuple[str, ...]
    warnings: tuple[str, ...]


def quote(endpoint: Endpoint, *, seconds: int, audio: bool | None, voice: bool) -> Quote:
    """
    Price *seconds* of finished video.

    Args:
        endpoint: The endpoint that makes it.
        seconds: The length of the whole video.
        audio: Whether sound is made; None where the endpoint has no switch.
        voice: Whether voice control is used.

    """
    tier: Tier = "voice_control" if voice else "audio_off" if audio is False else "audio_on"
    newest = endpoint.prices[-1]
    highest = max(reversed(endpoint.prices), key=lambda price: price.rate(tier))
    estimated_usd, ceiling_usd = newest.rate(tier) * seconds, highest.rate(tier) * seconds
    warnings: tuple[str, ...] = ()
    if ceiling_usd != estimated_usd:
        disagreement = (
            f"Sources disagree on the price: ${newest.rate(tier)}/s ({_source(newest)}) makes "
            f"{exact_usd(estimated_usd)}, ${highest.rate(tier)}/s ({_source(highest)}) makes "
            f"{exact_usd(ceiling_usd)}. The estimate uses the newest, the ceiling the highest."
        )
        warnings = (disagreement,)
    return Quote(
        estimated_usd=estimated_usd,
        ceiling_usd=ceiling_usd,
        basis=f"{seconds} s \N{MULTIPLICATION SIGN} ${newest.rate(tier)}/s ({_words(endpoint, newest, tier)}); "
        f"list price {_source(newest)}",
        sources=tuple(_source(price) for price in reversed(endpoint.prices)),
        warnings=warnings,
    )


def _source(price: Price) -> str:
    return f"{price.as_of}, {price.source}"


def _words(endpoint: Endpoint, price: Price, tier: Tier) -> str:
    if "flat" in price.usd_per_second:
        return _FLAT_WORDS[endpoint.sound]
    return _TIER_WORDS[tier]


_FLAT_WORDS: Final[Mapping[Sound, str]] = {
    "switchable": "one rate with or without audio",
    "always": "one rate, audio included",
    "none": "one rate, no audio",
}
_TIER_WORDS: Final[Mapping[Tier, str]] = {
    "flat": "one rate",
    "audio_off": "audio off",
    "audio_on": "audio on",
    "voice_control": "audio on with voice control",
}
