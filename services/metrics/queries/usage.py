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


async def delete_events(connection: Connection, tenant_ids: Sequence[str]) -> Counter[str]:
    """Forget the events of these tenants, and return how many each of them had."""
    rows = await connection.fetch(
        """
        WITH gone AS (DELETE FROM usage_event WHERE tenant_id = ANY ($1::text[]) RETURNING tenant_id)
        SELECT tenant_id, count(*) AS events FROM gone GROUP BY tenant_id
        """,
        tenant_ids,
    )
    return Counter({row["tenant_id"]: row["events"] for row in rows})


class UsageFilter(NamedTuple):
    """What is wanted of a tenant's usage.

    Attributes:
        meter: None for all.
        since: hours that begin then or later; None for all.
        until: hours that begin before; None for all.
        dimension: by whose values it is told apart, of the meters that have it; None for not at all.
    """

    tenant_id: str
    meter: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    dimension: str | None = None


class Windows(NamedTuple):
    """What is added up.

    Attributes:
        unit: ``hour``, ``day`` or ``month``.
        time_zone: in whose days and months.
    """

    unit: str
    time_zone: str


QUANTITY = """
    CASE aggregation
        WHEN 'max' THEN max(quantity)
        WHEN 'latest' THEN (array_agg(quantity ORDER BY latest_at DESC, latest_key DESC)
                            FILTER (WHERE aggregation = 'latest'))[1]
        ELSE sum(quantity)
    END
"""
"""SQL: what a meter makes of rows of `usage_hour`; not for one that counts different values."""

TOLD = """
    trim_scale(CASE WHEN aggregation IN ('count', 'sum') AND NOT allows_negative THEN greatest(quantity, 0)
                    ELSE quantity END)
"""
"""SQL: what is told of a quantity that a meter has made; a sum is not below zero unless the meter takes such values."""


async def usage(
    connection: Connection,
    wanted: UsageFilter,
    *,
    windows: Windows,
    after: tuple[datetime, str, str] | None,
    limit: int,
) -> list[asyncpg.Record]:
    """Return the next ``limit`` windows of a tenant's usage: since when, meter, unit, dimension's value, and quantity.

    They are in the order of their beginning, their meter and the value, which is empty where no dimension is wanted.
    A sum of a meter that takes no values below zero is never less than that, whatever was corrected.

    Args:
        after: beginning, meter and value of the last one of the page before.
    """
    arguments: list[object] = [wanted.tenant_id, windows.unit, windows.time_zone, limit]

    def argument(value: object) -> str:
        arguments.append(value)
        return f"${len(arguments)}"

    conditions, having = ["tenant_id = $1"], "true"
    # Conditions only for what is given: a plan that also fits nothing would not use an index.
    if wanted.meter is not None:
        conditions.append(f"used.meter = {argument(wanted.meter)}")
    if wanted.since is not None:
        conditions.append(f"hour >= {argument(wanted.since)}")
    if wanted.until is not None:
        conditions.append(f"hour < {argument(wanted.until)}")
    if after is not None:
        since, meter, value = (argument(each) for each in after)
        # A day whose midnight comes twice is said to begin with the second one.
        conditions.append(f"hour >= {since}::timestamptz - interval '1 hour'")
        having = f"(since, meter, dimension) > ({since}, {meter}, {value})"
    if wanted.dimension is None:
        hours, dimension, values = "usage_hour", "''", "used.dimensions = '{}'"
    else:
        name = argument(wanted.dimension)
        hours, dimension, values = "usage_dimension_hour", f"used.dimensions ->> {name}", f"used.dimensions ? {name}"
        conditions.append(f"meter.dimensions ? {name}")
    where = " AND ".join(conditions)
    return await connection.fetch(
        f"""
        WITH found AS (
            SELECT date_trunc($2, hour, $3) AS since, used.meter, {dimension} AS dimension, {QUANTITY} AS quantity
            FROM {hours} AS used JOIN meter ON meter.name = used.meter
            WHERE {where} AND aggregation <> 'unique'
            GROUP BY since, used.meter, dimension, aggregation
            UNION ALL
            SELECT date_trunc($2, hour, $3) AS since, used.meter, {dimension} AS dimension, count(DISTINCT used.value)
            FROM usage_value AS used JOIN meter ON meter.name = used.meter
            WHERE {where} AND aggregation = 'unique' AND {values}
            GROUP BY since, used.meter, dimension
        )
        SELECT since, found.meter, unit, dimension, {TOLD} AS quantity
        FROM (SELECT * FROM found WHERE {having} ORDER BY since, meter, dimension LIMIT $4) AS found
        JOIN meter ON meter.name = found.meter
        ORDER BY since, found.meter, dimension
        """,  # noqa: S608 - conditions of our own
        *arguments,
    )
