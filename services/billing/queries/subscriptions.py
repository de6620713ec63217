"""What is paid, and what was charged."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

import asyncpg

from services.billing.charging import Subscription
from services.billing.queries.narrowing import narrowed
from services.billing.stretch import Stretch
from shared.messaging.event import Event
from shared.postgres import Connection


async def start(connection: Connection, activations: Sequence[Event]) -> list[asyncpg.Record]:
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


async def withdraw(connection: Connection, deactivations: Sequence[Event]) -> None:
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


async def lock(connection: Connection, tenant_ids: Sequence[str]) -> None:
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


async def standing(connection: Connection, tenant_ids: Sequence[str]) -> list[asyncpg.Record]:
    """Return the tenants' subscriptions."""
    return await connection.fetch(
        """
        SELECT subscription.subscription_id, account.tenant_id, subscription.product, subscription.plan,
               subscription.plan_version, subscription.currency, currency.digits, subscription.amount,
               subscription.state, subscription.started_at, subscription.charged_since, subscription.version
        FROM subscription
        JOIN account USING (account_id)
        JOIN currency ON currency.code = subscription.currency
        WHERE account.tenant_id = ANY ($1::text[])
        """,
        tenant_ids,
    )


async def save(connection: Connection, subscriptions: Sequence[Subscription]) -> None:
    """Write what can change of subscriptions that are locked."""
    await connection.execute(
        """
        UPDATE subscription
        SET plan = new.plan, amount = new.amount, state = new.state, charged_since = new.charged_since,
            version = new.version, plan_version = new.plan_version
        FROM unnest($1::uuid[], $2::text[], $3::numeric[], $4::text[], $5::timestamptz[], $6::integer[], $7::integer[])
            AS new (subscription_id, plan, amount, state, charged_since, version, plan_version)
        WHERE subscription.subscription_id = new.subscription_id
        """,
        [each.subscription_id for each in subscriptions],
        [each.plan for each in subscriptions],
        [each.amount for each in subscriptions],
        [each.state for each in subscriptions],
        [each.charged_since for each in subscriptions],
        [each.version for each in subscriptions],
        [each.plan_version for each in subscriptions],
    )


async def add_licences(connection: Connection, licences: Sequence[Subscription]) -> None:
    """Add licences to accounts whose subscriptions are locked; the activation that counts for those counts for them."""
    await connection.execute(
        """
        INSERT INTO subscription (subscription_id, account_id, product, plan, plan_version, currency, amount, state,
                                  charged_since, version, started_at, activated_by, withdrawn_by)
        SELECT new.subscription_id, account_id, new.product, new.plan, new.plan_version, own.currency, new.amount,
               new.state, new.charged_since, new.version, own.started_at, own.activated_by, own.withdrawn_by
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::numeric[], $6::text[], $7::timestamptz[],
                    $8::integer[], $9::integer[])
            AS new (subscription_id, tenant_id, product, plan, amount, state, charged_since, version, plan_version)
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
        [each.plan_version for each in licences],
    )


async def remove_licences(connection: Connection, subscription_ids: Sequence[UUID]) -> None:
    """Delete licences with all they were charged for."""
    await connection.execute("DELETE FROM subscription WHERE subscription_id = ANY ($1::uuid[])", subscription_ids)


async def charged_periods(connection: Connection, subscription_ids: Sequence[UUID]) -> list[asyncpg.Record]:
    """Return the stretches of time that were charged and are over, each with the ``product`` it was charged for."""
    return await connection.fetch(
        """
        SELECT subscription_id, subscription.product, charged_period.plan, charged_period.plan_version,
               charged_period.amount, charged_period.started_at, charged_period.ended_at
        FROM charged_period JOIN subscription USING (subscription_id)
        WHERE subscription_id = ANY ($1::uuid[])
        """,
        subscription_ids,
    )


async def add_charged_periods(connection: Connection, stretches: Sequence[tuple[UUID, Stretch]]) -> None:
    """Keep stretches of time that were charged and are over by now, each of a subscription."""
    await connection.execute(
        """
        INSERT INTO charged_period (subscription_id, plan, plan_version, currency, amount, started_at, ended_at)
        SELECT subscription_id, closed.plan, closed.plan_version, subscription.currency, closed.amount,
               closed.started_at, closed.ended_at
        FROM unnest($1::uuid[], $2::text[], $3::numeric[], $4::timestamptz[], $5::timestamptz[], $6::integer[])
            AS closed (subscription_id, plan, amount, started_at, ended_at, plan_version)
        JOIN subscription USING (subscription_id)
        """,
        [subscription_id for subscription_id, _ in stretches],
        [stretch.plan for _, stretch in stretches],
        [stretch.amount for _, stretch in stretches],
        [stretch.started_at for _, stretch in stretches],
        [stretch.ended_at for _, stretch in stretches],
        [stretch.plan_version for _, stretch in stretches],
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


async def page(
    connection: Connection, *, after: UUID | None, limit: int, tenant_id: str | None
) -> list[asyncpg.Record]:
    """List subscriptions, all or one tenant's, created after ``after``, amounts in their currency's digits."""
    narrowing, tenant_ids = narrowed("account.tenant_id = $3", tenant_id)
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


def _columns(facts: Sequence[Event]) -> tuple[list[str], list[UUID | None], list[datetime]]:
    return (
        [fact.message.tenant_id for fact in facts],
        [fact.workflow_id for fact in facts],
        [fact.time for fact in facts],
    )
