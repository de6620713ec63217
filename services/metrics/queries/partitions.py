"""SQL that keeps what was taken of events for as long as it is promised, and no longer."""

from collections.abc import Sequence
from datetime import date, datetime

from shared.postgres import Connection


async def keep(connection: Connection, days: Sequence[date], *, oldest: date) -> None:
    """Have a partition of events for each of these days of UTC, and none of a day before ``oldest``."""
    await connection.execute("SELECT keep_usage_partitions($1, $2)", days, oldest)


async def key_blocks(connection: Connection) -> int:
    """Return how many blocks the table of keys has."""
    blocks: int = await connection.fetchval(
        "SELECT pg_relation_size('usage_key') / current_setting('block_size')::bigint"
    )
    return blocks


async def forget_keys(connection: Connection, blocks: range, *, received_before: datetime) -> int:
    """Delete the keys in these blocks of the table that were received before a time; return how many there were.

    By where they are: an index over all times would cost every event that is taken, to find a key that has expired once
    in its life.
    """
    status: str = await connection.execute(
        "DELETE FROM usage_key WHERE ctid >= $1 AND ctid < $2 AND received_at < $3",
        (blocks.start, 0),
        (blocks.stop, 0),
        received_before,
    )
    return int(status.removeprefix("DELETE "))


async def forget_months(connection: Connection, *, before: date) -> int:
    """Delete what is kept and told of quotas in months before one; return how many months of quotas were kept."""
    status: str = await connection.execute(
        "WITH told AS (DELETE FROM quota_crossing WHERE month < $1) DELETE FROM quota_use WHERE month < $1", before
    )
    return int(status.removeprefix("DELETE "))
