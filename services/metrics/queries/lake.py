"""SQL that deals rows out to files of the data lake, each to one, and reads what is in a file."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from shared.postgres import Connection

_PREFETCHED = 500


class Source(NamedTuple):
    """Where the rows of a stream come from.

    Attributes:
        table: of the rows, which has ``written_in``.
        happened_at: the column that decides in which hour's folder a row is.
        columns: what a file has of a row.
        order: in which a file has them; no two have the same place.
    """

    table: str
    happened_at: str
    columns: str
    order: str


SOURCES: Mapping[str, Source] = {
    "usage": Source(
        "usage_event",
        "happened_at",
        "tenant_id, source, id, type, happened_at, stored_at, data::text AS data",
        "written_in, tenant_id, source, id",
    ),
    "amendments": Source(
        "usage_amendment",
        "happened_at",
        """
            amendment_id, tenant_id, meter, happened_at, quantity::text AS quantity, source, event_id, reason, actor,
            amended_at
        """,
        "written_in, amendment_id",
    ),
    "tenants": Source(
        "lake_tenant_fact",
        "happened_at",
        "fact_id, tenant_id, type, state, tier, workflow_id, step, happened_at, fact::text AS fact",
        "written_in, happened_at, fact_id",
    ),
    "audit": Source(
        "audit_entry",
        "decided_at",
        """
            tenant_id, seq, decision_id, decided_at, recorded_at, service, actor, role, reason, action, subject,
            before::text AS before, after::text AS after,
            encode(previous_hash, 'hex') AS previous_hash, encode(hash, 'hex') AS hash
        """,
        "written_in, tenant_id, seq",
    ),
}
"""The rows of each stream, by its name. `services.metrics.lake.streams` has the types of the columns."""


class File(NamedTuple):
    """A file, and which rows are in it.

    Attributes:
        hour: in which they happened.
        first: they were written in this transaction or a later one,
        upto: and before this one.
    """

    file_id: int
    stream: str
    hour: datetime
    first: int
    upto: int


class Reach(NamedTuple):
    """How far rows can be dealt out.

    Attributes:
        horizon: all transactions before this one have ended, and what they wrote can be seen.
        rows: how many rows were looked at, from the one on that was written first.
        oldest: the first transaction that wrote one of them; None for no rows.
        newest: and the last.
    """

    horizon: int
    rows: int
    oldest: int | None
    newest: int | None


async def lock_stream(connection: Connection, stream: str) -> int:
    """Return the transaction up to which a stream's rows have files; others wait until the commit."""
    upto: int = await connection.fetchval("SELECT upto FROM lake_stream WHERE stream = $1 FOR UPDATE", stream)
    return upto


async def reach(connection: Connection, stream: str, *, since: int, most: int) -> Reach:
    """Look at the first ``most`` rows that were written since a transaction, all in one snapshot."""
    row = await connection.fetchrow(
        f"""
        WITH horizon AS MATERIALIZED (SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS horizon),
        fresh AS (
            SELECT written_in FROM {SOURCES[stream].table}
            WHERE written_in >= $1 AND written_in < (SELECT horizon FROM horizon)
            ORDER BY written_in LIMIT $2
        )
        SELECT (SELECT horizon FROM horizon), count(*), min(written_in), max(written_in) FROM fresh
        """,  # noqa: S608 - a name of our own
        since,
        most,
    )
    assert row is not None
    return Reach(*row)


async def plan(connection: Connection, stream: str, first: int, upto: int, *, now: datetime, seconds: float) -> None:
    """Deal the rows that were written in some transactions out to files, one for each hour.

    Args:
        seconds: how long it may take, which is long where one transaction wrote all that there is.
    """
    source = SOURCES[stream]
    await connection.execute(
        f"""
        WITH files AS (
            INSERT INTO lake_file (stream, hour, first, upto, planned_at)
            SELECT $1, hour, $2::bigint, $3::bigint, $4 FROM (
                SELECT DISTINCT date_trunc('hour', {source.happened_at}, 'UTC') AS hour FROM {source.table}
                WHERE written_in >= $2 AND written_in < $3
            ) AS dealt ORDER BY hour
        )
        UPDATE lake_stream SET upto = $3 WHERE stream = $1
        """,  # noqa: S608 - names of our own
        stream,
        first,
        upto,
        now,
        timeout=seconds,
    )


