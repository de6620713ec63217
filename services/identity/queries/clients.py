"""SQL about the applications that send people here."""

from collections.abc import Sequence
from datetime import datetime

import asyncpg

from shared.postgres import Connection

_LOCKS = 0x7E9C11E
"""Tells the locks of applications from other advisory locks."""


async def lock(connection: Connection, client_id: str) -> asyncpg.Record | None:
    """Return an application that nobody else registers, changes or deletes until the commit; None if there is none."""
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, $2))", client_id, _LOCKS)
    return await one(connection, client_id)


async def put(
    connection: Connection, client_id: str, *, name: str, redirect_uris: Sequence[str], now: datetime
) -> asyncpg.Record:
    """Register an application, or register it anew."""
    row = await connection.fetchrow(
        """
        INSERT INTO oauth_client (client_id, name, redirect_uris, created_at) VALUES ($1, $2, $3, $4)
        ON CONFLICT (client_id) DO UPDATE SET name = excluded.name, redirect_uris = excluded.redirect_uris
        RETURNING *, xmax = 0 AS is_new
        """,
        client_id,
        name,
        redirect_uris,
        now,
    )
    assert row is not None
    return row


async def one(connection: Connection, client_id: str) -> asyncpg.Record | None:
    """Return an application, if there is such a one."""
    return await connection.fetchrow("SELECT * FROM oauth_client WHERE client_id = $1", client_id)


async def page(connection: Connection, *, after: str, limit: int) -> list[asyncpg.Record]:
    """Return the next ``limit`` applications by id, those after ``after``."""
    return await connection.fetch(
        "SELECT * FROM oauth_client WHERE client_id > $1 ORDER BY client_id LIMIT $2", after, limit
    )


async def delete(connection: Connection, client_id: str) -> None:
    """Delete an application, if there is such a one."""
    await connection.execute("DELETE FROM oauth_client WHERE client_id = $1", client_id)
