"""SQL about what is used of quotas in a month, and what has been told of that."""

from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import NamedTuple

import asyncpg

from services.metrics.queries.usage import Hour
from services.metrics.recording.rollup import Total
from shared.postgres import Connection

Key = tuple[str, bytes]
"""An event: a tenant, and `Event.key`."""


class Use(NamedTuple):
    """A calendar month of a tenant's usage of a meter.

    Attributes:
        month: its first day, in the tenant's time zone.
    """

    tenant_id: str
    meter: str
    month: date


class Portion(NamedTuple):
    """What is to be added to a month.

    Attributes:
        aggregation: of the meter.
        ceiling: what the month must not exceed; None where that is a soft limit.
        quantity: as the meter aggregates it.
        peak: no part of it comes to more, in the order of its arrival; None where that is not known.
        at: of the latest value: when it happened; None for meters that do not tell the latest.
        key: and what decides between two of one moment.
    """

    aggregation: str
    ceiling: int | None
    quantity: Decimal
    peak: Decimal | None
    at: datetime | None
    key: bytes | None


class Crossing(NamedTuple):
    """So much of a limit is used.

    Attributes:
        limit: in the meter's unit.
        percent: of the limit: what is used is that or more.
    """

    use: Use
    limit: int
    percent: int
    used: Decimal


async def quotas(connection: Connection, tenant_ids: Collection[str]) -> list[asyncpg.Record]:
    """Return the quotas of these tenants on what events feed, which months of each are kept, and what is told of it."""
    return await connection.fetch(
        """
        SELECT tenant_id, meter, limit_value, quota.enforcement, aggregation, allows_negative,
               ARRAY (SELECT month FROM quota_use AS used
                      WHERE used.tenant_id = quota.tenant_id AND used.meter = quota.meter) AS kept,
               ARRAY (SELECT ROW (month, percent) FROM quota_crossing AS told
                      WHERE told.tenant_id = quota.tenant_id AND told.meter = quota.meter
                        AND told.limit_value = quota.limit_value) AS told
        FROM quota JOIN meter ON meter.name = quota.meter
        WHERE tenant_id = ANY ($1::text[]) AND event_type IS NOT NULL
        """,
        tenant_ids,
    )


async def keep(connection: Connection, uses: Mapping[Use, str]) -> None:
    """Make of the hours what is not kept yet, whoever else does at the same time.

    The tenants' quotas, and corrections of their hours, wait for the transaction.

    Args:
        uses: with each tenant's time zone.
    """
    await connection.execute(
        """
        WITH asked AS (
            SELECT * FROM unnest($1::text[], $2::text[], $3::date[], $4::text[])
                AS asked (tenant_id, meter, month, zone)
        ), kept AS (
            INSERT INTO quota_use (tenant_id, meter, month, used, latest_at, latest_key)
            SELECT tenant_id, meter, month, found.used, found.latest_at, found.latest_key
            FROM asked, LATERAL usage_of_month(tenant_id, meter, month, zone) AS found
            ORDER BY tenant_id, meter, month
            ON CONFLICT (tenant_id, meter, month) DO NOTHING RETURNING tenant_id, meter, month
        )
        INSERT INTO quota_value (tenant_id, meter, month, value)
        SELECT DISTINCT tenant_id, meter, month, value
        FROM kept JOIN asked USING (tenant_id, meter, month) JOIN usage_value AS seen USING (tenant_id, meter)
        WHERE dimensions = '{}' AND hour >= month::timestamp AT TIME ZONE zone
          AND hour < (month + interval '1 month') AT TIME ZONE zone
        """,
        *_columns(uses),
        list(uses.values()),
    )


async def add_values(connection: Connection, values: Collection[tuple[Use, bytes]]) -> set[tuple[Use, bytes]]:
    """Add different values to months that are kept, and return those that a month did not have."""
    rows = await connection.fetch(
        """
        INSERT INTO quota_value (tenant_id, meter, month, value)
        SELECT * FROM unnest($1::text[], $2::text[], $3::date[], $4::bytea[]) ORDER BY 1, 2, 3, 4
        ON CONFLICT DO NOTHING RETURNING tenant_id, meter, month, value
        """,
        *_columns([use for use, _ in values]),
        [value for _, value in values],
    )
    return {(Use(row[0], row[1], row[2]), row[3]) for row in rows}


