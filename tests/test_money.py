"""Amounts of money as the ledger holds them, and as people and programs read them."""

from __future__ import annotations

from decimal import Decimal

import pytest

from kling_mcp.money import cents, dollars, exact_usd, micro_dollars, microusd_text, usd, usd_text


@pytest.mark.parametrize(
    ("amount", "microusd", "number", "text", "at_least", "exact"),
    [
        ("0", 0, 0.0, "$0.00", "0.00", "$0.00"),
        ("0.56", 560_000, 0.56, "$0.56", "0.56", "$0.56"),
        ("25", 25_000_000, 25.0, "$25.00", "25.00", "$25.00"),
        ("0.5625", 562_500, 0.5625, "$0.56", "0.57", "$0.5625"),
        ("1.1760", 1_176_000, 1.176, "$1.18", "1.18", "$1.176"),
        ("0.0000001", 1, 0.0, "$0.00", "0.01", "$0.0000001"),
        ("1000000", 10**12, 1_000_000.0, "$1000000.00", "1000000.00", "$1000000.00"),
    ],
)
def test_an_amount_is_held_rounded_up_and_shown_in_cents(
    amount: str, microusd: int, number: float, text: str, at_least: str, exact: str
) -> None:
    value = Decimal(amount)

    assert micro_dollars(value) == microusd
    assert dollars(microusd) >= value, "a hold is never too small"
    assert (usd(value), usd_text(value), cents(value), exact_usd(value)) == (number, text, at_least, exact)
    assert microusd_text(microusd) == usd_text(dollars(microusd))
    assert Decimal(cents(value)) >= value, "an agreement to the amount that is shown is enough"
