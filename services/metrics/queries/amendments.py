"""SQL about corrections: which there are, and what they correct."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg

from shared.postgres import Connection

_LONGEST_WAY = timedelta(days=36)


async def page(
    connection: Connection, tenant_id: str, *, after: tuple[datetime, UUID] | None, limit: int
) -> list[asyncpg.Record]:
    """Return a tenant's next ``limit`` corrections, the newest first, those that were made before ``after``.

    Args:
        after: time and identity of the last one of the page before.
    """
    condition = "" if after is None else "AND (amended_at, amendment_id) < ($3, $4)"
    return await connection.fetch(
        f"""
        SELECT * FROM usage_amendment WHERE tenant_id = $1 {condition}
        ORDER BY amended_at DESC, amendment_id DESC LIMIT $2
        """,  # noqa: S608 - a condition of our own
        tenant_id,
        limit,
        *(after or ()),
    )


async def of_key(connection: Connection, tenant_id: str, key: str) -> asyncpg.Record | None:
    """Find a tenant's correction that was asked for under an idempotency key."""
    return await connection.fetchrow(
        "SELECT * FROM usage_amendment WHERE tenant_id = $1 AND idempotency_key = $2", tenant_id, key
    )


async def of_event(connection: Connection, tenant_id: str, source: str, event_id: str) -> asyncpg.Record | None:
    """Find the correction that made an event void."""
    return await connection.fetchrow(
        "SELECT * FROM usage_amendment WHERE tenant_id = $1 AND source = $2 AND event_id = $3",
        tenant_id,
        source,
        event_id,
    )


async def insert(connection: Connection, amendment: Mapping[str, Any]) -> asyncpg.Record:
    """Append a correction, by the names of the columns, and return it."""
    row = await connection.fetchrow(
        """
        INSERT INTO usage_amendment (amendment_id, tenant_id, meter, happened_at, quantity, source, event_id, reason,
                                     actor, amended_at, idempotency_key, fingerprint)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
        RETURNING *
        """,
        *(amendment.get(name) for name in _COLUMNS),
    )
    assert row is not None
    return row


_COLUMNS = (
    "amendment_id",
    "tenant_id",
    "meter",
    "happened_at",
    "quantity",
    "source",
    "event_id",
    "reason",
    "actor",
    "amended_at",
    "idempotency_key",
    "fingerprint",
)


async def received_at(connection: Connection, tenant_id: str, key: bytes) -> datetime | None:
    """Return when an event was taken, or None where none of this key was in the window."""
    received: datetime | None = await connection.fetchval(
        "SELECT received_at FROM usage_key WHERE tenant_id = $1 AND key = $2", tenant_id, key
    )
    return received


async def event(
    connection: Connection, tenant_id: str, source: str, event_id: str, *, stored_at: datetime
) -> asyncpg.Record | None:
    """Find an event by when it was taken: its ``type``, ``happened_at`` and ``stored_at``, and its ``data`` as text."""
    return await connection.fetchrow(
        """
        SELECT type, happened_at, stored_at, data::text AS data FROM usage_event
        WHERE tenant_id = $1 AND source = $2 AND id = $3 AND stored_at = $4
          AND happened_at > $5 AND happened_at < $6  -- in the partitions where it can be
        """,
        tenant_id,
        source,
        event_id,
        stored_at,
        stored_at - _LONGEST_WAY,
        stored_at + _LONGEST_WAY,
    )


async def add(connection: Connection, tenant_id: str, meter: str, hour: datetime, quantity: Decimal) -> None:
    """Add to an hour of a meter whose hours add up, below zero too.

    Of what the meter tells apart it is none: it goes to the part in which nothing is known of any dimension.
    """
    await connection.execute(
        """
        WITH part AS (
            INSERT INTO usage_dimension_hour (tenant_id, meter, hour, dimensions, quantity)
            SELECT $1, name, $3, (SELECT jsonb_object_agg(key, '') FROM jsonb_object_keys(dimensions) AS key), $4
            FROM meter WHERE name = $2 AND dimensions <> '{}'
            ON CONFLICT (tenant_id, meter, hour, dimensions)
            DO UPDATE SET quantity = usage_dimension_hour.quantity + excluded.quantity
        )
        INSERT INTO usage_hour (tenant_id, meter, hour, quantity) VALUES ($1, $2, $3, $4)
        ON CONFLICT (tenant_id, meter, hour) DO UPDATE SET quantity = usage_hour.quantity + excluded.quantity
        """,
        tenant_id,
        meter,
        hour,
        quantity,
    )


async def forget_use(connection: Connection, tenant_id: str, meters: Sequence[str], month: date) -> None:
    """Forget what was used of quotas of these meters in a month whose hours are different now; it is made anew of them.

    Args:
        month: its first day, in the tenant's time zone.
    """
    await connection.execute(
        "DELETE FROM quota_use WHERE tenant_id = $1 AND meter = ANY ($2::text[]) AND month = $3",
        tenant_id,
        meters,
        month,
    )
