"""SQL behind ``/v1/authorize``: what requests are judged by, many at once, and how many there were."""

from collections.abc import Mapping, Sequence
from datetime import date

import asyncpg

from shared.postgres import Connection

Counts = Mapping[tuple[str, date], int]
"""How many requests, by tenant and day in UTC."""


async def standings(
    connection: Connection, *, sessions: Sequence[str], tenants: Sequence[str], api_keys: Sequence[str], day: date
) -> asyncpg.Record:
    """Return at one moment how sessions, tenants and API keys stand, and what tenants have used on a day.

    Returns:
        ``revoked``: those of the sessions that are. ``tenants``: each that was asked for, and each that one of the keys
        belongs to, with ``epoch``, ``isBlocked``, ``used``, and of its plan ``tier`` (null where there is none),
        ``perSecond`` and ``perDay``. ``apiKeys``: those that there are, with ``tenantId``, ``role``, ``scopes`` and
        ``secrets``.
    """
    row = await connection.fetchrow(
        """
        WITH api_key AS MATERIALIZED (
            SELECT key_id, tenant_id, role, scopes, secrets FROM access_api_key
            WHERE key_id = ANY ($3::text[]) AND forget_at IS NULL
        ), asked AS (
            SELECT unnest($2::text[]) AS tenant_id UNION SELECT tenant_id FROM api_key WHERE tenant_id IS NOT NULL
        )
        SELECT (SELECT coalesce(array_agg(session_id), '{}') FROM access_revoked_session
                WHERE session_id = ANY ($1::text[])) AS revoked,
               (SELECT coalesce(jsonb_agg(jsonb_build_object(
                           'tenantId', tenant_id, 'epoch', coalesce(epoch, 0),
                           'isBlocked', coalesce(is_blocked, false), 'tier', tier, 'perSecond', requests_per_second,
                           'perDay', requests_per_day, 'used', coalesce(count, 0))), '[]')
                FROM asked LEFT JOIN access_tenant USING (tenant_id) LEFT JOIN tenant_plan USING (tenant_id)
                LEFT JOIN (SELECT tenant_id, count FROM usage_day WHERE day = $4) AS used USING (tenant_id)) AS tenants,
               (SELECT coalesce(jsonb_agg(jsonb_build_object(
                           'keyId', key_id, 'tenantId', tenant_id, 'role', role, 'scopes', scopes,
                           'secrets', secrets)), '[]')
                FROM api_key) AS api_keys
        """,
        sessions,
        tenants,
        api_keys,
        day,
    )
    assert row is not None
    return row


async def add_usage(connection: Connection, counts: Counts) -> dict[tuple[str, date], int]:
    """Count requests, of all replicas together; return what that makes. Of a tenant without a plan nothing is kept."""
    rows = await connection.fetch(
        """
        WITH known AS (  -- a plan that is being deleted is waited for; in the order in which everybody locks them
            SELECT tenant_id FROM tenant_plan WHERE tenant_id = ANY ($1::text[]) ORDER BY tenant_id FOR KEY SHARE
        )
        INSERT INTO usage_day (tenant_id, day, count)
        SELECT tenant_id, day, count
        FROM unnest($1::text[], $2::date[], $3::bigint[]) AS told (tenant_id, day, count) JOIN known USING (tenant_id)
        ORDER BY tenant_id, day
        ON CONFLICT (tenant_id, day) DO UPDATE SET count = usage_day.count + excluded.count
        RETURNING tenant_id, day, count
        """,
        [tenant_id for tenant_id, _ in counts],
        [day for _, day in counts],
        list(counts.values()),
    )
    return {(row["tenant_id"], row["day"]): row["count"] for row in rows}


async def forget_usage(connection: Connection, *, before: date) -> None:
    """Delete the counts of days that are long over."""
    await connection.execute("DELETE FROM usage_day WHERE day < $1", before)
