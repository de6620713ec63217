"""Jobs: begun, claimed, stored step by step, told of, and gone."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from services.provisioning.queries.environments import narrowed
from shared.postgres import Connection

Key = tuple[UUID, str]

# The environment that a job is at, as `services.provisioning.jobs.job.Settings` reads it; null where there is none.
_ENVIRONMENT = """
    (SELECT to_jsonb(environment) || jsonb_build_object('products', (
                SELECT coalesce(jsonb_object_agg(product, version), '{}')
                FROM deployment WHERE deployment.tenant_id = environment.tenant_id))
     FROM environment WHERE environment.tenant_id = coalesce(job.tenancy, job.tenant_id))
"""


async def create(connection: Connection, jobs: Sequence[Mapping[str, Any]], *, now: datetime) -> None:
    """Begin jobs, due at once.

    Each has a ``job_id``, ``tenant_id``, ``workflow_id``, ``step``, ``ask_id``, ``asked`` and ``state``, the
    ``tenancy``, ``operation``, ``lane``, ``wanted`` and ``found`` of its first leg, those ``ahead`` and ``behind``, and
    the ``traceparent`` of who asked.
    """
    await connection.execute(
        """
        INSERT INTO job (job_id, turn, tenant_id, workflow_id, step, ask_id, asked, tenancy, operation, lane, wanted,
                         found, ahead, behind, state, traceparent, due_at, told_at)
        SELECT job_id, job_id, tenant_id, workflow_id, step, ask_id, asked, tenancy, operation, lane, wanted,
               found, ahead, behind, state, traceparent, $2, $2
        FROM jsonb_to_recordset($1) AS wanted (
            job_id uuid, tenant_id text, workflow_id uuid, step text, ask_id uuid, asked text, tenancy text,
            operation text, lane text, wanted jsonb, found jsonb, ahead jsonb, behind jsonb, state text,
            traceparent text
        )
        """,
        jobs,
        now,
    )


async def forget_done(connection: Connection, tenant_ids: Sequence[str], workflow_ids: Sequence[UUID]) -> None:
    """Delete what earlier workflows of these tenants have done: no undo of theirs comes any more."""
    await connection.execute(
        """
        DELETE FROM job USING (SELECT DISTINCT unnest($1::text[]) AS tenant_id) AS asked
        WHERE job.tenant_id = asked.tenant_id AND state = 'done' AND workflow_id <> ALL ($2::uuid[])
        """,
        tenant_ids,
        workflow_ids,
    )


async def claim(
    connection: Connection, room: Mapping[str, int], *, now: datetime, until: datetime, claim: UUID
) -> list[asyncpg.Record]:
    """Take jobs that are due, from each lane as many as there is room for; of each tenant only the oldest.

    Returns:
        The jobs with their ``environment``, as the claim has made them.
    """
    return await connection.fetch(
        f"""
        WITH room AS (
            SELECT * FROM unnest($1::text[], $2::integer[]) AS room (lane, places)
        ), due AS MATERIALIZED (
            SELECT taken.job_id FROM room CROSS JOIN LATERAL (
                SELECT job_id FROM job
                WHERE job.lane = room.lane AND due_at <= $3
                  AND NOT EXISTS (
                      SELECT FROM job AS earlier
                      WHERE earlier.tenant_id = job.tenant_id AND earlier.turn < job.turn
                        AND earlier.due_at IS NOT NULL)
                ORDER BY due_at LIMIT room.places FOR UPDATE SKIP LOCKED
            ) AS taken
        ), claimed AS (
            UPDATE job SET claim = $5, due_at = $4, attempts = attempts + 1
            FROM due WHERE job.job_id = due.job_id
            RETURNING job.*
        )
        SELECT job.*, {_ENVIRONMENT} AS environment FROM claimed AS job ORDER BY job_id
        """,  # noqa: S608 - a column of our own
        list(room),
        list(room.values()),
        now,
        until,
        claim,
    )


async def hold(
    connection: Connection, job_ids: Sequence[UUID], claims: Sequence[UUID], *, until: datetime
) -> dict[UUID, str]:
    """Keep claims for longer; return the state of each job that is still held."""
    rows = await connection.fetch(
        """
        UPDATE job SET due_at = $3
        FROM unnest($1::uuid[], $2::uuid[]) AS held (job_id, claim)
        WHERE job.job_id = held.job_id AND job.claim = held.claim
        RETURNING job.job_id, job.state
        """,
        job_ids,
        claims,
        until,
    )
    return {row["job_id"]: row["state"] for row in rows}


async def release(connection: Connection, job_ids: Sequence[UUID], claims: Sequence[UUID], *, now: datetime) -> None:
    """Give claims back unused, so that another worker can take the jobs at once."""
    await connection.execute(
        """
        UPDATE job SET due_at = $3, claim = NULL
        FROM unnest($1::uuid[], $2::uuid[]) AS held (job_id, claim)
        WHERE job.job_id = held.job_id AND job.claim = held.claim
        """,
        job_ids,
        claims,
        now,
    )


async def lock_claimed(connection: Connection, job_ids: Sequence[UUID], claims: Sequence[UUID]) -> list[asyncpg.Record]:
    """Lock jobs that are still held, with their environments, and return them as they are now."""
    return await connection.fetch(
        f"""
        SELECT job.*, {_ENVIRONMENT} AS environment
        FROM job JOIN unnest($1::uuid[], $2::uuid[]) AS held (job_id, claim) USING (job_id, claim)
        ORDER BY job_id FOR UPDATE OF job
        """,  # noqa: S608 - a column of our own
        job_ids,
        claims,
    )


async def lock(connection: Connection, keys: Sequence[Key]) -> dict[Key, asyncpg.Record]:
    """Lock the jobs of some operations, and return those that there are."""
    rows = await connection.fetch(
        """
        SELECT job.* FROM job
        JOIN unnest($1::uuid[], $2::text[]) AS key (workflow_id, step) USING (workflow_id, step)
        ORDER BY job_id FOR UPDATE OF job
        """,
        [workflow_id for workflow_id, _ in keys],
        [step for _, step in keys],
    )
    return {(row["workflow_id"], row["step"]): row for row in rows}


async def turn_back(
    connection: Connection,
    job_ids: Sequence[UUID],
    ask_ids: Sequence[UUID],
    turns: Sequence[UUID],
    *,
    traceparents: Sequence[str | None],
    now: datetime,
) -> None:
    """Let locked jobs go back, now or as soon as the step that is under way has ended, and answer these asks then.

    The way back begins at its own first stage; a job that is on it already goes on. One that was done waits for its
    turn again, one that is under way keeps it.

    Args:
        traceparents: of the handling of these asks.
    """
    await connection.execute(
        """
        UPDATE job
        SET state = 'undoing', ask_id = asked.ask_id, traceparent = asked.traceparent, failure = NULL,
            stage = CASE WHEN state IN ('running', 'done') THEN '' ELSE stage END,
            attempts = CASE WHEN state = 'undoing' THEN attempts ELSE 0 END,
            turn = CASE WHEN state = 'done' THEN asked.turn ELSE job.turn END,
            due_at = CASE WHEN claim IS NULL THEN $4 ELSE due_at END
        FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $5::text[]) AS asked (job_id, ask_id, turn, traceparent)
        WHERE job.job_id = asked.job_id
        """,
        job_ids,
        ask_ids,
        turns,
        now,
        traceparents,
    )


async def store(connection: Connection, jobs: Sequence[Mapping[str, Any]]) -> None:
    """Store how far jobs have come, and give their claims back.

    Each has the ``job_id`` and all that a step can change: what `create` takes of legs, ``state``, ``stage``,
    ``notes``, ``failure``, ``attempts``, ``said`` and ``due_at``.
    """
    await connection.execute(
        """
        UPDATE job
        SET tenancy = stored.tenancy, operation = stored.operation, lane = stored.lane, wanted = stored.wanted,
            found = stored.found, ahead = stored.ahead, behind = stored.behind, state = stored.state,
            stage = stored.stage, notes = stored.notes, failure = stored.failure, attempts = stored.attempts,
            said = stored.said, due_at = stored.due_at, claim = NULL
        FROM jsonb_to_recordset($1) AS stored (
            job_id uuid, tenancy text, operation text, lane text, wanted jsonb, found jsonb, ahead jsonb, behind jsonb,
            state text, stage text, notes jsonb, failure jsonb, attempts integer, said text, due_at timestamptz
        )
        WHERE job.job_id = stored.job_id
        """,
        jobs,
    )


async def delete(connection: Connection, job_ids: Sequence[UUID]) -> None:
    """Delete jobs."""
    await connection.execute(
        "DELETE FROM job USING unnest($1::uuid[]) AS ended (job_id) WHERE job.job_id = ended.job_id", job_ids
    )


async def take_untold(
    connection: Connection, *, now: datetime, before: datetime, patience: int, limit: int
) -> list[asyncpg.Record]:
    """Mark unfinished jobs of which nobody has heard since a moment as told of, and return them.

    Those that were tried more often than ``patience`` in vain are left out: who waits for them is to lose patience.
    """
    return await connection.fetch(
        """
        WITH untold AS (
            SELECT job_id FROM job WHERE due_at IS NOT NULL AND told_at <= $2 AND attempts <= $3
            ORDER BY told_at LIMIT $4 FOR UPDATE SKIP LOCKED
        )
        UPDATE job SET told_at = $1 FROM untold WHERE job.job_id = untold.job_id RETURNING job.*
        """,
        now,
        before,
        patience,
        limit,
    )


async def page(
    connection: Connection, *, after: UUID | None, limit: int, tenant_id: str | None
) -> list[asyncpg.Record]:
    """List jobs, all or one tenant's, asked for after the one ``after``."""
    narrowing, tenant_ids = narrowed("tenant_id = $3", tenant_id)
    return await connection.fetch(
        f"""
        SELECT job_id, tenant_id, workflow_id, step, coalesce(asked, operation) AS asked,
               nullif(split_part(tenancy, ':', 2), '') AS product, operation, lane, state, stage, attempts, said, due_at
        FROM job WHERE ($1::uuid IS NULL OR job_id > $1) AND {narrowing} ORDER BY job_id LIMIT $2
        """,  # noqa: S608 - a condition of our own
        after,
        limit,
        *tenant_ids,
    )
