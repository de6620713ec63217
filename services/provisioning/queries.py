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
           environment.state, environment.created_at,
           (SELECT coalesce(jsonb_agg(jsonb_build_object('name', product, 'version', version) ORDER BY product), '[]')
            FROM deployment WHERE deployment.tenant_id = environment.tenant_id) AS products
    FROM environment
"""


async def create_environments(
    connection: Connection, wanted: Sequence[Mapping[str, Any]], *, now: datetime
) -> dict[str, asyncpg.Record]:
    """Record a ready environment with its deployments for every tenant; one that is there already stays as it is.

    Wanted are a fresh ``environment_id`` and the ``tenant_id``, ``isolation``, ``region`` and ``products`` of each.

    Returns:
        For each tenant the ``environment_id``, ``isolation`` and ``region`` that it has.
    """
    rows = await connection.fetch(
        """
        WITH wanted AS (
            SELECT * FROM ROWS FROM (jsonb_to_recordset($1) AS (
                environment_id uuid, tenant_id text, isolation text, region text, products jsonb
            )) WITH ORDINALITY AS wanted (environment_id, tenant_id, isolation, region, products, position)
        ), candidate AS (
            SELECT DISTINCT ON (tenant_id) * FROM wanted ORDER BY tenant_id, position
        ), created AS (
            INSERT INTO environment (environment_id, tenant_id, isolation, region, created_at)
            SELECT environment_id, tenant_id, isolation, region, $2
            FROM candidate
            ORDER BY tenant_id  -- concurrent batches wait for each other's tenants in one order
            -- Changes nothing, but waits for whoever is at work on the row, and returns the environment that it is.
            ON CONFLICT (tenant_id) DO UPDATE SET created_at = environment.created_at
            RETURNING environment_id, tenant_id, isolation, region
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


async def has_environment(connection: Connection, tenant_id: str) -> bool:
    """Tell whether the tenant has an environment that is ready."""
    found: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM environment WHERE tenant_id = $1 AND state = 'ready')", tenant_id
    )
    return found


async def environments(
    connection: Connection, *, after: UUID | None, limit: int, tenant_id: str | None
) -> list[asyncpg.Record]:
    """List environments with their products, all or one tenant's, created after the one ``after``."""
    return await connection.fetch(
        _ENVIRONMENT
        + """
        WHERE ($1::uuid IS NULL OR environment.environment_id > $1)
          AND ($3::text IS NULL OR environment.tenant_id = $3)
        ORDER BY environment.environment_id LIMIT $2
        """,
        after,
        limit,
        tenant_id,
    )
