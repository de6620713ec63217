"""SQL about API keys."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg

from shared.contracts.base import INSTALLATION
from shared.postgres import Connection

_LOCKS = 0x7E9CA91
"""Tells the locks of tenants' keys from other advisory locks."""

Position = tuple[datetime, str]
"""Where a key stands in the order of creation."""


async def lock_keys(connection: Connection, tenant_ids: Sequence[str]) -> None:
    """Wait until nobody else makes or forgets keys of these tenants, and keep others waiting until the commit."""
    await connection.execute(
        """
        SELECT pg_advisory_xact_lock(hashtextextended(tenant_id, $2))
        FROM (SELECT DISTINCT unnest($1::text[]) AS tenant_id ORDER BY tenant_id) AS in_order
        """,
        tenant_ids,
        _LOCKS,
    )


async def home(connection: Connection, tenant_id: str, *, now: datetime) -> asyncpg.Record:
    """Return whether a tenant is known here, whether it is blocked, and how many keys it has that are still good.

    The installation is known and never blocked. Ask after `lock_keys`: what is found then stays so until the commit.
    """
    row = await connection.fetchrow(
        """
        SELECT $1 = $3 OR EXISTS (SELECT FROM membership WHERE tenant_id = $1) AS is_known,
               EXISTS (SELECT FROM tenant_block WHERE tenant_id = $1) AS is_blocked,
               (SELECT count(*) FROM api_key
                WHERE tenant_id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)) AS live_keys
        """,
        tenant_id,
        now,
        INSTALLATION,
    )
    assert row is not None
    return row


async def insert_key(connection: Connection, values: Mapping[str, Any]) -> asyncpg.Record:
    """Make a key of the columns' values and return it."""
    row = await connection.fetchrow(
        """
        INSERT INTO api_key
            (key_id, tenant_id, name, role, scopes, secrets, revision, created_by, created_at, expires_at)
        SELECT key_id, tenant_id, name, role, scopes, secrets, 1, created_by, created_at, expires_at
        FROM jsonb_to_record($1) AS made (
            key_id text, tenant_id text, name text, role text, scopes text[], secrets jsonb, created_by text,
            created_at timestamptz, expires_at timestamptz)
        RETURNING *
        """,
        values,
    )
    assert row is not None
    return row


async def lock_key(connection: Connection, key_id: str) -> asyncpg.Record | None:
    """Return a key, if there is one, and let nobody else change it until the commit."""
    return await connection.fetchrow("SELECT * FROM api_key WHERE key_id = $1 FOR NO KEY UPDATE", key_id)


async def replace_secrets(connection: Connection, key_id: str, secrets: Sequence[Mapping[str, Any]]) -> asyncpg.Record:
    """Let a key that is there be proven by these secrets and no others, and return it."""
    row = await connection.fetchrow(
        "UPDATE api_key SET secrets = $2, revision = revision + 1 WHERE key_id = $1 RETURNING *", key_id, secrets
    )
    assert row is not None
    return row


async def revoke_key(connection: Connection, key_id: str, *, now: datetime) -> asyncpg.Record:
    """Let nothing prove a key that is there any more, and return it."""
    row = await connection.fetchrow(
        """
        UPDATE api_key SET secrets = '[]', revoked_at = $2, revision = revision + 1 WHERE key_id = $1 RETURNING *
        """,
        key_id,
        now,
    )
    assert row is not None
    return row


async def forget_keys(connection: Connection, tenant_ids: Sequence[str]) -> Counter[str]:
    """Delete all keys of these tenants and return how many each of them had.

    Call it in the transaction that ends the tenants' memberships: whoever makes a key meanwhile waits for that.
    """
    await lock_keys(connection, tenant_ids)
    rows = await connection.fetch(
        """
        WITH locked AS (
            SELECT key_id FROM api_key WHERE tenant_id = ANY ($1::text[]) AND tenant_id <> $2 ORDER BY key_id FOR UPDATE
        )
        DELETE FROM api_key USING locked WHERE api_key.key_id = locked.key_id
        RETURNING tenant_id
        """,
        tenant_ids,
        INSTALLATION,
    )
    return Counter(row["tenant_id"] for row in rows)


async def note_uses(connection: Connection, uses: Mapping[str, datetime]) -> None:
    """Know that these keys were used at these times, unless they have been since; of others nothing is kept."""
    await connection.execute(
        """
        WITH told AS (
            SELECT * FROM unnest($1::text[], $2::timestamptz[]) AS told (key_id, used_at)
        ), locked AS (
            SELECT key_id, used_at FROM api_key JOIN told USING (key_id)
            ORDER BY key_id FOR NO KEY UPDATE OF api_key
        )
        UPDATE api_key SET last_used_at = used_at
        FROM locked
        WHERE api_key.key_id = locked.key_id AND (last_used_at IS NULL OR last_used_at < used_at)
        """,
        list(uses),
        list(uses.values()),
    )


async def keys(connection: Connection, *, after: Position, limit: int) -> list[asyncpg.Record]:
    """Return the next ``limit`` keys, oldest first, those after the position ``after``."""
    return await connection.fetch(
        "SELECT * FROM api_key WHERE (created_at, key_id) > ($1, $2) ORDER BY created_at, key_id LIMIT $3",
        *after,
        limit,
    )


async def keys_of_tenant(
    connection: Connection, tenant_id: str, *, after: Position, limit: int
) -> list[asyncpg.Record]:
    """Return the next ``limit`` keys of a tenant, oldest first, those after the position ``after``."""
    return await connection.fetch(
        """
        SELECT * FROM api_key WHERE tenant_id = $1 AND (created_at, key_id) > ($2, $3)
        ORDER BY created_at, key_id LIMIT $4
        """,
        tenant_id,
        *after,
        limit,
    )


async def key(connection: Connection, key_id: str) -> asyncpg.Record | None:
    """Return a key, if there is one."""
    return await connection.fetchrow("SELECT * FROM api_key WHERE key_id = $1", key_id)


async def usable_key(connection: Connection, key_id: str) -> asyncpg.Record | None:
    """Return a key that is not revoked and whose tenant is not blocked, if there is one."""
    return await connection.fetchrow(
        """
        SELECT * FROM api_key WHERE key_id = $1 AND revoked_at IS NULL
        AND NOT EXISTS (SELECT FROM tenant_block WHERE tenant_block.tenant_id = api_key.tenant_id)
        """,
        key_id,
    )
