"""Who is behind with payments."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg

from shared.postgres import Connection


async def due(connection: Connection, *, now: datetime, limit: int) -> list[str]:
    """Return the debtors that are to be looked at, those first that have waited longest."""
    rows = await connection.fetch(
        """
        SELECT tenant_id FROM debtor
        WHERE look_at <= $1 AND look_at < 'infinity'  -- the latter for the index
        ORDER BY look_at, tenant_id LIMIT $2
        """,
        now,
        limit,
    )
    return [row["tenant_id"] for row in rows]


async def behind(connection: Connection, *, limit: int) -> list[str]:
    """Return debtors that are behind, however far, in the order of their ids."""
    rows = await connection.fetch(
        "SELECT tenant_id FROM debtor WHERE overdue <> 'clear' ORDER BY tenant_id LIMIT $1", limit
    )
    return [row["tenant_id"] for row in rows]


async def behind_of(connection: Connection, tenant_ids: Iterable[str]) -> set[str]:
    """Return which of these tenants are behind, however far."""
    rows = await connection.fetch(
        "SELECT tenant_id FROM debtor WHERE tenant_id = ANY ($1::text[]) AND overdue <> 'clear'",
        sorted(set(tenant_ids)),
    )
    return {row["tenant_id"] for row in rows}


async def lock(connection: Connection, tenant_ids: Sequence[str]) -> list[asyncpg.Record]:
    """Return debtors, by their ids, and keep them from being changed by others.

    Returns:
        ``tenant_id``, ``overdue``, ``overdue_since`` and ``overdue_edition``.
    """
    return await connection.fetch(
        """
        SELECT tenant_id, overdue, overdue_since, overdue_edition FROM debtor
        WHERE tenant_id = ANY ($1::text[]) ORDER BY tenant_id FOR NO KEY UPDATE
        """,
        tenant_ids,
    )


async def oldest(connection: Connection, tenant_ids: Sequence[str]) -> list[asyncpg.Record]:
    """Return of each tenant, in the given order, what decides how far it is behind.

    Returns:
        ``tenant_id``; ``issued_at`` of the oldest invoice of which something is due, None where nothing is; and whether
        it ``has_account``.
    """
    return await connection.fetch(
        """
        SELECT asked.tenant_id, owed.issued_at,
               EXISTS (SELECT FROM account WHERE account.tenant_id = asked.tenant_id) AS has_account
        FROM unnest($1::text[]) WITH ORDINALITY AS asked (tenant_id, position)
        LEFT JOIN LATERAL (
            SELECT issued_at FROM receivable WHERE receivable.tenant_id = asked.tenant_id AND due > 0
            ORDER BY issued_at LIMIT 1
        ) AS owed ON true
        ORDER BY asked.position
        """,
        tenant_ids,
    )


async def reschedule(connection: Connection, standings: Iterable[Mapping[str, Any]]) -> None:
    """Write how far debtors that are locked are behind, and when they are looked at next.

    A standing has ``tenant_id``, ``overdue``, ``overdue_since``, ``overdue_edition``, and ``look_at``, None of which is
    never.
    """
    made = list(standings)
    await connection.execute(
        """
        UPDATE debtor
        SET overdue = made.overdue, overdue_since = made.overdue_since, overdue_edition = made.overdue_edition,
            look_at = coalesce(made.look_at, 'infinity')
        FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::integer[], $5::timestamptz[])
            AS made (tenant_id, overdue, overdue_since, overdue_edition, look_at)
        WHERE debtor.tenant_id = made.tenant_id
        """,
        [each["tenant_id"] for each in made],
        [each["overdue"] for each in made],
        [each["overdue_since"] for each in made],
        [each["overdue_edition"] for each in made],
        [each["look_at"] for each in made],
    )
