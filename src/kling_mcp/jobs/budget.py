"""Dollars for people, micro-dollars for the ledger: an integer adds up the same in every engine."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal
from typing import Final

__all__ = ["dollars", "micro_dollars"]

_MICRO: Final = 1_000_000


def micro_dollars(amount: Decimal) -> int:
    """*amount* in micro-dollars, rounded up so that a hold is never too small."""
    return int((amount * _MICRO).to_integral_value(ROUND_CEILING))


def dollars(amount_microusd: int) -> Decimal:
    """*amount_microusd* micro-dollars as dollars, exactly."""
    return Decimal(amount_microusd) / _MICRO
