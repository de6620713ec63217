"""What the metrics service does when it is asked. The last lines list all it hears and all it says."""

from collections.abc import Sequence

from services.metrics import queries
from shared.clock import Clock
from shared.contracts import Fact
from shared.contracts import metrics as contracts
from shared.messaging.subscriptions import Subscriptions, do, undo
from shared.postgres import Connection


async def track_tenants(
    connection: Connection, asks: Sequence[contracts.TrackTenant], *, clock: Clock
) -> Sequence[Fact]:
    """Track each tenant within its quotas; an ask with a meter that does not exist changes nothing and is refused.

    Where a tenant already has a quota for a meter, the limit that was asked for last counts.
    """
    unknown = await queries.unknown_meters(connection, sorted({meter for ask in asks for meter in ask.quotas}))
    accepted = [ask for ask in asks if unknown.isdisjoint(ask.quotas)]
    await queries.track_tenants(connection, list(dict.fromkeys(ask.tenant_id for ask in accepted)), now=clock.now())
    await queries.set_quotas(
        connection, {(ask.tenant_id, meter): limit for ask in accepted for meter, limit in ask.quotas.items()}
    )
    return [_tracking(ask, unknown) for ask in asks]


def _tracking(ask: contracts.TrackTenant, unknown: set[str]) -> Fact:
    if names := sorted(unknown.intersection(ask.quotas)):
        listed = ", ".join(names)
        return contracts.TenantTrackingRefused(
            tenant_id=ask.tenant_id, code="unknown_meter", detail=f"The catalog has no meter {listed}."
        )
    return contracts.TenantTracked(tenant_id=ask.tenant_id)


async def untrack_tenants(connection: Connection, asks: Sequence[contracts.UntrackTenant]) -> Sequence[Fact]:
    """Forget each tenant and its quotas; for a tenant that is not tracked there is nothing to do."""
    tenant_ids = [ask.tenant_id for ask in asks]
    await queries.lock_tenants(connection, tenant_ids)
    await queries.delete_quotas(connection, tenant_ids)
    await queries.delete_tracked_tenants(connection, tenant_ids)
    return [contracts.TenantUntracked(tenant_id=tenant_id) for tenant_id in tenant_ids]


SUBSCRIPTIONS: Subscriptions = {
    contracts.TrackTenant: do(track_tenants),
    contracts.UntrackTenant: undo(untrack_tenants),
}
PUBLISHES = (contracts.TenantTracked, contracts.TenantTrackingRefused, contracts.TenantUntracked)
