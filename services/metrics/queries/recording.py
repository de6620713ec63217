"""SQL that records usage events: each once, and what the events of each hour add up to."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal

import asyncpg

from services.metrics.recording.event import Event
from services.metrics.recording.reading import written
from services.metrics.recording.rollup import NO_DIMENSIONS, Bucket, Total, distinct
from shared.postgres import Connection

Key = tuple[str, bytes]
"""What no two events share: a tenant, and `Event.key`."""

# What an hour comes to with what is added to it, as its meter aggregates it; the hour is called `kept`.
_MERGED = """
    SELECT CASE
            WHEN aggregation = 'max' THEN greatest(kept.quantity, excluded.quantity)
            WHEN aggregation <> 'latest' THEN kept.quantity + excluded.quantity
            WHEN is_later THEN excluded.quantity
            ELSE kept.quantity
        END,
        CASE WHEN is_later THEN excluded.latest_at ELSE kept.latest_at END,
        CASE WHEN is_later THEN excluded.latest_key ELSE kept.latest_key END
    FROM meter, LATERAL (
        SELECT (excluded.latest_at, excluded.latest_key) > (kept.latest_at, kept.latest_key)
    ) AS compared (is_later)
    WHERE name = excluded.meter
"""


async def meters(connection: Connection) -> list[asyncpg.Record]:
    """Return the meters that take events."""
    return await connection.fetch(
        """
        SELECT name, event_type, aggregation, value_path, dimensions, allows_negative FROM meter
        WHERE event_type IS NOT NULL AND retired_at IS NULL ORDER BY name
        """
    )


async def tracked(connection: Connection, tenant_ids: Collection[str]) -> dict[str, tuple[str, bool]]:
    """Return those of these tenants that are tracked, and keep them so until the transaction ends.

    Returns:
        By tenant, its time zone, and whether it is blocked: it has spent what it may.
    """
    rows = await connection.fetch(
        """
        SELECT tenant_id, time_zone, is_blocked FROM tracked_tenant WHERE tenant_id = ANY ($1::text[])
        ORDER BY tenant_id FOR SHARE
        """,
        tenant_ids,
    )
    return {row["tenant_id"]: (row["time_zone"], row["is_blocked"]) for row in rows}


async def admit(connection: Connection, events: Mapping[Key, Event], *, now: datetime) -> set[Key]:
    """Let each event in that was not let in before, whoever else tries to at the same time; return those."""
    rows = await connection.fetch(
        """
        INSERT INTO usage_key (tenant_id, key, digest, received_at)
        SELECT tenant_id, key, digest, $4
        FROM unnest($1::text[], $2::bytea[], $3::bytea[]) AS sent (tenant_id, key, digest)
        ORDER BY tenant_id, key
        ON CONFLICT (tenant_id, key) DO NOTHING RETURNING tenant_id, key
        """,
        [tenant_id for tenant_id, _ in events],
        [key for _, key in events],
        [event.digest for event in events.values()],
        now,
    )
    return set(map(tuple, rows))


async def digests(connection: Connection, keys: Collection[Key]) -> dict[Key, bytes | None]:
    """Return what these events said that were let in; None of one that was not.

    One by one: to join so many the server would rather read the whole table.
    """
    rows = await connection.fetch(
        """
        SELECT tenant_id, key, (
            SELECT digest FROM usage_key WHERE usage_key.tenant_id = sent.tenant_id AND usage_key.key = sent.key
        )
        FROM unnest($1::text[], $2::bytea[]) AS sent (tenant_id, key)
        """,
        [tenant_id for tenant_id, _ in keys],
        [key for _, key in keys],
    )
    return {(row[0], row[1]): row[2] for row in rows}


async def insert(connection: Connection, events: Sequence[Event], *, now: datetime) -> None:
    """Keep what was let in."""
    await connection.execute(
        """
        INSERT INTO usage_event (tenant_id, source, id, type, happened_at, stored_at, data)
        SELECT tenant_id, source, id, type, happened_at, $7, data::jsonb
        FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::text[])
             AS let_in (tenant_id, source, id, type, happened_at, data)
        """,
        [event.tenant_id for event in events],
        [event.source for event in events],
        [event.id for event in events],
        [event.type for event in events],
        [event.happened_at for event in events],
        [event.json.decode() for event in events],
        now,
    )


async def add_values(connection: Connection, values: Mapping[Bucket, set[bytes]]) -> dict[Bucket, Total]:
    """Add the different values of buckets, and return how many each has more than before."""
    flat = distinct(values)
    rows = await connection.fetch(
        """
        WITH added AS (
            INSERT INTO usage_value (tenant_id, meter, hour, dimensions, value)
            SELECT tenant_id, meter, hour, dimensions::jsonb, value
            FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::bytea[])
                 AS seen (tenant_id, meter, hour, dimensions, value)
            ORDER BY 1, 2, 3, 4, 5
            ON CONFLICT DO NOTHING RETURNING tenant_id, meter, hour, dimensions
        )
        SELECT tenant_id, meter, hour, dimensions, count(*)::numeric FROM added GROUP BY 1, 2, 3, 4
        """,
        *_columns([bucket for bucket, _ in flat]),
        [bucket.dimensions for bucket, _ in flat],
        [value for _, value in flat],
    )
    return {Bucket(row[0], row[1], row[2], written(row[3]).decode()): Total(row[4]) for row in rows}


async def add_hours(connection: Connection, totals: Mapping[Bucket, Total]) -> None:
    """Add to hours of usage what has `NO_DIMENSIONS`, as the meters' aggregations have it."""
    hours = {bucket: total for bucket, total in totals.items() if bucket.dimensions == NO_DIMENSIONS}
    await connection.execute(
        f"""
        INSERT INTO usage_hour AS kept (tenant_id, meter, hour, quantity, latest_at, latest_key)
        SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::numeric[], $5::timestamptz[], $6::bytea[])
        ORDER BY 1, 2, 3
        ON CONFLICT (tenant_id, meter, hour) DO UPDATE SET (quantity, latest_at, latest_key) = (
            {_MERGED}
        )
        """,  # noqa: S608 - a text of our own
        *_columns(hours),
        *_amounts(hours.values()),
    )


