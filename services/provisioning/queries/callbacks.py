"""What somebody is asked who calls back, and what the answer is."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from shared.postgres import Connection


async def expect_callback(
    connection: Connection, key: str, *, environment_id: UUID, asked_at: datetime, forget_at: datetime
) -> None:
    """Take one answer to this key from now on, and to no other of the environment; one that is there already stays."""
    await connection.execute(
        """
        WITH forgotten AS (
            DELETE FROM driver_callback WHERE environment_id = $2 AND key <> $1
        )
        INSERT INTO driver_callback (key, environment_id, asked_at, forget_at) VALUES ($1, $2, $3, $4)
        ON CONFLICT (key) DO UPDATE SET asked_at = excluded.asked_at, forget_at = excluded.forget_at
        """,
        key,
        environment_id,
        asked_at,
        forget_at,
    )


async def callback(connection: Connection, key: str) -> asyncpg.Record | None:
    """Return since when an answer is expected, and the ``document`` if it is there."""
    return await connection.fetchrow("SELECT asked_at, document FROM driver_callback WHERE key = $1", key)


async def record_callback(connection: Connection, key: str, document: Mapping[str, Any]) -> bool:
    """Keep the first answer to a key, and return whether one is expected."""
    status = await connection.execute(
        "UPDATE driver_callback SET document = coalesce(document, $2) WHERE key = $1", key, document
    )
    return status == "UPDATE 1"


async def delete_callback(connection: Connection, key: str) -> None:
    """Expect no answer to a key any more."""
    await connection.execute("DELETE FROM driver_callback WHERE key = $1", key)


async def delete_expired_callbacks(connection: Connection, *, now: datetime, limit: int) -> int:
    """Delete some of what is to be forgotten, the oldest, and return how many."""
    deleted = await connection.fetch(
        """
        WITH doomed AS (
            SELECT key FROM driver_callback WHERE forget_at <= $1 ORDER BY forget_at LIMIT $2 FOR UPDATE SKIP LOCKED
        )
        DELETE FROM driver_callback USING doomed WHERE driver_callback.key = doomed.key RETURNING driver_callback.key
        """,
        now,
        limit,
    )
    return len(deleted)
