"""What many tenants have used in stretches of time, at once."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import asyncpg

from services.metrics.queries.usage import QUANTITY, TOLD
from shared.postgres import Connection


class Wanted(NamedTuple):
    """A stretch of time whose usage is wanted of a tenant.

    Attributes:
        since: hours that begin then or later.
        until: hours that begin before.
    """

    tenant_id: str
    since: datetime
    until: datetime


async def quantities(connection: Connection, wanted: Sequence[Wanted]) -> list[asyncpg.Record]:
    """Return which quantity of which meter was used in which stretch, by its position; none that is zero.

    Quantities are those that `queries.usage.usage` tells of.
    """
    return await connection.fetch(
        f"""
        WITH made AS MATERIALIZED (  -- or it would be made again wherever it is named
            SELECT position, meter.name AS meter, allows_negative, aggregation, quantity
            FROM unnest($1::int[], $2::text[], $3::timestamptz[], $4::timestamptz[])
                 AS wanted (position, tenant_id, since, until)
            CROSS JOIN meter
            -- One meter at a time, which is a range of the primary key: all of a tenant's usage would be years of it.
            CROSS JOIN LATERAL (
                SELECT CASE aggregation
                    WHEN 'unique' THEN (
                        SELECT count(DISTINCT value) FROM usage_value AS used
                        WHERE used.tenant_id = wanted.tenant_id AND used.meter = meter.name
                          AND hour >= since AND hour < until AND used.dimensions = '{{}}'
                    )
                    ELSE (
                        SELECT {QUANTITY} FROM usage_hour AS used
                        WHERE used.tenant_id = wanted.tenant_id AND used.meter = meter.name
                          AND hour >= since AND hour < until
                    )
                END
            ) AS total (quantity)
        )
        SELECT position, meter, quantity
        FROM (SELECT position, meter, {TOLD} AS quantity FROM made) AS told
        WHERE quantity <> 0
        ORDER BY position, meter
        """,  # noqa: S608 - a text of our own
        range(len(wanted)),
        [each.tenant_id for each in wanted],
        [each.since for each in wanted],
        [each.until for each in wanted],
    )
