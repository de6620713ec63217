"""SQL about the keys that access tokens are signed with."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import asyncpg

from shared.postgres import Connection


async def lock(connection: Connection) -> None:
    """Let one replica at a time change keys."""
    await connection.execute("SELECT pg_advisory_xact_lock(hashtext('signing_key'))")


async def last_retirement(connection: Connection) -> datetime | None:
    """Return until when there is a key to sign with; None if there is none."""
    moment: datetime | None = await connection.fetchval("SELECT max(retired_at) FROM signing_key")
    return moment


async def insert(connection: Connection, keys: Sequence[dict[str, Any]]) -> None:
    """Keep new keys."""
    await connection.executemany(
        """
        INSERT INTO signing_key (key_id, private_key, public_key, active_at, retired_at, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6)
        """,
        [
            (
                key["key_id"],
                key["private_key"],
                key["public_key"],
                key["active_at"],
                key["retired_at"],
                key["expires_at"],
            )
            for key in keys
        ],
    )


async def retire(connection: Connection, *, at: datetime, expires_at: datetime) -> None:
    """Let every key that signs, or would later, sign no more from a moment on; forget those that never would then."""
    await connection.execute("DELETE FROM signing_key WHERE active_at > $1", at)
    await connection.execute(
        "UPDATE signing_key SET retired_at = $1, expires_at = $2 WHERE retired_at > $1", at, expires_at
    )


async def forget(connection: Connection, *, now: datetime) -> None:
    """Delete keys of which no token is good any more."""
    await connection.execute("DELETE FROM signing_key WHERE expires_at <= $1", now)


async def active(connection: Connection, *, now: datetime) -> asyncpg.Record | None:
    """Return the key that signs: the newest whose time has come."""
    return await connection.fetchrow(
        """
        SELECT key_id, private_key, retired_at FROM signing_key
        WHERE active_at <= $1 AND retired_at > $1
        ORDER BY active_at DESC, key_id DESC LIMIT 1
        """,
        now,
    )


async def all_keys(connection: Connection) -> list[asyncpg.Record]:
    """Return when each key signs, the newest first; nothing of what it signs with."""
    return await connection.fetch(
        "SELECT key_id, active_at, retired_at, expires_at FROM signing_key ORDER BY active_at DESC, key_id DESC"
    )


async def public_keys(connection: Connection, *, now: datetime) -> list[asyncpg.Record]:
    """Return the public part of every key that is or will be needed."""
    return await connection.fetch(
        "SELECT key_id, public_key, expires_at FROM signing_key WHERE expires_at > $1 ORDER BY active_at, key_id", now
    )
