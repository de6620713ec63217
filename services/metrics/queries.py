"""All SQL of the metrics service."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import asyncpg

from shared.postgres import Connection


class Limit(NamedTuple):
    """How much of a meter a tenant may use, in the meter's unit, and what happens to usage beyond it."""

    value: int
    enforcement: str


Limits = Mapping[str, Limit]
"""What a tenant is held to, by meter."""


async def enforcements(connection: Connection, names: Iterable[str]) -> dict[str, str]:
    """Return how each of the meters ``names`` is enforced; those that the catalog does not have are left out."""
    rows = await connection.fetch("SELECT name, enforcement FROM meter WHERE name = ANY ($1::text[])", list(names))
    return {row["name"]: row["enforcement"] for row in rows}


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


async def lock_tenants(connection: Connection, tenant_ids: Iterable[str]) -> list[str]:
    """Wait until nobody else changes these tenants, in the order in which everybody locks them; return the tracked."""
    rows = await connection.fetch(
        "SELECT tenant_id FROM tracked_tenant WHERE tenant_id = ANY ($1::text[]) ORDER BY tenant_id FOR UPDATE",
        list(tenant_ids),
    )
    return [row["tenant_id"] for row in rows]


async def limits_of(connection: Connection, tenant_ids: Sequence[str]) -> dict[str, Limits]:
    """Return what each of these distinct tenants is held to; a tenant without quotas to nothing."""
    rows = await connection.fetch(
        "SELECT tenant_id, meter, limit_value, enforcement FROM quota WHERE tenant_id = ANY ($1::text[])", tenant_ids
    )
    limits: dict[str, dict[str, Limit]] = {tenant_id: {} for tenant_id in tenant_ids}
    for row in rows:
        limits[row["tenant_id"]][row["meter"]] = Limit(row["limit_value"], row["enforcement"])
    return {**limits}


async def replace_quotas(connection: Connection, limits: Mapping[str, Limits]) -> None:
    """Hold each of these tenants, which are tracked and locked, to exactly these limits."""
    quotas = [(tenant_id, meter, *limit) for tenant_id, each in limits.items() for meter, limit in each.items()]
    tenant_ids, meters, values, enforcements = zip(*quotas, strict=True) if quotas else ([], [], [], [])
    await connection.execute(
        """
        DELETE FROM quota WHERE tenant_id = ANY ($1::text[])
        AND (tenant_id, meter) NOT IN (SELECT * FROM unnest($2::text[], $3::text[]))
        """,
        list(limits),
        tenant_ids,
        meters,
    )
    await connection.execute(
        """
        INSERT INTO quota (tenant_id, meter, limit_value, enforcement)
        SELECT tenant_id, name, limit_value, kept.enforcement
        FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[])
             AS kept (tenant_id, name, limit_value, enforcement)
        JOIN meter USING (name)  -- a quota that is brought back may be of a meter that the catalog has no more
        ON CONFLICT (tenant_id, meter)
        DO UPDATE SET limit_value = excluded.limit_value, enforcement = excluded.enforcement
        WHERE (quota.limit_value, quota.enforcement) <> (excluded.limit_value, excluded.enforcement)
        """,
        tenant_ids,
        meters,
        values,
        enforcements,
    )


async def delete_quotas(connection: Connection, tenant_ids: Sequence[str]) -> Counter[str]:
    """Forget every limit of these tenants and return how many each of them had."""
    rows = await connection.fetch(
        "DELETE FROM quota WHERE tenant_id = ANY ($1::text[]) RETURNING tenant_id", tenant_ids
    )
    return Counter(row["tenant_id"] for row in rows)


async def delete_tracked_tenants(connection: Connection, tenant_ids: Sequence[str]) -> Counter[str]:
    """Accept no more usage of these tenants, whose quotas are gone already; return which of them were tracked."""
    rows = await connection.fetch(
        "DELETE FROM tracked_tenant WHERE tenant_id = ANY ($1::text[]) RETURNING tenant_id", tenant_ids
    )
    return Counter(row["tenant_id"] for row in rows)


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
