"""
What a job will cost, from dated list prices.

fal.ai publishes no price per request; its pages, and copies of them from other
dates, name rates per second that do not always agree. The newest rate makes
the estimate, the highest makes the ceiling that a budget holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Final

from kling_mcp.errors import NotAvailable
from kling_mcp.money import exact_usd

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kling_mcp.catalog.models import Billed, Endpoint, Price, Sound
    from kling_mcp.catalog.plan import Plan

__all__ = ["Quote", "price_span", "quote", "quote_plan"]


@dataclass(frozen=True, slots=True)
class Quote:
    """
    What a job is expected to cost, and what it may cost at most, in US dollars.

    Attributes:
        estimated_usd: At the newest rate.
        ceiling_usd: At the highest rate that any source names, for the longest that the job may be.
        seconds: The length of the video that is expected.
        basis: The sum behind the estimate, in words.
        sources: Every price that was considered, the newest first.
        warnings: Where the sources disagree, and what is not known.
        needs_max_cost: Whether so little is known of the price that a job needs ``max_cost_usd``.

    """

    estimated_usd: Decimal
    ceiling_usd: Decimal
    seconds: int
    basis: str
    sources: tuple[str, ...]
    warnings: tuple[str, ...]
    needs_max_cost: bool = False


def quote_plan(plan: Plan, measured: Mapping[str, Decimal | None] | None = None) -> Quote:
    """
    Price the call that *plan* has checked.

    Args:
        measured: The lengths in seconds of the videos and sounds that it gives, by argument; None, or left out, is a
            length that is not known.

    Raises:
        NotAvailable: The endpoint has no list price.

    """
    return quote(
        plan.endpoint,
        seconds=plan.seconds,
        audio=plan.audio,
        voice=plan.voice,
        tier=plan.tier,
        inputs={**plan.input_seconds, **{name: length for name, length in (measured or {}).items() if length}},
        longest=plan.longest,
        ceiling_times=plan.ceiling_times,
    )


def quote(
    endpoint: Endpoint,
    *,
    seconds: int | None,
    audio: bool | None,
    voice: bool,
    tier: str = "",
    inputs: Mapping[str, Decimal | None] | None = None,
    longest: Mapping[str, Decimal] | None = None,
    ceiling_times: Decimal = Decimal(1),
) -> Quote:
    """
    Price a job.

    Args:
        endpoint: The endpoint that makes it.
        seconds: The length of the video, where the call decides it.
        audio: Whether sound is made; None where the endpoint has no switch.
        voice: Whether voice control is used.
        tier: The value of the endpoint's ``tier_argument``.
        inputs: The length of each video and sound that is given; None where it is not known.
        longest: How long each of them may be, where that is less than the endpoint's limits.
        ceiling_times: How many times its price the job may cost, by the endpoint's rules.

    Raises:
        NotAvailable: The endpoint has no list price.

    """
    if not endpoint.prices:
        raise NotAvailable(
            f"No list price is known of {endpoint.model} ({endpoint.mode}), so it cannot be used.",
            f"Once the file of {endpoint.endpoint_id} has a price, it can be. Other models work now.",
        )
    inputs = inputs or {}
    case = next((case for case in endpoint.billed if not case.given or case.given in inputs), None)
    counted = _counted(endpoint, case, seconds, inputs, longest or {})
    if not endpoint.tier_argument:
        tier = "voice_control" if voice else "audio_off" if audio is False else "audio_on"
    tier += case.tier_suffix if case and tier else ""
    newest = endpoint.prices[-1]
    highest = max(reversed(endpoint.prices), key=lambda price: price.rate(tier))
    estimated_usd = newest.rate(tier) * counted.expected
    least_ceiling_usd = highest.rate(tier) * counted.expected
    ceiling_usd = highest.rate(tier) * counted.most * ceiling_times
    warnings = list(counted.warnings)
    if least_ceiling_usd != estimated_usd:
        unit = "" if newest.usd_per_call is not None else "/s"
        warnings.append(
            f"Sources disagree on the price: ${newest.rate(tier)}{unit} ({_source(newest)}) makes "
            f"{exact_usd(estimated_usd)}, ${highest.rate(tier)}{unit} ({_source(highest)}) makes "
            f"{exact_usd(least_ceiling_usd)}. The estimate uses the newest, the ceiling the highest."
        )
    if not endpoint.tiers_known:
        ceiling_usd *= 2
        warnings.append(
            "Only the list price is known, not what sound, resolution or other choices add: twice as much is held, and "
            "each job needs max_cost_usd."
        )
    return Quote(
        estimated_usd=estimated_usd,
        ceiling_usd=ceiling_usd,
        seconds=counted.video_seconds,
        basis=f"{_sum(endpoint, newest, tier, counted)}; list price {_source(newest)}",
        sources=tuple(_source(price) for price in reversed(endpoint.prices)),
        warnings=tuple(warnings),
        needs_max_cost=not endpoint.tiers_known,
    )


def price_span(endpoint: Endpoint) -> tuple[Decimal, Decimal] | None:
    """The least and the most that a job can cost, in US dollars; None where no price is known."""
    if not endpoint.prices:
        return None
    lengths = endpoint.length.lengths if endpoint.length else (0,)
    case = endpoint.billed[-1] if endpoint.billed else None
    limits = {name: endpoint.arguments[name].limits for name in endpoint.measured(case)} if case else {}
    least = {name: (limit and limit.min_seconds) or Decimal(1) for name, limit in limits.items()}
    most = {name: (limit and limit.max_seconds) or Decimal(1) for name, limit in limits.items()}
    newest = endpoint.prices[-1]
    return (
        _counted(endpoint, case, lengths[0], least, {}).expected * min(newest.rates),
        _counted(endpoint, case, lengths[-1], most, {}).most
        * max(rate for price in endpoint.prices for rate in price.rates),
    )


@dataclass(frozen=True, slots=True)
class _Counted:
    """The seconds that are paid for: as expected, and at most; 1 where a call has one price."""

    expected: int
    most: int
    video_seconds: int
    words: str
    warnings: tuple[str, ...] = ()


def _counted(
    endpoint: Endpoint,
    case: Billed | None,
    seconds: int | None,
    inputs: Mapping[str, Decimal | None],
    longest: Mapping[str, Decimal],
) -> _Counted:
    if endpoint.prices[-1].usd_per_call is not None:
        return _Counted(1, 1, seconds or 0, "one call")
    if case is None:
        return _Counted(seconds or 0, seconds or 0, seconds or 0, f"{seconds} s")
    expected, most = Decimal(0), Decimal(0)
    words: list[str] = []
    warnings: list[str] = []
    video = Decimal(seconds or 0)
    for name in case.seconds_of:
        if name == "length":
            expected, most = expected + (seconds or 0), most + (seconds or 0)
            words.append(f"{seconds} s")
            continue
        length = inputs.get(name)
        if length is None:
            limits = endpoint.arguments[name].limits
            length = longest.get(name) or (limits.max_seconds if limits else None) or Decimal(0)
            warnings.append(f"The length of {name} is not known, so the longest that fits is held: {length:f} s.")
            words.append(f"{length:f} s, the longest {name}")
        else:
            words.append(f"{_plain(length)} s of {name}")
        expected, most = expected + length, most + length
        video = video or length
    floor = Decimal(case.at_least_lengths * (seconds or 0))
    if floor > expected:
        words = [f"{floor} s, {case.at_least_lengths} times the video"]
    expected, most = max(expected, floor), max(most, floor)
    step = Decimal(case.step_seconds or 1)
    rounded = _up(most, step)
    # Whether a part of a second is paid is known only where a source says so.
    likely = rounded if case.step_seconds else max(_nearest(expected), 1)
    said = " + ".join(words)
    if Decimal(int(likely)) != expected:
        said += f", counted as {likely:f} s"
    return _Counted(int(likely), int(rounded), int(_nearest(video)), said, tuple(dict.fromkeys(warnings)))


def _up(amount: Decimal, step: Decimal) -> Decimal:
    return (amount / step).to_integral_value(ROUND_CEILING) * step


def _nearest(amount: Decimal) -> Decimal:
    return amount.to_integral_value(ROUND_HALF_UP)


def _plain(amount: Decimal) -> str:
    return f"{amount.quantize(Decimal('0.01')).normalize():f}"


def _source(price: Price) -> str:
    return f"{price.as_of}, {price.source}"


def _sum(endpoint: Endpoint, price: Price, tier: str, counted: _Counted) -> str:
    if price.usd_per_call is not None:
        return f"one call at ${price.usd_per_call}"
    words = _words(endpoint, price, tier)
    return f"{counted.words} \N{MULTIPLICATION SIGN} ${price.rate(tier)}/s{f' ({words})' if words else ''}"


def _words(endpoint: Endpoint, price: Price, tier: str) -> str:
    if "flat" in price.usd_per_second:
        return _FLAT_WORDS[endpoint.sound]
    return _TIER_WORDS.get(tier, tier)


_FLAT_WORDS: Final[Mapping[Sound, str]] = {
    "switchable": "one rate with or without audio",
    "always": "one rate, audio included",
    "none": "one rate, no audio",
    "kept": "one rate",
    "unknown": "one rate",
}
_TIER_WORDS: Final[Mapping[str, str]] = {
    "audio_off": "audio off",
    "audio_on": "audio on",
    "voice_control": "audio on with voice control",
}
