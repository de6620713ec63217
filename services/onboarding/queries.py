"""Every SQL statement of the onboarding service."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from shared.postgres import Connection

Rows = list[asyncpg.Record]


async def keep_catalog(connection: Connection, *, revision: int, content: Mapping[str, Any]) -> None:
    """Store the catalog unless a newer one is known."""
    await connection.execute(
        """
        INSERT INTO catalog (revision, content) VALUES ($1, $2)
        ON CONFLICT (only_one) DO UPDATE SET revision = excluded.revision, content = excluded.content
        WHERE catalog.revision < excluded.revision
        """,
        revision,
        content,
    )


async def catalog(connection: Connection) -> Mapping[str, Any] | None:
    """Return the catalog as it was last told."""
    content: Mapping[str, Any] | None = await connection.fetchval("SELECT content FROM catalog")
    return content


async def first_answers(connection: Connection, keys: Sequence[tuple[str, str]]) -> Rows:
    """Return what was answered to (principal, idempotency key) before."""
    return await connection.fetch(
        """
        SELECT principal, key, fingerprint, answer
        FROM idempotency JOIN unnest($1::text[], $2::text[]) AS asked (principal, key) USING (principal, key)
        """,
        [principal for principal, _ in keys],
        [key for _, key in keys],
    )


async def keep_answers(connection: Connection, answers: Sequence[Mapping[str, Any]]) -> int:
    """Store first answers; return how many were stored, fewer than given if another process was faster."""
    rows = await connection.fetch(
        """
        INSERT INTO idempotency (principal, key, fingerprint, workflow_id, answer, created_at)
        SELECT principal, key, decode(fingerprint, 'hex'), workflow_id, answer, created_at
        FROM jsonb_to_recordset($1) AS new (
            principal text, key text, fingerprint text, workflow_id uuid, answer jsonb, created_at timestamptz)
        ORDER BY principal, key
        ON CONFLICT DO NOTHING
        RETURNING 1
        """,
        answers,
    )
    return len(rows)


async def claim_names(connection: Connection, claims: Sequence[Mapping[str, Any]]) -> set[UUID]:
    """Take customers' names for tenants; return the workflows that got theirs. Of two claims the first one wins.

    A claim has ``name_key``, ``tenant_id``, ``workflow_id`` and ``expires``: whether there is an expiration to review.
    """
    rows = await connection.fetch(
        """
        INSERT INTO customer (name_key, tenant_id, workflow_id, review_at)
        SELECT DISTINCT ON (name_key) name_key, tenant_id, workflow_id,
               CASE WHEN expires THEN '-infinity'::timestamptz ELSE 'infinity' END
        FROM ROWS FROM (jsonb_to_recordset($1) AS (name_key text, tenant_id text, workflow_id uuid, expires boolean))
            WITH ORDINALITY AS new (name_key, tenant_id, workflow_id, expires, place)
        ORDER BY name_key, place
        ON CONFLICT DO NOTHING
        RETURNING workflow_id
        """,
        claims,
    )
    return {row["workflow_id"] for row in rows}


async def name_holders(connection: Connection, name_keys: Sequence[str]) -> dict[str, asyncpg.Record]:
    """Return which tenant and workflow hold each name."""
    rows = await connection.fetch(
        "SELECT name_key, tenant_id, workflow_id FROM customer WHERE name_key = ANY($1::text[])", name_keys
    )
    return {row["name_key"]: row for row in rows}


async def free_names(connection: Connection, workflow_ids: Sequence[UUID]) -> None:
    """Give back the names that workflows had taken which came to nothing."""
    await connection.execute("DELETE FROM customer WHERE workflow_id = ANY($1::uuid[])", workflow_ids)


async def accounts(connection: Connection, *, tenant_ids: Sequence[str], name_keys: Sequence[str]) -> Rows:
    """Return the customers that are one of these tenants or have one of these names."""
    return await connection.fetch(
        """
        SELECT account.*, customer.overdue FROM account JOIN customer USING (name_key)
        WHERE account.tenant_id = ANY($1::text[]) OR name_key = ANY($2::text[])
        """,
        tenant_ids,
        name_keys,
    )


async def change_accounts(connection: Connection, changes: Sequence[Mapping[str, Any]]) -> None:
    """Store what completed workflows mean to their customers; what a change does not name stays as it is.

    A change has ``tenant_id`` and any of ``customer_name``, ``tier``, ``products``, ``expiration`` and
    ``suspended_for``, where ``none`` ends a suspension. Each of them is reviewed next.
    """
    await connection.execute(
        """
        UPDATE customer SET
            customer_name = coalesce(new.customer_name, customer.customer_name),
            tier = coalesce(new.tier, customer.tier),
            products = coalesce(new.products, customer.products),
            expiration = coalesce(new.expiration, customer.expiration),
            suspended_for = nullif(coalesce(new.suspended_for, customer.suspended_for), 'none'),
            review_at = '-infinity'
        FROM jsonb_to_recordset($1) AS new (
            tenant_id text, customer_name text, tier text, products jsonb, expiration date, suspended_for text)
        WHERE customer.tenant_id = new.tenant_id
        """,
        changes,
    )


async def keep_overdue(connection: Connection, told: Sequence[Mapping[str, Any]]) -> None:
    """Store how far customers are behind with their payments, unless something newer is known; each is reviewed next.

    What is told has ``tenant_id``, ``overdue`` and ``edition``.
    """
    await connection.execute(
        """
        WITH newest AS (
            SELECT DISTINCT ON (tenant_id) tenant_id, overdue, edition
            FROM jsonb_to_recordset($1) AS told (tenant_id text, overdue text, edition integer)
            ORDER BY tenant_id, edition DESC
        ), found AS (
            SELECT customer.name_key
            FROM customer JOIN newest USING (tenant_id)
            JOIN workflow ON workflow.id = customer.workflow_id AND workflow.kind = 'onboard'  -- none that renames it
            ORDER BY name_key FOR NO KEY UPDATE OF customer  -- batches wait for each other in one order
        )
        UPDATE customer
        SET overdue = newest.overdue, overdue_edition = newest.edition, review_at = '-infinity'
        FROM newest, found
        WHERE customer.tenant_id = newest.tenant_id AND customer.name_key = found.name_key
          AND customer.overdue_edition < newest.edition
        """,
        told,
    )


async def rename_accounts(connection: Connection, workflow_ids: Sequence[UUID]) -> None:
    """Let the names that completed renamings had claimed be the only ones that their customers have."""
    claimed = await connection.fetch(
        "DELETE FROM customer WHERE workflow_id = ANY($1::uuid[]) RETURNING tenant_id, name_key", workflow_ids
    )
    await connection.execute(
        """
        UPDATE customer SET name_key = claimed.name_key
        FROM unnest($1::text[], $2::text[]) AS claimed (tenant_id, name_key)
        WHERE customer.tenant_id = claimed.tenant_id
        """,
        [row["tenant_id"] for row in claimed],
        [row["name_key"] for row in claimed],
    )


async def forget_accounts(connection: Connection, tenant_ids: Sequence[str]) -> None:
    """Forget customers that are gone; their names can be taken again."""
    await connection.execute("DELETE FROM customer WHERE tenant_id = ANY($1::text[])", tenant_ids)


async def erase_requests(connection: Connection, tenant_ids: Sequence[str]) -> None:
    """Leave of what was ever requested for tenants that are gone what tells no more of people than who did what."""
    await connection.execute(
        """
        UPDATE workflow SET request = (
            SELECT coalesce(jsonb_object_agg(key, value), '{}') FROM jsonb_each(request)
            WHERE key IN ('customerName', 'tenantId', 'tier', 'products', 'expiration', 'reason', 'graceDays', 'export')
        )
        WHERE tenant_id = ANY($1::text[])
        """,
        tenant_ids,
    )


async def lock_accounts_to_review(connection: Connection, *, now: datetime, limit: int) -> Rows:
    """Lock customers that have to be looked at, leaving out those that another replica looks at.

    ``is_busy`` tells whether a workflow is at work on the tenant.
    """
    due = await connection.fetch(
        "SELECT name_key FROM customer WHERE review_at <= $1 ORDER BY review_at LIMIT $2 FOR UPDATE SKIP LOCKED",
        now,
        limit,
    )
    if not due:
        return []
    # What is read by the statement that locks may be older than what is locked.
    return await connection.fetch(
        """
        SELECT account.*, customer.overdue, EXISTS (
            SELECT FROM workflow WHERE workflow.tenant_id = account.tenant_id
            AND workflow.status IN ('running', 'compensating', 'needs_attention')
        ) AS is_busy
        FROM account JOIN customer USING (name_key) WHERE name_key = ANY($1::text[])
        """,
        [row["name_key"] for row in due],
    )


async def schedule_reviews(connection: Connection, reviews: Sequence[Mapping[str, Any]]) -> None:
    """Store when to look again at locked customers, by ``name_key``: ``review_at``, and ``warned_for`` if it is new."""
    await connection.execute(
        """
        UPDATE customer SET review_at = new.review_at, warned_for = coalesce(new.warned_for, customer.warned_for)
        FROM jsonb_to_recordset($1) AS new (name_key text, review_at timestamptz, warned_for date)
        WHERE customer.name_key = new.name_key
        """,
        reviews,
    )


async def insert_workflows(connection: Connection, workflows: Sequence[Mapping[str, Any]]) -> set[UUID]:
    """Store new workflows and return them, leaving out those whose tenant has one at work already.

    Of two for one tenant the earlier one is stored. Tenants come in the order of their ids, so that two processes that
    store workflows for the same ones never wait for each other.
    """
    rows = await connection.fetch(
        """
        INSERT INTO workflow (
            id, kind, definition, version, tenant_id, customer_name, name_key, status, plan, request, seq, deadline_at,
            traceparent, created_at, updated_at)
        SELECT id, kind, definition, version, tenant_id, customer_name, name_key, status, plan, request, seq,
               deadline_at, traceparent, updated_at, updated_at
        FROM jsonb_to_recordset($1) AS new (
            id uuid, kind text, definition text, version integer, tenant_id text, customer_name text, name_key text,
            status text, plan json, request jsonb, seq bigint, deadline_at timestamptz, traceparent text,
            updated_at timestamptz)
        ORDER BY tenant_id, id
        ON CONFLICT (tenant_id) WHERE status IN ('running', 'compensating', 'needs_attention') DO NOTHING
        RETURNING id
        """,
        workflows,
    )
    return {row["id"] for row in rows}


async def active_workflows(connection: Connection, tenant_ids: Sequence[str]) -> dict[str, UUID]:
    """Return the workflow that is at work on each tenant, where there is one."""
    rows = await connection.fetch(
        """
        SELECT tenant_id, id FROM workflow
        WHERE tenant_id = ANY($1::text[]) AND status IN ('running', 'compensating', 'needs_attention')
        """,
        tenant_ids,
    )
    return {row["tenant_id"]: row["id"] for row in rows}


async def pressure(connection: Connection, *, due_by: datetime, ended_since: datetime, most: int) -> tuple[int, int]:
    """Return how many workflows have something due by then, counted up to a bound, and how many have ended since."""
    (row,) = await connection.fetch(
        """
        SELECT (SELECT count(DISTINCT workflow_id)
                FROM (SELECT workflow_id FROM step WHERE due_at <= $1 LIMIT 8 * $3) AS waiting),
               (SELECT count(*) FROM workflow WHERE finished_at >= $2)
        """,
        due_by,
        ended_since,
        most,
    )
    return row[0], row[1]


async def in_progress(connection: Connection) -> Rows:
    """Return for each kind and status of workflows that have not ended how many there are.

    With it ``quiet_since``: since when nothing has happened to one that does not just let time pass, and ``next_due``:
    when the first timer of all goes off.
    """
    return await connection.fetch(
        """
        SELECT kind, status, count(*), min(updated_at) FILTER (WHERE passing.workflow_id IS NULL) AS quiet_since,
               (SELECT min(due_at) FROM step) AS next_due
        FROM workflow LEFT JOIN (SELECT DISTINCT workflow_id FROM step WHERE due_at IS NOT NULL AND due = 'wait')
             AS passing ON passing.workflow_id = workflow.id
        WHERE status IN ('running', 'compensating', 'needs_attention')
        GROUP BY kind, status
        """
    )


async def active_definitions(connection: Connection) -> Rows:
    """Return ``name``, ``version`` and ``step`` of whatever workflows that have not ended still run.

    Plans with the same text are read once: there are few texts, but there may be many workflows.
    """
    return await connection.fetch(
        """
        SELECT DISTINCT name, version, planned.step ->> 'name' AS step
        FROM (
            SELECT DISTINCT coalesce(definition, kind) AS name, version, plan::text AS plan
            FROM workflow WHERE status IN ('running', 'compensating', 'needs_attention')
        ) AS running CROSS JOIN json_array_elements(plan::json) AS planned (step)
        """
    )


async def insert_steps(connection: Connection, steps: Sequence[Mapping[str, Any]]) -> None:
    """Store the steps of new workflows."""
    await connection.execute(
        """
        INSERT INTO step (
            workflow_id, name, status, attempts, undo_attempts, may_have_effect, ask_id, due_at, due, started_at,
            traceparent)
        SELECT workflow_id, name, status, attempts, undo_attempts, may_have_effect, ask_id, due_at, due, started_at,
               traceparent
        FROM jsonb_to_recordset($1) AS new (
            workflow_id uuid, name text, status text, attempts integer, undo_attempts integer,
            may_have_effect boolean, ask_id uuid, due_at timestamptz, due text, started_at timestamptz,
            traceparent text)
        """,
        steps,
    )


async def lock_workflows(connection: Connection, ids: Sequence[UUID]) -> Rows:
    """Lock workflows against every other change, always in the order of their ids, and return them."""
    return await connection.fetch(
        "SELECT * FROM workflow WHERE id = ANY($1::uuid[]) ORDER BY id FOR UPDATE", sorted(set(ids))
    )


async def lock_due_workflows(connection: Connection, *, now: datetime, limit: int) -> Rows:
    """Lock workflows whose time is up, or a step's, leaving out those that another replica works on."""
    return await connection.fetch(
        """
        SELECT * FROM workflow
        WHERE id IN (
            SELECT id FROM (
                (SELECT workflow_id AS id, due_at FROM step WHERE due_at <= $1 ORDER BY due_at LIMIT $2)
                UNION ALL
                (SELECT id, deadline_at FROM workflow WHERE deadline_at <= $1 ORDER BY deadline_at LIMIT $2)
            ) AS due ORDER BY due_at LIMIT $2
        )
        ORDER BY id
        FOR UPDATE SKIP LOCKED
        """,
        now,
        limit,
    )


