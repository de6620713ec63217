"""How much tenants may use."""

from collections import Counter
from collections.abc import Mapping, Sequence
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


async def put(connection: Connection, limits: Mapping[tuple[str, str], int]) -> None:
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


async def limits_of(connection: Connection, tenant_ids: Sequence[str]) -> dict[str, Limits]:
    """Return what each of these distinct tenants is held to; a tenant without quotas to nothing."""
    rows = await connection.fetch(
        "SELECT tenant_id, meter, limit_value, enforcement FROM quota WHERE tenant_id = ANY ($1::text[])", tenant_ids
    )
    limits: dict[str, dict[str, Limit]] = {tenant_id: {} for tenant_id in tenant_ids}
    for row in rows:
        limits[row["tenant_id"]][row["meter"]] = Limit(row["limit_value"], row["enforcement"])
    return {**limits}


async def replace(connection: Connection, limits: Mapping[str, Limits]) -> None:
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


async def delete(connection: Connection, tenant_ids: Sequence[str]) -> Counter[str]:
    """Forget every limit of these tenants and return how many each of them had."""
    rows = await connection.fetch(
        "DELETE FROM quota WHERE tenant_id = ANY ($1::text[]) RETURNING tenant_id", tenant_ids
    )
    return Counter(row["tenant_id"] for row in rows)


async def page(
    connection: Connection, tenant_id: str, *, now: datetime, after: str, limit: int
) -> list[asyncpg.Record]:
    """Return a tenant's next ``limit`` quotas and what is used of them, by meter, those after the meter ``after``.

    Usage of a meter that takes no values below zero is never less than that, whatever was corrected.
    """
    return await connection.fetch(
        """
        SELECT quota.meter, limit_value, quota.enforcement, meter.unit, month,
               greatest(
                   -- Only what is not kept is added up.
                   coalesce(kept.used, (SELECT used FROM usage_of_month($1, quota.meter, month, time_zone)), 0),
                   CASE WHEN allows_negative THEN '-infinity'::numeric ELSE 0 END
               ) AS used
        FROM tracked_tenant
            CROSS JOIN LATERAL (SELECT date_trunc('month', $4::timestamptz AT TIME ZONE time_zone)::date) AS of (month)
            JOIN quota USING (tenant_id) JOIN meter ON meter.name = quota.meter
            LEFT JOIN quota_use AS kept USING (tenant_id, meter, month)
        WHERE tenant_id = $1 AND quota.meter > $2
        ORDER BY quota.meter LIMIT $3
        """,
        tenant_id,
        after,
        limit,
        now,
    )
