"""A tenant's rows on their way from one place to another, read and written as the tenant itself from behind its wall.

Postgres lets nobody COPY into a table under row-level security. So rows are copied into a temporary table and inserted
from there, those of each table by one statement: what they refer to among themselves is checked when all are there.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias, TypeVar

from services.provisioning.drivers.postgres.place import Place, Table
from shared.postgres import Connection

_First = TypeVar("_First")
_Second = TypeVar("_Second")

_PIECES = 4
"""The most pieces of a stream that wait for the target; each is a row, or some with less than 256 KiB together."""

_SETTINGS = {
    # How values are written and read, whatever the server's defaults are: each one comes back exactly as it was.
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "IntervalStyle": "iso_8601",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "lc_monetary": "C",
    "xmloption": "content",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "0",  # the other session's work is waited for
}

_ALL = "SELECT {columns} FROM {schema}.{table}"
# A transaction that had not ended when a snapshot was taken has no id below the snapshot's lowest, and neither have its
# subtransactions. Rows carry the lower half of such an id, so they are told by their distance from the lowest. Much
# older rows can look new, which costs time and nothing else.
_CHANGED = _ALL + " WHERE (xmin::text::bigint - {since}) & 4294967295 <= {latest} - {since}"
_STAGE = "CREATE TEMPORARY TABLE carried AS SELECT {columns} FROM {schema}.{table} WITH NO DATA"
_UNSTAGE = "DROP TABLE pg_temp.carried"
_INSERT = (
    "INSERT INTO {schema}.{table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM pg_temp.carried {otherwise}"
)
_UPDATE = "ON CONFLICT ({key}) DO UPDATE SET {updates}"
_KEEP = "ON CONFLICT ({key}) DO NOTHING"
_EMPTY = "DELETE FROM {schema}.{table}"
_DELETE = (
    "DELETE FROM {schema}.{table} AS gone"
    " WHERE NOT EXISTS (SELECT FROM pg_temp.carried AS kept WHERE ({kept}) = ({gone}))"
)
_COUNT = "SELECT count(*) FROM {schema}.{table}"
# In no order, as 128 bits. OFFSET 0 lets each row be written out once for both halves.
_CONTENT = """
    SELECT count(*) AS rows,
           coalesce(sum(hashtextextended(line, 0)), 0) || '/' || coalesce(sum(hashtextextended(line, 1)), 0) AS checksum
    FROM (SELECT ROW({columns})::text COLLATE "C" AS line FROM {schema}.{table} OFFSET 0) AS written
"""
_SEQUENCES = """
    SELECT name AS column, sequence::regclass::text AS sequence, last_value
    FROM unnest($3::text[]) AS name
    CROSS JOIN pg_get_serial_sequence(format('%I.%I', $1::text, $2::text), name) AS sequence
    JOIN pg_class ON pg_class.oid = sequence::regclass
    JOIN pg_namespace ON pg_namespace.oid = relnamespace
    JOIN pg_sequences ON schemaname = nspname AND sequencename = relname
"""
# Other tenants may draw from the same sequence between the look at it and the leap, though hardly a hundred times.
_ADVANCE = """
    SELECT setval(sequence, CASE WHEN increment_by > 0 THEN least(reached::numeric + 100 * increment_by, max_value)
                                 ELSE greatest(reached::numeric + 100 * increment_by, min_value) END::bigint)
    FROM unnest($3::text[], $4::bigint[]) AS source (name, reached)
    CROSS JOIN pg_get_serial_sequence(format('%I.%I', $1::text, $2::text), name) AS sequence
    JOIN pg_class ON pg_class.oid = sequence::regclass
    JOIN pg_namespace ON pg_namespace.oid = relnamespace
    JOIN pg_sequences ON schemaname = nspname AND sequencename = relname
    WHERE last_value IS NULL OR (reached - last_value) * sign(increment_by) > 0
