"""What tenants have used."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import asyncpg

from shared.postgres import Connection


class Hour(NamedTuple):
    """An hour of a tenant's usage of a meter."""

    tenant_id: str
    meter: str
    hour: datetime


async def add(connection: Connection, used: Mapping[Hour, int]) -> None:
    """Add to what tenants have used, which are tracked and locked; what the catalog has no meter for is left out."""
    await connection.execute(
        """
        INSERT INTO usage_hour (tenant_id, meter, hour, quantity)
        SELECT tenant_id, meter.name, hour, quantity
        FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::bigint[]) AS used (tenant_id, name, hour, quantity)
        JOIN meter USING (name)
        ON CONFLICT (tenant_id, meter, hour) DO UPDATE SET quantity = usage_hour.quantity + excluded.quantity
        """,
        [each.tenant_id for each in used],
        [each.meter for each in used],
        [each.hour for each in used],
        list(used.values()),
    )


async def delete(connection: Connection, tenant_ids: Sequence[str]) -> Counter[str]:
    """Forget what these tenants have used, and return how many hours of it each of them had."""
    rows = await connection.fetch(
        "DELETE FROM usage_hour WHERE tenant_id = ANY ($1::text[]) RETURNING tenant_id", tenant_ids
    )
    return Counter(row["tenant_id"] for row in rows)


class UsageFilter(NamedTuple):
    """What is wanted of a tenant's usage.

    Attributes:
        meter: None for all.
        since: hours that begin then or later; None for all.
        until: hours that begin before; None for all.
    """

    tenant_id: str
    meter: str | None = None
    since: datetime | None = None
    until: datetime | None = None


async def usage(
    connection: Connection, wanted: UsageFilter, *, window: str, after: tuple[datetime, str] | None, limit: int
) -> list[asyncpg.Record]:
    """Return the next ``limit`` windows of a tenant's usage with their units, by their beginning and their meter.

    Args:
        window: ``hour``, ``day`` or ``month``, in UTC.
        after: beginning and meter of the last one of the page before.
    """
    return await connection.fetch(
        """
        SELECT date_trunc($2, hour, 'UTC') AS since, usage_hour.meter, meter.unit, sum(quantity) AS quantity
        FROM usage_hour JOIN meter ON meter.name = usage_hour.meter
        WHERE tenant_id = $1 AND usage_hour.meter = coalesce($3::text, usage_hour.meter)
          AND hour >= coalesce($4::timestamptz, '-infinity') AND hour < coalesce($5::timestamptz, 'infinity')
          AND (date_trunc($2, hour, 'UTC'), usage_hour.meter)
              > (coalesce($6::timestamptz, '-infinity'), coalesce($7::text, ''))
        GROUP BY since, usage_hour.meter, meter.unit
        ORDER BY since, usage_hour.meter LIMIT $8
        """,
        wanted.tenant_id,
        window,
        wanted.meter,
        wanted.since,
        wanted.until,
        *(after or (None, None)),
        limit,
    )
