"""SQL about passwords."""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

import asyncpg

from shared.postgres import Connection


async def by_email(connection: Connection, email_key: str) -> asyncpg.Record | None:
    """Return the user of an address: ``user_id``, ``email`` and ``hash``, which is null where there is no password."""
    return await connection.fetchrow(
        "SELECT user_id, email, hash FROM users LEFT JOIN password USING (user_id) WHERE email_key = $1", email_key
    )


async def of_user(connection: Connection, user_id: UUID) -> asyncpg.Record | None:
    """Return the same of a user."""
    return await connection.fetchrow(
        "SELECT user_id, email, email_key, hash FROM users LEFT JOIN password USING (user_id) WHERE user_id = $1",
        user_id,
    )


async def put(connection: Connection, user_id: UUID, hashed: str, *, now: datetime) -> None:
    """Give a user a password, or another one."""
    await connection.execute(
        """
        INSERT INTO password (user_id, hash, changed_at) VALUES ($1, $2, $3)
        ON CONFLICT (user_id) DO UPDATE SET hash = excluded.hash, changed_at = excluded.changed_at
        """,
        user_id,
        hashed,
        now,
    )


async def put_missing(connection: Connection, hashes: Mapping[UUID, str], *, now: datetime) -> None:
    """Give users a password who have none."""
    await connection.execute(
        """
        INSERT INTO password (user_id, hash, changed_at) SELECT user_id, hash, $3
        FROM unnest($1::uuid[], $2::text[]) AS kept (user_id, hash) JOIN users USING (user_id)
        ON CONFLICT DO NOTHING
        """,
        list(hashes),
        list(hashes.values()),
        now,
    )


async def delete(connection: Connection, user_id: UUID) -> None:
    """Let a user have no password any more."""
    await connection.execute("DELETE FROM password WHERE user_id = $1", user_id)
