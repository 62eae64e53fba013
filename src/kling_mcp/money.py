"""
Money: converts between US dollars and the ledger's micro-dollars, and writes amounts for people and programs.

Amounts are ``Decimal`` dollars, or whole micro-dollars in the ledger, where they add up the same in every engine.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal
from typing import Final

__all__ = ["cents", "dollars", "exact_usd", "micro_dollars", "microusd_text", "usd", "usd_text"]

_MICRO: Final = 1_000_000
_CENT: Final = Decimal("0.01")


def micro_dollars(amount: Decimal) -> int:
    """*amount* in micro-dollars, rounded up so that a hold is never too small."""
    return int((amount * _MICRO).to_integral_value(ROUND_CEILING))


def dollars(amount_microusd: int) -> Decimal:
    """*amount_microusd* micro-dollars as dollars, exactly."""
    return Decimal(amount_microusd) / _MICRO


def usd(amount: Decimal) -> float:
    """*amount* as a JSON number, rounded for display to a hundredth of a cent."""
    return float(round(amount, 4))


def usd_text(amount: Decimal | float) -> str:
    """*amount* as people read it: ``$0.56``; below a cent ``$0.007``."""
    return f"${amount:.3f}" if Decimal("0.001") <= amount < _CENT else f"${amount:.2f}"


def microusd_text(amount_microusd: int, rounding: str = ROUND_HALF_EVEN) -> str:
    """*amount_microusd* micro-dollars as people read it: ``$0.56``."""
    return f"${dollars(amount_microusd).quantize(_CENT, rounding)}"


def cents(amount: Decimal) -> str:
    """*amount* in dollars and cents, rounded up: what is repeated as a limit must be enough."""
    return str(amount.quantize(_CENT, ROUND_CEILING))


def exact_usd(amount: Decimal) -> str:
    """*amount* in full, and with its cents: ``$0.50``, ``$0.0625``."""
    in_cents = amount.quantize(_CENT)
    return f"${in_cents if in_cents == amount else amount.normalize():f}"
