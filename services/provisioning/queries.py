"""All SQL on the provisioning service's own database; each function is one statement with one intent.

The SQL on databases in which tenants live belongs to their drivers.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from shared.postgres import Connection

# What a reader sees of an environment; a statement continues after its FROM.
_ENVIRONMENT = """
    SELECT environment.environment_id, environment.tenant_id, environment.isolation, environment.region,
           environment.state, environment.connections, environment.throttled_at, environment.throttle_reason,
           environment.created_at,
           (SELECT coalesce(jsonb_agg(jsonb_build_object('name', product, 'version', version) ORDER BY product), '[]')
            FROM deployment WHERE deployment.tenant_id = environment.tenant_id) AS products
    FROM environment
"""


async def create_environments(
    connection: Connection, wanted: Sequence[Mapping[str, Any]], *, now: datetime
) -> dict[str, asyncpg.Record]:
    """Record a ready environment with its deployments for every tenant; one that is there already stays as it is.

    Wanted are a fresh ``environment_id`` and the ``tenant_id``, ``isolation``, ``region``, ``connections`` and
    ``products`` of each.

    Returns:
        For each tenant the ``environment_id``, ``isolation``, ``region`` and ``connections`` that it has.
    """
    rows = await connection.fetch(
        """
        WITH wanted AS (
            SELECT * FROM ROWS FROM (jsonb_to_recordset($1) AS (
                environment_id uuid, tenant_id text, isolation text, region text, connections integer, products jsonb
            )) WITH ORDINALITY
                AS wanted (environment_id, tenant_id, isolation, region, connections, products, position)
        ), candidate AS (
            SELECT DISTINCT ON (tenant_id) * FROM wanted ORDER BY tenant_id, position
        ), created AS (
            INSERT INTO environment (environment_id, tenant_id, isolation, region, connections, created_at)
            SELECT environment_id, tenant_id, isolation, region, connections, $2
            FROM candidate
            ORDER BY tenant_id  -- concurrent batches wait for each other's tenants in one order
            -- Changes nothing, but waits for whoever is at work on the row, and returns the environment that it is.
            ON CONFLICT (tenant_id) DO UPDATE SET created_at = environment.created_at
            RETURNING environment_id, tenant_id, isolation, region, connections
        ), deployed AS (
            INSERT INTO deployment (tenant_id, product, version)
            SELECT candidate.tenant_id, product.name, product.version
            FROM created
            JOIN candidate USING (tenant_id, environment_id)  -- the fresh identity: only what was created now
            CROSS JOIN jsonb_to_recordset(candidate.products) AS product (name text, version text)
            ON CONFLICT DO NOTHING
        )
        SELECT * FROM created
        """,
        wanted,
        now,
    )
    return {row["tenant_id"]: row for row in rows}


async def delete_environments(connection: Connection, tenant_ids: Sequence[str]) -> None:
    """Delete the tenants' environments with their deployments."""
    await connection.execute(
        """
        WITH doomed AS (
            SELECT environment_id FROM environment WHERE tenant_id = ANY ($1::text[]) ORDER BY tenant_id FOR UPDATE
        )
        DELETE FROM environment USING doomed WHERE environment.environment_id = doomed.environment_id
        """,
        tenant_ids,
    )


async def lock_environments(connection: Connection, tenant_ids: Sequence[str]) -> dict[str, asyncpg.Record]:
    """Lock the tenants' environments until the end of the transaction, and return what they are, by tenant."""
    rows = await connection.fetch(
        """
        SELECT environment_id, tenant_id, isolation, connections, throttled_at, throttle_reason
        FROM environment WHERE tenant_id = ANY ($1::text[]) ORDER BY tenant_id FOR NO KEY UPDATE
        """,
        tenant_ids,
    )
    return {row["tenant_id"]: row for row in rows}


async def update_environments(connection: Connection, changed: Sequence[Mapping[str, Any]]) -> None:
    """Set the ``isolation``, ``connections``, ``throttled_at`` and ``throttle_reason`` of locked environments.

    Each of ``changed`` has all of these and the ``tenant_id``.
    """
    await connection.execute(
        """
        UPDATE environment
        SET isolation = changed.isolation, connections = changed.connections,
            throttled_at = changed.throttled_at, throttle_reason = changed.throttle_reason
        FROM jsonb_to_recordset($1) AS changed (
            tenant_id text, isolation text, connections integer, throttled_at timestamptz, throttle_reason text
        )
        WHERE environment.tenant_id = changed.tenant_id
        """,
        changed,
    )