async def add_dimensions(connection: Connection, totals: Mapping[Bucket, Total]) -> None:
    """Add to hours of usage what has dimensions, as the meters' aggregations have it."""
    parts = {bucket: total for bucket, total in totals.items() if bucket.dimensions != NO_DIMENSIONS}
    if not parts:
        return
    await connection.execute(
        f"""
        INSERT INTO usage_dimension_hour AS kept (tenant_id, meter, hour, dimensions, quantity, latest_at, latest_key)
        SELECT tenant_id, meter, hour, dimensions::jsonb, quantity, at, key
        FROM unnest(
                $1::text[], $2::text[], $3::timestamptz[], $7::text[], $4::numeric[], $5::timestamptz[], $6::bytea[]
             ) AS added (tenant_id, meter, hour, dimensions, quantity, at, key)
        ORDER BY 1, 2, 3, 4
        ON CONFLICT (tenant_id, meter, hour, dimensions) DO UPDATE SET (quantity, latest_at, latest_key) = (
            {_MERGED}
        )
        """,  # noqa: S608 - a text of our own
        *_columns(parts),
        *_amounts(parts.values()),
        [bucket.dimensions for bucket in parts],
    )


def _columns(buckets: Collection[Bucket]) -> tuple[list[str], list[str], list[datetime]]:
    return (
        [bucket.tenant_id for bucket in buckets],
        [bucket.meter for bucket in buckets],
        [bucket.hour for bucket in buckets],
    )


def _amounts(totals: Collection[Total]) -> tuple[list[Decimal], list[datetime | None], list[bytes | None]]:
    return ([each.quantity for each in totals], [each.at for each in totals], [each.key for each in totals])
