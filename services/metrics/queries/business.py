"""How the business goes: tenants, workflows and recurring revenue, as facts have it in whatever order they came."""

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

import asyncpg

from shared.postgres import Connection

_BEFORE_ALL = datetime.fromisoformat("0001-01-01T00:00:00Z")
_AFTER_ALL = datetime.fromisoformat("9999-12-31T00:00:00Z")


class TenantChange(NamedTuple):
    """What became of a tenant by a step of a workflow, or that it was taken back.

    Attributes:
        state: None where it stays, as with what is taken back.
        tier: likewise.
        changed_at: None of what is taken back.
    """

    tenant_id: str
    workflow_id: UUID
    step: str
    state: str | None
    tier: str | None
    changed_at: datetime | None
    is_undone: bool


async def put_tenant_changes(connection: Connection, changes: Sequence[TenantChange]) -> None:
    """Know of these changes: of one that is told again the first time counts, and taken back it stays for ever."""
    await connection.execute(
        """
        INSERT INTO tenant_change (tenant_id, workflow_id, step, state, tier, changed_at, is_undone)
        SELECT tenant_id, workflow_id, step, max(state::tenant_state), max(tier), min(changed_at), bool_or(is_undone)
        FROM unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::boolean[])
            AS told (tenant_id, workflow_id, step, state, tier, changed_at, is_undone)
        GROUP BY tenant_id, workflow_id, step ORDER BY tenant_id, workflow_id, step
        ON CONFLICT (tenant_id, workflow_id, step) DO UPDATE
            SET state = coalesce(tenant_change.state, excluded.state),
                tier = coalesce(tenant_change.tier, excluded.tier),
                changed_at = least(tenant_change.changed_at, excluded.changed_at),
                is_undone = tenant_change.is_undone OR excluded.is_undone
        """,
        *_columns(changes),
    )


class RunMilestone(NamedTuple):
    """That a workflow was accepted, or how it ended.

    Attributes:
        outcome: None where it was accepted.
    """

    workflow_id: UUID
    kind: str
    outcome: str | None
    occurred_at: datetime


async def put_milestones(connection: Connection, milestones: Sequence[RunMilestone]) -> None:
    """Know of these; what is known stays."""
    await connection.execute(
        """
        INSERT INTO workflow_run (workflow_id, kind, accepted_at, ended_at, outcome)
        SELECT workflow_id, min(kind), min(occurred_at) FILTER (WHERE outcome IS NULL),
               min(occurred_at) FILTER (WHERE outcome IS NOT NULL), min(outcome)
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[])
            AS told (workflow_id, kind, outcome, occurred_at)
        GROUP BY workflow_id ORDER BY workflow_id
        ON CONFLICT (workflow_id) DO UPDATE
            SET accepted_at = coalesce(workflow_run.accepted_at, excluded.accepted_at),
                ended_at = coalesce(workflow_run.ended_at, excluded.ended_at),
                outcome = coalesce(workflow_run.outcome, excluded.outcome)
        """,
        *_columns(milestones),
    )


class RunTrouble(NamedTuple):
    """That a step of a workflow failed for good, or was tried again.

    Attributes:
        trouble: ``failure`` or ``retry``.
        attempt: the one that failed, or the one that came then.
    """

    workflow_id: UUID
    step: str
    trouble: str
    attempt: int
    occurred_at: datetime


async def put_troubles(connection: Connection, troubles: Sequence[RunTrouble]) -> None:
    """Know of these, each once."""
    await connection.execute(
        """
        INSERT INTO workflow_trouble (workflow_id, step, trouble, attempt, occurred_at)
        SELECT DISTINCT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::integer[], $5::timestamptz[])
        ORDER BY 1, 2, 3, 4, 5
        ON CONFLICT DO NOTHING
        """,
        *_columns(troubles),
    )


class RevenueChange(NamedTuple):
    """What a tenant is charged a month from then on."""

    tenant_id: str
    currency: str
    changed_at: datetime
    edition: int
    amount: Decimal


async def put_revenue_changes(connection: Connection, changes: Sequence[RevenueChange]) -> None:
    """Know of these; of a tenant's in a month the latest edition counts."""
    await connection.execute(
        """
        INSERT INTO recurring_revenue (tenant_id, currency, month, edition, amount)
        SELECT DISTINCT ON (1, 2, 3) tenant_id, currency, date_trunc('month', changed_at, 'UTC') AT TIME ZONE 'UTC',
               edition, amount
        FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::bigint[], $5::numeric[])
            AS told (tenant_id, currency, changed_at, edition, amount)
        ORDER BY 1, 2, 3, edition DESC
        ON CONFLICT (tenant_id, currency, month) DO UPDATE SET edition = excluded.edition, amount = excluded.amount
            WHERE recurring_revenue.edition < excluded.edition
        """,
        *_columns(changes),
    )