async def postpone_first_due(connection: Connection, *, now: datetime, until: datetime) -> UUID | None:
    """Let the timers of the workflow that is due first go off later; return which workflow that is."""
    workflow_id: UUID | None = await connection.fetchval(
        """
        WITH first AS (
            SELECT id FROM (
                (SELECT workflow_id AS id, due_at FROM step WHERE due_at <= $1 ORDER BY due_at LIMIT 1)
                UNION ALL
                (SELECT id, deadline_at FROM workflow WHERE deadline_at <= $1 ORDER BY deadline_at LIMIT 1)
            ) AS due ORDER BY due_at LIMIT 1
        ), steps AS (
            UPDATE step SET due_at = $2 FROM first WHERE step.workflow_id = first.id AND step.due_at <= $1
        ), deadline AS (
            UPDATE workflow SET deadline_at = $2 FROM first WHERE workflow.id = first.id AND deadline_at <= $1
        )
        SELECT id FROM first
        """,
        now,
        until,
    )
    return workflow_id


async def steps_of(connection: Connection, workflow_ids: Sequence[UUID]) -> Rows:
    """Return the steps of workflows."""
    return await connection.fetch("SELECT * FROM step WHERE workflow_id = ANY($1::uuid[])", workflow_ids)


async def save_workflows(connection: Connection, workflows: Sequence[Mapping[str, Any]]) -> None:
    """Store where locked workflows stand now."""
    await connection.execute(
        """
        UPDATE workflow SET
            status = new.status, failure = new.failure, seq = new.seq,
            updated_at = new.updated_at, finished_at = new.finished_at, deadline_at = new.deadline_at
        FROM jsonb_to_recordset($1) AS new (
            id uuid, status text, failure jsonb, seq bigint, updated_at timestamptz, finished_at timestamptz,
            deadline_at timestamptz)
        WHERE workflow.id = new.id
        """,
        workflows,
    )


