"""What can be bought."""

from collections.abc import Sequence

import asyncpg

from shared.postgres import Connection


async def prices(connection: Connection, plans: Sequence[str]) -> list[asyncpg.Record]:
    """Return the ``plan``, ``currency`` and ``amount`` of every price of these plans."""
    return await connection.fetch("SELECT plan, currency, amount FROM plan_price WHERE plan = ANY ($1::text[])", plans)


async def plans(connection: Connection, *, after: int, limit: int) -> list[asyncpg.Record]:
    """List plans ranked above ``after`` with all their prices, amounts written in the digits of their currency."""
    return await connection.fetch(
        """
        SELECT plan.name, plan.rank, plan.interval, plan.currency,
               array_agg(price.currency ORDER BY price.currency) AS currencies,
               array_agg(round(price.amount, currency.digits) ORDER BY price.currency) AS amounts
        FROM plan
        JOIN plan_price AS price ON price.plan = plan.name
        JOIN currency ON currency.code = price.currency
        WHERE plan.rank > $1
        GROUP BY plan.name
        ORDER BY plan.rank LIMIT $2
        """,
        after,
        limit,
    )
