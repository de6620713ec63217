"""The catalog of what can be metered."""

from collections.abc import Iterable

import asyncpg

from shared.postgres import Connection


async def enforcements(connection: Connection, names: Iterable[str]) -> dict[str, str]:
    """Return how each of the meters ``names`` is enforced; those that the catalog does not have are left out."""
    rows = await connection.fetch("SELECT name, enforcement FROM meter WHERE name = ANY ($1::text[])", list(names))
    return {row["name"]: row["enforcement"] for row in rows}


async def page(connection: Connection, *, after: str, limit: int) -> list[asyncpg.Record]:
    """Return the next ``limit`` meters of the catalog by name, those after the meter ``after``."""
    return await connection.fetch(
        "SELECT name, unit, enforcement FROM meter WHERE name > $1 ORDER BY name LIMIT $2", after, limit
    )
