"""SQL about sessions and what they are kept up with."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from shared.postgres import Connection

_IS_OPEN = """
    (invitation_id IS NULL OR accepted_at IS NOT NULL)
    AND tenant_block.tenant_id IS NULL AND NOT coalesce(is_blocked, false)
    AND CASE WHEN {realm} = '' THEN NOT coalesce(provider.is_required, false) ELSE provider.tenant_id = {realm} END
"""
"""Whether a member gets in: its invitation is accepted, nothing is blocked, and the tenant goes by the same realm."""


async def seats(connection: Connection, user_id: UUID, *, realm: str) -> list[asyncpg.Record]:
    """Return where a user of a realm can get in, the most recently used first: ``tenant_id``, ``role``, ``epoch``.

    That is every tenant, or the installation, whose invitation is accepted and whose sign-in is not blocked.
    """
    return await connection.fetch(
        f"""
        SELECT tenant_id, membership.role, coalesce(epoch, 0) AS epoch
        FROM membership
        LEFT JOIN invitation USING (tenant_id, user_id)
        LEFT JOIN tenant_block USING (tenant_id)
        LEFT JOIN access_tenant USING (tenant_id)
        LEFT JOIN identity_provider AS provider USING (tenant_id)
        WHERE user_id = $1 AND {_IS_OPEN.format(realm="$2")}
        ORDER BY (SELECT max(session.refreshed_at) FROM session
                  WHERE session.user_id = membership.user_id AND session.tenant_id = membership.tenant_id)
                 DESC NULLS LAST, membership.created_at, tenant_id
        """,  # noqa: S608 - text of our own
        user_id,
        realm,
    )


async def seat(connection: Connection, user_id: UUID, tenant_id: str, *, realm: str) -> asyncpg.Record | None:
    """Return what a user of a realm is in a tenant that it can get into, and will be until the commit: it is locked."""
    # By itself, so that the next statement sees what whoever had the lock has left: who ends memberships locks users.
    await connection.execute("SELECT FROM users WHERE user_id = $1 FOR NO KEY UPDATE", user_id)
    return await connection.fetchrow(
        f"""
        SELECT tenant_id, membership.role, coalesce(epoch, 0) AS epoch
        FROM membership
        LEFT JOIN invitation USING (tenant_id, user_id)
        LEFT JOIN tenant_block USING (tenant_id)
        LEFT JOIN access_tenant USING (tenant_id)
        LEFT JOIN identity_provider AS provider USING (tenant_id)
        WHERE user_id = $1 AND tenant_id = $2 AND {_IS_OPEN.format(realm="$3")}
        """,  # noqa: S608 - text of our own
        user_id,
        tenant_id,
        realm,
    )


async def tenant_epoch(connection: Connection, tenant_id: str) -> int | None:
    """Return the epoch of a tenant that has members and is not blocked; None if there is no such tenant."""
    epoch: int | None = await connection.fetchval(
        """
        SELECT coalesce((SELECT epoch FROM access_tenant WHERE tenant_id = $1), 0)
        WHERE EXISTS (SELECT FROM membership WHERE tenant_id = $1)
          AND NOT EXISTS (SELECT FROM tenant_block WHERE tenant_id = $1)
        """,
        tenant_id,
    )
    return epoch


async def insert(connection: Connection, session: dict[str, Any]) -> None:
    """Begin a session."""
    await connection.execute(
        """
        INSERT INTO session (session_id, user_id, tenant_id, client_id, scope, reason, address, agent,
                             created_at, refreshed_at, expires_at, realm)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $10, $11)
        """,
        session["session_id"],
        session["user_id"],
        session["tenant_id"],
        session["client_id"],
        session["scope"],
        session.get("reason"),
        session["address"],
        session["agent"],
        session["created_at"],
        session["expires_at"],
        session.get("realm", ""),
    )


async def add_refresh_token(connection: Connection, digest: bytes, session_id: UUID) -> None:
    """Let a session be refreshed once with a token."""
    await connection.execute("INSERT INTO refresh_token (digest, session_id) VALUES ($1, $2)", digest, session_id)


async def by_refresh_token(connection: Connection, digest: bytes) -> asyncpg.Record | None:
    """Return the session of a refresh token, both locked, and whether the token was used already."""
    return await connection.fetchrow(
        """
        SELECT session.*, used_at IS NOT NULL AS is_used
        FROM refresh_token JOIN session USING (session_id)
        WHERE digest = $1
        FOR UPDATE
        """,
        digest,
    )


async def refresh(
    connection: Connection, session_id: UUID, digest: bytes, *, tenant_id: str, now: datetime, expires_at: datetime
) -> None:
    """Note that a session was refreshed with a token, which is used up, for a tenant."""
    await connection.execute(
        """
        WITH used AS (UPDATE refresh_token SET used_at = $4 WHERE digest = $2)
        UPDATE session SET tenant_id = $3, refreshed_at = $4, expires_at = $5 WHERE session_id = $1
        """,
        session_id,
        digest,
        tenant_id,
        now,
        expires_at,
    )


async def insert_code(connection: Connection, code: dict[str, Any]) -> None:
    """Keep an authorization code."""
    await connection.execute(
        """
        INSERT INTO authorization_code (digest, client_id, redirect_uri, code_challenge, user_id, tenant_id, scope,
                                        nonce, address, agent, expires_at, realm)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
        """,
        code["digest"],
        code["client_id"],
        code["redirect_uri"],
        code["code_challenge"],
        code["user_id"],
        code["tenant_id"],
        code["scope"],
        code["nonce"],
        code["address"],
        code["agent"],
        code["expires_at"],
        code["realm"],
    )


async def code(connection: Connection, digest: bytes) -> asyncpg.Record | None:
    """Return an authorization code, locked."""
    return await connection.fetchrow("SELECT * FROM authorization_code WHERE digest = $1 FOR UPDATE", digest)


async def spend_code(connection: Connection, digest: bytes, session_id: UUID) -> None:
    """Note that a code was exchanged for a session."""
    await connection.execute("UPDATE authorization_code SET session_id = $2 WHERE digest = $1", digest, session_id)


async def end(connection: Connection, session_ids: Sequence[UUID]) -> list[asyncpg.Record]:
    """End sessions and return those that there were, with their tenants and users."""
    return await connection.fetch(
        "DELETE FROM session WHERE session_id = ANY ($1::uuid[]) RETURNING session_id, tenant_id, user_id", session_ids
    )


async def end_of_members(connection: Connection, members: Sequence[tuple[str, UUID]]) -> list[asyncpg.Record]:
    """End every session of these users in these tenants, codes on their way included, and return them."""
    return await connection.fetch(
        """
        WITH gone AS (SELECT * FROM unnest($1::text[], $2::uuid[]) AS gone (tenant_id, user_id)),
        codes AS (
            DELETE FROM authorization_code USING gone
            WHERE (authorization_code.tenant_id, authorization_code.user_id) = (gone.tenant_id, gone.user_id)
        )
        DELETE FROM session USING gone
        WHERE (session.tenant_id, session.user_id) = (gone.tenant_id, gone.user_id)
        RETURNING session_id, session.tenant_id
        """,
        [tenant_id for tenant_id, _ in members],
        [user_id for _, user_id in members],
    )


async def end_of_tenants(connection: Connection, tenant_ids: Sequence[str]) -> None:
    """End every session in these tenants, codes on their way included."""
    await connection.execute(
        """
        WITH codes AS (DELETE FROM authorization_code WHERE tenant_id = ANY ($1::text[]))
        DELETE FROM session WHERE tenant_id = ANY ($1::text[])
        """,
        tenant_ids,
    )


async def end_of_realm(connection: Connection, realm: str) -> list[asyncpg.Record]:
    """End every session whose user a tenant's own provider has recognised, codes on their way included."""
    return await connection.fetch(
        """
        WITH codes AS (DELETE FROM authorization_code WHERE tenant_id = $1 AND realm = $1)
        DELETE FROM session WHERE tenant_id = $1 AND realm = $1 RETURNING session_id, tenant_id
        """,
        realm,
    )


