"""How far behind a tenant is, by the age of the oldest invoice that it has not paid."""

from datetime import datetime, timedelta
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.billing.overdue import SOON, Review, Standing, Terms, review
from services.billing.settings import BillingSettings
from services.billing.tests.support import NOON
from shared.contracts.billing import Overdue

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
TERMS = Terms(past_due=10 * DAY, suspension=14 * DAY, termination=21 * DAY)
WITHOUT_END = Terms(past_due=10 * DAY, suspension=14 * DAY, termination=None)
STEPS: tuple[Overdue, ...] = get_args(Overdue)


def day(days: float) -> datetime:
    """Return a moment so many days after the issue of the oldest invoice of which something is due."""
    return NOON + timedelta(days=days)


def settings(**given: object) -> BillingSettings:
    return BillingSettings.model_validate(
        {"database_url": "postgresql://x", "amqp_url": "amqp://127.0.0.1/", "admin_key": "k" * 24, **given}
    )


CLEAR = Standing("clear", day(-100))
PAST_DUE = Standing("past_due", day(10))
SUSPENSION = Standing("suspension", day(14))
TERMINATION = Standing("termination", day(21))

REVIEWS: list[tuple[str, Standing, float, Review]] = [
    ("new", CLEAR, 0, Review("clear", day(1))),
    ("the day before", CLEAR, 9.5, Review("clear", day(10))),
    ("told after ten days", CLEAR, 10, Review("past_due", day(11))),
    ("told already", PAST_DUE, 13.5, Review("past_due", day(14))),
    ("suspended after fourteen", PAST_DUE, 14, Review("suspension", day(15))),
    ("suspended already", SUSPENSION, 20.5, Review("suspension", day(21))),
    ("gone after three weeks", SUSPENSION, 21, Review("termination", day(22))),
    ("gone already", TERMINATION, 30, Review("termination", day(31))),
    ("told late", CLEAR, 12, Review("past_due", day(13))),
    ("told late, suspended as late", Standing("past_due", day(12)), 15.5, Review("past_due", day(16))),
    ("found years later, told first", CLEAR, 700, Review("past_due", day(701))),
    ("found years later, suspended next", Standing("past_due", day(700)), 704, Review("suspension", day(705))),
    ("found years later, gone last", Standing("suspension", day(704)), 711, Review("termination", day(712))),
    ("found years later, not gone before", Standing("suspension", day(704)), 710.5, Review("suspension", day(711))),
    ("has paid the older ones", TERMINATION, 12, Review("past_due", day(13))),
    ("has paid the older ones in time", Standing("suspension", day(-30)), 13.5, Review("past_due", day(14.5))),
    ("has paid all but one that is new", SUSPENSION, 3, Review("clear", day(4))),
    ("has paid some, told anew", Standing("past_due", day(12)), 14, Review("past_due", day(15))),
]
"""What a tenant was told, how many days after the issue of its oldest unpaid invoice it is, and what is found."""


@pytest.mark.parametrize(("standing", "days", "expected"), [each[1:] for each in REVIEWS], ids=[e[0] for e in REVIEWS])
def test_a_tenant_is_as_far_behind_as_its_oldest_unpaid_invoice_is_old(
    standing: Standing, days: float, expected: Review
) -> None:
    assert review(standing, NOON, now=day(days), terms=TERMS) == expected


@pytest.mark.parametrize("standing", [CLEAR, PAST_DUE, SUSPENSION, TERMINATION])
def test_whoever_owes_nothing_is_clear_at_once_and_not_looked_at_before_something_is_due(standing: Standing) -> None:
    assert review(standing, None, now=day(30), terms=TERMS) == Review("clear", None)


@pytest.mark.parametrize(("standing", "days"), [(CLEAR, 10), (PAST_DUE, 14), (SUSPENSION, 21)])
def test_a_step_is_taken_to_the_second(standing: Standing, days: int) -> None:
    before = review(standing, NOON, now=day(days) - SECOND, terms=TERMS)

    assert before == Review(standing.overdue, day(days))
    assert review(standing, NOON, now=day(days), terms=TERMS).overdue != standing.overdue


def test_without_an_end_a_tenant_stays_suspended() -> None:
    assert review(SUSPENSION, NOON, now=day(900), terms=WITHOUT_END) == Review("suspension", day(901))
    assert review(TERMINATION, NOON, now=day(900), terms=WITHOUT_END) == Review("suspension", day(901))


def test_the_documented_schedule() -> None:
    """Kill Bill's: told on day 10, blocked on day 14, cancelled on day 21."""
    assert _steps(settings(dunning=True).dunning_terms, days=40) == [
        ("past_due", 10),
        ("suspension", 14),
        ("termination", 21),
    ]


def _steps(terms: Terms | None, *, days: int) -> list[tuple[Overdue, int]]:
    """Return the steps that a tenant takes which never pays, each with its day."""
    assert terms is not None
    standing, now, found = CLEAR, NOON, []
    while now <= day(days):
        made = review(standing, NOON, now=now, terms=terms)
        assert made.next_at is not None
        if made.overdue != standing.overdue:
            standing = Standing(made.overdue, now)
            found.append((made.overdue, (now - NOON).days))
        now = made.next_at
    return found


gaps = st.integers(min_value=1, max_value=60)


@given(past_due=gaps, to_suspension=gaps, to_termination=gaps, late=st.integers(0, 300), looks=st.data())
def test_nobody_goes_who_was_not_told_and_suspended_before_however_late_and_seldom_it_is_looked(
    past_due: int, to_suspension: int, to_termination: int, late: int, looks: st.DataObject
) -> None:
    terms = Terms(past_due * DAY, (past_due + to_suspension) * DAY, (past_due + to_suspension + to_termination) * DAY)
    standing, now = CLEAR, day(late)
    taken = {}
    while standing.overdue != "termination":
        made = review(standing, NOON, now=now, terms=terms)
        assert made.next_at is not None
        assert now < made.next_at <= now + SOON
        if made.overdue != standing.overdue:
            assert STEPS.index(made.overdue) == STEPS.index(standing.overdue) + 1
            standing = Standing(made.overdue, now)
            taken[made.overdue] = now
        now = made.next_at + looks.draw(st.sampled_from([timedelta(0), SECOND, 5 * DAY]))

    assert taken["past_due"] >= NOON + terms.past_due
    assert taken["suspension"] - taken["past_due"] >= to_suspension * DAY
    assert taken["termination"] - taken["suspension"] >= to_termination * DAY


# What it is told from outside


def test_dunning_is_off_unless_somebody_wants_it() -> None:
    assert settings().dunning_terms is None
    assert settings(dunning=True).dunning_terms == TERMS
    assert settings(dunning=True, termination_days=0).dunning_terms == WITHOUT_END


@pytest.mark.parametrize(
    "given",
    [
        {"past_due_days": 14},
        {"suspension_days": 10},
        {"suspension_days": 21},
        {"termination_days": 14},
        {"past_due_days": 0},
        {"termination_days": -1},
        {"termination_days": 3651},
    ],
)
def test_terms_in_another_order_are_refused_at_the_start(given: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match="_days"):
        settings(**given)
