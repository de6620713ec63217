"""Prices against properties that they must have, and against a calculator that counts unit by unit."""

from collections.abc import Sequence
from decimal import ROUND_DOWN, Context, Decimal, localcontext
from fractions import Fraction
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing.money import Currency
from services.billing.pricing import Flat, Graduated, Model, Packages, PerUnit, Price, Tier, Volume, price

USD = Currency("USD", 2)

STEP = Decimal("0.5")
"""What the slow calculator counts by; bounds and quantities are multiples of it."""

currencies = st.sampled_from([USD, Currency("JPY", 0), Currency("KWD", 3), Currency("CLF", 4)])
amounts = st.decimals(0, 1000, places=5)
quantities = st.integers(0, 80).map(lambda steps: steps * STEP)
rates = st.decimals(0, 100, places=3)
extras = st.fixed_dictionaries({}, optional={"minimum": amounts, "already_billed": amounts, "tax_rate": rates})


@st.composite
def tiers_of(draw: st.DrawFn) -> list[Tier]:
    """Draw tiers whose bounds grow, the last without any."""
    bounds = sorted(draw(st.sets(st.integers(1, 60), max_size=4)))
    return [Tier(up_to, draw(amounts), draw(amounts)) for up_to in (*(each * STEP for each in bounds), None)]


models = st.one_of(
    st.builds(Flat, amounts),
    st.builds(PerUnit, amounts),
    st.builds(Graduated, tiers_of(), st.booleans()),
    st.builds(Volume, tiers_of(), st.booleans()),
    st.builds(Packages, st.integers(1, 40).map(lambda steps: steps * STEP), amounts, quantities),
)


def half_up(amount: Fraction, digits: int) -> Fraction:
    """Round what is not below 0."""
    return Fraction(floor(amount * 10**digits + Fraction(1, 2)), 10**digits)


def counted(tiers: Sequence[Tier], quantity: Decimal, digits: int) -> list[Fraction]:
    """Charge graduated tiers step by step, each step in the first tier that still has room."""
    sums: dict[int, Fraction] = {}
    reached = Decimal()
    while reached < quantity:
        reached += STEP
        place = next(place for place, each in enumerate(tiers) if each.up_to is None or reached <= each.up_to)
        sums.setdefault(place, Fraction(tiers[place].flat_amount))
        sums[place] += Fraction(tiers[place].unit_amount) * Fraction(STEP)
    return [half_up(each, digits) for each in sums.values()]


@given(tiers_of(), quantities, currencies)
def test_graduated_is_what_counting_unit_by_unit_gives(
    tiers: list[Tier], quantity: Decimal, currency: Currency
) -> None:
    lines = price(Graduated(tiers), quantity, currency).lines

    assert [Fraction(line.amount) for line in lines] == counted(tiers, quantity, currency.digits)
    assert sum(line.quantity for line in lines) == quantity


@given(models, quantities, currencies, extras)
def test_lines_make_the_total_in_the_digits_of_the_currency(
    model: Model, quantity: Decimal, currency: Currency, extra: dict[str, Decimal]
) -> None:
    made = price(model, quantity, currency, **extra)

    taxes = [line.tax for line in made.lines if line.tax is not None]
    figures = [made.subtotal, made.tax, made.total, *taxes, *(line.amount for line in made.lines)]
    assert made.subtotal == sum(line.amount for line in made.lines)
    assert made.tax == sum(taxes)
    assert made.total == made.subtotal + made.tax
    assert {figure.as_tuple().exponent for figure in figures} == {-currency.digits}
    assert not any(figure.is_zero() and figure.is_signed() for figure in figures)
    assert len(taxes) == (len(made.lines) if "tax_rate" in extra else 0)
    assert price(model, quantity, currency, **extra) == made


@given(models, quantities, amounts, amounts)
def test_a_minimum_is_reached_before_what_was_billed_is_taken_off(
    model: Model, quantity: Decimal, minimum: Decimal, billed: Decimal
) -> None:
    def total(minimum: Decimal | None = None, billed: Decimal | None = None) -> Decimal:
        return price(model, quantity, USD, minimum=minimum, already_billed=billed).total

    least, off = price(Flat(minimum), Decimal(1), USD).total, price(Flat(billed), Decimal(1), USD).total
    assert total(minimum=minimum) == max(total(), least)
    assert total(billed=billed) == total() - off
    assert total(minimum, billed) == max(total(), least) - off


@given(tiers_of(), quantities, quantities)
def test_graduated_never_falls_as_the_quantity_grows(tiers: list[Tier], one: Decimal, other: Decimal) -> None:
    less, more = sorted((one, other))

    assert price(Graduated(tiers), less, USD).total <= price(Graduated(tiers), more, USD).total


def test_volume_falls_where_a_cheaper_tier_begins() -> None:
    model = Volume([Tier(Decimal(15), Decimal(10)), Tier(None, Decimal(5))])

    assert [str(price(model, Decimal(each), USD).total) for each in (15, 16)] == ["150.00", "80.00"]


