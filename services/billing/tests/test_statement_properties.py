from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import ROUND_DOWN, Context, Decimal, localcontext
from fractions import Fraction
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.billing.money import Currency
from services.billing.statement import Account, Item, next_close, targets, window_start
from services.billing.stretch import Stretch
from services.billing.terms import Terms
from services.billing.tests.histories import accounts, amounts, moments, usages
from services.billing.tests.ledger import EVER, Ledger, reported
from services.billing.tests.oracle import Used, active_days, charged_days, owed

GRACE, LATEST = timedelta(hours=24), timedelta(days=35)
"""How long an invoice waits for usage, and how late that can come."""

closings = st.lists(moments, max_size=4).map(sorted)


def end_of(account: Account) -> datetime:
    """Return when all that happened to an account has happened."""
    return max(max(each.started_at, each.ended_at or each.started_at) for each in account.stretches)


def all_that_is_due(account: Account, used: Used) -> Sequence[Item]:
    """Return what a closed account owes."""
    end = end_of(account)
    usage = reported(account, used, closes_at=end, window_from=EVER)
    return targets(account, usage, closes_at=end, window_from=EVER)


@given(accounts(), usages, closings)
@settings(max_examples=60, deadline=None)
def test_all_invoices_together_say_what_is_owed(account: Account, used: Used, closings: list[datetime]) -> None:
    ledger = Ledger()

    for closes_at in closings:
        ledger.issue(replace(account, is_closed=False), used, closes_at=closes_at)
    end = max([end_of(account), *closings])
    ledger.issue(account, used, closes_at=end)

    assert Fraction(ledger.total) == owed(account, used, closes_at=end)


@given(st.data(), accounts(), usages, usages)
@settings(max_examples=30, deadline=None)
def test_it_does_not_matter_what_was_known_when(
    data: st.DataObject, truth: Account, used: Used, otherwise: Used
) -> None:
    ledger = Ledger()
    end = end_of(truth)

    for closes_at in data.draw(closings):
        known = data.draw(st.lists(st.sampled_from(truth.stretches), unique=True))
        believed = data.draw(st.sampled_from([used, otherwise, {}]))
        if known:
            account = replace(truth, stretches=known, is_closed=False)
            ledger.issue(account, believed, closes_at=min(closes_at, end))
    ledger.issue(truth, used, closes_at=end)

    assert Fraction(ledger.total) == owed(truth, used, closes_at=end)


@given(accounts(is_closed=False), usages, usages)
@settings(max_examples=30, deadline=None)
def test_invoices_of_every_month_look_back_far_enough_for_all_late_usage(
    account: Account, early: Used, late: Used
) -> None:
    def known(closes_at: datetime) -> Used:
        final = {month: each for month, each in late.items() if last_of(month) + LATEST <= closes_at + GRACE}
        return {**early, **{month: {} for month in late.keys() - early.keys()}, **final}

    ledger = Ledger()
    closes_at = next_close(account, after=None)
    last = closes_at
    while closes_at is not None and closes_at < end_of(account) + timedelta(days=130):
        last = closes_at
        window_from = window_start(account, closes_at=closes_at)
        ledger.issue(account, known(closes_at), closes_at=closes_at, window_from=window_from)
        closes_at = next_close(account, after=closes_at)

    assert last is not None
    assert Fraction(ledger.total) == owed(account, known(last), closes_at=last)