async def claim(connection: Connection, *, besides: Collection[int]) -> File | None:
    """Return a file that is still to be written and that nobody else writes, until this transaction ends.

    Those that failed come last. Nobody who claims has a number among transactions: such a one would hold up what
    `reach` may look at for as long as the file takes.
    """
    row = await connection.fetchrow(
        """
        WITH unwritten AS MATERIALIZED (
            SELECT file_id, stream, hour, first, upto FROM lake_file
            WHERE written_at IS NULL AND file_id <> ALL ($1::bigint[])
            ORDER BY failures, file_id LIMIT 100
        )
        SELECT * FROM unwritten WHERE pg_try_advisory_xact_lock(hashtextextended('lake_file', file_id)) LIMIT 1
        """,
        besides,
    )
    return None if row is None else File(*row)


async def is_written(connection: Connection, file_id: int) -> bool:
    """Return whether a file was written meanwhile, by whoever had claimed it before."""
    written: bool = await connection.fetchval(
        "SELECT written_at IS NOT NULL FROM lake_file WHERE file_id = $1", file_id
    )
    return written


async def rows(connection: Connection, file: File, *, seconds: float) -> AsyncIterator[Sequence[str]]:
    """Return the rows of a file in its order, each as JSON, some at a time.

    Args:
        seconds: how long some of them may take: the first come when all are sorted.
    """
    source = SOURCES[file.stream]
    cursor = await connection.cursor(
        f"""
        SELECT row_to_json(line)::text FROM (
            SELECT {source.columns} FROM {source.table}
            WHERE written_in >= $1 AND written_in < $2
              AND {source.happened_at} >= $3 AND {source.happened_at} < $3::timestamptz + interval '1 hour'
            ORDER BY {source.order}
        ) AS line
        """,  # noqa: S608 - names of our own
        file.first,
        file.upto,
        file.hour,
        timeout=seconds,
    )
    while lines := await cursor.fetch(_PREFETCHED, timeout=seconds):
        yield [line[0] for line in lines]


async def written(connection: Connection, file_id: int, *, row_count: int, byte_count: int, now: datetime) -> None:
    """Note that a file is where it belongs."""
    await connection.execute(
        "UPDATE lake_file SET written_at = $2, row_count = $3, byte_count = $4 WHERE file_id = $1",
        file_id,
        now,
        row_count,
        byte_count,
    )


async def failed(connection: Connection, file_id: int) -> None:
    """Let a file that cannot be written wait behind all others."""
    await connection.execute("UPDATE lake_file SET failures = failures + 1 WHERE file_id = $1", file_id)


async def waiting(connection: Connection) -> int:
    """Return how many files are still to be written."""
    count: int = await connection.fetchval("SELECT count(*) FROM lake_file WHERE written_at IS NULL")
    return count


async def forget(connection: Connection, *, before: datetime) -> None:
    """Forget files that were written before a time, and facts of tenants from before it that are in the lake."""
    await connection.execute(
        """
        WITH forgotten AS (
            DELETE FROM lake_file WHERE written_at < $1
        )
        DELETE FROM lake_tenant_fact WHERE happened_at < $1 AND written_in < (
            SELECT least(upto, (SELECT min(first) FROM lake_file WHERE stream = 'tenants' AND written_at IS NULL))
            FROM lake_stream WHERE stream = 'tenants'
        )
        """,
        before,
    )


async def keep_facts(connection: Connection, facts: Sequence[Mapping[str, Any]]) -> None:
    """Keep what was told of tenants until the lake has it, by the names of the columns; what is known is left out."""
    await connection.execute(
        """
        INSERT INTO lake_tenant_fact (fact_id, tenant_id, type, state, tier, workflow_id, step, happened_at, fact)
        SELECT fact_id, tenant_id, type, state, tier, workflow_id, step, happened_at, fact
        FROM jsonb_to_recordset($1) AS told (
            fact_id uuid, tenant_id text, type text, state text, tier text, workflow_id uuid, step text,
            happened_at timestamptz, fact jsonb)
        ORDER BY fact_id
        ON CONFLICT DO NOTHING
        """,
        facts,
    )
