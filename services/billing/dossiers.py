"""All that is known of an account when an invoice is made of it: read for many accounts at once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple, Self
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg

from services.billing import queries
from services.billing.catalog import versions_of
from services.billing.money import Currency, rounded
from services.billing.statement import (
    Account,
    Billed,
    Item,
    Usage,
    lines,
    months_wanted,
    next_close,
    targets,
    window_start,
    without_early,
)
from services.billing.stretch import Stretch
from services.billing.terms import Versions
from shared.postgres import Connection

Period = tuple[datetime, datetime]
"""A stretch of time whose usage is told: its first moment, and the first one that is not part of it."""


class Report(NamedTuple):
    """What was used in a stretch of time.

    Attributes:
        stated_at: what was stored later is not in it.
        quantities: by meter.
    """

    stated_at: datetime
    quantities: Mapping[str, Decimal]


@dataclass(frozen=True, slots=True)
class Dossier:
    """What is known of an account.

    Attributes:
        tenant_id: whose account it is.
        account_id: its identity.
        state: of the subscription of its plan.
        account: what it was charged for, and by which terms.
        closes_at: when the next invoice closes; None where nothing was ever charged.
        usage_wanted_at: when metrics was asked what that invoice needs; None if it was not.
        window_from: the beginning of the first month that the next invoice looks at; None where `closes_at` is.
        billed: what all final invoices say of the months since.
        reports: what was used in them.
    """

    tenant_id: str
    account_id: UUID
    state: str
    account: Account
    closes_at: datetime | None
    usage_wanted_at: datetime | None
    window_from: datetime | None
    billed: Mapping[str, Billed]
    reports: Mapping[Period, Report]

    def closed(self, *, now: datetime) -> Self:
        """Return what will be known when the account is closed at a time: nothing runs any more."""
        stretches = [each for each in (_ended(each, now) for each in self.account.stretches) if each is not None]
        return replace(self, account=replace(self.account, stretches=stretches, is_closed=True))

    def wanted(self, closes_at: datetime) -> Sequence[Period]:
        """Return the months of which the usage must be known for an invoice that closes at a time."""
        if self.window_from is None:
            return ()
        return months_wanted(self.account, closes_at=closes_at, window_from=self.window_from)

    def stated_at(self, periods: Iterable[Period], *, since: datetime) -> datetime | None:
        """Return until when the usage of periods is known; None unless all were reported at a time or later."""
        stated = [self.reports[each].stated_at if each in self.reports else None for each in periods]
        known = [each for each in stated if each is not None and each >= since]
        return min(known, default=None) if len(known) == len(stated) else None

    def lines(self, closes_at: datetime, billed: Mapping[str, Billed] | None = None) -> Sequence[Item]:
        """Return what an invoice says that closes at a time; nothing where there is nothing to say.

        Args:
            billed: what was billed, where it is not what the dossier says.
        """
        if self.window_from is None:
            return ()
        known = [each for each in self.wanted(closes_at) if each in self.reports]
        usage: Usage = {each: self.reports[each].quantities for each in known}
        owed = targets(self.account, usage, closes_at=closes_at, window_from=self.window_from)
        before = self.billed if billed is None else billed
        said = lines(owed, before if self.account.is_closed else without_early(before, closes_at=closes_at))
        return said if self.account.is_closed or any(each.amount for each in said) else ()

    def taken_back(self) -> Sequence[Item]:
        """Return what an invoice says that takes back all that was billed."""
        return lines((), self.billed)

    def total(self, said: Iterable[Item]) -> Decimal:
        """Return the sum of lines, in the digits of the currency."""
        return sum((each.amount for each in said), rounded(Decimal(), self.account.currency.digits))


def _ended(stretch: Stretch, now: datetime) -> Stretch | None:
    if stretch.ended_at is not None:
        return stretch
    return replace(stretch, ended_at=now) if stretch.started_at < now else None


async def read(connection: Connection, accounts: Sequence[asyncpg.Record]) -> Sequence[Dossier]:
    """Return what is known of accounts, in their order.

    Args:
        accounts: rows of `queries.invoicing.accounts`.
    """
    tenant_ids = [row["tenant_id"] for row in accounts]
    charged = _by_tenant(await queries.invoicing.stretches(connection, tenant_ids))
    plans = sorted({row["plan"] for rows in charged.values() for row in rows})
    versions = await versions_of(connection, plans) if plans else {}
    begun = [_begun(row, charged.get(row["tenant_id"], ()), versions) for row in accounts]
    windows = {each.tenant_id: each.window_from for each in begun if each.window_from is not None}
    if not windows:
        return begun
    billed = _by_tenant(await queries.invoicing.billed(connection, windows))
    reports = _by_tenant(await queries.usage.reports(connection, windows))
    return [_complete(each, billed.get(each.tenant_id, ()), reports.get(each.tenant_id, ())) for each in begun]


def _by_tenant(rows: Iterable[asyncpg.Record]) -> dict[str, list[asyncpg.Record]]:
    found: dict[str, list[asyncpg.Record]] = {}
    for row in rows:
        found.setdefault(row["tenant_id"], []).append(row)
    return found


def _begun(row: asyncpg.Record, charged: Iterable[asyncpg.Record], versions: Mapping[str, Versions]) -> Dossier:
    account = Account(
        currency=Currency(row["currency"], row["digits"]),
        zone=ZoneInfo(row["time_zone"]),
        stretches=[
            Stretch(
                plan=each["plan"],
                amount=each["amount"],
                started_at=each["started_at"],
                ended_at=each["ended_at"],
                product=each["product"],
                plan_version=each["plan_version"],
            )
            for each in charged
        ],
        versions=versions.get(row["currency"], {}),
    )
    closes_at = row["closes_at"] or _first_close(account, billed_until=row["billed_until"])
    return Dossier(
        tenant_id=row["tenant_id"],
        account_id=row["account_id"],
        state=row["state"],
        account=account,
        closes_at=closes_at,
        usage_wanted_at=row["usage_wanted_at"],
        window_from=None if closes_at is None else window_start(account, closes_at=row["closes_at"]),
        billed={},
        reports={},
    )


def _first_close(account: Account, *, billed_until: datetime | None) -> datetime | None:
    """Return when the first invoice closes since the account is charged; an activation that was withdrawn had some."""
    first = next_close(account, after=None)
    if first is None or billed_until is None or first > billed_until:
        return first
    return next_close(account, after=billed_until)


def _complete(begun: Dossier, billed: Iterable[asyncpg.Record], reports: Iterable[asyncpg.Record]) -> Dossier:
    digits = begun.account.currency.digits
    return replace(
        begun,
        billed={
            row["item_key"]: Billed(
                amount=rounded(row["amount"], digits),
                number=row["number"],
                description=row["description"],
                quantity=row["quantity"],
                since=row["since"],
                until=row["until"],
            )
            for row in billed
        },
        reports={
            (row["since"], row["until"]): Report(
                row["stated_at"], {meter: Decimal(quantity) for meter, quantity in row["quantities"].items()}
            )
            for row in reports
        },
    )
