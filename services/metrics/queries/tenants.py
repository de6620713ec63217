"""The tenants whose usage is accepted."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime

from shared.postgres import Connection


async def track(connection: Connection, tenant_ids: Sequence[str], *, now: datetime) -> None:
    """Accept usage of these distinct tenants from ``now`` on, and keep their rows locked until the commit."""
    await connection.execute(
        """
        INSERT INTO tracked_tenant (tenant_id, tracked_at)
        SELECT tenant_id, $2 FROM unnest($1::text[]) AS asked (tenant_id)
        -- Everybody locks in this order, so nobody waits in a circle.
        ORDER BY tenant_id
        -- Changes nothing, but waits for whoever is deleting the row, and then inserts it anew.
        ON CONFLICT (tenant_id) DO UPDATE SET tracked_at = tracked_tenant.tracked_at
        """,
        tenant_ids,
        now,
    )


async def lock(connection: Connection, tenant_ids: Iterable[str]) -> list[str]:
    """Wait until nobody else changes these tenants, in the order in which everybody locks them; return the tracked."""
    rows = await connection.fetch(
        "SELECT tenant_id FROM tracked_tenant WHERE tenant_id = ANY ($1::text[]) ORDER BY tenant_id FOR UPDATE",
        list(tenant_ids),
    )
    return [row["tenant_id"] for row in rows]


async def delete(connection: Connection, tenant_ids: Sequence[str]) -> Counter[str]:
    """Accept no more usage of these tenants, whose quotas are gone already; return which of them were tracked."""
    rows = await connection.fetch(
        "DELETE FROM tracked_tenant WHERE tenant_id = ANY ($1::text[]) RETURNING tenant_id", tenant_ids
    )
    return Counter(row["tenant_id"] for row in rows)
