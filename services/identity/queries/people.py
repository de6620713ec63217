"""SQL about users as the API shows them, and about changing one of them or what it is in one tenant."""

from uuid import UUID

import asyncpg

from shared.postgres import Connection


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


async def members(connection: Connection, tenant_id: str, *, after: UUID, limit: int) -> list[asyncpg.Record]:
    """Return the same members with nothing of what they are elsewhere, for those who may know no other tenant."""
    return await connection.fetch(
        "SELECT * FROM member_profile WHERE tenant_id = $1 AND user_id > $2 ORDER BY user_id LIMIT $3",
        tenant_id,
        after,
        limit,
    )


async def user(connection: Connection, user_id: UUID) -> asyncpg.Record | None:
    """Return one user with its memberships, if there is such a user."""
    return await connection.fetchrow("SELECT * FROM user_profile WHERE user_id = $1", user_id)


async def member(connection: Connection, tenant_id: str, user_id: UUID) -> asyncpg.Record | None:
    """Return one member of a tenant with nothing of what it is elsewhere, if it is one."""
    return await connection.fetchrow(
        "SELECT * FROM member_profile WHERE tenant_id = $1 AND user_id = $2", tenant_id, user_id
    )


async def lock_user(connection: Connection, user_id: UUID) -> asyncpg.Record | None:
    """Return a user, whom nobody else changes until the commit, if there is such a user."""
    return await connection.fetchrow(
        "SELECT user_id, email, version FROM users WHERE user_id = $1 FOR NO KEY UPDATE", user_id
    )


async def rename(connection: Connection, user_id: UUID, name: str | None) -> None:
    """Let a user be called so, which makes a new version of it."""
    await connection.execute("UPDATE users SET name = $2, version = version + 1 WHERE user_id = $1", user_id, name)


async def lock_administrators_and(connection: Connection, tenant_id: str, user_id: UUID) -> None:
    """Wait until nobody else changes a tenant's administrators or this member, in the order in which all lock users.

    Whoever takes an administrator away locks that one and all others here, so two who do so wait for each other. Who
    signs in refers to the user, which the lock lets pass: it holds the membership, and would wait here in a circle.
    """
    await connection.execute(
        """
        SELECT FROM users
        WHERE user_id IN (SELECT user_id FROM membership
                          WHERE tenant_id = $1 AND (role = 'TenantAdmin' OR user_id = $2))
        ORDER BY email_key FOR NO KEY UPDATE
        """,
        tenant_id,
        user_id,
    )


async def role_of(connection: Connection, tenant_id: str, user_id: UUID) -> str | None:
    """Return what a user is in a tenant; None for no member."""
    role: str | None = await connection.fetchval(
        "SELECT role FROM membership WHERE tenant_id = $1 AND user_id = $2", tenant_id, user_id
    )
    return role


async def lock_membership(connection: Connection, tenant_id: str, user_id: UUID) -> None:
    """Wait until nobody is being let in as this member, and let nobody in until the commit."""
    await connection.execute(
        "SELECT FROM membership WHERE tenant_id = $1 AND user_id = $2 FOR UPDATE", tenant_id, user_id
    )


async def has_accepted(connection: Connection, tenant_id: str, user_id: UUID) -> bool:
    """Return whether a member has accepted its invitation; one without any has."""
    return not await connection.fetchval(
        """
        SELECT EXISTS (SELECT FROM invitation WHERE tenant_id = $1 AND user_id = $2 AND accepted_at IS NULL)
        """,
        tenant_id,
        user_id,
    )


async def other_administrators(connection: Connection, tenant_id: str, user_id: UUID) -> tuple[int, int]:
    """Return how many administrators a tenant has besides a user, and how many of them have accepted."""
    row = await connection.fetchrow(
        """
        SELECT count(*) AS administrators,
               count(*) FILTER (WHERE invitation_id IS NULL OR accepted_at IS NOT NULL) AS accepted
        FROM membership LEFT JOIN invitation USING (tenant_id, user_id)
        WHERE tenant_id = $1 AND user_id <> $2 AND membership.role = 'TenantAdmin'
        """,
        tenant_id,
        user_id,
    )
    assert row is not None
    return row["administrators"], row["accepted"]


async def set_role(connection: Connection, tenant_id: str, user_id: UUID, role: str) -> None:
    """Give a member another role, for which its invitation is then as well."""
    await connection.execute(
        """
        WITH invited AS (UPDATE invitation SET role = $3 WHERE tenant_id = $1 AND user_id = $2 AND accepted_at IS NULL)
        UPDATE membership SET role = $3 WHERE tenant_id = $1 AND user_id = $2
        """,
        tenant_id,
        user_id,
        role,
    )
