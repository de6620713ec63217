"""All SQL of the billing service; each function is one statement with one intent."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from shared.messaging.event import Event
from shared.postgres import Connection


async def open_accounts(
    connection: Connection, asks: Sequence[Mapping[str, Any]], *, now: datetime
) -> list[asyncpg.Record]:
    """Open an account with a pending subscription for every ask whose plan is sold in its currency.

    An account that the tenant already has stays as it is. An ask has the fields of
    `shared.contracts.billing.OpenAccount`, and a fresh ``account_id`` and ``subscription_id``.

    Returns:
        For each ask, in order: ``refusal`` (``unknown_plan``, ``unsupported_currency`` or None) and the ``account_id``.
    """
    return await connection.fetch(
        """
        WITH ask AS (
            SELECT * FROM ROWS FROM (jsonb_to_recordset($1) AS (
                tenant_id text, account_id uuid, subscription_id uuid, customer_name text, plan text, currency text,
                billing_address text
            )) WITH ORDINALITY AS ask (
                tenant_id, account_id, subscription_id, customer_name, plan, currency, billing_address, position
            )
        ), judged AS (
            SELECT ask.position, ask.tenant_id, ask.account_id, ask.subscription_id, ask.customer_name,
                   ask.billing_address, price.plan, price.currency, price.amount,
                   CASE WHEN plan.name IS NULL THEN 'unknown_plan'
                        WHEN price.plan IS NULL THEN 'unsupported_currency'
                   END AS refusal
            FROM ask
            LEFT JOIN plan ON plan.name = ask.plan
            LEFT JOIN plan_price AS price
                ON price.plan = plan.name AND price.currency = coalesce(ask.currency, plan.currency)
        ), candidate AS (
            SELECT DISTINCT ON (tenant_id) * FROM judged WHERE refusal IS NULL ORDER BY tenant_id, position
        ), opened AS (
            INSERT INTO account (account_id, tenant_id, customer_name, billing_address, currency, opened_at)
            SELECT account_id, tenant_id, customer_name, billing_address, currency, $2
            FROM candidate
            ORDER BY tenant_id  -- concurrent batches wait for each other's tenants in one order
            -- Changes nothing, but waits for whoever is at work on the row, and returns the identity that it has.
            ON CONFLICT (tenant_id) DO UPDATE SET opened_at = account.opened_at
            RETURNING tenant_id, account_id
        ), subscribed AS (
            INSERT INTO subscription (subscription_id, account_id, plan, currency, amount)
            SELECT subscription_id, account_id, plan, currency, amount
            FROM opened JOIN candidate USING (tenant_id, account_id)  -- the fresh identity: only what was opened now
        )
        SELECT judged.refusal, opened.account_id
        FROM judged LEFT JOIN opened ON opened.tenant_id = judged.tenant_id
        ORDER BY judged.position
        """,
        asks,
        now,
    )


async def void_accounts(connection: Connection, tenant_ids: Sequence[str]) -> None:
    """Delete the tenants' accounts with all they have."""
    await connection.execute(
        """
        WITH doomed AS (
            SELECT account_id FROM account WHERE tenant_id = ANY ($1::text[]) ORDER BY tenant_id FOR UPDATE
        )
        DELETE FROM account USING doomed WHERE account.account_id = doomed.account_id
        """,
        tenant_ids,
    )


async def start_subscriptions(connection: Connection, activations: Sequence[Event]) -> list[asyncpg.Record]:
    """Charge pending subscriptions of activated tenants, from the time of the activation.

    An activation that is known to have been taken back by its own workflow starts nothing.

    Returns:
        ``tenant_id``, ``plan`` and the workflow ``activated_by`` of each subscription that was started by this call.
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
        )
        UPDATE subscription
        SET state = 'active', started_at = activation.activated_at, activated_by = activation.workflow_id
        FROM found JOIN activation USING (tenant_id)
        WHERE subscription.subscription_id = found.subscription_id
          AND subscription.state = 'pending'
          AND (subscription.withdrawn_by IS NULL OR subscription.withdrawn_by <> activation.workflow_id)
        RETURNING found.tenant_id, subscription.plan, subscription.activated_by
        """,
        *_columns(activations),
    )


async def withdraw_subscriptions(connection: Connection, deactivations: Sequence[Event]) -> None:
    """Charge nothing for activations that were taken back, and remember it for those that are yet to arrive."""
    tenant_ids, workflow_ids, _ = _columns(deactivations)
    await connection.execute(
        """
        WITH deactivation AS (
            SELECT DISTINCT tenant_id, workflow_id
            FROM unnest($1::text[], $2::uuid[]) AS told (tenant_id, workflow_id)
        ), found AS (
            SELECT subscription_id, tenant_id
            FROM subscription JOIN account USING (account_id)
            WHERE tenant_id = ANY ($1::text[])
            ORDER BY subscription_id FOR UPDATE OF subscription
        )
        UPDATE subscription
        SET withdrawn_by = deactivation.workflow_id,
            state = CASE WHEN activated_by = deactivation.workflow_id THEN 'pending' ELSE state END,
            started_at = CASE WHEN activated_by = deactivation.workflow_id THEN NULL ELSE started_at END,
            activated_by = nullif(activated_by, deactivation.workflow_id)
        FROM found JOIN deactivation USING (tenant_id)
        WHERE subscription.subscription_id = found.subscription_id AND subscription.state <> 'ended'
        """,
        tenant_ids,
        workflow_ids,
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
    return await connection.fetch(
        """
        SELECT subscription.subscription_id, account.tenant_id, account.account_id, subscription.plan,
               subscription.currency, round(subscription.amount, currency.digits) AS amount, subscription.state,
               subscription.started_at
        FROM subscription
        JOIN account USING (account_id)
        JOIN currency ON currency.code = subscription.currency
        WHERE ($1::uuid IS NULL OR subscription.subscription_id > $1)
          AND ($3::text IS NULL OR account.tenant_id = $3)
        ORDER BY subscription.subscription_id LIMIT $2
        """,
        after,
        limit,
        tenant_id,
    )


def _columns(facts: Sequence[Event]) -> tuple[list[str], list[UUID | None], list[datetime]]:
    return (
        [fact.message.tenant_id for fact in facts],
        [fact.workflow_id for fact in facts],
        [fact.time for fact in facts],
    )