async def deployments(connection: Connection, tenant_ids: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the version of each product that the tenants use, by tenant; of locked environments it stays so."""
    rows = await connection.fetch(
        """
        SELECT tenant_id, jsonb_object_agg(product, version) AS products
        FROM deployment WHERE tenant_id = ANY ($1::text[]) GROUP BY tenant_id
        """,
        tenant_ids,
    )
    return {row["tenant_id"]: row["products"] for row in rows}


async def set_deployments(connection: Connection, wanted: Mapping[str, Mapping[str, str]]) -> None:
    """Let the tenants, whose environments are locked, use exactly these products, each at its version."""
    products = [(tenant_id, *product) for tenant_id, each in wanted.items() for product in each.items()]
    await connection.execute(
        """
        WITH wanted AS (
            SELECT * FROM unnest($2::text[], $3::text[], $4::text[]) AS wanted (tenant_id, product, version)
        ), deleted AS (
            DELETE FROM deployment
            WHERE tenant_id = ANY ($1::text[]) AND NOT EXISTS (
                SELECT FROM wanted
                WHERE wanted.tenant_id = deployment.tenant_id AND wanted.product = deployment.product
            )
        )
        INSERT INTO deployment (tenant_id, product, version) SELECT * FROM wanted
        ON CONFLICT (tenant_id, product) DO UPDATE SET version = excluded.version
        WHERE deployment.version <> excluded.version
        """,
        list(wanted),
        [tenant_id for tenant_id, _, _ in products],
        [product for _, product, _ in products],
        [version for _, _, version in products],
    )


async def throttling(connection: Connection, tenant_id: str) -> asyncpg.Record | None:
    """Return ``throttled_at`` and ``throttle_reason`` of the tenant's environment, if it has one that is ready."""
    return await connection.fetchrow(
        "SELECT throttled_at, throttle_reason FROM environment WHERE tenant_id = $1 AND state = 'ready'", tenant_id
    )


async def environments(
    connection: Connection, *, after: UUID | None, limit: int, tenant_id: str | None
) -> list[asyncpg.Record]:
    """List environments with their products, all or one tenant's, created after the one ``after``."""
    narrowing, tenant_ids = _narrowed("environment.tenant_id = $3", tenant_id)
    return await connection.fetch(
        _ENVIRONMENT
        + f"""
        WHERE ($1::uuid IS NULL OR environment.environment_id > $1) AND {narrowing}
        ORDER BY environment.environment_id LIMIT $2
        """,
        after,
        limit,
        *tenant_ids,
    )


async def create_export_chunk(connection: Connection, export_id: UUID, number: int, content: bytes) -> None:
    """Keep one chunk of an export that is being made."""
    await connection.execute(
        "INSERT INTO export_chunk (export_id, number, content) VALUES ($1, $2, $3)", export_id, number, content
    )


async def create_export(connection: Connection, export: Mapping[str, Any]) -> None:
    """Record an export whose chunks are there; the mapping has a value for each column."""
    await connection.execute(
        """
        INSERT INTO export (export_id, tenant_id, created_at, expires_at, rows, bytes, sha256)
        VALUES ($1, $2, $3, $4, $5, $6, $7)
        """,
        *(
            export[column]
            for column in ("export_id", "tenant_id", "created_at", "expires_at", "rows", "bytes", "sha256")
        ),
    )


async def delete_exports(connection: Connection, export_ids: Sequence[UUID]) -> None:
    """Delete exports with their chunks, wherever they are still there."""
    await connection.execute(
        """
        WITH doomed AS (
            SELECT export_id FROM export WHERE export_id = ANY ($1::uuid[]) ORDER BY export_id FOR UPDATE
        )
        DELETE FROM export USING doomed WHERE export.export_id = doomed.export_id
        """,
        export_ids,
    )


async def delete_expired_exports(connection: Connection, *, now: datetime, limit: int) -> int:
    """Delete some of the exports that have expired, those that expired first, and return how many."""
    deleted = await connection.fetch(
        """
        WITH doomed AS (
            SELECT export_id FROM export WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED
        )
        DELETE FROM export USING doomed WHERE export.export_id = doomed.export_id RETURNING export.export_id
        """,
        now,
        limit,
    )
    return len(deleted)


async def exports(
    connection: Connection, *, now: datetime, after: UUID | None, limit: int, tenant_id: str | None
) -> list[asyncpg.Record]:
    """List exports that have not expired, all or one tenant's, made after the one ``after``."""
    narrowing, tenant_ids = _narrowed("tenant_id = $4", tenant_id)
    return await connection.fetch(
        f"""
        SELECT * FROM export
        WHERE expires_at > $1 AND ($2::uuid IS NULL OR export_id > $2) AND {narrowing}
        ORDER BY export_id LIMIT $3
        """,  # noqa: S608 - a condition of our own
        now,
        after,
        limit,
        *tenant_ids,
    )


async def export(
    connection: Connection, export_id: UUID, *, now: datetime, within: str | None
) -> asyncpg.Record | None:
    """Return an export that has not expired, of any tenant or if it is the one ``within``."""
    return await connection.fetchrow(
        "SELECT * FROM export WHERE export_id = $1 AND expires_at > $2 AND ($3::text IS NULL OR tenant_id = $3)",
        export_id,
        now,
        within,
    )


async def export_chunk(connection: Connection, export_id: UUID, number: int) -> bytes | None:
    """Return one chunk of an export, if it is there."""
    content: bytes | None = await connection.fetchval(
        "SELECT content FROM export_chunk WHERE export_id = $1 AND number = $2", export_id, number
    )
    return content


def _narrowed(condition: str, tenant_id: str | None) -> tuple[str, list[str]]:
    """Return a condition with its value where there is one: a plan that also fits none would not use the index."""
    return ("true", []) if tenant_id is None else (condition, [tenant_id])
