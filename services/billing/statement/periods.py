"""Calendar months in a time zone, and how long a part of one is."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from services.billing.proration import day_of, midnight

_LONGER_THAN_ANY_MONTH = timedelta(days=32)
_TICK = timedelta(microseconds=1)
_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Month:
    """A calendar month.

    Attributes:
        name: as in ``2026-03``.
        since: its first moment, in UTC.
        until: the first moment that is not part of it.
        days: how many the calendar has.
    """

    name: str
    since: datetime
    until: datetime
    days: int

    def length(self, *, by_second: bool) -> int:
        """Return its length in the unit of `length`."""
        return (self.until - self.since) // _TICK if by_second else self.days


@lru_cache(maxsize=4096)
def _month(year: int, month: int, zone: ZoneInfo) -> Month:
    first = date(year, month, 1)
    end = (first + _LONGER_THAN_ANY_MONTH).replace(day=1)
    return Month(f"{first:%Y-%m}", midnight(first, zone), midnight(end, zone), (end - first).days)


def month_of(moment: datetime, zone: ZoneInfo) -> Month:
    """Return the month that a moment is part of."""
    day = day_of(moment, zone)
    return _month(day.year, day.month, zone)


def months(since: datetime, until: datetime, zone: ZoneInfo) -> Iterator[Month]:
    """Yield the months that have a part in what lies between two moments."""
    while since < until:
        month = month_of(since, zone)
        yield month
        since = month.until


def months_before(month: Month, count: int, zone: ZoneInfo) -> Month:
    """Return the month that is so many before another."""
    day = day_of(month.since, zone)
    years, index = divmod(day.month - 1 - count, 12)
    return _month(day.year + years, index + 1, zone)


def length(since: datetime, until: datetime, zone: ZoneInfo, *, by_second: bool) -> int:
    """Return how much lies between two moments in UTC: days that end there, or microseconds that really pass."""
    return (until - since) // _TICK if by_second else (day_of(until, zone) - day_of(since, zone)).days


def next_full_hour(moment: datetime, zone: ZoneInfo) -> datetime:
    """Return the next moment, or this one, at which the clocks of a zone show a full hour."""
    local = moment.astimezone(zone)
    begun = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
    return moment + (_HOUR - begun if begun else begun)
