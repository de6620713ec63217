"""Who pays."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg

from shared.postgres import Connection

# Opens accounts with their subscriptions, and says why not; `open_accounts` tells of both.
_OPEN_ACCOUNTS = """
    WITH ask AS (
        SELECT ask.*, coalesce(ask.given_currency, plan.currency) AS currency
        FROM ROWS FROM (jsonb_to_recordset($1) AS (
            tenant_id text, account_id uuid, subscription_id uuid, customer_name text, plan text, currency text,
            billing_address text, licences jsonb, time_zone text
        )) WITH ORDINALITY AS ask (
            tenant_id, account_id, subscription_id, customer_name, plan, given_currency,
            billing_address, licences, time_zone, position
        )
        LEFT JOIN plan ON plan.name = ask.plan
    ), wanted AS (  -- the plan of the account, and those of its licences
        SELECT position, 0 AS number, '' AS product, plan, subscription_id FROM ask
        UNION ALL
        SELECT ask.position, licence.number, licence.product, licence.plan, licence.subscription_id
        FROM ask CROSS JOIN LATERAL ROWS FROM (
            jsonb_to_recordset(ask.licences) AS (product text, plan text, subscription_id uuid)
        ) WITH ORDINALITY AS licence (product, plan, subscription_id, number)
    ), priced AS (
        SELECT wanted.*, in_force.version AS plan_version, price.amount,
               CASE WHEN in_force.version IS NULL THEN 'unknown_plan'
                    WHEN price.plan IS NULL THEN 'unsupported_currency'
               END AS refusal
        FROM wanted
        JOIN ask USING (position)
        LEFT JOIN LATERAL (
            SELECT version.version FROM plan_version AS version
            WHERE version.plan = wanted.plan AND version.starts_at <= $2
            ORDER BY version.version DESC LIMIT 1
        ) AS in_force ON true
        LEFT JOIN plan_version_price AS price
            ON price.plan = wanted.plan AND price.version = in_force.version AND price.currency = ask.currency
    ), refused AS (
        SELECT DISTINCT ON (position) position, refusal, plan, product
        FROM priced WHERE refusal IS NOT NULL ORDER BY position, number
    ), candidate AS (
        SELECT DISTINCT ON (ask.tenant_id) ask.*
        FROM ask LEFT JOIN refused USING (position)
        WHERE refused.position IS NULL ORDER BY ask.tenant_id, ask.position
    ), opened AS (
        INSERT INTO account (account_id, tenant_id, customer_name, billing_address, currency, time_zone, opened_at)
        SELECT account_id, tenant_id, customer_name, billing_address, currency, time_zone, $2
        FROM candidate
        ORDER BY tenant_id  -- concurrent batches wait for each other's tenants in one order
        -- Changes nothing, but waits for whoever is at work on the row, and returns the identity that it has.
        ON CONFLICT (tenant_id) DO UPDATE SET opened_at = account.opened_at
        RETURNING tenant_id, account_id
    ), subscribed AS (
        INSERT INTO subscription (subscription_id, account_id, product, plan, plan_version, currency, amount)
        SELECT priced.subscription_id, account_id, priced.product, priced.plan, priced.plan_version,
               candidate.currency, priced.amount
        FROM opened JOIN candidate USING (tenant_id, account_id)  -- the fresh identity: only what was opened now
        JOIN priced USING (position)
    )
    SELECT refused.refusal, refused.plan, refused.product, ask.currency, opened.account_id
    FROM ask
    LEFT JOIN refused USING (position)
    LEFT JOIN opened ON opened.tenant_id = ask.tenant_id
    ORDER BY ask.position
