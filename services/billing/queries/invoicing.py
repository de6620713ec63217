"""What an invoice needs to know of accounts, and what it leaves behind: for many accounts at once."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg

from shared.postgres import Connection

# All of an account that matters to its invoices; a statement continues after its FROM.
_ACCOUNT = """
    SELECT account.tenant_id, account.account_id, account.currency, currency.digits, account.time_zone,
           account.closes_at, account.usage_wanted_at, own.state,
           CASE WHEN account.closes_at IS NULL THEN (
               SELECT max(closes_at) FROM invoice WHERE invoice.tenant_id = account.tenant_id AND kind = 'periodic'
           ) END AS billed_until
    FROM account
    JOIN currency ON currency.code = account.currency
    JOIN subscription AS own ON own.account_id = account.account_id AND own.product = ''
    WHERE account.tenant_id = ANY ($1::text[])
"""


async def due(connection: Connection, *, now: datetime, limit: int) -> list[str]:
    """Return the tenants whose accounts are to be looked at, those first that have waited longest."""
    rows = await connection.fetch(
        "SELECT tenant_id FROM account WHERE look_at <= $1 ORDER BY look_at, tenant_id LIMIT $2", now, limit
    )
    return [row["tenant_id"] for row in rows]


async def stuck(connection: Connection) -> int:
    """Count the accounts whose invoices cannot be made."""
    count: int = await connection.fetchval("SELECT count(*) FROM account WHERE stuck_since IS NOT NULL")
    return count


async def accounts(connection: Connection, tenant_ids: Sequence[str]) -> list[asyncpg.Record]:
    """Return the tenants' accounts, with the ``state`` of the own subscription."""
    return await connection.fetch(_ACCOUNT, tenant_ids)


async def lock_due(connection: Connection, tenant_ids: Sequence[str], *, now: datetime) -> list[asyncpg.Record]:
    """Return the same of accounts that are still to be looked at, and keep them from being changed by others.

    Their subscriptions are locked already.
    """
    return await connection.fetch(
        _ACCOUNT + "AND account.look_at <= $2 ORDER BY account.tenant_id FOR NO KEY UPDATE OF account", tenant_ids, now
    )


async def stretches(connection: Connection, tenant_ids: Sequence[str]) -> list[asyncpg.Record]:
    """Return all that the tenants were ever charged for, and what runs; that has no ``ended_at``."""
    return await connection.fetch(
        """
        WITH held AS (
            SELECT account.tenant_id, subscription.*
            FROM account JOIN subscription USING (account_id)
            WHERE account.tenant_id = ANY ($1::text[])
        )
        SELECT held.tenant_id, held.product, past.plan, past.plan_version, past.amount, past.started_at, past.ended_at
        FROM held JOIN charged_period AS past USING (subscription_id)
        UNION ALL
        -- The release before can leave an older charged_since behind.
        SELECT tenant_id, product, plan, plan_version, amount, greatest(started_at, charged_since), NULL
        FROM held WHERE state = 'active'
        ORDER BY tenant_id, product, started_at
        """,
        tenant_ids,
    )


async def billed(connection: Connection, windows: Mapping[str, datetime]) -> list[asyncpg.Record]:
    """Return what final invoices say of what was provided since a window began, by tenant and ``item_key``.

    Amounts and quantities are sums; the other columns are of the line that named the key first.

    Args:
        windows: by tenant, since when.
    """
    return await connection.fetch(
        """
        SELECT invoice.tenant_id, line.item_key, sum(line.amount) AS amount, sum(line.quantity) AS quantity,
               min(invoice.number) AS number,
               (array_agg(line.description ORDER BY invoice.number))[1] AS description,
               (array_agg(line.since ORDER BY invoice.number))[1] AS since,
               (array_agg(line.until ORDER BY invoice.number))[1] AS until
        FROM unnest($1::text[], $2::timestamptz[]) AS looked_at (tenant_id, since)
        -- Nothing is on an invoice that closes before it begins.
        JOIN invoice ON invoice.tenant_id = looked_at.tenant_id AND invoice.kind = 'periodic'
            AND invoice.closes_at >= looked_at.since AND invoice.state = 'final'
        JOIN invoice_line AS line ON line.invoice_id = invoice.invoice_id AND line.since >= looked_at.since
        WHERE line.item_key IS NOT NULL
        GROUP BY invoice.tenant_id, line.item_key
        """,
        list(windows),
        list(windows.values()),
    )


async def reschedule(connection: Connection, reviews: Iterable[Mapping[str, Any]]) -> None:
    """Write when accounts that are locked are looked at next, and how far they have come; none of them is stuck.

    A review has ``tenant_id``, ``closes_at``, ``usage_wanted_at`` and ``look_at``, None of which is at once.
    """
    made = list(reviews)
    await connection.execute(
        """
        UPDATE account
        SET closes_at = made.closes_at, usage_wanted_at = made.usage_wanted_at,
            look_at = coalesce(made.look_at, '-infinity'), stuck_since = NULL
        FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[], $4::timestamptz[])
            AS made (tenant_id, closes_at, usage_wanted_at, look_at)
        WHERE account.tenant_id = made.tenant_id
        """,
        [each["tenant_id"] for each in made],
        [each["closes_at"] for each in made],
        [each["usage_wanted_at"] for each in made],
        [each["look_at"] for each in made],
    )


async def look_again(connection: Connection, tenant_ids: Sequence[str]) -> None:
    """Have the tenants' accounts looked at now."""
    await connection.execute(
        """
        WITH found AS (
            SELECT account_id FROM account WHERE tenant_id = ANY ($1::text[]) ORDER BY tenant_id FOR NO KEY UPDATE
        )
        UPDATE account SET look_at = '-infinity' FROM found WHERE account.account_id = found.account_id
        """,
        tenant_ids,
    )


async def begin_again(connection: Connection, tenant_ids: Sequence[str]) -> None:
    """Have the tenants' next invoice made of their activation, which has just been heard of."""
    await connection.execute(
        """
        WITH found AS (
            SELECT account_id FROM account
            WHERE tenant_id = ANY ($1::text[]) AND closes_at IS NOT NULL ORDER BY tenant_id FOR NO KEY UPDATE
        )
        UPDATE account SET closes_at = NULL FROM found WHERE account.account_id = found.account_id
        """,
        tenant_ids,
    )


async def want_usage(connection: Connection, tenant_ids: Sequence[str], *, now: datetime) -> None:
    """Note that metrics is asked what the tenants have used, unless it was asked before and has not answered yet."""
    await connection.execute(
        """
        WITH found AS (
            SELECT account_id FROM account
            WHERE tenant_id = ANY ($1::text[]) AND usage_wanted_at IS NULL ORDER BY tenant_id FOR NO KEY UPDATE
        )
        UPDATE account SET usage_wanted_at = $2 FROM found WHERE account.account_id = found.account_id
        """,
        tenant_ids,
        now,
    )


async def park(connection: Connection, tenant_id: str, *, now: datetime, until: datetime) -> None:
    """Note that the invoice of an account cannot be made, and look at it again at another time."""
    await connection.execute(
        "UPDATE account SET look_at = $3, stuck_since = coalesce(stuck_since, $2) WHERE tenant_id = $1",
        tenant_id,
        now,
        until,
    )
