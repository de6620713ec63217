"""SQL about becoming a member by coming from the tenant's own provider."""

from datetime import datetime
from uuid import UUID

import asyncpg

from shared.postgres import Connection


async def enter(connection: Connection, tenant_id: str, user_id: UUID, *, role: str, now: datetime) -> bool:
    """Make a user, who is locked, a member without an invitation; return whether it was none before."""
    done = await connection.execute(
        """
        INSERT INTO membership (tenant_id, user_id, role, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING
        """,
        tenant_id,
        user_id,
        role,
        now,
    )
    return done == "INSERT 0 1"


async def accept(
    connection: Connection, tenant_id: str, user_id: UUID, *, now: datetime, also_late: bool
) -> asyncpg.Record | None:
    """Accept the open invitation of a user, who is locked, and return its id and role; None where there is none.

    Args:
        also_late: one that has expired, too.
    """
    return await connection.fetchrow(
        """
        UPDATE invitation SET accepted_at = $3, delivery = 'sent'
        WHERE tenant_id = $1 AND user_id = $2 AND accepted_at IS NULL AND (expires_at > $3 OR $4)
        RETURNING invitation_id, role
        """,
        tenant_id,
        user_id,
        now,
        also_late,
    )