async def save_steps(connection: Connection, steps: Sequence[Mapping[str, Any]]) -> None:
    """Store where steps of locked workflows stand now."""
    await connection.execute(
        """
        UPDATE step SET
            status = new.status, attempts = new.attempts, undo_attempts = new.undo_attempts,
            may_have_effect = new.may_have_effect, ask_id = new.ask_id, due_at = new.due_at, due = new.due,
            result = new.result, error = new.error, started_at = new.started_at, finished_at = new.finished_at,
            traceparent = new.traceparent,
            progress = new.progress
        FROM jsonb_to_recordset($1) AS new (
            workflow_id uuid, name text, status text, attempts integer, undo_attempts integer,
            may_have_effect boolean, ask_id uuid, due_at timestamptz, due text, result jsonb, error jsonb,
            started_at timestamptz, finished_at timestamptz, progress jsonb, traceparent text)
        WHERE (step.workflow_id, step.name) = (new.workflow_id, new.name)
        """,
        steps,
    )


async def append_history(connection: Connection, entries: Sequence[Mapping[str, Any]]) -> None:
    """Write down what happened, in the given order."""
    await connection.execute(
        """
        INSERT INTO history (workflow_id, seq, tenant_id, at, kind, step, attempt, message_id, detail)
        SELECT workflow_id, seq, tenant_id, at, kind, step, attempt, message_id, detail
        FROM jsonb_to_recordset($1) AS new (
            workflow_id uuid, seq bigint, tenant_id text, at timestamptz, kind text, step text, attempt integer,
            message_id uuid, detail jsonb)
        """,
        entries,
    )


