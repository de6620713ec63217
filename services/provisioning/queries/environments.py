"""Environments and what is deployed in them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from shared.postgres import Connection

# What a reader sees of an environment; a statement continues after its FROM.
_ENVIRONMENT = """
    SELECT environment.environment_id, environment.tenant_id, environment.driver, environment.isolation,
           environment.region, environment.status, environment.connections, environment.throttled_at,
           environment.throttle_reason, environment.created_at,
           (SELECT coalesce(jsonb_agg(jsonb_build_object('name', product, 'version', version) ORDER BY product), '[]')
            FROM deployment WHERE deployment.tenant_id = environment.tenant_id) AS products
    FROM environment
"""


async def create(
    connection: Connection, wanted: Sequence[Mapping[str, Any]], *, now: datetime
) -> dict[str, asyncpg.Record]:
    """Record an environment that is to be made, with its deployments, for every tenant that has none.

    Wanted are a fresh ``environment_id`` and the ``tenant_id``, ``driver``, ``isolation``, ``region``, ``connections``,
    ``parameters`` and ``products`` of each.

    Returns:
        For each tenant the ``environment_id``, ``isolation``, ``region`` and ``status`` of the environment that it has.
    """
    rows = await connection.fetch(
        """
        WITH wanted AS (
            SELECT * FROM ROWS FROM (jsonb_to_recordset($1) AS (
                environment_id uuid, tenant_id text, driver text, isolation text, region text, connections integer,
                parameters jsonb, products jsonb
            )) WITH ORDINALITY
                AS wanted (environment_id, tenant_id, driver, isolation, region, connections, parameters, products,
                           position)
        ), candidate AS (
            SELECT DISTINCT ON (tenant_id) * FROM wanted ORDER BY tenant_id, position
        ), created AS (
            INSERT INTO environment (environment_id, tenant_id, driver, isolation, region, connections, parameters,
                                     status, created_at)
            SELECT environment_id, tenant_id, driver, isolation, region, connections, parameters, 'provisioning', $2
            FROM candidate
            ORDER BY tenant_id  -- concurrent batches wait for each other's tenants in one order
            -- Changes nothing, but waits for whoever is at work on the row, and returns the environment that it is.
            ON CONFLICT (tenant_id) DO UPDATE SET created_at = environment.created_at
            RETURNING environment_id, tenant_id, isolation, region, status
        ), deployed AS (
            INSERT INTO deployment (tenant_id, product, version)
            SELECT candidate.tenant_id, product.key, product.value
            FROM created
            JOIN candidate USING (tenant_id, environment_id)  -- the fresh identity: only what was created now
            CROSS JOIN jsonb_each_text(candidate.products) AS product
            ON CONFLICT DO NOTHING
        )
        SELECT * FROM created
        """,
        wanted,
        now,
    )
    return {row["tenant_id"]: row for row in rows}


async def delete(connection: Connection, tenant_ids: Sequence[str]) -> None:
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


async def find(connection: Connection, tenant_ids: Sequence[str]) -> dict[str, asyncpg.Record]:
    """Return the environments of these tenants, of those who have one, with ``products`` as versions by name."""
    rows = await connection.fetch(
        """
        SELECT environment.*,
               (SELECT coalesce(jsonb_object_agg(product, version), '{}')
                FROM deployment WHERE deployment.tenant_id = environment.tenant_id) AS products
        FROM environment WHERE tenant_id = ANY ($1::text[])
        """,
        tenant_ids,
    )
    return {row["tenant_id"]: row for row in rows}


async def set_status(connection: Connection, tenant_ids: Sequence[str], status: str) -> None:
    """Say of the tenants' environments where they stand."""
    await connection.execute(
        """
        WITH found AS (
            SELECT tenant_id FROM environment WHERE tenant_id = ANY ($1::text[]) ORDER BY tenant_id FOR NO KEY UPDATE
        )
        UPDATE environment SET status = $2 FROM found WHERE environment.tenant_id = found.tenant_id
        """,
        tenant_ids,
        status,
    )


async def store(connection: Connection, changed: Sequence[Mapping[str, Any]]) -> None:
    """Store what environments have become.

    Each has the ``tenant_id``, ``isolation``, ``connections``, ``throttled_at``, ``throttle_reason``, ``parameters``,
    ``resources`` and ``status``. Their jobs, of which one at a time is at work, are locked.
    """
    await connection.execute(
        """
        UPDATE environment
        SET isolation = changed.isolation, connections = changed.connections, throttled_at = changed.throttled_at,
            throttle_reason = changed.throttle_reason, parameters = changed.parameters, resources = changed.resources,
            status = changed.status
        FROM jsonb_to_recordset($1) AS changed (
            tenant_id text, isolation text, connections integer, throttled_at timestamptz, throttle_reason text,
            parameters jsonb, resources jsonb, status text
        )
        WHERE environment.tenant_id = changed.tenant_id
        """,
        changed,
    )


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


async def get(connection: Connection, tenant_id: str) -> asyncpg.Record | None:
    """Return the tenant's environment as `find` does, if it has one."""
    return (await find(connection, [tenant_id])).get(tenant_id)


async def by_id(connection: Connection, environment_id: UUID) -> asyncpg.Record | None:
    """Return an environment as `find` does, if it is there."""
    tenant_id = await connection.fetchval("SELECT tenant_id FROM environment WHERE environment_id = $1", environment_id)
    return await get(connection, tenant_id) if tenant_id is not None else None


async def page(
    connection: Connection, *, after: UUID | None, limit: int, tenant_id: str | None
) -> list[asyncpg.Record]:
    """List environments with their products, all or one tenant's, created after the one ``after``."""
    narrowing, tenant_ids = narrowed("environment.tenant_id = $3", tenant_id)
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


def narrowed(condition: str, tenant_id: str | None) -> tuple[str, list[str]]:
    """Return a condition with its value where there is one: a plan that also fits none would not use the index."""
    return ("true", []) if tenant_id is None else (condition, [tenant_id])
