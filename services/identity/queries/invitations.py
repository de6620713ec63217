"""SQL about invitations: as the API shows them, as they are made and accepted, and as they are sent."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from services.identity.invitations import Person
from shared.postgres import Connection


async def invitations(
    connection: Connection, *, tenant_id: str | None, after: UUID, limit: int
) -> list[asyncpg.Record]:
    """Return the next ``limit`` invitations, into a tenant or all, oldest first, those after ``after``."""
    if tenant_id is None:
        return await connection.fetch(
            "SELECT * FROM invitation_profile WHERE invitation_id > $1 ORDER BY invitation_id LIMIT $2", after, limit
        )
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


async def invitation(connection: Connection, invitation_id: UUID, *, tenant_id: str | None) -> asyncpg.Record | None:
    """Return one invitation, if there is such a one; into this tenant where it is not None."""
    return await connection.fetchrow(
        "SELECT * FROM invitation_profile WHERE invitation_id = $1 AND ($2::text IS NULL OR tenant_id = $2)",
        invitation_id,
        tenant_id,
    )


async def lock_invitation(connection: Connection, invitation_id: UUID) -> asyncpg.Record | None:
    """Return one invitation, which nobody else changes until the commit; its user is locked already."""
    return await connection.fetchrow("SELECT * FROM invitation WHERE invitation_id = $1 FOR UPDATE", invitation_id)


async def first_member(connection: Connection, tenant_id: str) -> Person | None:
    """Return a member of a tenant, the same for everybody who asks at the same time; None where it has no members."""
    row = await connection.fetchrow(
        """
        SELECT user_id, email, email_key, users.created_at, name
        FROM membership JOIN users USING (user_id) WHERE tenant_id = $1 ORDER BY user_id LIMIT 1
        """,
        tenant_id,
    )
    return None if row is None else Person(**row)


async def is_member(connection: Connection, tenant_id: str, user_id: UUID) -> bool:
    """Return whether a user is a member of a tenant."""
    return bool(
        await connection.fetchval(
            "SELECT EXISTS (SELECT FROM membership WHERE tenant_id = $1 AND user_id = $2)", tenant_id, user_id
        )
    )


async def standing(connection: Connection, tenant_id: str, user_id: UUID) -> asyncpg.Record | None:
    """Return what a user, who is locked, is in a tenant: ``role`` and its invitation; None for no member.

    The columns of the invitation are null where there is none.
    """
    return await connection.fetchrow(
        """
        SELECT membership.role, invitation_id, expires_at, accepted_at
        FROM membership LEFT JOIN invitation USING (tenant_id, user_id)
        WHERE tenant_id = $1 AND user_id = $2
        FOR UPDATE OF membership
        """,
        tenant_id,
        user_id,
    )


async def count_open(connection: Connection, tenant_id: str, *, now: datetime, limit: int) -> int:
    """Return how many invitations into a tenant are open, counting no further than ``limit``."""
    count: int = await connection.fetchval(
        """
        SELECT count(*) FROM (
            SELECT FROM invitation WHERE tenant_id = $1 AND accepted_at IS NULL AND expires_at > $2 LIMIT $3) AS open
        """,
        tenant_id,
        now,
        limit,
    )
    return count


async def customer_name(connection: Connection, tenant_id: str) -> str | None:
    """Return whom the latest invitation into a tenant that names somebody says it comes from."""
    name: str | None = await connection.fetchval(
        """
        SELECT customer_name FROM invitation WHERE tenant_id = $1 AND customer_name IS NOT NULL
        ORDER BY invitation_id DESC LIMIT 1
        """,
        tenant_id,
    )
    return name


async def insert(connection: Connection, invitation: Mapping[str, Any]) -> None:
    """Make a user, who is locked, a member that has yet to accept this."""
    await connection.execute(
        """
        WITH made AS (
            INSERT INTO membership (tenant_id, user_id, role, created_at) VALUES ($2, $3, $4, $8)
        )
        INSERT INTO invitation (invitation_id, tenant_id, user_id, role, token_hash, customer_name, invited_by,
                                created_at, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        """,
        *(
            invitation[name]
            for name in (
                "invitation_id",
                "tenant_id",
                "user_id",
                "role",
                "token_hash",
                "customer_name",
                "invited_by",
                "created_at",
                "expires_at",
            )
        ),
    )


async def renew(
    connection: Connection, invitation_id: UUID, token_hash: bytes, *, invited_by: str, now: datetime, until: datetime
) -> None:
    """Let an invitation begin anew that has expired, with a mail and a token of its own."""
    await connection.execute(
        """
        UPDATE invitation SET token_hash = $2, invited_by = $3, created_at = $4, expires_at = $5,
                              delivery = 'pending', attempts = 0, next_attempt_at = 'epoch'
        WHERE invitation_id = $1
        """,
        invitation_id,
        token_hash,
        invited_by,
        now,
        until,
    )


async def resend(
    connection: Connection, invitation_id: UUID, token_hash: bytes, *, latest: datetime, until: datetime
) -> None:
    """Have another mail sent; the token of the one before is worthless at once.

    Args:
        latest: when it is due, unless it is due earlier: at once would let somebody flood others with mails.
        until: when the invitation expires.
    """
    await connection.execute(
        """
        UPDATE invitation SET token_hash = $2, expires_at = $4, delivery = 'pending', attempts = 0,
                              next_attempt_at = least(next_attempt_at, $3)
        WHERE invitation_id = $1
        """,
        invitation_id,
        token_hash,
        latest,
        until,
    )


async def withdraw(connection: Connection, tenant_id: str, user_id: UUID) -> None:
    """Delete the invitation of a member, if it has one."""
    await connection.execute("DELETE FROM invitation WHERE tenant_id = $1 AND user_id = $2", tenant_id, user_id)


async def by_token(connection: Connection, token_hash: bytes, *, now: datetime) -> asyncpg.Record | None:
    """Return the invitation that a token lets its bearer accept ``now``, if there is such a one.

    With ``user_id``, ``email``, ``has_password``, and the ``kind`` of provider that the tenant goes by alone.
    """
    return await connection.fetchrow(
        """
        SELECT invitation_id, tenant_id, user_id, email,
               EXISTS (SELECT FROM password WHERE password.user_id = users.user_id) AS has_password,
               (SELECT kind FROM identity_provider AS provider
                WHERE provider.tenant_id = invitation.tenant_id AND is_required) AS kind
        FROM invitation JOIN users USING (user_id)
        WHERE token_hash = $1 AND accepted_at IS NULL AND expires_at > $2
        """,
        token_hash,
        now,
    )


async def accept(connection: Connection, token_hash: bytes, *, now: datetime) -> UUID | None:
    """Let the bearer of a token in, whose user is locked; return the invitation, or None if it is not good now."""
    invitation_id: UUID | None = await connection.fetchval(
        """
        UPDATE invitation SET accepted_at = $2, delivery = 'sent'
        WHERE token_hash = $1 AND accepted_at IS NULL AND expires_at > $2
        RETURNING invitation_id
        """,
        token_hash,
        now,
    )
    return invitation_id


async def put_first_password(connection: Connection, user_id: UUID, hashed: str, *, now: datetime) -> bool:
    """Give a user a password who has none; return whether it had none."""
    done = await connection.execute(
        """
        INSERT INTO password (user_id, hash, changed_at) VALUES ($1, $2, $3) ON CONFLICT (user_id) DO NOTHING
        """,
        user_id,
        hashed,
        now,
    )
    return done == "INSERT 0 1"


async def lock_due(connection: Connection, *, now: datetime, limit: int) -> list[asyncpg.Record]:
    """Return the next invitations that are due to be sent, the first due first, but none that somebody else takes."""
    return await connection.fetch(
        """
        SELECT invitation_id, tenant_id, email, role, customer_name, attempts, expires_at
        FROM invitation JOIN users USING (user_id)
        WHERE delivery = 'pending' AND accepted_at IS NULL AND next_attempt_at <= $1
        ORDER BY next_attempt_at, invitation_id LIMIT $2
        FOR UPDATE OF invitation SKIP LOCKED
        """,
        now,
        limit,
    )


async def give_up(connection: Connection, invitation_ids: Iterable[UUID]) -> None:
    """Send none of these invitations, which are locked, any more."""
    await connection.execute(
        "UPDATE invitation SET delivery = 'failed' WHERE invitation_id = ANY ($1::uuid[])", list(invitation_ids)
    )


async def begin_attempts(connection: Connection, token_hashes: Mapping[UUID, bytes], *, until: datetime) -> None:
    """Take these invitations, which are locked, for this process until then, each with the token that it will send."""
    await connection.execute(
        """
        UPDATE invitation SET token_hash = begun.token_hash, attempts = attempts + 1, next_attempt_at = $3
        FROM unnest($1::uuid[], $2::bytea[]) AS begun (invitation_id, token_hash)
        WHERE invitation.invitation_id = begun.invitation_id
        """,
        list(token_hashes),
        list(token_hashes.values()),
        until,
    )


async def end_attempt(
    connection: Connection, invitation_id: UUID, token_hash: bytes, *, delivery: str, next_attempt_at: datetime
) -> None:
    """Write down what became of sending a token, unless the invitation has another one by now."""
    await connection.execute(
        """
        UPDATE invitation SET delivery = $3, next_attempt_at = $4
        WHERE invitation_id = $1 AND token_hash = $2 AND delivery = 'pending'
        """,
        invitation_id,
        token_hash,
        delivery,
        next_attempt_at,
    )