"""


class ExpiredSessionError(Exception):
    """Rows may be lacking, because a session saw none any more before all of them were carried."""


class MissingTableError(Exception):
    """The target has no room for what the source has."""


@dataclass(frozen=True, slots=True)
class Content:
    """What there is in a table.

    Attributes:
        rows: how many.
        checksum: of the rows, in whatever order.
    """

    rows: int
    checksum: str


Contents: TypeAlias = Mapping[str, tuple[Content, Content]]
"""What there is on both sides, by table: in the source, in the target."""


class Carrier:
    """Carries rows between two sessions of one tenant's, each in a transaction; that of the source sees one moment.

    Args:
        tables: of the source, in an order in which rows can be inserted.
    """

    def __init__(
        self, source: Connection, target: Connection, *, schemas: tuple[str, str], tables: Sequence[Table]
    ) -> None:
        self._source = source
        self._target = target
        self._source_schema, self._target_schema = schemas
        self._tables = tables

    async def moment(self) -> int:
        """Return what `change` needs to find the rows that are changed after the source's moment."""
        moment: int = await self._source.fetchval("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
        return moment

    async def copy(self) -> int:
        """Copy all rows into tables that are empty, and return how many there are."""
        return sum([await self._insert(table, self._on_source(_ALL, table)) for table in self._tables])

    async def change(self, since: int) -> int:
        """Carry the rows that were written since a moment, and return how many; no row of the target is deleted."""
        keyed = [table for table in self._tables if table.key]
        latest = await self._latest()
        return sum([await self._update(table, since, latest) for table in keyed])

    def keyless(self, names: Sequence[str]) -> list[Table]:
        """Return those of some tables whose rows have no keys, so that no row can be told from the others."""
        return [table for table in self._tables if table.name in names and not table.key]

    async def replace(self, tables: Sequence[Table]) -> None:
        """Copy all rows of some tables anew."""
        for table in tables:
            await self._target.execute(self._on_target(_EMPTY, table))
            await self._insert(table, self._on_source(_ALL, table))

    async def has_surplus(self) -> bool:
        """Tell whether a table of the target has more rows than the source's."""
        source, target = await _at_once(
            self._counts(self._source, self._on_source), self._counts(self._target, self._on_target)
        )
        return any(target[name] > rows for name, rows in source.items())

    async def delete(self) -> None:
        """Delete the rows of tables with a key whose keys the source has no more."""
        for table in reversed(self._tables):
            if table.key:
                await self._delete(table)

    async def contents(self) -> Contents:
        """Return what there is."""
        await self._target.execute("SET CONSTRAINTS ALL IMMEDIATE")
        source, target = await _at_once(
            self._contents(self._source, self._on_source), self._contents(self._target, self._on_target)
        )
        return {name: (source[name], target[name]) for name in source}

    async def advance_sequences(self) -> None:
        """Let the target's sequences go on after all that the source's have given."""
        for table in self._tables:
            found = await self._source.fetch(_SEQUENCES, self._source_schema, table.name, table.columns)
            reached = {row["column"]: row["last_value"] for row in found if row["last_value"] is not None}
            if reached:
                await self._target.execute(
                    _ADVANCE, self._target_schema, table.name, list(reached), list(reached.values())
                )

    async def _latest(self) -> int:
        latest: int = await self._source.fetchval("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
        return latest

    async def _insert(self, table: Table, query: str, otherwise: str = "") -> int:
        async with self._staged(table, table.columns, query):
            status = await self._target.execute(self._on_target(_INSERT, table, otherwise=otherwise))
        return int(status.rpartition(" ")[2])

    async def _update(self, table: Table, since: int, latest: int) -> int:
        rest = [quoted(name) for name in table.columns if name not in table.key]
        updates = ", ".join(f"{name} = excluded.{name}" for name in rest)
        otherwise = (_UPDATE if rest else _KEEP).format(key=_listed(table.key), updates=updates)
        query = self._on_source(_CHANGED, table, since=since, latest=latest)
        return await self._insert(table, query, otherwise)

    async def _delete(self, table: Table) -> None:
        query = self._on_source(_ALL, table, columns=table.key)
        kept, gone = _listed(table.key, of="kept"), _listed(table.key, of="gone")
        async with self._staged(table, table.key, query):
            await self._target.execute(self._on_target(_DELETE, table, kept=kept, gone=gone))

    @asynccontextmanager
    async def _staged(self, table: Table, columns: Sequence[str], query: str) -> AsyncIterator[None]:
        await self._target.execute(self._on_target(_STAGE, table, columns=columns))
        await self._pipe(query)
        yield
        await self._target.execute(_UNSTAGE)

    async def _pipe(self, query: str) -> None:
        """Copy what the source says into the temporary table, while only some pieces of it are in memory."""
        pieces: asyncio.Queue[bytes] = asyncio.Queue(_PIECES)

        async def send() -> None:
            await self._source.copy_from_query(query, output=pieces.put)
            await pieces.put(b"")

        async def arriving() -> AsyncIterator[bytes]:
            while piece := await pieces.get():
                yield piece

        await _at_once(send(), self._target.copy_to_table("carried", schema_name="pg_temp", source=arriving()))

    async def _counts(self, session: Connection, says: "_Says") -> dict[str, int]:
        return {table.name: await session.fetchval(says(_COUNT, table)) for table in self._tables}

    async def _contents(self, session: Connection, says: "_Says") -> dict[str, Content]:
        rows = {table.name: await session.fetchrow(says(_CONTENT, table)) for table in self._tables}
        return {name: Content(row["rows"], row["checksum"]) for name, row in rows.items() if row is not None}

    def _on_source(self, template: str, table: Table, columns: Sequence[str] = (), **values: object) -> str:
        return _say(template, self._source_schema, table, columns or table.columns, values)

    def _on_target(self, template: str, table: Table, columns: Sequence[str] = (), **values: object) -> str:
        return _say(template, self._target_schema, table, columns or table.columns, values)


_Says: TypeAlias = Callable[[str, Table], str]


@asynccontextmanager
async def carrier(
    source: Place, target: Place, *, tenant_id: str, tables: Sequence[Table], within: timedelta
) -> AsyncIterator[Carrier]:
    """Open a session on each side, and commit what was carried when the block ends well.

    Args:
        tables: of the source.
        within: the most that one statement may take.

    Raises:
        ExpiredSessionError: a session came to the end of its time, and nothing was carried.
    """
    async with (
        source.session(writes=True) as reading,
        target.session(writes=True) as writing,
        reading.transaction(isolation="repeatable_read", readonly=True),
        writing.transaction(),
    ):
        for session in (reading, writing):
            await _prepare(session, within)
        await writing.execute("SET CONSTRAINTS ALL DEFERRED")
        yield Carrier(reading, writing, schemas=(source.schema, target.schema), tables=tables)
        for session in (reading, writing):
            # An expired login sees no rows and gets no error. If it is valid now, it was so all the time.
            if await session.fetchval("SELECT tenancy.current_tenant()") != tenant_id:
                raise ExpiredSessionError(f"a session of tenant {tenant_id} expired while its rows were carried")


async def tables_to_carry(source: Place, target: Place) -> list[Table]:
    """Return the source's tables, those first that others refer to.

    Raises:
        MissingTableError: the target lacks one of them, or a column.
    """
    room = {table.name: table for table in await target.tables()}
    tables = await source.tables()
    for table in tables:
        lacking = set(table.columns).difference(room[table.name].columns) if table.name in room else {"every column"}
        if lacking:
            raise MissingTableError(f"table {table.name} lacks {', '.join(sorted(lacking))} where it is to be moved to")
    return tables


def quoted(name: str) -> str:
    """Return a name as SQL takes it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def _listed(names: Sequence[str], *, of: str = "") -> str:
    return ", ".join(f"{of}.{quoted(name)}" if of else quoted(name) for name in names)


def _say(template: str, schema: str, table: Table, columns: Sequence[str], values: Mapping[str, object]) -> str:
    return template.format(schema=quoted(schema), table=quoted(table.name), columns=_listed(columns), **values)


async def _prepare(session: Connection, within: timedelta) -> None:
    settings = {**_SETTINGS, "statement_timeout": f"{int(within.total_seconds() * 1000)}ms"}
    await session.execute(
        "SELECT set_config(name, value, true) FROM unnest($1::text[], $2::text[]) AS setting (name, value)",
        list(settings),
        list(settings.values()),
    )


async def _at_once(first: Coroutine[Any, Any, _First], second: Coroutine[Any, Any, _Second]) -> tuple[_First, _Second]:
    """Do two things; where one of them fails, the other one is over too before that is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            results = group.create_task(first), group.create_task(second)
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return results[0].result(), results[1].result()
