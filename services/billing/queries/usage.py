"""What tenants have used, as metrics reported it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg

from shared.postgres import Connection


async def keep(connection: Connection, reports: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keep reports of tenants whose subscriptions are locked, those that are newer than what is known.

    Args:
        reports: of ``tenant_id``, ``since``, ``until``, ``quantities`` and ``stated_at``; one of each stretch of time.

    Returns:
        The tenants of whom something was kept; one without an account leaves nothing.
    """
    rows = await connection.fetch(
        """
        WITH kept AS (
            INSERT INTO usage_report (tenant_id, since, until, quantities, stated_at)
            SELECT tenant_id, told.since, told.until, told.quantities, told.stated_at
            FROM jsonb_to_recordset($1)
                AS told (tenant_id text, since timestamptz, until timestamptz, quantities jsonb, stated_at timestamptz)
            JOIN account USING (tenant_id)
            ORDER BY tenant_id, told.since, told.until
            ON CONFLICT (tenant_id, since, until)
            DO UPDATE SET quantities = excluded.quantities, stated_at = excluded.stated_at
            WHERE usage_report.stated_at < excluded.stated_at
            RETURNING tenant_id
        )
        SELECT DISTINCT tenant_id FROM kept
        """,
        reports,
    )
    return [row["tenant_id"] for row in rows]


async def reports(connection: Connection, windows: Mapping[str, datetime]) -> list[asyncpg.Record]:
    """Return what is known of each tenant since a time.

    Args:
        windows: by tenant, since when.
    """
    return await connection.fetch(
        """
        SELECT report.tenant_id, report.since, report.until, report.quantities, report.stated_at
        FROM unnest($1::text[], $2::timestamptz[]) AS looked_at (tenant_id, since)
        JOIN usage_report AS report ON report.tenant_id = looked_at.tenant_id AND report.since >= looked_at.since
        """,
        list(windows),
        list(windows.values()),
    )


async def forget(connection: Connection, tenant_ids: Sequence[str]) -> None:
    """Delete what is known of tenants whose subscriptions are locked."""
    await connection.execute("DELETE FROM usage_report WHERE tenant_id = ANY ($1::text[])", tenant_ids)
