"""All SQL of the billing service; each function is one statement with one intent."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from services.billing.charging import Subscription
from services.billing.final_invoice import Stretch
from shared.messaging.event import Event
from shared.postgres import Connection

# What a reader sees of an invoice; a statement continues after its FROM.
_INVOICE = """
    SELECT invoice.invoice_id, invoice.tenant_id, invoice.customer_name, invoice.currency, invoice.state,
           round(invoice.total, currency.digits) AS total, invoice.drafted_at, invoice.issued_at,
           (SELECT coalesce(jsonb_agg(jsonb_build_object('description', line.description,
                                                         'quantity', line.quantity::text,
                                                         'amount', round(line.amount, currency.digits)::text)
                                      ORDER BY line.position), '[]')
            FROM invoice_line AS line WHERE line.invoice_id = invoice.invoice_id) AS lines
    FROM invoice JOIN currency ON currency.code = invoice.currency
"""


# Opens accounts with their subscriptions, and says why not; `open_accounts` tells of both.
_OPEN_ACCOUNTS = """
    WITH ask AS (
        SELECT ask.*, coalesce(ask.given_currency, plan.currency) AS currency
        FROM ROWS FROM (jsonb_to_recordset($1) AS (
            tenant_id text, account_id uuid, subscription_id uuid, customer_name text, plan text, currency text,
            billing_address text, licences jsonb
        )) WITH ORDINALITY AS ask (
            tenant_id, account_id, subscription_id, customer_name, plan, given_currency,
            billing_address, licences, position
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
        SELECT wanted.*, price.amount,
               CASE WHEN plan.name IS NULL THEN 'unknown_plan'
                    WHEN price.plan IS NULL THEN 'unsupported_currency'
               END AS refusal
        FROM wanted
        JOIN ask USING (position)
        LEFT JOIN plan ON plan.name = wanted.plan
        LEFT JOIN plan_price AS price ON price.plan = wanted.plan AND price.currency = ask.currency
    ), refused AS (
        SELECT DISTINCT ON (position) position, refusal, plan, product
        FROM priced WHERE refusal IS NOT NULL ORDER BY position, number
    ), candidate AS (
        SELECT DISTINCT ON (ask.tenant_id) ask.*
        FROM ask LEFT JOIN refused USING (position)
        WHERE refused.position IS NULL ORDER BY ask.tenant_id, ask.position
    ), opened AS (
        INSERT INTO account (account_id, tenant_id, customer_name, billing_address, currency, opened_at)
        SELECT account_id, tenant_id, customer_name, billing_address, currency, $2
        FROM candidate
        ORDER BY tenant_id  -- concurrent batches wait for each other's tenants in one order
        -- Changes nothing, but waits for whoever is at work on the row, and returns the identity that it has.
        ON CONFLICT (tenant_id) DO UPDATE SET opened_at = account.opened_at
        RETURNING tenant_id, account_id
    ), subscribed AS (
        INSERT INTO subscription (subscription_id, account_id, product, plan, currency, amount)
        SELECT priced.subscription_id, account_id, priced.product, priced.plan, candidate.currency, priced.amount
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
    """Open an account with pending subscriptions for every ask whose plans are all sold in its currency.

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


async def void_accounts(connection: Connection, tenant_ids: Sequence[str]) -> None:
    """Delete the tenants' accounts with all they have."""
    await connection.execute(
        """
        WITH doomed AS (
            SELECT account_id FROM account WHERE tenant_id = ANY ($1::text[]) ORDER BY tenant_id FOR UPDATE
        ), dropped AS (
            DELETE FROM invoice WHERE tenant_id = ANY ($1::text[]) AND state = 'draft'
        )
        DELETE FROM account USING doomed WHERE account.account_id = doomed.account_id
        """,
        tenant_ids,
    )


async def start_subscriptions(connection: Connection, activations: Sequence[Event]) -> list[asyncpg.Record]:
    """Charge pending subscriptions of activated tenants, which are locked, from the time of the activation.

    An activation that is known to have been taken back by its own workflow starts nothing. One that comes when the
    account is closed already starts nothing either, but is noted, in case the account is opened again.

    Returns:
        ``tenant_id``, ``plan`` and the workflow ``activated_by`` of each account that is charged by this call.
    """
    return await connection.fetch(
        """
        WITH activation AS (
            SELECT DISTINCT ON (tenant_id, workflow_id) tenant_id, workflow_id, activated_at
            FROM unnest($1::text[], $2::uuid[], $3::timestamptz[]) AS told (tenant_id, workflow_id, activated_at)
            ORDER BY tenant_id, workflow_id, activated_at
        ), found AS (
            SELECT subscription_id, tenant_id
            FROM subscription JOIN account USING (account_id)
            WHERE tenant_id = ANY ($1::text[])
            ORDER BY subscription_id FOR UPDATE OF subscription
        ), noted AS (
            UPDATE subscription
            SET state = CASE state WHEN 'pending' THEN 'active' ELSE state END,
                started_at = activation.activated_at, activated_by = activation.workflow_id, charged_since = NULL
            FROM found JOIN activation USING (tenant_id)
            WHERE subscription.subscription_id = found.subscription_id
              AND subscription.started_at IS NULL  -- pending, or ended and never charged
              AND (subscription.withdrawn_by IS NULL OR subscription.withdrawn_by <> activation.workflow_id)
            RETURNING found.tenant_id, subscription.product, subscription.plan, subscription.activated_by,
                      subscription.state
        )
        SELECT tenant_id, plan, activated_by FROM noted WHERE state = 'active' AND product = ''
        """,
        *_columns(activations),
    )


async def withdraw_subscriptions(connection: Connection, deactivations: Sequence[Event]) -> None:
    """Charge nothing for activations that were taken back, and remember it for those that are yet to arrive.

    The subscriptions are locked. Nothing happens to those of a closed account.
    """
    tenant_ids, workflow_ids, _ = _columns(deactivations)
    await connection.execute(
        """
        WITH deactivation AS (
            SELECT DISTINCT tenant_id, workflow_id
            FROM unnest($1::text[], $2::uuid[]) AS told (tenant_id, workflow_id)
        ), found AS (
            SELECT subscription.subscription_id, account.tenant_id
            FROM account
            JOIN subscription AS own ON own.account_id = account.account_id AND own.product = ''
            JOIN subscription ON subscription.account_id = account.account_id
            WHERE account.tenant_id = ANY ($1::text[]) AND own.state <> 'ended'
        ), withdrawn AS (
            UPDATE subscription
            SET withdrawn_by = deactivation.workflow_id,
                state = CASE WHEN activated_by = deactivation.workflow_id AND state <> 'ended' THEN 'pending'
                             ELSE state
                        END,
                started_at = CASE WHEN activated_by = deactivation.workflow_id THEN NULL ELSE started_at END,
                charged_since = CASE WHEN activated_by = deactivation.workflow_id THEN NULL ELSE charged_since END,
                activated_by = nullif(activated_by, deactivation.workflow_id)
            FROM found JOIN deactivation USING (tenant_id)
            WHERE subscription.subscription_id = found.subscription_id
            RETURNING subscription.subscription_id, subscription.started_at
        )
        DELETE FROM charged_period USING withdrawn
        WHERE charged_period.subscription_id = withdrawn.subscription_id AND withdrawn.started_at IS NULL
        """,
        tenant_ids,
        workflow_ids,
    )


async def lock_subscriptions(connection: Connection, tenant_ids: Sequence[str]) -> None:
    """Keep the tenants' subscriptions from being changed by others, or more made, until the transaction ends.

    That of the account's plan stands for all. Whatever there is is read by later statements, which see what those that
    were waited for have done.
    """
    await connection.execute(
        """
        SELECT FROM subscription JOIN account USING (account_id)
        WHERE account.tenant_id = ANY ($1::text[]) AND subscription.product = ''
        ORDER BY subscription.subscription_id FOR UPDATE OF subscription  -- batches wait for each other in one order
        """,
        tenant_ids,
    )


async def standing_subscriptions(connection: Connection, tenant_ids: Sequence[str]) -> list[asyncpg.Record]:
    """Return the tenants' subscriptions."""
    return await connection.fetch(
        """
        SELECT subscription.subscription_id, account.tenant_id, subscription.product, subscription.plan,
               subscription.currency, currency.digits, subscription.amount, subscription.state,
               subscription.started_at, subscription.charged_since, subscription.version
        FROM subscription
        JOIN account USING (account_id)
        JOIN currency ON currency.code = subscription.currency
        WHERE account.tenant_id = ANY ($1::text[])
        """,
        tenant_ids,
    )


async def save_subscriptions(connection: Connection, subscriptions: Sequence[Subscription]) -> None:
    """Write what can change of subscriptions that are locked."""
    await connection.execute(
        """
        UPDATE subscription
        SET plan = new.plan, amount = new.amount, state = new.state, charged_since = new.charged_since,
            version = new.version
        FROM unnest($1::uuid[], $2::text[], $3::numeric[], $4::text[], $5::timestamptz[], $6::integer[])
            AS new (subscription_id, plan, amount, state, charged_since, version)
        WHERE subscription.subscription_id = new.subscription_id
        """,
        [each.subscription_id for each in subscriptions],
        [each.plan for each in subscriptions],
        [each.amount for each in subscriptions],
        [each.state for each in subscriptions],
        [each.charged_since for each in subscriptions],
        [each.version for each in subscriptions],
    )


async def add_licences(connection: Connection, licences: Sequence[Subscription]) -> None:
    """Add licences to accounts whose subscriptions are locked; the activation that counts for those counts for them."""
    await connection.execute(
        """
        INSERT INTO subscription (subscription_id, account_id, product, plan, currency, amount, state, charged_since,
                                  version, started_at, activated_by, withdrawn_by)
        SELECT new.subscription_id, account_id, new.product, new.plan, own.currency, new.amount, new.state,
               new.charged_since, new.version, own.started_at, own.activated_by, own.withdrawn_by
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::numeric[], $6::text[], $7::timestamptz[],
                    $8::integer[])
            AS new (subscription_id, tenant_id, product, plan, amount, state, charged_since, version)
        JOIN account USING (tenant_id)
        JOIN subscription AS own USING (account_id)
        WHERE own.product = ''
        """,
        [each.subscription_id for each in licences],
        [each.tenant_id for each in licences],
        [each.product for each in licences],
        [each.plan for each in licences],
        [each.amount for each in licences],
        [each.state for each in licences],
        [each.charged_since for each in licences],
        [each.version for each in licences],
    )


async def remove_licences(connection: Connection, subscription_ids: Sequence[UUID]) -> None:
    """Delete licences with all they were charged for."""
    await connection.execute("DELETE FROM subscription WHERE subscription_id = ANY ($1::uuid[])", subscription_ids)


async def prices(connection: Connection, plans: Sequence[str]) -> list[asyncpg.Record]:
    """Return the ``plan``, ``currency`` and ``amount`` of every price of these plans."""
    return await connection.fetch("SELECT plan, currency, amount FROM plan_price WHERE plan = ANY ($1::text[])", plans)


async def charged_periods(connection: Connection, subscription_ids: Sequence[UUID]) -> list[asyncpg.Record]:
    """Return the stretches of time that were charged and are over, each with the ``product`` it was charged for."""
    return await connection.fetch(
        """
        SELECT subscription_id, subscription.product, charged_period.plan, charged_period.amount,
               charged_period.started_at, charged_period.ended_at
        FROM charged_period JOIN subscription USING (subscription_id)
        WHERE subscription_id = ANY ($1::uuid[])
        """,
        subscription_ids,
    )


async def add_charged_periods(connection: Connection, stretches: Sequence[tuple[UUID, Stretch]]) -> None:
    """Keep stretches of time that were charged and are over by now, each of a subscription."""
    await connection.execute(
        """
        INSERT INTO charged_period (subscription_id, plan, currency, amount, started_at, ended_at)
        SELECT subscription_id, closed.plan, subscription.currency, closed.amount, closed.started_at, closed.ended_at
        FROM unnest($1::uuid[], $2::text[], $3::numeric[], $4::timestamptz[], $5::timestamptz[])
            AS closed (subscription_id, plan, amount, started_at, ended_at)
        JOIN subscription USING (subscription_id)
        """,
        [subscription_id for subscription_id, _ in stretches],
        [stretch.plan for _, stretch in stretches],
        [stretch.amount for _, stretch in stretches],
        [stretch.started_at for _, stretch in stretches],
        [stretch.ended_at for _, stretch in stretches],
    )


async def forget_charged_periods(connection: Connection, beginnings: Mapping[UUID, datetime]) -> None:
    """Delete of each subscription the stretches that began at the time given, or later."""
    await connection.execute(
        """
        DELETE FROM charged_period USING unnest($1::uuid[], $2::timestamptz[]) AS undone (subscription_id, since)
        WHERE charged_period.subscription_id = undone.subscription_id AND charged_period.started_at >= undone.since
        """,
        list(beginnings),
        list(beginnings.values()),
    )


async def lock_accounts(connection: Connection, tenant_ids: Sequence[str]) -> list[asyncpg.Record]:
    """Keep the tenants' accounts from being changed by others, and return ``tenant_id`` and ``customer_name``."""
    return await connection.fetch(
        """
        SELECT tenant_id, customer_name FROM account WHERE tenant_id = ANY ($1::text[])
        ORDER BY tenant_id FOR NO KEY UPDATE
        """,
        tenant_ids,
    )


async def rename_accounts(connection: Connection, names: Mapping[str, str]) -> None:
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


async def drafts(connection: Connection, tenant_ids: Sequence[str]) -> list[asyncpg.Record]:
    """Return ``tenant_id``, ``invoice_id``, ``currency`` and ``total`` of the tenants' drafts, in its digits."""
    return await connection.fetch(
        """
        SELECT invoice.tenant_id, invoice.invoice_id, invoice.currency, round(invoice.total, currency.digits) AS total
        FROM invoice JOIN currency ON currency.code = invoice.currency
        WHERE invoice.tenant_id = ANY ($1::text[]) AND invoice.state = 'draft'
        """,
        tenant_ids,
    )


async def draft_invoices(connection: Connection, invoices: Sequence[Mapping[str, Any]], *, now: datetime) -> None:
    """Draft invoices with their lines, made out as the accounts say at this moment.

    An invoice has a fresh ``invoice_id``, the ``tenant_id``, the ``total`` and ``lines`` as
    `services.billing.final_invoice.Line` has them.
    """
    await connection.execute(
        """
        WITH fresh AS (
            SELECT * FROM jsonb_to_recordset($1)
                AS fresh (invoice_id uuid, tenant_id text, total numeric, lines jsonb)
        ), drafted AS (
            INSERT INTO invoice (invoice_id, tenant_id, customer_name, billing_address, currency, total, drafted_at)
            SELECT fresh.invoice_id, tenant_id, account.customer_name, account.billing_address, account.currency,
                   fresh.total, $2
            FROM fresh JOIN account USING (tenant_id)
        )
        INSERT INTO invoice_line (invoice_id, position, description, quantity, amount)
        SELECT fresh.invoice_id, line.position, line.description, line.quantity, line.amount
        FROM fresh
        CROSS JOIN LATERAL ROWS FROM (
            jsonb_to_recordset(fresh.lines) AS (description text, quantity numeric, amount numeric)
        ) WITH ORDINALITY AS line (description, quantity, amount, position)
        """,
        invoices,
        now,
    )


async def delete_drafts(connection: Connection, invoice_ids: Sequence[UUID]) -> None:
    """Delete drafts with their lines; those that were issued stay."""
    await connection.execute("DELETE FROM invoice WHERE invoice_id = ANY ($1::uuid[]) AND state = 'draft'", invoice_ids)


async def purge_accounts(connection: Connection, tenant_ids: Sequence[str], *, now: datetime) -> list[asyncpg.Record]:
    """Issue the tenants' drafts and delete their accounts with all they have.

    Returns:
        For each tenant: the ``tenant_id``, the ``invoice_id`` of the last invoice that was issued, now or before, and
        how many ``accounts`` and ``subscriptions`` were deleted.
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
            RETURNING tenant_id, invoice_id
        ), deleted AS (
            DELETE FROM account USING doomed WHERE account.account_id = doomed.account_id
        )
        SELECT tenant_id, coalesce(had.accounts, 0) AS accounts, coalesce(had.subscriptions, 0) AS subscriptions,
               coalesce(issued.invoice_id, (
                   SELECT earlier.invoice_id FROM invoice AS earlier
                   WHERE earlier.tenant_id = asked.tenant_id AND earlier.state = 'final'
                   ORDER BY earlier.invoice_id DESC LIMIT 1
               )) AS invoice_id
        FROM (SELECT DISTINCT unnest($1::text[]) AS tenant_id) AS asked
        LEFT JOIN had USING (tenant_id)
        LEFT JOIN issued USING (tenant_id)
        """,
        tenant_ids,
        now,
    )


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


async def subscriptions(
    connection: Connection, *, after: UUID | None, limit: int, tenant_id: str | None
) -> list[asyncpg.Record]:
    """List subscriptions, all or one tenant's, created after ``after``, amounts in their currency's digits."""
    narrowing, tenant_ids = _narrowed("account.tenant_id = $3", tenant_id)
    return await connection.fetch(
        f"""
        SELECT subscription.subscription_id, account.tenant_id, account.account_id,
               nullif(subscription.product, '') AS product, subscription.plan, subscription.currency,
               round(subscription.amount, currency.digits) AS amount, subscription.state, subscription.started_at
        FROM subscription
        JOIN account USING (account_id)
        JOIN currency ON currency.code = subscription.currency
        WHERE ($1::uuid IS NULL OR subscription.subscription_id > $1) AND {narrowing}
        ORDER BY subscription.subscription_id LIMIT $2
        """,  # noqa: S608 - a condition of our own
        after,
        limit,
        *tenant_ids,
    )


async def invoices(
    connection: Connection, *, after: UUID | None, limit: int, tenant_id: str | None
) -> list[asyncpg.Record]:
    """List invoices, all or one tenant's, drafted after ``after``, amounts in their currency's digits."""
    narrowing, tenant_ids = _narrowed("invoice.tenant_id = $3", tenant_id)
    return await connection.fetch(
        _INVOICE
        + f"""
        WHERE ($1::uuid IS NULL OR invoice.invoice_id > $1) AND {narrowing}
        ORDER BY invoice.invoice_id LIMIT $2
        """,
        after,
        limit,
        *tenant_ids,
    )


async def invoice(connection: Connection, invoice_id: UUID, *, within: str | None) -> asyncpg.Record | None:
    """Find one invoice by its identity, of any tenant or if it is the one ``within``."""
    return await connection.fetchrow(
        _INVOICE + "WHERE invoice.invoice_id = $1 AND ($2::text IS NULL OR invoice.tenant_id = $2)", invoice_id, within
    )


def _narrowed(condition: str, tenant_id: str | None) -> tuple[str, list[str]]:
    """Return a condition with its value where there is one: a plan that also fits none would not use the index."""
    return ("true", []) if tenant_id is None else (condition, [tenant_id])


def _columns(facts: Sequence[Event]) -> tuple[list[str], list[UUID | None], list[datetime]]:
    return (
        [fact.message.tenant_id for fact in facts],
        [fact.workflow_id for fact in facts],
        [fact.time for fact in facts],
    )
