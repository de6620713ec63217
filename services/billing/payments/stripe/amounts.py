"""Amounts as Stripe has them: whole numbers of a currency's smallest unit, which is not always the one of ISO 4217.

Source: https://docs.stripe.com/currencies, "Zero-decimal currencies", "Special cases" and "Three-decimal currencies".
"""

from decimal import Decimal
from typing import Final

from services.billing.money import EXACT, currency_of, rounded
from services.billing.payments.port import ChargeRefusedError

_DIGITS: Final = {"ISK": 2, "UGX": 2, "MGA": 0}
"""Where Stripe counts other digits than ISO 4217 lists."""

_THREE = 3
_TEN = 10


def to_smallest(amount: Decimal, currency: str) -> int:
    """Return an amount in the smallest unit.

    Raises:
        ChargeRefusedError: Stripe cannot take exactly this amount.
    """
    digits = _digits(currency)
    units = amount.scaleb(digits, EXACT)
    whole = int(units)
    if whole != units or (digits == _THREE and whole % _TEN):
        raise ChargeRefusedError("amount_not_chargeable")
    return whole


def from_smallest(units: int, currency: str) -> Decimal:
    """Return an amount in the digits that ISO 4217 lists."""
    return rounded(Decimal(units).scaleb(-_digits(currency), EXACT), currency_of(currency).digits)


def _digits(currency: str) -> int:
    return _DIGITS.get(currency, currency_of(currency).digits)
