"""Tells whether the usage of tenants is to be refused: metrics, which takes it, does as it was told last."""

from collections.abc import Mapping, Sequence

from services.billing import queries
from shared.contracts.base import Fact
from shared.contracts.billing import SpendingBlockChanged
from shared.postgres import Connection


async def block(connection: Connection, changed: Mapping[str, bool]) -> Sequence[Fact]:
    """Return what is told of tenants, whose subscriptions are locked, by whether their usage is to be refused now."""
    if not changed:
        return []
    editions = await queries.spending.next_editions(connection, sorted(changed))
    return [
        SpendingBlockChanged(tenant_id=tenant_id, is_blocked=is_blocked, edition=editions[tenant_id])
        for tenant_id, is_blocked in changed.items()
    ]