"""


async def open_accounts(
    connection: Connection, asks: Sequence[Mapping[str, Any]], *, now: datetime
) -> list[asyncpg.Record]:
    """Open an account with pending subscriptions for every ask whose plans are all sold in its currency now.

    An account that the tenant already has stays as it is. An ask has the fields of
    `shared.contracts.billing.OpenAccount`, and a fresh ``account_id`` and ``subscription_id``; each of its licences has
    a fresh ``subscription_id`` too.

    Returns:
        For each ask, in order: ``refusal`` (``unknown_plan``, ``unsupported_currency`` or None) with the ``plan``, the
        ``product`` it is to license and the ``currency`` that it is about, and the ``account_id``.
    """
    return await connection.fetch(
        _OPEN_ACCOUNTS,
        asks,
        now,
    )


async def void(connection: Connection, tenant_ids: Sequence[str]) -> None:
    """Delete the accounts, with all they have, of tenants whose subscriptions are locked."""
    await connection.execute(
        """
        WITH doomed AS (
            SELECT account_id FROM account WHERE tenant_id = ANY ($1::text[]) ORDER BY tenant_id FOR UPDATE
        ), dropped AS (
            DELETE FROM invoice WHERE tenant_id = ANY ($1::text[]) AND state = 'draft'
        ), forgotten AS (
            DELETE FROM usage_report WHERE tenant_id = ANY ($1::text[])
        )
        DELETE FROM account USING doomed WHERE account.account_id = doomed.account_id
        """,
        tenant_ids,
    )


async def lock(connection: Connection, tenant_ids: Sequence[str]) -> list[asyncpg.Record]:
    """Keep the tenants' accounts from being changed by others, and return ``tenant_id`` and ``customer_name``."""
    return await connection.fetch(
        """
        SELECT tenant_id, customer_name FROM account WHERE tenant_id = ANY ($1::text[])
        ORDER BY tenant_id FOR NO KEY UPDATE
        """,
        tenant_ids,
    )


async def rename(connection: Connection, names: Mapping[str, str]) -> None:
    """Make the invoices of tenants out to other names."""
    await connection.execute(
        """
        UPDATE account SET customer_name = new.customer_name
        FROM unnest($1::text[], $2::text[]) AS new (tenant_id, customer_name)
        WHERE account.tenant_id = new.tenant_id
        """,
        list(names),
        list(names.values()),
    )


async def purge(connection: Connection, tenant_ids: Sequence[str], *, now: datetime) -> list[asyncpg.Record]:
    """Issue the tenants' drafts and delete their accounts with all they have.

    Returns:
        For each tenant: the ``tenant_id``, the ``invoice_id`` of the closing invoice that was issued, now or before,
        and how many ``accounts`` and ``subscriptions`` were deleted; ``number``, ``currency`` and ``total`` of the
        invoice that was issued now, None where there was none.
    """
    return await connection.fetch(
        """
        WITH doomed AS (
            SELECT account_id, tenant_id FROM account WHERE tenant_id = ANY ($1::text[])
            ORDER BY tenant_id FOR UPDATE
        ), had AS (
            SELECT doomed.tenant_id, count(DISTINCT account_id) AS accounts, count(subscription_id) AS subscriptions
            FROM doomed LEFT JOIN subscription USING (account_id) GROUP BY doomed.tenant_id
        ), issued AS (
            UPDATE invoice SET state = 'final', issued_at = $2
            WHERE tenant_id = ANY ($1::text[]) AND state = 'draft'
            RETURNING tenant_id, invoice_id, number, currency, total
        ), forgotten AS (
            DELETE FROM usage_report WHERE tenant_id = ANY ($1::text[])
        ), deleted AS (
            DELETE FROM account USING doomed WHERE account.account_id = doomed.account_id
        )
        SELECT tenant_id, coalesce(had.accounts, 0) AS accounts, coalesce(had.subscriptions, 0) AS subscriptions,
               coalesce(issued.invoice_id, (
                   SELECT earlier.invoice_id FROM invoice AS earlier
                   WHERE earlier.tenant_id = asked.tenant_id AND earlier.state = 'final' AND earlier.kind = 'closing'
                   ORDER BY earlier.invoice_id DESC LIMIT 1
               )) AS invoice_id,
               issued.number, issued.currency, round(issued.total, currency.digits) AS total
        FROM (SELECT DISTINCT unnest($1::text[]) AS tenant_id) AS asked
        LEFT JOIN had USING (tenant_id)
        LEFT JOIN issued USING (tenant_id)
        LEFT JOIN currency ON currency.code = issued.currency
        """,
        tenant_ids,
        now,
    )