def last_of(month: str) -> datetime:
    """Return when a month has ended in the whole world."""
    year, number = map(int, month.split("-"))
    return datetime(year + number // 12, number % 12 + 1, 1, 12, tzinfo=UTC)


@given(st.data(), accounts(), usages, closings)
@settings(max_examples=20, deadline=None)
def test_the_same_facts_make_the_same_invoices_in_whatever_order_they_are_told(
    data: st.DataObject, account: Account, used: Used, closings: list[datetime]
) -> None:
    again = replace(
        account,
        stretches=data.draw(st.permutations(account.stretches)),
        versions={plan: data.draw(st.permutations(list(each))) for plan, each in account.versions.items()},
    )
    first, second = Ledger(), Ledger()

    for closes_at in closings:
        first.issue(account, used, closes_at=closes_at)
        with localcontext(Context(prec=3, rounding=ROUND_DOWN)):
            second.issue(again, dict(sorted(used.items(), reverse=True)), closes_at=closes_at)

    assert repr(first.invoices) == repr(second.invoices)


@given(accounts(is_closed=False), usages, closings)
@settings(max_examples=20, deadline=None)
def test_nothing_is_billed_a_second_time(account: Account, used: Used, closings: list[datetime]) -> None:
    ledger = Ledger()
    for closes_at in closings:
        ledger.issue(account, used, closes_at=closes_at)

        assert ledger.issue(account, used, closes_at=closes_at) == []


@given(accounts(is_closed=False), st.data(), moments)
@settings(max_examples=20, deadline=None)
def test_what_happens_later_is_on_no_invoice_before(account: Account, data: st.DataObject, closes_at: datetime) -> None:
    def known(each: Stretch) -> Stretch:
        return replace(each, ended_at=None) if each.ended_at is not None and each.ended_at > closes_at else each

    then = replace(account, stretches=[known(each) for each in account.stretches if each.started_at <= closes_at])

    assert targets(account, {}, closes_at=closes_at, window_from=EVER) == targets(
        then, {}, closes_at=closes_at, window_from=EVER
    )


@given(accounts(is_closed=True), usages)
@settings(max_examples=60, deadline=None)
def test_no_moment_is_billed_twice_and_never_more_days_than_were_active(account: Account, used: Used) -> None:
    items = all_that_is_due(account, used)

    no_two_overlap(account, items)
    for product in {each.product for each in account.stretches}:
        own = [item for item in items if item.key.startswith(f"base:{product}:") and item.unit == "day"]
        billed = sum(item.quantity for item in own)
        assert billed <= charged_days(account, product, closes_at=end_of(account)) <= active_days(account, product)


def no_two_overlap(account: Account, items: Sequence[Item]) -> None:
    for product in {each.product for each in account.stretches}:
        own = sorted((item.since, item.until) for item in items if item.key.startswith(f"base:{product}:"))
        assert all(since < until for since, until in own)
        assert all(before[1] <= after[0] for before, after in pairwise(own))


@given(accounts(is_closed=True), usages)
@settings(max_examples=30, deadline=None)
def test_every_item_has_a_key_of_its_own_and_the_digits_of_the_currency(account: Account, used: Used) -> None:
    items = all_that_is_due(account, used)

    assert len({item.key for item in items}) == len(items)
    assert {item.amount.as_tuple().exponent for item in items} <= {-account.currency.digits}


@pytest.mark.parametrize(
    ("zone", "begins"),
    [
        ("America/St_Johns", datetime(2006, 10, 28, tzinfo=UTC)),  # at 0:01 on the 29th clocks were set back to 23:01
        ("Pacific/Apia", datetime(2011, 12, 28, tzinfo=UTC)),  # there was no 30 December
        ("America/Havana", datetime(2026, 10, 31, tzinfo=UTC)),  # at 1:00 on the 1st clocks are set back to 0:00
    ],
)
@given(
    steps=st.lists(
        st.tuples(st.integers(1, 5000), st.sampled_from(["days", "seconds"]), amounts), min_size=1, max_size=9
    )
)
@settings(max_examples=60, deadline=None)
def test_no_moment_is_billed_twice_where_a_day_comes_back_or_is_left_out(
    zone: str, begins: datetime, steps: Sequence[tuple[int, str, Decimal]]
) -> None:
    stretches: list[Stretch] = []
    moment = begins
    for minutes, plan, amount in steps:
        began, moment = moment, moment + timedelta(minutes=minutes)
        stretches.append(Stretch(plan, amount, began, moment))
    versions: Mapping[str, Sequence[Terms]] = {
        "days": [Terms("days", 1, Decimal())],
        "seconds": [Terms("seconds", 1, Decimal(), by_second=True)],
    }
    account = Account(Currency("USD", 2), ZoneInfo(zone), stretches, versions, is_closed=True)

    no_two_overlap(account, targets(account, {}, closes_at=moment, window_from=begins))


@given(st.sampled_from(["day", "second"]), amounts, st.lists(moments, min_size=3, max_size=3, unique=True).map(sorted))
@settings(max_examples=100, deadline=None)
def test_two_parts_cost_what_both_together_cost_but_for_a_unit_each(
    proration: str, amount: Decimal, bounds: list[datetime]
) -> None:
    start, middle, end = bounds
    versions = {plan: [Terms(plan, 1, amount, by_second=proration == "second")] for plan in ("one", "two")}

    def due(*stretches: Stretch) -> Sequence[Item]:
        account = Account(Currency("USD", 2), ZoneInfo("Europe/Berlin"), stretches, versions, is_closed=True)
        return all_that_is_due(account, {})

    whole = due(Stretch("one", amount, start, end))
    joined = due(Stretch("one", amount, start, middle), Stretch("one", amount, middle, end))
    apart = due(Stretch("one", amount, start, middle), Stretch("two", amount, middle, end))

    assert joined == whole
    difference = sum((item.amount for item in apart), Decimal()) - sum((item.amount for item in whole), Decimal())
    assert abs(difference) <= len(apart) * Decimal("0.01")
