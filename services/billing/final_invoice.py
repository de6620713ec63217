"""What a closed account owes: a pure function of when it was charged for what.

The rule, complete:

1. Days and months are those of the calendar in UTC. What a part of a month costs is `proration`'s to say.
2. A day is charged once or not at all: by the plan that is in force at its end, the midnight that closes it. So the
   day of activation is charged, the day of a pause or of the closing is not, and the day on which the plan changes
   belongs to the new plan. Activation and closing on one day cost nothing. The same holds of each licence by itself.
3. Each stretch of time on one plan makes one line for each calendar month in which it has such days: the monthly amount
   times those days, divided by the days of that month.
4. Each line is rounded by itself, half up, to the digits of the currency. The total is the sum of the rounded lines.

Stretches of the account's plan do not overlap, nor do those of one licence, so no midnight is in two of them: never is
a day charged on which the tenant was not active, nor are more days charged than it was active on.
"""

import calendar
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from services.billing.money import Currency, rounded, written
from services.billing.proration import day_of, prorated

_LONGER_THAN_ANY_MONTH = timedelta(days=32)


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of time that is charged by one plan.

    Attributes:
        plan: the name of the plan.
        amount: what a whole month of it costs.
        started_at: its first moment.
        ended_at: the first moment that is not part of it.
        product: which the plan licenses; none where it is the account's own.
    """

    plan: str
    amount: Decimal
    started_at: datetime
    ended_at: datetime
    product: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of an invoice.

    Attributes:
        description: what is charged, and how the amount comes about.
        quantity: how many days.
        amount: in the digits of the currency.
    """

    description: str
    quantity: int
    amount: Decimal


@dataclass(frozen=True, slots=True)
class FinalInvoice:
    """What is owed.

    Attributes:
        lines: of the account's plan, then of each licence, in the order of time; none where no day was charged.
        total: the sum of the lines, in the digits of the currency.
    """

    lines: Sequence[Line]
    total: Decimal


def final_invoice(stretches: Iterable[Stretch], currency: Currency) -> FinalInvoice:
    """Return what is owed for stretches of which no two of one product overlap; see the rule above."""
    in_order = sorted(stretches, key=lambda stretch: (stretch.product, stretch.started_at))
    lines = [
        _line(stretch, first, end, currency)
        for stretch in in_order
        for first, end in _months(day_of(stretch.started_at, UTC), day_of(stretch.ended_at, UTC))
    ]
    return FinalInvoice(lines, sum((line.amount for line in lines), rounded(Decimal(), currency.digits)))


def _months(first: date, end: date) -> Iterator[tuple[date, date]]:
    """Cut the days from ``first`` to before ``end`` where a month begins."""
    while first < end:
        next_month = (first.replace(day=1) + _LONGER_THAN_ANY_MONTH).replace(day=1)
        yield first, min(next_month, end)
        first = next_month


def _line(stretch: Stretch, first: date, end: date, currency: Currency) -> Line:
    days = (end - first).days
    days_of_month = calendar.monthrange(first.year, first.month)[1]
    last = end - timedelta(days=1)
    what = f"{stretch.plan} for {stretch.product}" if stretch.product else stretch.plan
    monthly = f"{written(stretch.amount, currency)} a month"
    return Line(
        description=f"{what}, {first} to {last}: {days} of {days_of_month} days at {monthly}",
        quantity=days,
        amount=prorated(stretch.amount, days, days_of_month, currency.digits),
    )
