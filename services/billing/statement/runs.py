"""When a product was charged by which terms: its stretches, cut where other terms take over, in whole days or not."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import groupby
from zoneinfo import ZoneInfo

from services.billing.proration import day_of, midnight
from services.billing.statement.account import Account
from services.billing.statement.periods import Month, month_of, months
from services.billing.stretch import Stretch
from services.billing.terms import Terms


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring time that is charged by the same terms.

    Attributes:
        terms: by which it is charged.
        amount: what a whole month costs.
        since: its first moment, in UTC; a midnight where days are charged.
        until: the first moment that is not part of it, likewise.
        free_until: the end of the trial by these terms, be it before, within or after the run; None without one.
    """

    terms: Terms
    amount: Decimal
    since: datetime
    until: datetime
    free_until: datetime | None

    @property
    def paid_since(self) -> datetime:
        """Its first moment that is not free; not before ``until`` where all of it is."""
        return self.since if self.free_until is None else max(self.since, self.free_until)


def runs(account: Account, *, closes_at: datetime, window_from: datetime) -> Mapping[str, Sequence[Run]]:
    """Return the runs of each product, in the order of time, as they are known at one moment, since another.

    What runs at ``closes_at`` runs to the end of its month, as far as is known. Of a closed account all is known.
    """
    return {
        product: _runs(account, stretches, closes_at, window_from) for product, stretches in by_product(account).items()
    }


def by_product(account: Account) -> Mapping[str, Sequence[Stretch]]:
    """Return the stretches of each product in the order of time; those of the account's own plan come first."""
    in_order = sorted(account.stretches, key=lambda stretch: (stretch.product, stretch.started_at))
    return {product: list(own) for product, own in groupby(in_order, key=lambda stretch: stretch.product)}


def in_months(runs: Iterable[Run], zone: ZoneInfo, *, window_from: datetime) -> Iterable[tuple[Month, Sequence[Run]]]:
    """Cut the runs of a product where a month begins; return the months with a part of one, from a moment on."""
    found: dict[str, tuple[Month, list[Run]]] = {}
    for run in runs:
        for month in months(max(run.since, window_from), run.until, zone):
            part = replace(run, since=max(run.since, month.since), until=min(run.until, month.until))
            found.setdefault(month.name, (month, []))[1].append(part)
    return found.values()


def phases(stretch: Stretch, until: datetime, account: Account, first: datetime) -> Iterator[Run]:
    """Cut a stretch where a later version of its plan reaches it.

    Args:
        until: where it ends, or is cut off.
        first: when the first stretch of its product began.
    """
    versions = account.versions[stretch.plan]
    terms, amount = _version(versions, stretch.plan_version), stretch.amount
    since = stretch.started_at.astimezone(UTC)
    for reached_at, later in _reaching(versions):
        if later.version > terms.version and reached_at < until:
            if since < reached_at:
                yield Run(terms, amount, since, reached_at, _trial_end(terms, first, account.zone))
                since = reached_at
            terms, amount = later, later.amount
    if since < until:
        yield Run(terms, amount, since, until.astimezone(UTC), _trial_end(terms, first, account.zone))


def _version(versions: Iterable[Terms], number: int) -> Terms:
    for each in versions:
        if each.version == number:
            return each
    raise KeyError(number)


def _reaching(versions: Iterable[Terms]) -> Sequence[tuple[datetime, Terms]]:
    """Return the versions that reach whoever has an earlier one, in the order in which they do."""
    reaching = [(each.reaches_at.astimezone(UTC), each) for each in versions if each.reaches_at is not None]
    return sorted(reaching, key=lambda reached: (reached[0], reached[1].version))


def _trial_end(terms: Terms, first: datetime, zone: ZoneInfo) -> datetime | None:
    return midnight(day_of(first, zone) + timedelta(days=terms.trial_days), zone) if terms.trial_days else None


def _runs(account: Account, stretches: Sequence[Stretch], closes_at: datetime, window_from: datetime) -> Sequence[Run]:
    made: list[Run] = []
    for stretch, until in _known(account, stretches, closes_at):
        if until > window_from:
            for phase in phases(stretch, until, account, stretches[0].started_at):
                _add(made, phase, account.zone)
    return made


def _known(account: Account, stretches: Iterable[Stretch], closes_at: datetime) -> Iterator[tuple[Stretch, datetime]]:
    """Yield the stretches of which is known at a moment that they began, each with its end as far as that is known."""
    horizon = closes_at if account.is_closed else month_of(closes_at, account.zone).until
    for each in stretches:
        if each.ended_at is not None and (account.is_closed or each.ended_at <= closes_at):
            yield each, each.ended_at
        elif account.is_closed or each.started_at <= closes_at:
            yield each, horizon


def _add(made: list[Run], phase: Run, zone: ZoneInfo) -> None:
    """Add a phase to the runs before it: its days, if it has any, or the time that the runs before it leave."""
    run = phase if phase.terms.by_second else _in_days(phase, zone)
    if run.since < run.until and not run.terms.by_second:
        _clear(made, run.since)
    if made:
        run = replace(run, since=max(run.since, made[-1].until))
    if run.since >= run.until:
        return
    if made and _goes_on(made[-1], run):
        made[-1] = replace(made[-1], until=run.until)
    else:
        made.append(run)


def _in_days(phase: Run, zone: ZoneInfo) -> Run:
    first, end = day_of(phase.since, zone), day_of(phase.until, zone)
    return replace(phase, since=midnight(first, zone), until=midnight(end, zone))


def _clear(made: list[Run], since: datetime) -> None:
    """Take from the runs what is measured in time and lies in days that are charged as such."""
    while made and made[-1].terms.by_second and made[-1].until > since:
        last = made.pop()
        if last.since < since:
            made.append(replace(last, until=since))


def _goes_on(last: Run, run: Run) -> bool:
    return (
        last.until == run.since
        and (last.terms.plan, last.terms.version) == (run.terms.plan, run.terms.version)
        and last.amount == run.amount
    )
