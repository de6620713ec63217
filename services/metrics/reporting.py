"""What tenants have used, told to whoever makes their invoices."""

from collections.abc import Sequence

from services.metrics import queries
from services.metrics.queries.reporting import Wanted
from shared.clock import Clock
from shared.contracts import Fact
from shared.contracts.billing import UsagePeriod, UsageRequested
from shared.contracts.metrics import PeriodUsage, UsageReported
from shared.postgres import Connection


async def report_usage(connection: Connection, requests: Sequence[UsageRequested], *, clock: Clock) -> Sequence[Fact]:
    """Tell for each request what its tenant has used of every meter; of who is not tracked that is nothing."""
    stated_at = clock.now()  # before it is looked up: what is committed until then is in the reports
    wanted = [Wanted(ask.tenant_id, period.since, period.until) for ask in requests for period in ask.periods]
    used: list[dict[str, str]] = [{} for _ in wanted]
    for row in await queries.reporting.quantities(connection, wanted):
        used[row["position"]][row["meter"]] = f"{row['quantity']:f}"
    found = iter(used)
    return [
        UsageReported(
            tenant_id=ask.tenant_id,
            requested_at=ask.requested_at,
            stated_at=stated_at,
            periods=tuple(_usage(period, next(found)) for period in ask.periods),
        )
        for ask in requests
    ]


def _usage(period: UsagePeriod, quantities: dict[str, str]) -> PeriodUsage:
    return PeriodUsage(since=period.since, until=period.until, quantities=quantities)
