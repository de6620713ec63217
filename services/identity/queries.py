"""All SQL of the identity service."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg

from services.identity.invitations import Invitation, Person
from shared.postgres import Connection


async def upsert_users(connection: Connection, people: Sequence[Person], *, now: datetime) -> dict[str, UUID]:
    """Return the user of each distinct ``email_key``, made where there was none, locked until the commit."""
    rows = await connection.fetch(
        """
        INSERT INTO users (user_id, email, email_key, created_at)
        SELECT user_id, email, email_key, $4
        FROM unnest($1::uuid[], $2::text[], $3::text[]) AS asked (user_id, email, email_key)
        -- Everybody locks in this order, so nobody waits in a circle.
        ORDER BY email_key
        -- Changes nothing, but locks: the user cannot be deleted before it has the membership that is coming.
        ON CONFLICT (email_key) DO UPDATE SET email = users.email
        RETURNING email_key, user_id
        """,
        [person.user_id for person in people],
        [person.email for person in people],
        [person.email_key for person in people],
        now,
    )
    return {row["email_key"]: row["user_id"] for row in rows}


async def make_administrators(connection: Connection, invitations: Sequence[Invitation], *, now: datetime) -> None:
    """Give each invited user the administrator's role in its tenant; never a lesser role than it has."""
    await connection.execute(
        """
        INSERT INTO membership (tenant_id, user_id, role, created_at)
        SELECT tenant_id, user_id, 'TenantAdmin', $3
        FROM unnest($1::text[], $2::uuid[]) AS asked (tenant_id, user_id)
        ON CONFLICT (tenant_id, user_id) DO UPDATE SET role = excluded.role WHERE membership.role = 'TenantUser'
        """,
        [invitation.tenant_id for invitation in invitations],
        [invitation.user_id for invitation in invitations],
        now,
    )


async def invite_administrators(
    connection: Connection, invitations: Sequence[Invitation], *, now: datetime, expires_at: datetime
) -> None:
    """Leave each membership with an open invitation: a new or renewed one, unless it has one or has accepted one."""
    await connection.execute(
        """
        INSERT INTO invitation (invitation_id, tenant_id, user_id, role, token_hash, created_at, expires_at)
        SELECT invitation_id, tenant_id, user_id, 'TenantAdmin', token_hash, $5, $6
        FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::bytea[])
             AS asked (invitation_id, tenant_id, user_id, token_hash)
        ON CONFLICT (tenant_id, user_id) DO UPDATE
            SET role = excluded.role, token_hash = excluded.token_hash, delivery = 'pending',
                created_at = excluded.created_at, expires_at = excluded.expires_at
            WHERE invitation.accepted_at IS NULL AND invitation.expires_at <= excluded.created_at
        """,
        [invitation.invitation_id for invitation in invitations],
        [invitation.tenant_id for invitation in invitations],
        [invitation.user_id for invitation in invitations],
        [invitation.token_hash for invitation in invitations],
        now,
        expires_at,
    )


async def lock_members(connection: Connection, tenant_ids: Sequence[str]) -> None:
    """Wait until nobody else changes the members of these tenants, in the order in which everybody locks users."""
    await connection.execute(
        """
        SELECT FROM users
        WHERE user_id IN (SELECT user_id FROM membership WHERE tenant_id = ANY ($1::text[]))
        ORDER BY email_key FOR UPDATE
        """,
        tenant_ids,
    )


async def delete_invitations(connection: Connection, tenant_ids: Sequence[str]) -> None:
    """Withdraw every invitation into these tenants."""
    await connection.execute("DELETE FROM invitation WHERE tenant_id = ANY ($1::text[])", tenant_ids)


async def delete_memberships(connection: Connection, tenant_ids: Sequence[str]) -> list[UUID]:
    """End every membership of these tenants and return the users that had one."""
    rows = await connection.fetch(
        "DELETE FROM membership WHERE tenant_id = ANY ($1::text[]) RETURNING user_id", tenant_ids
    )
    return [row["user_id"] for row in rows]


async def delete_users_without_membership(connection: Connection, user_ids: Sequence[UUID]) -> None:
    """Delete those of these users who belong to no tenant any more."""
    await connection.execute(
        """
        DELETE FROM users WHERE user_id = ANY ($1::uuid[])
        AND NOT EXISTS (SELECT FROM membership WHERE membership.user_id = users.user_id)
        """,
        user_ids,
    )


async def users(connection: Connection, *, after: UUID, limit: int) -> list[asyncpg.Record]:
    """Return the next ``limit`` users with their memberships, oldest first, those after the user ``after``."""
    return await connection.fetch(
        "SELECT * FROM user_profile WHERE user_id > $1 ORDER BY user_id LIMIT $2", after, limit
    )


async def users_of_tenant(connection: Connection, tenant_id: str, *, after: UUID, limit: int) -> list[asyncpg.Record]:
    """Return the next ``limit`` members of a tenant with all their memberships, oldest first, those after ``after``."""
    return await connection.fetch(
        """
        SELECT user_profile.* FROM membership JOIN user_profile USING (user_id)
        WHERE membership.tenant_id = $1 AND membership.user_id > $2
        ORDER BY membership.user_id LIMIT $3
        """,
        tenant_id,
        after,
        limit,
    )


async def user(connection: Connection, user_id: UUID) -> asyncpg.Record | None:
    """Return one user with its memberships, if there is such a user."""
    return await connection.fetchrow("SELECT * FROM user_profile WHERE user_id = $1", user_id)


async def invitations(connection: Connection, *, after: UUID, limit: int) -> list[asyncpg.Record]:
    """Return the next ``limit`` invitations, oldest first, those after the invitation ``after``."""
    return await connection.fetch(
        "SELECT * FROM invitation_profile WHERE invitation_id > $1 ORDER BY invitation_id LIMIT $2", after, limit
    )


async def invitations_of_tenant(
    connection: Connection, tenant_id: str, *, after: UUID, limit: int
) -> list[asyncpg.Record]:
    """Return the next ``limit`` invitations into a tenant, oldest first, those after the invitation ``after``."""
    return await connection.fetch(
        """
        SELECT * FROM invitation_profile
        WHERE tenant_id = $1 AND invitation_id > $2
        ORDER BY invitation_id LIMIT $3
        """,
        tenant_id,
        after,
        limit,
    )
