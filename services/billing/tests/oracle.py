"""What an account owes, worked out again from what its plans say: day by day, and moment by moment, in fractions.

It shares nothing with `services.billing.statement` but the values that both are given. It is slow, and so plain that
one can see that it is right: it asks of every midnight what is in force then, and of every second day by day what is
charged in it; neighbours of one kind in one month are put together, since what is put together is rounded once.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from math import floor
from zoneinfo import ZoneInfo

from services.billing.pricing import Flat, Graduated, Model, Packages, PerUnit, Tier, Volume
from services.billing.statement import Account
from services.billing.stretch import Stretch
from services.billing.terms import Charge, Terms

Used = Mapping[str, Mapping[str, Fraction]]
"""What was used in a month, like ``2026-03``, by meter."""

_DAY = timedelta(days=1)
_QUARTER = timedelta(minutes=15)
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True)
class _Charged:
    """By what a moment is charged.

    Attributes:
        amount: of a month.
    """

    terms: Terms
    amount: Fraction

    @property
    def kind(self) -> tuple[str, int, Fraction]:
        return self.terms.plan, self.terms.version, self.amount


def owed(account: Account, used: Used, *, closes_at: datetime) -> Fraction:
    """Return what an account owes in all, of what is due and known at a moment; of a closed one, all."""
    return sum(
        (_Product(account, stretches, closes_at).owed(used) for stretches in _products(account, closes_at)), Fraction()
    )


def charged_days(account: Account, product: str, *, closes_at: datetime) -> int:
    """Return on how many days a product is charged as a day, those of a trial too, until the last month is over."""
    return sum(
        1
        for stretches in _products(account, closes_at)
        if stretches[0].product == product
        for _ in _Product(account, stretches, closes_at).days()
    )


def active_days(account: Account, product: str) -> int:
    """Return on how many days a product is charged for a moment at least, where all of it is over."""
    days: set[date] = set()
    for each in account.stretches:
        if each.product == product and each.ended_at is not None and each.started_at < each.ended_at:
            day = each.started_at.astimezone(account.zone).date()
            last = (each.ended_at - _TICK).astimezone(account.zone).date()
            days |= {day + number * _DAY for number in range((last - day).days + 1)}
    return len(days)


def _products(account: Account, closes_at: datetime) -> Iterator[Sequence[Stretch]]:
    for product in {each.product for each in account.stretches}:
        known = [
            each
            for each in sorted(account.stretches, key=lambda each: each.started_at)
            if each.product == product and (account.is_closed or each.started_at <= closes_at)
        ]
        if known:
            yield known


@lru_cache(maxsize=100_000)
def _beginning(day: date, zone: ZoneInfo) -> datetime:
    """Return the first moment at which a calendar shows a day or a later one."""
    moment = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(hours=16)
    while moment.astimezone(zone).date() < day:
        moment += _QUARTER
    return moment


def _next_month(day: date) -> date:
    return date(day.year + day.month // 12, day.month % 12 + 1, 1)


class _Product:
    """The account's plan, or a licence.

    Args:
        stretches: all its own that are known, in the order of time.
    """

    def __init__(self, account: Account, stretches: Sequence[Stretch], closes_at: datetime) -> None:
        self._account, self._stretches, self._closes_at = account, stretches, closes_at
        self._zone = account.zone
        self._ends: dict[date, _Charged | None] = {}
        self._first = stretches[0].started_at.astimezone(self._zone).date()
        last = max((each.ended_at for each in stretches if each.ended_at is not None), default=closes_at)
        self._horizon = _next_month(max(last, closes_at).astimezone(self._zone).date())

    def owed(self, used: Used) -> Fraction:
        """Return what is due of it."""
        return sum(
            (
                self._base_of_days(first) + self._base_of_seconds(first) + self._usage(first, used)
                for first in self._months()
            ),
            Fraction(),
        )

    def days(self) -> Iterator[tuple[date, _Charged]]:
        """Yield the days at whose end something is in force that charges days."""
        for day in self._calendar(self._first, self._horizon):
            charged = self._at_the_end(day)
            if charged is not None and not charged.terms.by_second:
                yield day, charged

    def _months(self) -> Iterator[date]:
        first = self._first.replace(day=1)
        while first < self._horizon:
            yield first
            first = _next_month(first)

    def _calendar(self, day: date, end: date) -> Iterator[date]:
        while day < end:
            yield day
            day += _DAY

    def _in_force(self, stretch: Stretch, versions: Iterable[Terms]) -> _Charged:
        """Return by what a stretch is charged once these versions have reached it."""
        pinned = next(each for each in self._account.versions[stretch.plan] if each.version == stretch.plan_version)
        latest = max((pinned, *versions), key=lambda each: each.version)
        if latest is pinned:
            return _Charged(pinned, Fraction(stretch.amount))
        return _Charged(latest, Fraction(latest.amount))

    def _end_of(self, stretch: Stretch) -> datetime | None:
        """Return when a stretch ended, as far as that is known; None where it goes on."""
        if stretch.ended_at is not None and (self._account.is_closed or stretch.ended_at <= self._closes_at):
            return stretch.ended_at
        return None

    def _at_the_end(self, day: date) -> _Charged | None:
        """Return by what is charged when a day ends."""
        if day not in self._ends:
            self._ends[day] = self._before_midnight(day)
        return self._ends[day]

    def _before_midnight(self, day: date) -> _Charged | None:
        """Return by what is charged at the end of a day: what began before, and did not end before."""
        midnight = _beginning(day + _DAY, self._zone)
        for stretch in self._stretches:
            end = self._end_of(stretch)
            if stretch.started_at < midnight and (end is None or midnight <= end):
                later = [
                    each
                    for each in self._account.versions[stretch.plan]
                    if each.reaches_at is not None and each.reaches_at < midnight
                ]
                return self._in_force(stretch, later)
        return None

    def _at(self, moment: datetime) -> _Charged | None:
        """Return by what the time from a moment on is charged."""
        for stretch in self._stretches:
            end = self._end_of(stretch)
            if stretch.started_at <= moment and (end is None or moment < end):
                later = [
                    each
                    for each in self._account.versions[stretch.plan]
                    if each.reaches_at is not None and each.reaches_at <= moment
                ]
                return self._in_force(stretch, later)
        return None

    def _is_free(self, day: date, charged: _Charged) -> bool:
        return (day - self._first).days < charged.terms.trial_days

    def _is_due(self, first: date, charged: _Charged) -> bool:
        if self._account.is_closed:
            return True
        if not charged.terms.pays_in_advance:
            return _beginning(_next_month(first), self._zone) <= self._closes_at
        after_trial = self._first + charged.terms.trial_days * _DAY
        return _beginning(max(first, after_trial), self._zone) <= self._closes_at

    def _base_of_days(self, first: date) -> Fraction:
        whole = (_next_month(first) - first).days
        found: list[tuple[_Charged, int]] = []
        before: _Charged | None = None
        for day in self._calendar(first, _next_month(first)):
            charged = self._at_the_end(day) if day >= self._first else None
            if charged is None or charged.terms.by_second or self._is_free(day, charged):
                before = None
                continue
            if before is not None and before.kind == charged.kind:
                found[-1] = charged, found[-1][1] + 1
            else:
                found.append((charged, 1))
            before = charged
        return self._rounded_parts(first, ((charged, Fraction(days, whole)) for charged, days in found))

    def _base_of_seconds(self, first: date) -> Fraction:
        start, end = _beginning(first, self._zone), _beginning(_next_month(first), self._zone)
        found: list[tuple[_Charged, timedelta]] = []
        before: _Charged | None = None
        for since, until in pairwise(self._breaks(first, start, end)):
            charged = self._by_second(since)
            if charged is not None and before is not None and before.kind == charged.kind:
                found[-1] = charged, found[-1][1] + (until - since)
            elif charged is not None:
                found.append((charged, until - since))
            before = charged
        return self._rounded_parts(first, ((charged, _ratio(time, end - start)) for charged, time in found))

    def _breaks(self, first: date, start: datetime, end: datetime) -> Sequence[datetime]:
        """Return the moments in a month at which anything can change."""
        moments = {_beginning(day, self._zone) for day in self._calendar(first, _next_month(first))}
        for stretch in self._stretches:
            ended = self._end_of(stretch)
            moments |= {stretch.started_at, ended or end}
            moments |= {each.reaches_at or end for each in self._account.versions[stretch.plan]}
        return sorted({start, end} | {each for each in moments if start < each < end})

    def _by_second(self, moment: datetime) -> _Charged | None:
        """Return by what the time from a moment on is charged if it is measured, and costs something."""
        charged = self._at(moment)
        day = moment.astimezone(self._zone).date()
        if charged is None or not charged.terms.by_second or self._is_free(day, charged):
            return None
        owner = self._at_the_end(day)
        return charged if owner is None or owner.terms.by_second else None

    def _rounded_parts(self, first: date, parts: Iterable[tuple[_Charged, Fraction]]) -> Fraction:
        due = (part for part in parts if self._is_due(first, part[0]))
        return sum((self._rounded(charged.amount * share) for charged, share in due), Fraction())

    def _usage(self, first: date, used: Used) -> Fraction:
        end = _beginning(_next_month(first), self._zone)
        if not self._account.is_closed and end > self._closes_at:
            return Fraction()
        shares: dict[str, dict[bool, Fraction]] = {}
        last: tuple[datetime, _Charged] | None = None
        for by_second, since, charged, share in self._shares(first, end):
            of_plan = shares.setdefault(charged.terms.plan, {True: Fraction(), False: Fraction()})
            of_plan[by_second] += share
            if last is None or since >= last[0]:
                last = since, charged
        if last is None:
            return Fraction()
        terms = last[1].terms
        quantities = used.get(f"{first:%Y-%m}", {})
        share = shares[terms.plan][True] + shares[terms.plan][False]
        return sum(
            (self._cost(each, quantities.get(each.meter, Fraction()), share) for each in terms.charges), Fraction()
        )

    def _shares(self, first: date, end: datetime) -> Iterator[tuple[bool, datetime, _Charged, Fraction]]:
        """Yield, for every part of a month that is charged, free or not, by what, and how much of the month it is."""
        start, days = _beginning(first, self._zone), (_next_month(first) - first).days
        for day in self._calendar(max(first, self._first), _next_month(first)):
            charged = self._at_the_end(day)
            if charged is not None and not charged.terms.by_second:
                yield False, _beginning(day, self._zone), charged, Fraction(1, days)
        for since, until in pairwise(self._breaks(first, start, end)):
            charged = self._at(since)
            owner = self._at_the_end(since.astimezone(self._zone).date())
            if charged is not None and charged.terms.by_second and (owner is None or owner.terms.by_second):
                yield True, since, charged, _ratio(until - since, end - start)

    def _cost(self, charge: Charge, quantity: Fraction, share: Fraction) -> Fraction:
        beyond = max(quantity - Fraction(charge.included), Fraction())
        cost = sum((self._rounded(line) for line in _lines(charge.model, beyond)), Fraction())
        least = Fraction() if charge.minimum is None else self._rounded(Fraction(charge.minimum) * share)
        return max(cost, least)

    def _rounded(self, amount: Fraction) -> Fraction:
        unit = 10**self._account.currency.digits
        return Fraction(floor(amount * unit + Fraction(1, 2)), unit)


def _ratio(part: timedelta, whole: timedelta) -> Fraction:
    return Fraction(part // _TICK, whole // _TICK)


def _lines(model: Model, quantity: Fraction) -> Iterator[Fraction]:
    """Yield what a quantity costs, of each line of its own."""
    match model:
        case Flat(amount):
            yield Fraction(amount)
        case PerUnit(unit_amount):
            yield quantity * Fraction(unit_amount)
        case Packages(size, amount, free):
            yield -(-max(quantity - Fraction(free), Fraction()) // Fraction(size)) * Fraction(amount)
        case Volume(tiers, flat_on_zero):
            if quantity or flat_on_zero:
                _, _, tier = next(each for each in _bounds(tiers) if each[1] is None or quantity <= each[1])
                yield quantity * Fraction(tier.unit_amount) + Fraction(tier.flat_amount)
        case Graduated(tiers, flat_on_zero):
            for floor_, top, tier in _bounds(tiers):
                units = (quantity if top is None else min(quantity, top)) - floor_
                if units > 0 or (flat_on_zero and not floor_):
                    yield units * Fraction(tier.unit_amount) + Fraction(tier.flat_amount)


def _bounds(tiers: Sequence[Tier]) -> Iterator[tuple[Fraction, Fraction | None, Tier]]:
    bounds = [Fraction(), *(None if each.up_to is None else Fraction(each.up_to) for each in tiers)]
    for bottom, top, tier in zip(bounds, bounds[1:], tiers, strict=False):
        yield bottom or Fraction(), top, tier
