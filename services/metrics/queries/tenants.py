"""The tenants whose usage is accepted."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from shared.postgres import Connection


async def track(connection: Connection, time_zones: Mapping[str, str], *, now: datetime) -> None:
    """Accept usage of these tenants from ``now`` on, and keep their rows locked until the commit.

    Args:
        time_zones: of the tenants; one that is tracked already keeps its own.
    """
    await connection.execute(
        """
        INSERT INTO tracked_tenant (tenant_id, time_zone, tracked_at)
        SELECT tenant_id, time_zone, $3 FROM unnest($1::text[], $2::text[]) AS asked (tenant_id, time_zone)
        -- Everybody locks in this order, so nobody waits in a circle.
        ORDER BY tenant_id
        -- Changes nothing, but waits for whoever is deleting the row, and then inserts it anew.
        ON CONFLICT (tenant_id) DO UPDATE SET tracked_at = tracked_tenant.tracked_at
        """,
        list(time_zones),
        list(time_zones.values()),
        now,
    )


async def lock(connection: Connection, tenant_ids: Iterable[str]) -> list[str]:
    """Wait until nobody else changes these tenants, in the order in which everybody locks them; return the tracked."""
    rows = await connection.fetch(
        "SELECT tenant_id FROM tracked_tenant WHERE tenant_id = ANY ($1::text[]) ORDER BY tenant_id FOR UPDATE",
        list(tenant_ids),
    )
    return [row["tenant_id"] for row in rows]


async def time_zone(connection: Connection, tenant_id: str) -> str | None:
    """Return the time zone in whose hours a tenant is metered, or None if it is not tracked."""
    zone: str | None = await connection.fetchval("SELECT time_zone FROM tracked_tenant WHERE tenant_id = $1", tenant_id)
    return zone


async def block(connection: Connection, told: Mapping[str, tuple[bool, int]]) -> None:
    """Keep whether tenants, which are locked, have spent what they may; an older edition changes nothing.

    Args:
        told: by tenant, whether, and the edition of that.
    """
    await connection.execute(
        """
        UPDATE tracked_tenant SET is_blocked = told.is_blocked, spending_edition = told.edition
        FROM unnest($1::text[], $2::boolean[], $3::integer[]) AS told (tenant_id, is_blocked, edition)
        WHERE tracked_tenant.tenant_id = told.tenant_id AND tracked_tenant.spending_edition < told.edition
        """,
        list(told),
        [is_blocked for is_blocked, _ in told.values()],
        [edition for _, edition in told.values()],
    )


async def delete(connection: Connection, tenant_ids: Sequence[str]) -> Counter[str]:
    """Accept no more usage of these tenants, whose quotas are gone already; return which of them were tracked."""
    rows = await connection.fetch(
        "DELETE FROM tracked_tenant WHERE tenant_id = ANY ($1::text[]) RETURNING tenant_id", tenant_ids
    )
    return Counter(row["tenant_id"] for row in rows)
