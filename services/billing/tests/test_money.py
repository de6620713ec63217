from decimal import ROUND_DOWN, Context, Decimal, localcontext
from fractions import Fraction
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing.money import Currency, currency_of, plain, rounded, written
from shared.postgres import Pool
from shared.text import CURRENCIES


@pytest.mark.parametrize(
    ("amount", "digits", "short"),
    [
        ("0.125", 2, "0.13"),  # half to even gives 0.12
        ("-0.125", 2, "-0.13"),  # a reversal is what it reverses
        ("0.124999999999", 2, "0.12"),
        ("2.675", 2, "2.68"),  # as a float it is 2.67499...
        ("0.5", 0, "1"),
        ("2.5", 0, "3"),
        ("0.0005", 3, "0.001"),
        ("1", 3, "1.000"),
        ("-0.001", 2, "0.00"),  # without a sign
        ("0E-12", 2, "0.00"),
        ("123456789012345678901234567890.125", 2, "123456789012345678901234567890.13"),
    ],
)
def test_half_a_unit_is_rounded_away_from_zero(amount: str, digits: int, short: str) -> None:
    assert str(rounded(Decimal(amount), digits)) == short


@given(st.decimals(-(10**30), 10**30, places=8), st.integers(0, 4))
def test_rounding_is_what_fractions_say(amount: Decimal, digits: int) -> None:
    size = floor(abs(Fraction(amount)) * 10**digits + Fraction(1, 2))

    assert abs(Fraction(rounded(amount, digits))) == Fraction(size, 10**digits)
    assert rounded(amount.copy_negate(), digits) == rounded(amount, digits).copy_negate()


def test_the_context_of_whoever_asks_does_not_matter() -> None:
    with localcontext(Context(prec=3, rounding=ROUND_DOWN)):
        assert str(rounded(Decimal("123456.785"), 2)) == "123456.79"
        assert written(Decimal("123456.7851"), Currency("USD", 2)) == "123456.7851 USD"
        assert plain(Decimal("123456.7850")) == "123456.785"


@pytest.mark.parametrize(("code", "digits"), [("USD", 2), ("EUR", 2), ("JPY", 0), ("KWD", 3), ("CLF", 4)])
def test_a_currency_has_the_digits_of_iso_4217(code: str, digits: int) -> None:
    assert currency_of(code) == Currency(code, digits)


@pytest.mark.parametrize("code", ["XXX", "XAU", "XTS", "ABC", "usd", ""])
def test_what_is_no_money_is_no_currency(code: str) -> None:
    with pytest.raises(LookupError):
        currency_of(code)


def test_every_currency_that_the_edge_lets_in_has_digits() -> None:
    assert {currency_of(code).code for code in CURRENCIES} == CURRENCIES


async def test_what_is_sold_is_written_with_the_same_digits(pool: Pool) -> None:
    for row in await pool.fetch("SELECT code, digits FROM currency"):
        assert currency_of(row["code"]).digits == row["digits"]


@pytest.mark.parametrize(
    ("amount", "text"),
    [("49", "49.00 USD"), ("0.0005", "0.0005 USD"), ("0.10000", "0.10 USD"), ("1E+3", "1000.00 USD")],
)
def test_a_price_is_written_in_as_many_digits_as_it_has(amount: str, text: str) -> None:
    assert written(Decimal(amount), Currency("USD", 2)) == text


@pytest.mark.parametrize(
    ("number", "text"), [("10.50", "10.5"), ("100", "100"), ("0E-12", "0"), ("0.000000000001", "0.000000000001")]
)
def test_a_number_is_written_plainly(number: str, text: str) -> None:
    assert plain(Decimal(number)) == text