async def tenants(connection: Connection, *, after: tuple[str, str] | None, limit: int) -> list[asyncpg.Record]:
    """Return how many tenants there are in the next states and tiers, in their order.

    A tier that was never told of is empty.

    Args:
        after: state and tier of the last row of the page before.
    """
    return await connection.fetch(
        """
        SELECT * FROM (
            SELECT state::text AS state, coalesce(tier, '') AS tier, count(*) AS tenants
            FROM (
                SELECT DISTINCT ON (tenant_id) tenant_id, state FROM tenant_change
                WHERE state IS NOT NULL AND NOT is_undone
                ORDER BY tenant_id, changed_at DESC, state DESC
            ) AS standing LEFT JOIN (
                SELECT DISTINCT ON (tenant_id) tenant_id, tier FROM tenant_change
                WHERE tier IS NOT NULL AND NOT is_undone
                ORDER BY tenant_id, changed_at DESC, workflow_id DESC
            ) AS placed USING (tenant_id)
            GROUP BY 1, 2
        ) AS counted
        WHERE (state, tier) > ($1, $2) ORDER BY state, tier LIMIT $3
        """,
        *(after or ("", "")),
        limit,
    )


async def churn(
    connection: Connection, *, since: datetime | None, until: datetime, after: date | None, limit: int
) -> list[asyncpg.Record]:
    """Return for the next months how many tenants there were at the beginning, and how many came and left.

    A tenant is there from its first activation until it is archived.

    Args:
        since: of the months that begin then or later; None for all.
        until: of those that begin before.
        after: the last month of the page before.
    """
    return await connection.fetch(
        """
        WITH stay AS (
            SELECT min(changed_at) FILTER (WHERE state = 'active') AS since,
                   min(changed_at) FILTER (WHERE state = 'archived') AS until
            FROM tenant_change WHERE state IS NOT NULL AND NOT is_undone GROUP BY tenant_id
        ), movement AS (
            SELECT date_trunc('month', moved.at, 'UTC') AT TIME ZONE 'UTC' AS month,
                   sum(came) AS came, sum(gone) AS gone
            FROM stay CROSS JOIN LATERAL (VALUES (since, 1, 0), (until, 0, 1)) AS moved (at, came, gone)
            -- What left without ever having been there was never counted.
            WHERE stay.since IS NOT NULL AND date_trunc('month', moved.at, 'UTC') < $2::timestamptz GROUP BY 1
        ), calendar AS (
            SELECT month FROM generate_series((SELECT min(month) FROM movement), $2 AT TIME ZONE 'UTC', '1 month')
                AS month WHERE month < $2 AT TIME ZONE 'UTC'
        ), told AS (
            SELECT month::date, coalesce(came, 0) AS came, coalesce(gone, 0) AS gone,
                   sum(coalesce(came, 0) - coalesce(gone, 0)) OVER (ORDER BY month) AS present
            FROM calendar LEFT JOIN movement USING (month)
        )
        SELECT month, (present - came + gone)::bigint AS at_start, came::bigint, gone::bigint,
               present::bigint AS at_end
        FROM told WHERE month > $3 AND month::timestamp AT TIME ZONE 'UTC' >= $1 ORDER BY month LIMIT $4
        """,
        since or _BEFORE_ALL,
        until,
        after or date.min,
        limit,
    )


async def runs(
    connection: Connection,
    *,
    window: str,
    since: datetime | None,
    until: datetime | None,
    after: tuple[datetime, str] | None,
    limit: int,
) -> list[asyncpg.Record]:
    """Return what became of the workflows that were accepted in the next windows, by kind.

    Args:
        window: ``day`` or ``month``, of UTC.
        since: of windows that begin then or later; None for all.
        until: of those that begin before; None for all.
        after: beginning and kind of the last row of the page before.
    """
    return await connection.fetch(
        """
        WITH bound AS (
            -- The first windows that begin at these times or later.
            SELECT (date_trunc($1, $2::timestamptz AT TIME ZONE 'UTC' - interval '1 microsecond')
                    + ('1 ' || $1)::interval) AT TIME ZONE 'UTC' AS first,
                   (date_trunc($1, $3::timestamptz AT TIME ZONE 'UTC' - interval '1 microsecond')
                    + ('1 ' || $1)::interval) AT TIME ZONE 'UTC' AS stop
        ), run AS (
            SELECT workflow_id, kind, outcome, greatest(ended_at - accepted_at, '0') AS duration,
                   date_trunc($1, accepted_at AT TIME ZONE 'UTC') AS since
            FROM workflow_run, bound WHERE accepted_at >= greatest(first, $4) AND accepted_at < stop
        ), told AS (
            SELECT since, kind, count(*) AS accepted,
                   count(*) FILTER (WHERE outcome = 'completed') AS completed,
                   count(*) FILTER (WHERE outcome = 'compensated') AS undone,
                   count(*) FILTER (WHERE outcome = 'abandoned') AS abandoned,
                   percentile_disc(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY duration)
                       FILTER (WHERE outcome = 'completed') AS percentiles,
                   max(duration) FILTER (WHERE outcome = 'completed') AS longest
            FROM run GROUP BY since, kind HAVING (since, kind) > ($4::timestamptz AT TIME ZONE 'UTC', $5)
            ORDER BY since, kind LIMIT $6
        ), troubled AS (
            SELECT since, kind, step, count(*) FILTER (WHERE trouble = 'failure') AS failures,
                   count(*) FILTER (WHERE trouble = 'retry') AS retries
            FROM run JOIN workflow_trouble USING (workflow_id) GROUP BY since, kind, step
        ), steps AS (
            SELECT since, kind, jsonb_agg(jsonb_build_object('step', step, 'failures', failures, 'retries', retries)
                                          ORDER BY step) AS steps
            FROM troubled GROUP BY since, kind
        )
        SELECT since AT TIME ZONE 'UTC' AS since, kind, accepted, completed, undone, abandoned, percentiles, longest,
               coalesce(steps.steps, '[]') AS steps
        FROM told LEFT JOIN steps USING (since, kind) ORDER BY since, kind
        """,
        window,
        since or _BEFORE_ALL,
        until or _AFTER_ALL,
        *(after or (_BEFORE_ALL, "")),
        limit,
    )


