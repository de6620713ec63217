"""Amounts of money: exact until they are rounded, and rounded by one rule in the whole service.

An amount is rounded half up to the digits that its currency has, and where it is below zero as if it were above, so
that a reversal is what it reverses. Each line is rounded by itself; a total is a sum of lines, never rounded again.
"""

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal

import iso4217

EXACT = Context(prec=100, rounding=ROUND_HALF_UP)
"""In which amounts are calculated: the default one keeps 28 digits and rounds half to even.

Nothing that comes in has more than 27 digits, so no product needs more than 70. Of quotients 100 digits are kept, far
more than it takes to tell one from a half: rounding them twice changes nothing.
"""


@dataclass(frozen=True, slots=True)
class Currency:
    """A currency.

    Attributes:
        code: ISO 4217.
        digits: of its minor unit; 2 for cents.
    """

    code: str
    digits: int


def currency_of(code: str) -> Currency:
    """Return a currency with the digits that ISO 4217 lists for it.

    Raises:
        LookupError: it is not listed, or it is no money, as gold and ``XXX`` are none.
    """
    try:
        digits = iso4217.Currency(code).exponent
    except ValueError:
        digits = None
    if digits is None:
        raise LookupError(f"ISO 4217 lists no digits of {code!r}")
    return Currency(code, digits)


def rounded(amount: Decimal, digits: int) -> Decimal:
    """Round an amount, half up, and write it in that many digits; nothing is never below zero."""
    return EXACT.add(amount.quantize(Decimal(1).scaleb(-digits), context=EXACT), Decimal())


def written(amount: Decimal, currency: Currency) -> str:
    """Write a price, in more digits than the currency has if it has more."""
    short = rounded(amount, currency.digits)
    return f"{short if short == amount else amount.normalize(EXACT):f} {currency.code}"


def plain(number: Decimal) -> str:
    """Write a number without an exponent and without zeros that say nothing."""
    return f"{number.normalize(EXACT):f}"
