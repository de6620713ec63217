"""What tenants may spend in a month, and what was found and told of it."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import asyncpg

from shared.postgres import Connection

# A limit as it is read by whoever asks for it; amounts are in the digits of the currency.
_LIMIT = """
    SELECT spending.tenant_id, account.currency, round(spending.amount, currency.digits) AS amount, spending.action,
           spending.month, round(spending.spent, currency.digits) AS spent, spending.reviewed_at, spending.is_blocked
    FROM spending_limit AS spending
    JOIN account USING (tenant_id)
    JOIN currency ON currency.code = account.currency
    WHERE spending.tenant_id = $1
"""

_REVIEWED = (
    "tenant_id", "look_at", "usage_wanted_at", "month", "spent", "reviewed_at", "percent_told", "invoiced_at",
    "is_blocked",
)  # fmt: skip


async def limit(connection: Connection, tenant_id: str) -> asyncpg.Record | None:
    """Return a tenant's limit and what was found of it last; None without one."""
    return await connection.fetchrow(_LIMIT, tenant_id)


async def put(connection: Connection, tenant_id: str, *, amount: Decimal, action: str) -> None:
    """Give a tenant whose subscription is locked a limit, or another one: nothing was told or asked because of that."""
    await connection.execute(
        """
        INSERT INTO spending_limit (tenant_id, amount, action) VALUES ($1, $2, $3)
        ON CONFLICT (tenant_id) DO UPDATE
        SET amount = excluded.amount, action = excluded.action, percent_told = 0, usage_wanted_at = NULL,
            look_at = '-infinity'
        """,
        tenant_id,
        amount,
        action,
    )


async def delete(connection: Connection, tenant_id: str) -> None:
    """Let a tenant whose subscription is locked spend what it likes."""
    await connection.execute("DELETE FROM spending_limit WHERE tenant_id = $1", tenant_id)


async def due(connection: Connection, *, now: datetime, limit: int) -> list[str]:
    """Return the tenants whose limits are to be looked at, those first that have waited longest."""
    rows = await connection.fetch(
        "SELECT tenant_id FROM spending_limit WHERE look_at <= $1 ORDER BY look_at, tenant_id LIMIT $2", now, limit
    )
    return [row["tenant_id"] for row in rows]


async def lock_due(connection: Connection, tenant_ids: Sequence[str], *, now: datetime) -> list[asyncpg.Record]:
    """Return the limits that are still to be looked at; the tenants' subscriptions are locked already."""
    return await connection.fetch(
        """
        SELECT tenant_id, amount, action, usage_wanted_at, month, percent_told, invoiced_at, is_blocked
        FROM spending_limit WHERE tenant_id = ANY ($1::text[]) AND look_at <= $2 ORDER BY tenant_id FOR UPDATE
        """,
        tenant_ids,
        now,
    )


async def reschedule(connection: Connection, reviews: Iterable[Mapping[str, Any]]) -> None:
    """Write what was found of limits that are locked.

    A review has ``tenant_id``, ``look_at``, ``usage_wanted_at``, ``month``, ``spent``, ``reviewed_at``,
    ``percent_told``, ``invoiced_at`` and ``is_blocked``.
    """
    made = list(reviews)
    await connection.execute(
        """
        UPDATE spending_limit
        SET look_at = made.look_at, usage_wanted_at = made.usage_wanted_at, month = made.month, spent = made.spent,
            reviewed_at = made.reviewed_at, percent_told = made.percent_told, invoiced_at = made.invoiced_at,
            is_blocked = made.is_blocked
        FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[], $4::date[], $5::numeric[], $6::timestamptz[],
                    $7::integer[], $8::timestamptz[], $9::boolean[])
            AS made (tenant_id, look_at, usage_wanted_at, month, spent, reviewed_at, percent_told, invoiced_at,
                     is_blocked)
        WHERE spending_limit.tenant_id = made.tenant_id
        """,
        *([each[name] for each in made] for name in _REVIEWED),
    )


async def look_again(connection: Connection, tenant_ids: Sequence[str]) -> None:
    """Have the limits of tenants whose subscriptions are locked looked at now."""
    await connection.execute(
        "UPDATE spending_limit SET look_at = '-infinity' WHERE tenant_id = ANY ($1::text[])", tenant_ids
    )


async def park(connection: Connection, tenant_id: str, *, until: datetime) -> None:
    """Look at a limit again at another time."""
    await connection.execute("UPDATE spending_limit SET look_at = $2 WHERE tenant_id = $1", tenant_id, until)


async def next_editions(connection: Connection, tenant_ids: Sequence[str]) -> dict[str, int]:
    """Count that it is told whether the usage of tenants is to be refused, and return the editions of that by tenant.

    Their subscriptions are locked already.
    """
    rows = await connection.fetch(
        """
        WITH found AS (
            SELECT account_id FROM account WHERE tenant_id = ANY ($1::text[]) ORDER BY tenant_id FOR NO KEY UPDATE
        )
        UPDATE account SET spending_edition = spending_edition + 1 FROM found
        WHERE account.account_id = found.account_id RETURNING account.tenant_id, account.spending_edition
        """,
        tenant_ids,
    )
    return {row["tenant_id"]: row["spending_edition"] for row in rows}