async def revenue(
    connection: Connection,
    *,
    since: datetime | None,
    until: datetime,
    after: tuple[date, str] | None,
    limit: int,
) -> list[asyncpg.Record]:
    """Return what became of recurring revenue in the next months, by currency.

    What counts of a tenant is its amount at the end of the month against that at the beginning. Rows have the digits of
    the currency as ``digits``.

    Args:
        since: of the months that begin then or later; None for all.
        until: of those that begin before.
        after: month and currency of the last row of the page before.
    """
    return await connection.fetch(
        """
        WITH in_force AS (
            -- An older edition is without effect, in a later month too.
            SELECT tenant_id, currency, month, amount,
                   edition = max(edition) OVER (PARTITION BY tenant_id, currency ORDER BY month) AS is_latest
            FROM recurring_revenue WHERE month < $2::timestamptz AT TIME ZONE 'UTC'
        ), change AS (
            SELECT currency, month, amount AS after, coalesce(lag(amount) OVER months, 0) AS before,
                   coalesce(bool_or(amount > 0) OVER (months ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), false)
                       AS was_charged
            FROM in_force WHERE is_latest WINDOW months AS (PARTITION BY tenant_id, currency ORDER BY month)
        ), movement AS (
            SELECT currency, month, max(scale(after)) AS digits, sum(after - before) AS net,
                   sum(after) FILTER (WHERE before = 0 AND NOT was_charged) AS new,
                   sum(after) FILTER (WHERE before = 0 AND was_charged) AS reactivation,
                   sum(after - before) FILTER (WHERE before > 0 AND after > before) AS expansion,
                   sum(before - after) FILTER (WHERE after > 0 AND after < before) AS contraction,
                   sum(before) FILTER (WHERE after = 0) AS churn,
                   count(*) FILTER (WHERE before = 0 AND after > 0) AS came,
                   count(*) FILTER (WHERE before > 0 AND after = 0) AS gone
            FROM change GROUP BY currency, month
        ), calendar AS (
            SELECT currency, month::date, digits
            FROM (SELECT currency, min(month) AS first, max(digits) AS digits FROM movement GROUP BY currency) AS begun
            CROSS JOIN LATERAL generate_series(first::timestamp, $2 AT TIME ZONE 'UTC', '1 month') AS month
            WHERE month < $2 AT TIME ZONE 'UTC'
        ), told AS (
            SELECT currency, month, calendar.digits, coalesce(net, 0) AS net, coalesce(new, 0) AS new,
                   coalesce(reactivation, 0) AS reactivation, coalesce(expansion, 0) AS expansion,
                   coalesce(contraction, 0) AS contraction, coalesce(churn, 0) AS churn,
                   coalesce(came, 0) AS came, coalesce(gone, 0) AS gone,
                   sum(coalesce(net, 0)) OVER months AS ends,
                   sum(coalesce(came, 0) - coalesce(gone, 0)) OVER months AS present
            FROM calendar LEFT JOIN movement USING (currency, month)
            WINDOW months AS (PARTITION BY currency ORDER BY month)
        )
        SELECT currency, month, digits, ends - net AS starts, new, reactivation, expansion, contraction, churn, ends,
               (present - came + gone)::bigint AS at_start, gone
        FROM told WHERE (month, currency) > ($3, $4) AND month::timestamp AT TIME ZONE 'UTC' >= $1
        ORDER BY month, currency LIMIT $5
        """,
        since or _BEFORE_ALL,
        until,
        *(after or (date.min, "")),
        limit,
    )


def _columns(rows: Sequence[tuple[object, ...]]) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)]