@given(st.sampled_from([Graduated, Volume]), tiers_of())
def test_nothing_used_costs_nothing_unless_a_flat_amount_is_wanted(kind: type[Graduated], tiers: list[Tier]) -> None:
    first = price(Flat(tiers[0].flat_amount), Decimal(1), USD).total

    assert price(kind(tiers), Decimal(), USD) == Price([], *[Decimal("0.00")] * 3)
    assert price(kind(tiers, flat_on_zero=True), Decimal(), USD).total == first


@pytest.mark.parametrize("model", [PerUnit(Decimal(7)), Packages(Decimal(10), Decimal(7))])
def test_nothing_used_makes_no_line(model: Model) -> None:
    assert price(model, Decimal(), USD).lines == []


@given(models, quantities, rates)
def test_the_context_of_whoever_asks_does_not_matter(model: Model, quantity: Decimal, rate: Decimal) -> None:
    usual = price(model, quantity, USD, tax_rate=rate)

    with localcontext(Context(prec=3, rounding=ROUND_DOWN)):
        unusual = price(model, quantity, USD, tax_rate=rate)

    assert unusual == usual


WIDEST = Decimal("999999999999999.999999999999")
"""The largest number with the most digits that the edge lets in."""


@pytest.mark.parametrize(
    ("model", "exact"),
    [
        (PerUnit(WIDEST), Fraction(WIDEST) ** 2),
        (Graduated([Tier(None, WIDEST, WIDEST)]), Fraction(WIDEST) ** 2 + Fraction(WIDEST)),
        (Volume([Tier(Decimal(1), Decimal()), Tier(None, WIDEST)]), Fraction(WIDEST) ** 2),
        (Packages(Decimal("1E-12"), WIDEST), Fraction(WIDEST) ** 2 * 10**12),
        (Packages(WIDEST, WIDEST), Fraction(WIDEST)),
    ],
)
def test_the_widest_numbers_are_calculated_exactly(model: Model, exact: Fraction) -> None:
    made = price(model, WIDEST, USD, tax_rate=WIDEST)

    assert Fraction(made.subtotal) == half_up(exact, 2)
    assert Fraction(made.tax) == half_up(Fraction(made.subtotal) * Fraction(WIDEST) / 100, 2)
    assert Fraction(made.total) == Fraction(made.subtotal) + Fraction(made.tax)


@pytest.mark.parametrize(
    ("model", "quantity", "descriptions"),
    [
        (Flat(Decimal(49)), "3", ["flat, 49.00 USD"]),
        (PerUnit(Decimal("0.0005")), "30", ["30 at 0.0005 USD each"]),
        (
            Graduated(
                [Tier(Decimal(10), Decimal(10), Decimal(2)), Tier(Decimal(20), Decimal(5)), Tier(None, Decimal(4))]
            ),
            "20.5",
            [
                "up to 10: 10 at 10.00 USD each and 2.00 USD for the tier",
                "above 10 up to 20: 10 at 5.00 USD each",
                "above 20: 0.5 at 4.00 USD each",
            ],
        ),
        (
            Volume([Tier(Decimal(10), Decimal(10)), Tier(None, Decimal(5), Decimal(3))]),
            "11",
            ["above 10: 11 at 5.00 USD each and 3.00 USD for the tier"],
        ),
        (Packages(Decimal(10), Decimal(100)), "121", ["121 in packages of 10 at 100.00 USD each"]),
        (
            Packages(Decimal(10), Decimal(100), Decimal(20)),
            "121",
            ["121 in packages of 10 at 100.00 USD each, the first 20 free"],
        ),
    ],
)
def test_a_line_says_how_its_amount_comes_about(model: Model, quantity: str, descriptions: list[str]) -> None:
    assert [line.description for line in price(model, Decimal(quantity), USD).lines] == descriptions


@pytest.mark.parametrize("extra", [{"minimum": Decimal(3)}, {"minimum": Decimal()}, {"already_billed": Decimal()}])
def test_what_adds_nothing_makes_no_line(extra: dict[str, Decimal]) -> None:
    assert len(price(PerUnit(Decimal(1)), Decimal(3), USD, **extra).lines) == 1


def test_lines_beside_the_model_say_what_they_are() -> None:
    made = price(
        PerUnit(Decimal(1)), Decimal(3), USD, minimum=Decimal(5), already_billed=Decimal("1.5"), tax_rate=Decimal(10)
    )

    assert [(line.description, str(line.quantity), str(line.amount), str(line.tax)) for line in made.lines] == [
        ("3 at 1.00 USD each", "3", "3.00", "0.30"),
        ("up to the minimum of 5.00 USD", "1", "2.00", "0.20"),
        ("already billed for the period", "1", "-1.50", "-0.15"),
    ]
    assert (str(made.subtotal), str(made.tax), str(made.total)) == ("3.50", "0.35", "3.85")
