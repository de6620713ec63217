"""What tenants are charged a month."""

from collections.abc import Sequence

import asyncpg

from shared.postgres import Connection


async def settle(connection: Connection, tenant_ids: Sequence[str]) -> list[asyncpg.Record]:
    """Note what each tenant, whose subscriptions are locked, is charged a month now, and have its account looked at.

    Returns:
        Of each tenant that was charged another amount before: ``tenant_id``, ``currency``, the ``amount`` in its digits
        and the ``edition``.
    """
    return await connection.fetch(
        """
        WITH found AS (
            SELECT account_id, revenue FROM account WHERE tenant_id = ANY ($1::text[])
            ORDER BY tenant_id FOR NO KEY UPDATE
        ), standing AS (
            SELECT found.account_id, found.revenue AS told,
                   coalesce(sum(subscription.amount) FILTER (WHERE subscription.state = 'active'), 0) AS revenue
            FROM found JOIN subscription USING (account_id)
            GROUP BY found.account_id, found.revenue
        ), settled AS (
            UPDATE account
            SET look_at = '-infinity', revenue = standing.revenue,
                revenue_edition = revenue_edition + (standing.revenue <> standing.told)::integer
            FROM standing WHERE account.account_id = standing.account_id
            RETURNING account.tenant_id, account.currency, account.revenue, account.revenue_edition, standing.told
        )
        SELECT tenant_id, currency, round(revenue, digits) AS amount, revenue_edition AS edition
        FROM settled JOIN currency ON currency.code = settled.currency
        WHERE revenue <> told ORDER BY tenant_id
        """,
        tenant_ids,
    )


async def end(connection: Connection, tenant_ids: Sequence[str]) -> list[asyncpg.Record]:
    """Return the same of tenants whose accounts are deleted by this transaction: they are charged nothing."""
    return await connection.fetch(
        """
        SELECT tenant_id, currency, round(0::numeric, digits) AS amount, revenue_edition + 1 AS edition
        FROM account JOIN currency ON currency.code = account.currency
        WHERE tenant_id = ANY ($1::text[]) AND revenue <> 0 ORDER BY tenant_id
        """,
        tenant_ids,
    )
