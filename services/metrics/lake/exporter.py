"""Deals rows out to files, and writes the files: each row into one of them, whenever whoever does it dies."""

import functools
import tempfile
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final, NamedTuple

from services.metrics import queries
from services.metrics.lake.parquet import MOST_IN_MEMORY, Spool
from services.metrics.lake.stores import Store, StoreUnavailableError
from services.metrics.lake.streams import STREAMS, path_of
from services.metrics.queries.lake import File
from shared.clock import Clock
from shared.failpoints import failpoint
from shared.http import Problem
from shared.postgres import CONTENTION, Connection, Pool, is_unavailable, transaction
from shared.threads import Threads

MOST_ROWS: Final = 50_000
"""How many rows of a stream are dealt out at a time. Those of one transaction stay together, however many they are."""

_PATIENCE_SECONDS = 300.0
_FORGOTTEN_AFTER = timedelta(days=30)


class CounterWentBackError(Exception):
    """The database counts transactions from where it has been before, as one does that was restored from a dump."""


class Written(NamedTuple):
    """What became of a file that was to be written."""

    file: File
    row_count: int


class FileFailedError(Exception):
    """A file cannot be written for what is in it; others can."""

    def __init__(self, file: File) -> None:
        super().__init__(path_of(file))
        self.file = file


class Exporter:
    """Brings rows from the database into the lake.

    Any number of them may work at the same time: who deals a stream out locks it, and nobody writes a file that another
    is writing.

    Args:
        threads: in which files are made and stored.
    """

    def __init__(self, pool: Pool, store: Store, threads: Threads, *, clock: Clock, most_rows: int = MOST_ROWS) -> None:
        self._pool = pool
        self._store = store
        self._threads = threads
        self._clock = clock
        self._most_rows = most_rows

    async def plan(self, stream: str) -> bool:
        """Deal out what was written to a stream; return whether there may be more than that.

        Raises:
            CounterWentBackError: rows cannot be told apart from those that have a file.
        """
        async with transaction(self._pool, seconds=_PATIENCE_SECONDS) as connection:
            since = await queries.lake.lock_stream(connection, stream)
            reach = await queries.lake.reach(connection, stream, since=since, most=self._most_rows)
            if reach.horizon < since:
                raise CounterWentBackError(f"the transactions of {stream} went back: from {since} to {reach.horizon}")
            if reach.oldest is None or reach.newest is None:
                return False
            is_full = reach.rows >= self._most_rows
            upto = max(reach.newest, reach.oldest + 1) if is_full else reach.horizon
            now = self._clock.now()
            await queries.lake.plan(connection, stream, since, upto, now=now, seconds=_PATIENCE_SECONDS)
        await failpoint("lake_planned")
        return is_full

    async def write_next(self, *, besides: Collection[int] = ()) -> Written | None:
        """Write a file that is not written yet; None if there is none, or others are at work on all there are.

        Args:
            besides: files that are left for later.

        Raises:
            StoreUnavailableError: it stays to be written, as after an outage of the database.
            FileFailedError: likewise; other files may do better.
        """
        async with transaction(self._pool, seconds=_PATIENCE_SECONDS) as connection:
            file = await queries.lake.claim(connection, besides=besides)
            # Whoever wrote it may have let go of it since it was found to be unwritten.
            if file is None or await queries.lake.is_written(connection, file.file_id):
                return None
            row_count, size = await self._write(connection, file)
            await failpoint("lake_stored")
            now = self._clock.now()
            await queries.lake.written(connection, file.file_id, row_count=row_count, byte_count=size, now=now)
        await failpoint("lake_written")
        return Written(file, row_count)

    async def _write(self, connection: Connection, file: File) -> tuple[int, int]:
        try:
            async with self._spooled(connection, file) as spool:
                size = await self._threads.run(functools.partial(self._store_as_parquet, file, spool))
                return spool.row_count, size
        except (StoreUnavailableError, Problem, *CONTENTION):
            raise
        except Exception as error:
            if is_unavailable(error):
                raise
            raise FileFailedError(file) from error

    @asynccontextmanager
    async def _spooled(self, connection: Connection, file: File) -> AsyncIterator[Spool]:
        spool = Spool(STREAMS[file.stream])
        try:
            async for lines in queries.lake.rows(connection, file, seconds=_PATIENCE_SECONDS):
                await self._threads.run(functools.partial(spool.add, lines))
            yield spool
        finally:
            spool.close()  # at once: whoever is cancelled here is not asked whether a thread was free

    def _store_as_parquet(self, file: File, spool: Spool) -> int:
        with tempfile.SpooledTemporaryFile(MOST_IN_MEMORY) as parquet:
            size = spool.write(parquet)
            parquet.seek(0)
            self._store.put(path_of(file), parquet)
        return size

    async def waiting(self) -> int:
        """Return how many files are dealt out and not written."""
        async with self._pool.acquire(timeout=5.0) as connection:
            return await queries.lake.waiting(connection)

    async def put_back(self, file: File) -> None:
        """Let a file that failed wait behind all others."""
        async with transaction(self._pool) as connection:
            await queries.lake.failed(connection, file.file_id)

    async def forget(self) -> None:
        """Forget files that were written long ago, and facts that are in them: nobody tells those again."""
        async with transaction(self._pool) as connection:
            await queries.lake.forget(connection, before=self._clock.now() - _FORGOTTEN_AFTER)
