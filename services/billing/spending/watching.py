"""The loop that watches what tenants with a limit spend, and tells, invoices and has usage refused.

Every limit has a moment at which to look at it next: within an hour, when the month is over, when metrics has told what
was used, or when the limit has become another. What is done for many limits is one transaction, so whatever interrupts
it, nothing is told or invoiced twice.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, NamedTuple

import asyncpg
import structlog

from services.billing import dossiers, queries
from services.billing.dossiers import Dossier
from services.billing.halving import by_halves
from services.billing.issuing import PERIODIC, Draft, draft, issue
from services.billing.money import rounded
from services.billing.spending.blocking import block
from services.billing.spending.deciding import EVERY, Limit, Review, review
from services.billing.usage import usage_requested
from shared.contracts.base import Fact
from shared.contracts.billing import SpendingLimitReached
from shared.messaging import outbox
from shared.messaging.event import Outgoing
from shared.postgres import Connection, transaction
from shared.repeating import repeat_rounds
from shared.service import Kernel

log = structlog.get_logger(__name__)

_LIMIT = 500
_POLL_SECONDS = 5.0


class SpendingWatch:
    """Looks at limits when they are due."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def run(self) -> None:
        """Watch for ever; an outage of the database is waited out, and what was due then is due afterwards."""
        clock = self._kernel.ports.clock
        await repeat_rounds("spending", self.round, lambda: clock.sleep(_POLL_SECONDS), clock=clock)

    async def round(self, limit: int = _LIMIT) -> int:
        """Look at the limits that are due, up to so many; return how many there were."""
        async with transaction(self._kernel.pool) as connection:
            found = await queries.spending.due(connection, now=self._kernel.ports.clock.now(), limit=limit)
        if found:
            await self._kernel.relay.send(await by_halves(sorted(found), self._commit, self._park))
        return len(found)

    async def _commit(self, tenant_ids: Sequence[str]) -> Sequence[Outgoing]:
        now = self._kernel.ports.clock.now()
        async with transaction(self._kernel.pool) as connection:
            await queries.subscriptions.lock(connection, tenant_ids)
            looks = await _looks(connection, tenant_ids, now=now)
            facts = [*_told(looks, now=now), *await issue(connection, _drafts(looks, now=now), now=now)]
            changed = (each for each in looks if each.review.is_blocked != each.limit.is_blocked)
            facts += await block(connection, {each.limit.tenant_id: each.review.is_blocked for each in changed})
            await queries.spending.reschedule(connection, [_row(each, now=now) for each in looks])
            outgoing = [self._kernel.dispatch.tell(fact) for fact in facts]
            await outbox.insert(connection, outgoing, now=now)
        return outgoing

    async def _park(self, tenant_id: str, error: Exception) -> None:
        log.error(
            "a spending limit cannot be watched",
            action="spending_stuck",
            tenant_id=tenant_id,
            error=repr(error),
            exc_info=error,
        )
        until = self._kernel.ports.clock.now() + EVERY
        async with transaction(self._kernel.pool) as connection:
            await queries.spending.park(connection, tenant_id, until=until)


class _Look(NamedTuple):
    """A limit that is looked at."""

    limit: Limit
    dossier: Dossier
    review: Review


async def _looks(connection: Connection, tenant_ids: Sequence[str], *, now: datetime) -> Sequence[_Look]:
    """Look at those limits of tenants, whose subscriptions are locked, that are still due, in the tenants' order."""
    rows = await queries.spending.lock_due(connection, tenant_ids, now=now)
    accounts = await queries.invoicing.accounts(connection, [row["tenant_id"] for row in rows])
    found = {each.tenant_id: each for each in await dossiers.read(connection, accounts)}
    limits = [_limit(row) for row in rows]
    return [_Look(each, found[each.tenant_id], review(each, found[each.tenant_id], now=now)) for each in limits]


def _limit(row: asyncpg.Record) -> Limit:
    month = row["month"]
    return Limit(**{**row, "month": None if month is None else f"{month:%Y-%m}"})


def _told(looks: Iterable[_Look], *, now: datetime) -> list[Fact]:
    told: list[Fact] = []
    for limit, dossier, to_do in looks:
        if to_do.wanted:
            told.append(usage_requested(limit.tenant_id, to_do.wanted, now=now))
        told += [_reached(limit, dossier, to_do, percent) for percent in to_do.reached]
    return told


def _reached(limit: Limit, dossier: Dossier, to_do: Review, percent: int) -> SpendingLimitReached:
    currency = dossier.account.currency
    return SpendingLimitReached(
        tenant_id=limit.tenant_id,
        currency=currency.code,
        spent=f"{to_do.spent:f}",
        limit=f"{rounded(limit.amount, currency.digits):f}",
        percent=percent,
        action=limit.action,
        month=to_do.month.name,
    )


def _drafts(looks: Iterable[_Look], *, now: datetime) -> Sequence[Draft]:
    return [
        draft(dossier, to_do.lines, kind=PERIODIC, closes_at=now, usage_stated_at=to_do.usage_stated_at)
        for _, dossier, to_do in looks
        if to_do.lines
    ]


def _row(look: _Look, *, now: datetime) -> Mapping[str, Any]:
    limit, _, to_do = look
    return {
        "tenant_id": limit.tenant_id,
        "look_at": to_do.look_at,
        "usage_wanted_at": to_do.usage_wanted_at,
        "month": date.fromisoformat(f"{to_do.month.name}-01"),
        "spent": to_do.spent,
        "reviewed_at": now,
        "percent_told": to_do.percent_told,
        "invoiced_at": now if to_do.lines else limit.invoiced_at,
        "is_blocked": to_do.is_blocked,
    }
