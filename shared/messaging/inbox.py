"""Each message takes effect once: its id is inserted in the transaction of its effect."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from shared.failpoints import failpoint
from shared.ids import uuid7_at
from shared.postgres import Connection

RETENTION = timedelta(days=8)
"""Longer than any redelivery or replay from parking; after it, the barrier still protects effects of workflows."""

_AHEAD = timedelta(days=2)


async def admit(connection: Connection, ids: Sequence[UUID]) -> set[UUID]:
    """Record messages as handled and return those that had not been before."""
    rows = await connection.fetch(
        """
        INSERT INTO inbox (message_id)
        SELECT DISTINCT id FROM unnest($1::uuid[]) AS id
        ORDER BY id  -- one order everywhere, so that batches never deadlock
        ON CONFLICT DO NOTHING
        RETURNING message_id
        """,
        ids,
    )
    await failpoint("inbox_inserted")
    return {row["message_id"] for row in rows}


async def keep_partitions(connection: Connection, *, now: datetime) -> None:
    """Make the daily partitions of the next days and drop those past the retention; any replica may call it."""
    days = [now + timedelta(days=offset) for offset in range(_AHEAD.days + 1)]
    midnights = [day.replace(hour=0, minute=0, second=0, microsecond=0) for day in days]
    await connection.execute(
        "SELECT keep_inbox_partitions($1::text[], $2::uuid[], $3::uuid[], $4)",
        [_partition(day) for day in midnights],
        [uuid7_at(day) for day in midnights],
        [uuid7_at(day + timedelta(days=1)) for day in midnights],
        _partition(now - RETENTION),
    )


def _partition(day: datetime) -> str:
    return f"inbox_{day:%Y%m%d}"