async def take(connection: Connection, portions: Mapping[Use, Portion]) -> list[asyncpg.Record]:
    """Add to each month its portion, unless that exceeds its ceiling or may do so on the way, whoever else takes now.

    Return each month as it was before, locked from now on, and whether the portion fitted.
    """
    return await connection.fetch(
        """
        WITH asked AS (
            SELECT * FROM unnest(
                $1::text[], $2::text[], $3::date[],
                $4::text[], $5::bigint[], $6::numeric[], $7::numeric[], $8::timestamptz[], $9::bytea[]
            ) AS asked (tenant_id, meter, month, aggregation, ceiling, quantity, peak, at, key)
        ), found AS MATERIALIZED (
            SELECT kept.*, aggregation, ceiling, quantity, peak, at, key
            FROM asked JOIN quota_use AS kept USING (tenant_id, meter, month)
            -- Everybody locks in this order, so nobody waits in a circle.
            ORDER BY kept.tenant_id, kept.meter, kept.month FOR NO KEY UPDATE OF kept
        ), taken AS (
            UPDATE quota_use AS kept SET
                used = CASE aggregation
                    WHEN 'max' THEN greatest(kept.used, quantity)
                    WHEN 'latest' THEN
                        CASE WHEN (kept.latest_at, kept.latest_key) > (at, key) THEN kept.used ELSE quantity END
                    ELSE coalesce(kept.used, 0) + quantity
                END,
                latest_at = CASE WHEN (kept.latest_at, kept.latest_key) > (at, key) THEN kept.latest_at ELSE at END,
                latest_key = CASE WHEN (kept.latest_at, kept.latest_key) > (at, key) THEN kept.latest_key ELSE key END
            FROM found
            WHERE (kept.tenant_id, kept.meter, kept.month) = (found.tenant_id, found.meter, found.month)
              AND CASE
                    WHEN ceiling IS NULL THEN true
                    WHEN aggregation IN ('max', 'latest') THEN peak <= ceiling
                    ELSE peak <= 0 OR coalesce(kept.used, 0) + peak <= ceiling
                  END
            RETURNING kept.tenant_id, kept.meter, kept.month
        )
        SELECT tenant_id, meter, month, used, latest_at, latest_key,
               (tenant_id, meter, month) IN (SELECT tenant_id, meter, month FROM taken) AS fits
        FROM found
        """,
        *_columns(portions),
        [each.aggregation for each in portions.values()],
        [each.ceiling for each in portions.values()],
        [each.quantity for each in portions.values()],
        [each.peak for each in portions.values()],
        [each.at for each in portions.values()],
        [each.key for each in portions.values()],
    )


async def put(connection: Connection, totals: Mapping[Use, Total | None]) -> None:
    """Write down what each month comes to, which the transaction has locked; None for nothing."""
    await connection.execute(
        """
        UPDATE quota_use AS kept SET used = put.used, latest_at = put.latest_at, latest_key = put.latest_key
        FROM unnest($1::text[], $2::text[], $3::date[], $4::numeric[], $5::timestamptz[], $6::bytea[])
             AS put (tenant_id, meter, month, used, latest_at, latest_key)
        WHERE (kept.tenant_id, kept.meter, kept.month) = (put.tenant_id, put.meter, put.month)
        """,
        *_columns(totals),
        [each and each.quantity for each in totals.values()],
        [each and each.at for each in totals.values()],
        [each and each.key for each in totals.values()],
    )


async def forget_values(connection: Connection, values: Collection[tuple[Use, bytes]]) -> None:
    """Take values from months again that the transaction has added."""
    await connection.execute(
        """
        DELETE FROM quota_value USING unnest($1::text[], $2::text[], $3::date[], $4::bytea[])
            AS gone (tenant_id, meter, month, value)
        WHERE (quota_value.tenant_id, quota_value.meter, quota_value.month, quota_value.value)
              = (gone.tenant_id, gone.meter, gone.month, gone.value)
        """,
        *_columns([use for use, _ in values]),
        [value for _, value in values],
    )


async def forget_events(connection: Connection, keys: Collection[Key]) -> None:
    """Let events that the transaction has let in be sent again, as if they never were."""
    await connection.execute(
        """
        DELETE FROM usage_key USING unnest($1::text[], $2::bytea[]) AS refused (tenant_id, key)
        WHERE (usage_key.tenant_id, usage_key.key) = (refused.tenant_id, refused.key)
        """,
        [tenant_id for tenant_id, _ in keys],
        [key for _, key in keys],
    )


async def standings(connection: Connection, hours: Collection[Hour]) -> list[asyncpg.Record]:
    """Return the quotas on meters that no event feeds and what is used of each, of the months of these hours."""
    return await connection.fetch(
        """
        SELECT tenant_id, meter, month, limit_value, enforcement, found.used
        FROM (
            SELECT DISTINCT tenant_id, quota.meter, date_trunc('month', hour AT TIME ZONE time_zone)::date, time_zone,
                   limit_value, quota.enforcement
            FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS added (tenant_id, meter, hour)
                JOIN quota USING (tenant_id, meter) JOIN tracked_tenant USING (tenant_id)
                JOIN meter ON meter.name = quota.meter
            WHERE event_type IS NULL
        ) AS held (tenant_id, meter, month, time_zone, limit_value, enforcement),
            LATERAL usage_of_month(tenant_id, meter, month, time_zone) AS found
        """,
        [each.tenant_id for each in hours],
        [each.meter for each in hours],
        [each.hour for each in hours],
    )


async def cross(connection: Connection, crossings: Sequence[Crossing], *, now: datetime) -> set[tuple[Use, int]]:
    """Write down what is told from now on, and return those months and percents that had not been told before."""
    rows = await connection.fetch(
        """
        INSERT INTO quota_crossing (tenant_id, meter, month, limit_value, percent, used, crossed_at)
        SELECT *, $7 FROM unnest($1::text[], $2::text[], $3::date[], $4::bigint[], $5::integer[], $6::numeric[])
        ORDER BY 1, 2, 3, 4, 5
        ON CONFLICT (tenant_id, meter, month, limit_value, percent) DO NOTHING
        RETURNING tenant_id, meter, month, percent
        """,
        *_columns([each.use for each in crossings]),
        [each.limit for each in crossings],
        [each.percent for each in crossings],
        [each.used for each in crossings],
        now,
    )
    return {(Use(row[0], row[1], row[2]), row[3]) for row in rows}


def _columns(uses: Collection[Use]) -> tuple[list[str], list[str], list[date]]:
    return ([use.tenant_id for use in uses], [use.meter for use in uses], [use.month for use in uses])
