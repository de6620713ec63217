"""Environments and what is deployed in them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from shared.postgres import Connection

# What a reader sees of an environment; a statement continues after its FROM.
_ENVIRONMENT = """
    SELECT environment.environment_id, coalesce(owner_id, tenant_id) AS tenant_id, environment.product,
           environment.driver, environment.isolation, environment.region, environment.status, environment.connections,
           environment.throttled_at, environment.throttle_reason, environment.created_at,
           (SELECT coalesce(jsonb_agg(jsonb_build_object('name', deployment.product, 'version', version)
                                      ORDER BY deployment.product), '[]')
            FROM deployment WHERE deployment.tenant_id = environment.tenant_id) AS products
    FROM environment
"""


async def create(
    connection: Connection, wanted: Sequence[Mapping[str, Any]], *, now: datetime
) -> dict[str, asyncpg.Record]:
    """Record environments that are to be made, with their deployments, those left out that are there.

    Wanted are a fresh ``environment_id`` and the ``tenant_id`` (what it goes by, as everywhere here), ``driver``,
    ``isolation``, ``region``, ``connections``, ``parameters`` and ``products`` of each.

    Returns:
        For each the ``environment_id``, ``isolation``, ``region`` and ``status`` of the environment that there is.
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
            INSERT INTO environment (environment_id, tenant_id, owner_id, product, driver, isolation, region,
                                     connections, parameters, status, created_at)
            SELECT environment_id, tenant_id,
                   -- <owner>:<product>; no tenant's id holds a colon
                   CASE WHEN tenant_id LIKE '%:%' THEN split_part(tenant_id, ':', 1) END,
                   CASE WHEN tenant_id LIKE '%:%' THEN split_part(tenant_id, ':', 2) END,
                   driver, isolation, region, connections, parameters, 'provisioning', $2
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


async def delete(connection: Connection, tenancies: Sequence[str]) -> None:
    """Delete environments with their deployments."""
    await connection.execute(
        """
        WITH doomed AS (
            SELECT environment_id FROM environment WHERE tenant_id = ANY ($1::text[]) ORDER BY tenant_id FOR UPDATE
        )
        DELETE FROM environment USING doomed WHERE environment.environment_id = doomed.environment_id
        """,
        tenancies,
    )


# All there is of environments, with ``products`` as versions by name; a statement continues after its FROM.
_SETTINGS = """
    SELECT environment.*,
           (SELECT coalesce(jsonb_object_agg(deployment.product, version), '{}')
            FROM deployment WHERE deployment.tenant_id = environment.tenant_id) AS products
    FROM environment
"""


async def of_tenants(connection: Connection, tenant_ids: Sequence[str]) -> list[asyncpg.Record]:
    """Return all environments of these tenants, those of products included, with ``products`` as versions by name."""
    return await connection.fetch(
        _SETTINGS + "WHERE tenant_id = ANY ($1::text[]) OR owner_id = ANY ($1::text[]) ORDER BY product", tenant_ids
    )


async def set_status(connection: Connection, tenancies: Sequence[str], status: str) -> None:
    """Say of environments where they stand."""
    await connection.execute(
        """
        WITH found AS (
            SELECT tenant_id FROM environment WHERE tenant_id = ANY ($1::text[]) ORDER BY tenant_id FOR NO KEY UPDATE
        )
        UPDATE environment SET status = $2 FROM found WHERE environment.tenant_id = found.tenant_id
        """,
        tenancies,
        status,
    )


async def set_status_of_tenants(connection: Connection, tenant_ids: Sequence[str], status: str) -> None:
    """Say of all environments of these tenants where they stand."""
    await connection.execute(
        """
        WITH found AS (
            SELECT tenant_id FROM environment WHERE tenant_id = ANY ($1::text[]) OR owner_id = ANY ($1::text[])
            ORDER BY tenant_id FOR NO KEY UPDATE
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
    """Let exactly these products run in environments, which are locked, each at its version."""
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


async def get(connection: Connection, tenancy: str) -> asyncpg.Record | None:
    """Return an environment as `of_tenants` does, if it is there."""
    return await connection.fetchrow(_SETTINGS + "WHERE tenant_id = $1", tenancy)


async def by_id(connection: Connection, environment_id: UUID) -> asyncpg.Record | None:
    """Return an environment as `of_tenants` does, if it is there."""
    return await connection.fetchrow(_SETTINGS + "WHERE environment_id = $1", environment_id)


async def page(
    connection: Connection, *, after: UUID | None, limit: int, tenant_id: str | None
) -> list[asyncpg.Record]:
    """List environments with their products, all or one tenant's, created after the one ``after``."""
    narrowing, tenant_ids = narrowed("(environment.tenant_id = $3 OR owner_id = $3)", tenant_id)
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


async def deployments(
    connection: Connection, *, after: Sequence[Any] | None, limit: int, tenant_id: str | None
) -> list[asyncpg.Record]:
    """List what runs where, all or one tenant's, after the environment and product ``after``."""
    narrowing, tenant_ids = narrowed("(environment.tenant_id = $4 OR owner_id = $4)", tenant_id)
    environment_id, product = after or (None, None)
    return await connection.fetch(
        f"""
        SELECT coalesce(owner_id, environment.tenant_id) AS tenant_id, deployment.product, version, environment_id,
               environment.product IS NOT NULL AS own_environment
        FROM environment JOIN deployment ON deployment.tenant_id = environment.tenant_id
        WHERE ($1::uuid IS NULL OR environment_id >= $1 AND (environment_id, deployment.product) > ($1, $2::text))
          AND {narrowing}
        ORDER BY environment_id, deployment.product LIMIT $3
        """,  # noqa: S608 - a condition of our own
        environment_id,
        product,
        limit,
        *tenant_ids,
    )


def narrowed(condition: str, tenant_id: str | None) -> tuple[str, list[str]]:
    """Return a condition with its value where there is one: a plan that also fits none would not use the index."""
    return ("true", []) if tenant_id is None else (condition, [tenant_id])
