"""What can be bought, and at which prices: plans, and the versions of each."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg

from shared.postgres import Connection

# A version with its prices and charges; a statement continues after its FROM. What was in force before there were
# versions started at no time. Amounts have the digits of their currency, and more only where they need more.
_VERSION = """
    SELECT version.plan, version.version, version.pays, version.trial_days, version.proration,
           nullif(version.starts_at, '-infinity') AS starts_at, version.reaches_at,
           priced.currencies, priced.amounts, metered.charges
    FROM plan_version AS version
    CROSS JOIN LATERAL (
        SELECT array_agg(price.currency ORDER BY price.currency) AS currencies,
               array_agg(round(price.amount, greatest(currency.digits, min_scale(price.amount)))
                         ORDER BY price.currency) AS amounts
        FROM plan_version_price AS price JOIN currency ON currency.code = price.currency
        WHERE price.plan = version.plan AND price.version = version.version
    ) AS priced
    CROSS JOIN LATERAL (
        SELECT coalesce(jsonb_agg(jsonb_build_object('meter', charge.meter,
                                                     'currency', charge.currency,
                                                     'price', charge.price,
                                                     'included', charge.included::text,
                                                     'minimum', charge.minimum::text)
                                  ORDER BY charge.meter COLLATE "C", charge.currency), '[]') AS charges
        FROM plan_charge AS charge WHERE charge.plan = version.plan AND charge.version = version.version
    ) AS metered
"""


async def lock(connection: Connection) -> None:
    """Keep the catalog from being changed by others until the transaction ends; everybody can read it."""
    await connection.execute("LOCK TABLE plan IN SHARE ROW EXCLUSIVE MODE")


async def prices(connection: Connection, plans: Sequence[str], *, now: datetime) -> list[asyncpg.Record]:
    """Return what these plans cost whoever takes them now: ``plan``, ``version``, ``currency`` and ``amount``."""
    return await connection.fetch(
        """
        SELECT plan, version, price.currency, price.amount
        FROM unnest($1::text[]) AS asked (name)
        CROSS JOIN LATERAL (
            SELECT plan_version.plan, plan_version.version FROM plan_version
            WHERE plan_version.plan = asked.name AND plan_version.starts_at <= $2
            ORDER BY plan_version.version DESC LIMIT 1
        ) AS in_force
        JOIN plan_version_price AS price USING (plan, version)
        """,
        plans,
        now,
    )


async def versions(connection: Connection, plans: Sequence[str]) -> list[asyncpg.Record]:
    """Return all versions of these plans, of each from the first to the last.

    Returns:
        Of each the columns of ``plan_version``, its ``currencies`` and ``amounts``, and its ``charges``, which have
        ``meter``, ``currency``, ``price``, ``included`` and ``minimum``, in the order of the meters' names.
    """
    return await connection.fetch(
        _VERSION + "WHERE version.plan = ANY ($1::text[]) ORDER BY version.plan, version.version", plans
    )


async def plans(connection: Connection, *, after: int, limit: int, now: datetime) -> list[asyncpg.Record]:
    """List plans ranked above ``after``, each with its version in force, or with its first before that has started."""
    return await connection.fetch(
        f"""
        SELECT plan.name, plan.rank, plan.interval, plan.currency, shown.*
        FROM plan CROSS JOIN LATERAL (
            {_VERSION}
            WHERE version.plan = plan.name AND (version.starts_at <= $3 OR version.version = 1)
            ORDER BY version.version DESC LIMIT 1
        ) AS shown
        WHERE plan.rank > $1
        ORDER BY plan.rank LIMIT $2
        """,  # noqa: S608 - a part of our own
        after,
        limit,
        now,
    )


async def plan(connection: Connection, name: str) -> asyncpg.Record | None:
    """Find a plan by its name: ``name``, ``rank``, ``interval`` and ``currency``."""
    return await connection.fetchrow("SELECT name, rank, interval, currency FROM plan WHERE name = $1", name)


async def plan_ranked(connection: Connection, rank: int) -> str | None:
    """Return the name of the plan that has a rank."""
    name: str | None = await connection.fetchval("SELECT name FROM plan WHERE rank = $1", rank)
    return name


async def add_plan(connection: Connection, details: Mapping[str, Any]) -> None:
    """Add a plan whose name and rank no other has; a version with a price in its currency is to follow.

    Args:
        details: its ``name``, ``rank``, ``interval`` and ``currency``.
    """
    await connection.execute(
        "INSERT INTO plan (name, rank, interval, currency) VALUES ($1, $2, $3, $4)",
        details["name"],
        details["rank"],
        details["interval"],
        details["currency"],
    )


async def add_version(
    connection: Connection, plan: str, version: int, content: Mapping[str, Any], *, digits: Mapping[str, int]
) -> None:
    """Add a version that a plan does not have yet, and its prices to those that the release before reads.

    Args:
        content: ``pays``, ``trial_days``, ``proration``, ``starts_at``, ``reaches_at``, ``prices`` and ``charges``.
        digits: of each currency in it.
    """
    await connection.execute(
        """
        WITH used AS (
            INSERT INTO currency (code, digits) SELECT * FROM unnest($8::text[], $10::integer[])
            ON CONFLICT (code) DO NOTHING
        ), sold AS (
            INSERT INTO plan_price (plan, currency, amount) SELECT $1, * FROM unnest($8::text[], $9::numeric[])
            ON CONFLICT (plan, currency) DO UPDATE SET amount = excluded.amount
        ), published AS (
            INSERT INTO plan_version (plan, version, pays, trial_days, proration, starts_at, reaches_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7)
        ), priced AS (
            INSERT INTO plan_version_price (plan, version, currency, amount)
            SELECT $1, $2, * FROM unnest($8::text[], $9::numeric[])
        )
        INSERT INTO plan_charge (plan, version, currency, meter, price, included, minimum)
        SELECT $1, $2, currency, meter, price, included, minimum
        FROM jsonb_to_recordset($11)
            AS charge (currency text, meter text, price jsonb, included numeric, minimum numeric)
        """,
        plan,
        version,
        content["pays"],
        content["trial_days"],
        content["proration"],
        content["starts_at"],
        content["reaches_at"],
        list(content["prices"]),
        list(content["prices"].values()),
        [digits[code] for code in content["prices"]],
        content["charges"],
    )
