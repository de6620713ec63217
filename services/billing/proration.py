"""What a part of a period costs: the one rule by which invoices are made and changes are previewed.

The rule, complete:

1. A day is that of the calendar in a time zone. It is charged once, by what is in force at its end, the midnight that
   closes it: the day of a change belongs to what comes after it.
2. A part of a period costs the period's amount times the length of the part, divided by the length of the period. Both
   are counted in days, or in the time that really passes, of which a day has 23 or 25 hours when clocks are changed.
3. What a change gives back is the rest of the period at the old amount, what it charges is the rest at the new one.
   Each is rounded by itself, half up, to the digits of the currency.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import Decimal

from services.billing.money import EXACT, Currency, rounded

_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Change:
    """A moment within a period from which on another amount counts; all times have a time zone.

    Attributes:
        start: the first moment of the period.
        at: not before the start.
        end: the first moment that is not part of the period.
    """

    start: datetime
    at: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Rest:
    """How much of a period is left, in one unit of whatever kind.

    Attributes:
        part: of what is left, 0 to ``whole``.
        whole: of the period.
    """

    part: int
    whole: int


@dataclass(frozen=True, slots=True)
class Proration:
    """What a change gives back and what it charges, in the digits of the currency.

    Attributes:
        credit: for the rest of the period at the old amount.
        charge: for the rest of the period at the new amount.
    """

    credit: Decimal
    charge: Decimal

    @property
    def net(self) -> Decimal:
        """What is to be paid; below zero where more is given back than charged."""
        return EXACT.subtract(self.charge, self.credit)


def day_of(moment: datetime, zone: tzinfo) -> date:
    """Return the day that a moment is part of: of a stretch's days, its first, and the first that is not one of them.

    A stretch is in force at the end of its first day, unless it ends on that day, and not any more at the end of its
    last, unless that is the moment when it ends, which is part of the next day.
    """
    return moment.astimezone(zone).date()


def midnight(day: date, zone: tzinfo) -> datetime:
    """Return the moment, in UTC, at which a day begins; where clocks skip midnight, when they do."""
    return datetime.combine(day, time(), zone).astimezone(UTC)


def days_left(change: Change, zone: tzinfo) -> Rest:
    """Return what is left of a period in days; its ``whole`` is 0 where no day ends within the period.

    The rest is never longer than the period, although the day is an earlier one for a while where clocks are set back
    over midnight.
    """
    end = day_of(change.end, zone)
    whole = max((end - day_of(change.start, zone)).days, 0)
    return Rest(min(max((end - day_of(change.at, zone)).days, 0), whole), whole)


def time_left(change: Change) -> Rest:
    """Return what is left of a period in microseconds that really pass."""
    # The difference of two times in one zone is that of their clocks; that of two in UTC is what has passed.
    start, at, end = (each.astimezone(UTC) for each in (change.start, change.at, change.end))
    return Rest((end - at) // _TICK, (end - start) // _TICK)


def prorated(amount: Decimal, part: int, whole: int, digits: int) -> Decimal:
    """Return what a part of a period costs, rounded.

    Args:
        amount: what the whole period costs.
        part: the length of the part, in days or whatever ``whole`` is in.
        whole: the length of the period, more than 0.
        digits: of the currency.
    """
    return rounded(EXACT.divide(EXACT.multiply(amount, Decimal(part)), Decimal(whole)), digits)


def proration(from_amount: Decimal, to_amount: Decimal, rest: Rest, currency: Currency) -> Proration:
    """Return what a change from one amount for the whole period to another comes to."""
    return Proration(
        credit=prorated(from_amount, rest.part, rest.whole, currency.digits),
        charge=prorated(to_amount, rest.part, rest.whole, currency.digits),
    )
