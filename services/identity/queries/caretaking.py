"""SQL about what is kept for us at providers and has to come or to go: pools of tenants, and accounts of members."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg

from shared.postgres import Connection


async def lock_left_accounts(
    connection: Connection, *, now: datetime, linked_before: datetime, limit: int
) -> list[asyncpg.Record]:
    """Return the next accounts of those who are no members any more, but none that somebody else takes.

    Args:
        linked_before: those linked later wait: what makes an account may still be on its way.

    Returns:
        With ``has_provider``: whether the tenant still goes by the provider; ``is_member``: whether the user is a
            member again; and the ids of the tenant's own pool.
    """
    return await connection.fetch(
        """
        SELECT account.*, pool_id, pool.client_id, provider.kind IS NOT NULL AS has_provider,
               EXISTS (SELECT FROM membership
                       WHERE (membership.tenant_id, membership.user_id) = (account.tenant_id, account.user_id)
                      ) AS is_member
        FROM provider_account AS account
        LEFT JOIN provider_pool AS pool USING (tenant_id)
        LEFT JOIN identity_provider AS provider
               ON provider.tenant_id = account.tenant_id AND provider.kind = account.kind
        WHERE member_id IS NULL AND account.next_attempt_at <= $1 AND linked_at <= $2
        ORDER BY account.next_attempt_at LIMIT $3
        FOR UPDATE OF account SKIP LOCKED
        """,
        now,
        linked_before,
        limit,
    )


async def keep_accounts(connection: Connection, accounts: Sequence[asyncpg.Record]) -> None:
    """Let these, which are locked, be their members' again."""
    await connection.execute(
        """
        UPDATE provider_account AS account SET member_id = account.user_id, attempts = 0
        FROM unnest($1::text[], $2::uuid[]) AS kept (tenant_id, user_id)
        WHERE (account.tenant_id, account.user_id) = (kept.tenant_id, kept.user_id)
        """,
        *_keys(accounts),
    )


async def put_off_accounts(connection: Connection, accounts: Sequence[asyncpg.Record], *, until: datetime) -> None:
    """Look at these, which are locked, again later."""
    await connection.execute(
        """
        UPDATE provider_account AS account SET attempts = account.attempts + 1, next_attempt_at = $3
        FROM unnest($1::text[], $2::uuid[]) AS late (tenant_id, user_id)
        WHERE (account.tenant_id, account.user_id) = (late.tenant_id, late.user_id)
        """,
        *_keys(accounts),
        until,
    )


async def begin_deleting(connection: Connection, accounts: Sequence[asyncpg.Record], *, until: datetime) -> None:
    """Say of these, which are locked, that they are being deleted; by somebody else, if they are still there then."""
    await connection.execute(
        """
        UPDATE provider_account AS account
        SET is_deleting = true, attempts = account.attempts + 1, next_attempt_at = $3
        FROM unnest($1::text[], $2::uuid[]) AS gone (tenant_id, user_id)
        WHERE (account.tenant_id, account.user_id) = (gone.tenant_id, gone.user_id)
        """,
        *_keys(accounts),
        until,
    )


async def delete_accounts(connection: Connection, accounts: Sequence[asyncpg.Record]) -> None:
    """Forget accounts that are not there any more."""
    await connection.execute(
        """
        DELETE FROM provider_account AS account USING unnest($1::text[], $2::uuid[]) AS gone (tenant_id, user_id)
        WHERE (account.tenant_id, account.user_id) = (gone.tenant_id, gone.user_id) AND member_id IS NULL
        """,
        *_keys(accounts),
    )


async def lock_due_pools(connection: Connection, *, now: datetime, limit: int) -> list[asyncpg.Record]:
    """Return the next pools that have to be made or deleted, but none that somebody else takes.

    With ``is_wanted``: whether the tenant goes by it.
    """
    return await connection.fetch(
        """
        SELECT pool.*, provider.tenant_id IS NOT NULL AS is_wanted
        FROM provider_pool AS pool
        LEFT JOIN identity_provider AS provider ON provider.tenant_id = pool.tenant_id AND provider.pool = 'own'
        WHERE next_attempt_at <= $1 AND (pool_id IS NULL OR provider.tenant_id IS NULL)
        ORDER BY next_attempt_at, pool.tenant_id LIMIT $2
        FOR UPDATE OF pool SKIP LOCKED
        """,
        now,
        limit,
    )


async def begin_pools(connection: Connection, tenant_ids: Sequence[str], *, until: datetime) -> None:
    """Say of pools, which are locked, that they are being made or deleted; by somebody else after that time."""
    await connection.execute(
        """
        UPDATE provider_pool SET is_begun = true, attempts = attempts + 1, next_attempt_at = $2
        WHERE tenant_id = ANY ($1::text[])
        """,
        tenant_ids,
        until,
    )


async def pool_made(connection: Connection, tenant_id: str, *, pool_id: str, client_id: str, now: datetime) -> None:
    """Write down which pool is a tenant's; it is looked at again at once where it is not wanted by now."""
    await connection.execute(
        """
        UPDATE provider_pool SET pool_id = $2, client_id = $3, attempts = 0, next_attempt_at = $4 WHERE tenant_id = $1
        """,
        tenant_id,
        pool_id,
        client_id,
        now,
    )


async def pool_deleted(connection: Connection, tenant_id: str, *, now: datetime) -> None:
    """Forget a pool that is not there any more; if it is wanted again by now, another one is made."""
    await connection.execute(
        """
        UPDATE provider_pool SET pool_id = NULL, client_id = NULL, is_begun = false, attempts = 0, next_attempt_at = $2
        WHERE tenant_id = $1
        """,
        tenant_id,
        now,
    )
    await connection.execute(
        """
        DELETE FROM provider_pool AS pool
        WHERE tenant_id = $1
          AND NOT EXISTS (SELECT FROM identity_provider AS provider
                          WHERE provider.tenant_id = pool.tenant_id AND provider.pool = 'own')
        """,
        tenant_id,
    )


async def retry_account(connection: Connection, tenant_id: str, user_id: UUID, *, at: datetime) -> None:
    """Try to delete an account again then."""
    await connection.execute(
        "UPDATE provider_account SET next_attempt_at = $3 WHERE tenant_id = $1 AND user_id = $2", tenant_id, user_id, at
    )


async def retry_pool(connection: Connection, tenant_id: str, *, at: datetime) -> None:
    """Try to make or delete a pool again then."""
    await connection.execute("UPDATE provider_pool SET next_attempt_at = $2 WHERE tenant_id = $1", tenant_id, at)


def _keys(accounts: Sequence[asyncpg.Record]) -> tuple[list[str], list[UUID]]:
    return [each["tenant_id"] for each in accounts], [each["user_id"] for each in accounts]
