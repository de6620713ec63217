"""What tenants have used: asked of metrics, and kept for the invoice that waits for it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from services.billing import queries
from services.billing.dossiers import Period
from shared.contracts.base import Fact
from shared.contracts.billing import UsagePeriod, UsageRequested
from shared.contracts.metrics import UsageReported
from shared.postgres import Connection


def usage_requested(tenant_id: str, wanted: Sequence[Period], *, now: datetime) -> UsageRequested:
    """Return the fact that says whose usage is wanted."""
    periods = tuple(UsagePeriod(since=since, until=until) for since, until in wanted)
    return UsageRequested(tenant_id=tenant_id, periods=periods, requested_at=now)


async def keep_reports(connection: Connection, facts: Sequence[UsageReported]) -> Sequence[Fact]:
    """Keep what is newer than what is known, and have accounts and limits looked at; who has none leaves nothing."""
    tenant_ids = sorted({fact.tenant_id for fact in facts})
    await queries.subscriptions.lock(connection, tenant_ids)  # so that a purge that is under way is waited for
    if kept := await queries.usage.keep(connection, _newest(facts)):
        await queries.invoicing.look_again(connection, kept)
        await queries.spending.look_again(connection, kept)
    return []


def _newest(facts: Sequence[UsageReported]) -> Sequence[Mapping[str, Any]]:
    """Return what was reported last of each stretch of time: a statement can write a row once."""
    newest = {
        (fact.tenant_id, period.since, period.until): (fact, period)
        for fact in sorted(facts, key=lambda fact: fact.stated_at)
        for period in fact.periods
    }
    return [
        {
            "tenant_id": fact.tenant_id,
            "since": period.since,
            "until": period.until,
            "quantities": period.quantities,
            "stated_at": fact.stated_at,
        }
        for fact, period in newest.values()
    ]
