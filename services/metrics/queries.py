"""All SQL of the metrics service."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import asyncpg

from shared.postgres import Connection


async def unknown_meters(connection: Connection, names: Sequence[str]) -> set[str]:
    """Return those of ``names`` that the catalog does not have."""
    rows = await connection.fetch(
        """
        SELECT name FROM unnest($1::text[]) AS asked (name)
        WHERE NOT EXISTS (SELECT FROM meter WHERE meter.name = asked.name)
        """,
        names,
    )
    return {row["name"] for row in rows}


async def track_tenants(connection: Connection, tenant_ids: Sequence[str], *, now: datetime) -> None:
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


async def set_quotas(connection: Connection, limits: Mapping[tuple[str, str], int]) -> None:
    """Set the limit of each (tenant, meter), enforced as the meter says; the tenants are tracked and locked."""
    await connection.execute(
        """
        INSERT INTO quota (tenant_id, meter, limit_value, enforcement)
        SELECT tenant_id, meter.name, limit_value, enforcement
        FROM unnest($1::text[], $2::text[], $3::bigint[]) AS asked (tenant_id, name, limit_value)
        JOIN meter USING (name)
        ON CONFLICT (tenant_id, meter) DO UPDATE SET limit_value = excluded.limit_value
        """,
        [tenant_id for tenant_id, _ in limits],
        [meter for _, meter in limits],
        list(limits.values()),
    )


async def lock_tenants(connection: Connection, tenant_ids: Sequence[str]) -> None:
    """Wait until nobody else changes these tenants, in the order in which everybody locks them."""
    await connection.execute(
        "SELECT FROM tracked_tenant WHERE tenant_id = ANY ($1::text[]) ORDER BY tenant_id FOR UPDATE", tenant_ids
    )


async def delete_quotas(connection: Connection, tenant_ids: Sequence[str]) -> None:
    """Forget every limit of these tenants."""
    await connection.execute("DELETE FROM quota WHERE tenant_id = ANY ($1::text[])", tenant_ids)


async def delete_tracked_tenants(connection: Connection, tenant_ids: Sequence[str]) -> None:
    """Accept no more usage of these tenants, whose quotas are gone already."""
    await connection.execute("DELETE FROM tracked_tenant WHERE tenant_id = ANY ($1::text[])", tenant_ids)


async def quotas_of_tenant(connection: Connection, tenant_id: str, *, after: str, limit: int) -> list[asyncpg.Record]:
    """Return a tenant's next ``limit`` quotas with their units, by meter, those after the meter ``after``."""
    return await connection.fetch(
        """
        SELECT quota.meter, quota.limit_value, quota.enforcement, meter.unit
        FROM quota JOIN meter ON meter.name = quota.meter
        WHERE quota.tenant_id = $1 AND quota.meter > $2
        ORDER BY quota.meter LIMIT $3
        """,
        tenant_id,
        after,
        limit,
    )


async def meters(connection: Connection, *, after: str, limit: int) -> list[asyncpg.Record]:
    """Return the next ``limit`` meters of the catalog by name, those after the meter ``after``."""
    return await connection.fetch(
        "SELECT name, unit, enforcement FROM meter WHERE name > $1 ORDER BY name LIMIT $2", after, limit
    )