async def workflow(connection: Connection, workflow_id: UUID, *, within: str | None = None) -> asyncpg.Record | None:
    """Return one workflow, of any tenant or if it is the one ``within``."""
    return await connection.fetchrow(
        "SELECT * FROM workflow WHERE id = $1 AND ($2::text IS NULL OR tenant_id = $2)", workflow_id, within
    )


async def workflows(
    connection: Connection,
    *,
    limit: int,
    after: tuple[datetime, UUID] | None,
    tenant_id: str | None = None,
    kind: str | None = None,
    status: str | None = None,
    name_part: str | None = None,
) -> Rows:
    """Return workflows, newest first, that fit every filter that is given.

    Only conditions that are asked for are in the statement: a plan that fits any of them would read the whole table.
    """
    given: list[tuple[str, Sequence[object]]] = [("true", [])]
    if after is not None:
        given.append(("(created_at, id) < ({}, {})", after))
    if tenant_id is not None:
        given.append(("tenant_id = {}", [tenant_id]))
    if kind is not None:
        given.append(("kind = {}", [kind]))
    if status is not None:
        given.append(("status = {}", [status]))
    if name_part is not None:
        given.append(("strpos(name_key, {}) > 0", [name_part]))
    numbers = iter(range(2, 9))
    conditions = " AND ".join(text.format(*(f"${next(numbers)}" for _ in values)) for text, values in given)
    return await connection.fetch(
        f"SELECT * FROM workflow WHERE {conditions} ORDER BY created_at DESC, id DESC LIMIT $1",  # noqa: S608
        limit,
        *(value for _, values in given for value in values),
    )