async def end_of_user(connection: Connection, user_id: UUID, *, but: UUID | None) -> list[asyncpg.Record]:
    """End every session of a user but one and return them."""
    return await connection.fetch(
        """
        WITH codes AS (DELETE FROM authorization_code WHERE user_id = $1)
        DELETE FROM session WHERE user_id = $1 AND session_id IS DISTINCT FROM $2 RETURNING session_id, tenant_id
        """,
        user_id,
        but,
    )


async def page(
    connection: Connection, *, user_id: UUID | None, tenant_id: str | None, after: UUID, limit: int
) -> list[asyncpg.Record]:
    """Return the next ``limit`` sessions, of a user, in a tenant, both or all, oldest first, those after ``after``."""
    return await connection.fetch(
        """
        SELECT session.*, email FROM session JOIN users USING (user_id)
        WHERE ($1::uuid IS NULL OR user_id = $1) AND ($2::text IS NULL OR tenant_id = $2) AND session_id > $3
        ORDER BY session_id LIMIT $4
        """,
        user_id,
        tenant_id,
        after,
        limit,
    )


async def one(connection: Connection, session_id: UUID) -> asyncpg.Record | None:
    """Return a session, locked, if there is such a one."""
    return await connection.fetchrow("SELECT * FROM session WHERE session_id = $1 FOR UPDATE", session_id)


