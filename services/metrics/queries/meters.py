"""The catalog of what can be metered."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import asyncpg

from shared.postgres import Connection


async def enforcements(connection: Connection, names: Iterable[str]) -> dict[str, str]:
    """Return how each of the meters ``names`` is enforced; those that the catalog does not have are left out."""
    rows = await connection.fetch("SELECT name, enforcement FROM meter WHERE name = ANY ($1::text[])", list(names))
    return {row["name"]: row["enforcement"] for row in rows}


async def page(connection: Connection, *, after: str, limit: int) -> list[asyncpg.Record]:
    """Return the next ``limit`` meters of the catalog by name, those after the meter ``after``, retired ones too."""
    return await connection.fetch("SELECT * FROM meter WHERE name > $1 ORDER BY name LIMIT $2", after, limit)


async def meter(connection: Connection, name: str) -> asyncpg.Record | None:
    """Find one meter by its name, retired or not."""
    return await connection.fetchrow("SELECT * FROM meter WHERE name = $1", name)


async def add(connection: Connection, details: Mapping[str, Any], *, now: datetime) -> asyncpg.Record | None:
    """Add a meter and return it, or None where there is one of that name.

    Args:
        details: all of it, by the names of the columns.
    """
    return await connection.fetchrow(
        """
        INSERT INTO meter (name, unit, enforcement, event_type, aggregation, value_path, dimensions, allows_negative,
                           created_at)
        SELECT name, unit, enforcement, event_type, aggregation, value_path, dimensions, allows_negative, $2
        FROM jsonb_populate_record(NULL::meter, $1)
        ON CONFLICT (name) DO NOTHING RETURNING *
        """,
        details,
        now,
    )


async def retire(connection: Connection, name: str, *, at: datetime) -> asyncpg.Record | None:
    """Let a meter take no events any more and return it, or None where there is none or it takes none already."""
    return await connection.fetchrow(
        "UPDATE meter SET retired_at = $2 WHERE name = $1 AND retired_at IS NULL RETURNING *", name, at
    )


async def taking(connection: Connection, event_type: str, *, stored_at: datetime) -> list[asyncpg.Record]:
    """Return the meters that took events of a type at a time, also those that have been retired since."""
    return await connection.fetch(
        """
        SELECT * FROM meter
        WHERE event_type = $1 AND coalesce(created_at, '-infinity') <= $2 AND coalesce(retired_at, 'infinity') > $2
        ORDER BY name
        """,
        event_type,
        stored_at,
    )