async def history(connection: Connection, workflow_id: UUID, *, after: int, limit: int) -> Rows:
    """Return what happened to a workflow after a sequence number."""
    return await connection.fetch(
        "SELECT * FROM history WHERE workflow_id = $1 AND seq > $2 ORDER BY seq LIMIT $3", workflow_id, after, limit
    )


async def history_of_tenant(connection: Connection, tenant_id: str, *, after: int, limit: int) -> Rows:
    """Return what happened to a tenant's workflows after a position."""
    return await connection.fetch(
        "SELECT * FROM history WHERE tenant_id = $1 AND position > $2 ORDER BY position LIMIT $3",
        tenant_id,
        after,
        limit,
    )


async def progress(connection: Connection, workflow_ids: Sequence[UUID]) -> dict[UUID, int]:
    """Return how far each workflow's history goes."""
    rows = await connection.fetch("SELECT id, seq FROM workflow WHERE id = ANY($1::uuid[])", workflow_ids)
    return {row["id"]: row["seq"] for row in rows}


async def progress_of_tenants(connection: Connection, tenant_ids: Sequence[str]) -> dict[str, int]:
    """Return the position of the last thing that happened to each tenant."""
    rows = await connection.fetch(
        """
        SELECT tenant_id, (
            SELECT position FROM history WHERE history.tenant_id = asked.tenant_id ORDER BY position DESC LIMIT 1
        ) AS position
        FROM unnest($1::text[]) AS asked (tenant_id)
        """,
        tenant_ids,
    )
    return {row["tenant_id"]: row["position"] or 0 for row in rows}
