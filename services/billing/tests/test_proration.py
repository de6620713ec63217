from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_DOWN, Context, Decimal, localcontext
from fractions import Fraction
from math import floor
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing.money import Currency
from services.billing.proration import Change, Rest, day_of, days_left, midnight, prorated, proration, time_left
from services.billing.stretch import Stretch
from services.billing.tests.statements import account, due

USD, KWD = Currency("USD", 2), Currency("KWD", 3)

ZONES = [ZoneInfo(name) for name in ("UTC", "Europe/Berlin", "America/St_Johns", "Africa/Cairo", "Pacific/Apia")]
"""With clocks that are changed at 1:00 UTC, at 0:01 until 2011, and at midnight; Apia had no 30 December 2011."""

amounts = st.decimals(0, 10**6, places=4)
moments = st.datetimes(datetime(2005, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - as asked


# Kill Bill, TestInvoiceDateUtilsWithoutFixedProration and ...WithFixedProration: ratios in 9 digits, here of a million.
@pytest.mark.parametrize(
    ("part", "whole", "ratio"),
    [
        (23, 31, "741935.484"),  # 23 May to 15 June of 15 May to 15 June
        (22, 30, "733333.333"),  # 23 June to 15 July; of 30 days whatever the month has, all of these
        (20, 28, "714285.714"),  # 23 February to 15 March 2023
        (21, 29, "724137.931"),  # the same in 2024
        (8, 30, "266666.667"),  # 15 to 23 May of 30 days
    ],
)
def test_ratios_are_those_of_kill_bill(part: int, whole: int, ratio: str) -> None:
    assert str(prorated(Decimal(10**6), part, whole, KWD.digits)) == ratio


@given(st.integers(0, 10**20), st.integers(1, 10**18), st.integers(0, 10**18), st.integers(0, 4))
def test_a_part_is_what_fractions_say(amount: int, whole: int, part: int, digits: int) -> None:
    part = min(part, whole)
    exact = Fraction(amount * part, whole * 10**12)

    cost = prorated(Decimal(amount).scaleb(-12), part, whole, digits)

    assert Fraction(cost) == Fraction(floor(exact * 10**digits + Fraction(1, 2)), 10**digits)


@given(amounts, st.lists(st.integers(0, 400), min_size=4, max_size=4).map(sorted))
def test_two_parts_cost_what_both_together_cost_but_for_a_unit_each(amount: Decimal, bounds: list[int]) -> None:
    a, b, c, whole = bounds
    whole = whole or 1

    apart = prorated(amount, b - a, whole, USD.digits) + prorated(amount, c - b, whole, USD.digits)

    assert abs(apart - prorated(amount, c - a, whole, USD.digits)) <= 2 * Decimal("0.01")


@given(amounts, amounts, st.integers(1, 400), st.integers(0, 400))
def test_neither_more_is_given_back_nor_more_charged_than_the_whole(
    old: Decimal, new: Decimal, whole: int, part: int
) -> None:
    change = proration(old, new, Rest(min(part, whole), whole), USD)

    assert 0 <= change.credit <= prorated(old, 1, 1, USD.digits)
    assert 0 <= change.charge <= prorated(new, 1, 1, USD.digits)
    assert change.net == change.charge - change.credit
    assert {each.as_tuple().exponent for each in (change.credit, change.charge, change.net)} == {-2}
    assert proration(new, old, Rest(min(part, whole), whole), USD).net == -change.net


def test_a_day_belongs_to_what_is_in_force_at_its_end() -> None:
    march, april = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)
    last_moment = timedelta(days=15, microseconds=-1)

    lefts = [
        days_left(Change(march, march + each, april), UTC) for each in (timedelta(), last_moment, timedelta(days=15))
    ]

    assert lefts == [Rest(31, 31), Rest(17, 31), Rest(16, 31)]


def test_time_is_what_passes_and_days_are_those_of_the_calendar_when_clocks_go_back() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    change = Change(
        datetime(2026, 10, 1, tzinfo=berlin),
        datetime(2026, 10, 26, tzinfo=berlin),
        datetime(2026, 11, 1, tzinfo=berlin),
    )

    left = time_left(change)

    assert days_left(change, berlin) == Rest(6, 31)
    assert (left.part / 10**6, left.whole / 10**6) == (518_400, 2_682_000)


@pytest.mark.parametrize(
    ("zone", "day", "first_moment"),
    [
        ("UTC", "2026-03-29", "2026-03-29T00:00+00:00"),
        ("Europe/Berlin", "2026-03-29", "2026-03-28T23:00+00:00"),
        ("Africa/Cairo", "2026-04-24", "2026-04-23T22:00+00:00"),  # which is 1:00: there is no 0:00
        ("America/Havana", "2026-11-01", "2026-11-01T04:00+00:00"),  # the first of two
    ],
)
def test_a_day_begins_at_its_first_moment(zone: str, day: str, first_moment: str) -> None:
    begin = midnight(date.fromisoformat(day), ZoneInfo(zone))

    assert begin == datetime.fromisoformat(first_moment)
    assert begin.tzinfo is UTC
    assert day_of(begin, ZoneInfo(zone)) == date.fromisoformat(day)
    assert day_of(begin - timedelta(microseconds=1), ZoneInfo(zone)) < date.fromisoformat(day)


@given(st.lists(moments, min_size=3, max_size=3, unique=True).map(sorted), st.sampled_from(ZONES))
def test_what_is_left_is_a_part_of_the_whole(in_order: list[datetime], zone: ZoneInfo) -> None:
    change = Change(*in_order)

    for rest in (days_left(change, zone), time_left(change)):
        assert 0 <= rest.part <= rest.whole


def test_what_is_left_is_a_part_of_the_whole_where_a_day_comes_back() -> None:
    """In St John's it was 23:01 on the 28th again at 0:01 on 29 October 2006."""
    midnight_once, the_day_before_again = (
        datetime(2006, 10, 29, 2, 30, tzinfo=UTC),
        datetime(2006, 10, 29, 3, tzinfo=UTC),
    )

    change = Change(midnight_once, the_day_before_again, datetime(2006, 11, 5, 12, tzinfo=UTC))

    assert days_left(change, ZoneInfo("America/St_Johns")) == Rest(7, 7)


@given(st.integers(0, 30 * 86_400 - 1), amounts, amounts)
def test_invoices_charge_what_is_previewed(second: int, old: Decimal, new: Decimal) -> None:
    march, april = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)
    at = march + timedelta(seconds=second)

    previewed = proration(old, new, days_left(Change(march, at, april), UTC), USD)

    after = due(account(Stretch("new", new, at, april), is_closed=True))
    before = due(account(Stretch("old", old, march, at), is_closed=True))
    assert sum(item.amount for item in after) == previewed.charge
    paid = sum((item.amount for item in before), Decimal())
    assert abs(paid - (prorated(old, 1, 1, USD.digits) - previewed.credit)) <= Decimal("0.01")


def test_the_context_of_whoever_asks_does_not_matter() -> None:
    with localcontext(Context(prec=3, rounding=ROUND_DOWN)):
        change = proration(Decimal(20000), Decimal(40000), Rest(21, 31), USD)
        figures = [str(each) for each in (change.credit, change.charge, change.net)]

    assert figures == ["13548.39", "27096.77", "13548.38"]