async def accessible(connection: Connection, tenant_ids: Sequence[str]) -> list[str]:
    """Return those of these tenants that anybody may have a token or a key for."""
    rows = await connection.fetch(
        """
        SELECT tenant_id FROM (SELECT DISTINCT unnest($1::text[]) AS tenant_id) AS asked
        WHERE EXISTS (SELECT FROM session WHERE session.tenant_id = asked.tenant_id)
           OR EXISTS (SELECT FROM authorization_code AS code WHERE code.tenant_id = asked.tenant_id)
           OR EXISTS (SELECT FROM api_key WHERE api_key.tenant_id = asked.tenant_id)
           OR EXISTS (SELECT FROM access_tenant WHERE access_tenant.tenant_id = asked.tenant_id)
        """,
        tenant_ids,
    )
    return [row["tenant_id"] for row in rows]


async def bump_epochs(
    connection: Connection, tenant_ids: Sequence[str], *, forget_at: datetime | None
) -> list[asyncpg.Record]:
    """Void all access to tenants and return their new epochs and whether they are blocked.

    Args:
        forget_at: the tenants are purged, and this is kept until then; None for those that stay.
    """
    return await connection.fetch(
        """
        INSERT INTO access_tenant (tenant_id, epoch, is_blocked, forget_at)
        SELECT tenant_id, 1, $2::timestamptz IS NOT NULL OR tenant_block.tenant_id IS NOT NULL, $2
        FROM (SELECT DISTINCT unnest($1::text[]) AS tenant_id) AS asked LEFT JOIN tenant_block USING (tenant_id)
        ORDER BY tenant_id
        ON CONFLICT (tenant_id) DO UPDATE
            SET epoch = access_tenant.epoch + 1, is_blocked = excluded.is_blocked, forget_at = excluded.forget_at
        RETURNING tenant_id, epoch, is_blocked, forget_at
        """,
        tenant_ids,
        forget_at,
    )


async def sweep(connection: Connection, *, now: datetime) -> None:
    """Delete sessions and codes whose time is over; their tokens are dead already."""
    await connection.execute("DELETE FROM session WHERE expires_at <= $1", now)
    await connection.execute("DELETE FROM authorization_code WHERE expires_at <= $1", now)
