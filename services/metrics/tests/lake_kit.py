"""A lake in a folder beside a database, and DuckDB that reads it as an outsider would."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import duckdb
from prometheus_client import CollectorRegistry

from services.metrics.lake import Exporter, Lake, LakeTerms
from services.metrics.lake.stores import Folder, Store
from services.metrics.queries.lake import SOURCES
from services.metrics.recording.event import Reception, parse
from services.metrics.recording.reading import read
from services.metrics.recording.recorder import ACCEPTED, Recorder
from services.metrics.tests.support import quotas_of, usage_event
from shared.clock import ManualClock
from shared.postgres import Pool
from shared.testing import eventually
from shared.threads import Threads

NOW = datetime(2026, 3, 15, 12, 30, tzinfo=UTC)


@dataclass
class Shore:
    """A database and the lake beside it."""

    pool: Pool
    root: Path
    threads: Threads
    clock: ManualClock = field(default_factory=lambda: ManualClock(NOW))

    def __post_init__(self) -> None:
        self._numbers = count(1)
        self._recorder = Recorder(self.pool, quotas_of(self.clock), clock=self.clock)

    def exporter(self, *, most_rows: int = 1000, store: Store | None = None) -> Exporter:
        """Make what a replica has."""
        return Exporter(self.pool, store or Folder(self.root), self.threads, clock=self.clock, most_rows=most_rows)

    def lake(self, *, most_rows: int = 1000, store: Store | None = None, days: dict[str, int] | None = None) -> Lake:
        """Make another replica's."""
        store = store or Folder(self.root)
        return Lake(
            self.exporter(most_rows=most_rows, store=store),
            store,
            self.threads,
            self.clock,
            terms=LakeTerms(str(self.root), days=days or {}),
            registry=CollectorRegistry(),
        )

    async def use(self, hours_ago: Sequence[float] = (0,), *, tenant_id: str = "t1", data: Any = None) -> list[str]:
        """Record an event for each of these times, all in one transaction; return their ids."""
        reception = Reception.at(self.clock.now(), tenant_id=None)
        documents = [
            usage_event(
                next(self._numbers),
                tenant_id=tenant_id,
                time=(self.clock.now() - timedelta(hours=ago)).isoformat(),
                data=read(json.dumps(data or {}).encode()),
            )
            for ago in hours_ago
        ]
        outcomes = await self._recorder.record([parse(document, reception) for document in documents])
        assert set(outcomes) == {ACCEPTED}
        return [document["id"] for document in documents]

    async def fill(self, lake: Lake | None = None) -> None:
        """Let the lake go round until it has all there is: whoever else uses the server can hold rows up a moment."""
        lake = lake or self.lake()

        async def is_full() -> bool:
            await lake.round()
            return not any(
                [await self.pool.fetchval(_LEFT.format(source.table), name) for name, source in SOURCES.items()]
            )

        await eventually(is_full)

    def read(self, columns: str = "*", stream: str = "usage", *, root: Path | None = None) -> list[tuple[Any, ...]]:
        """Ask DuckDB for all rows of a stream."""
        files = f"read_parquet('{root or self.root}/{stream}/**/*.parquet', hive_partitioning = true)"
        with duckdb.connect() as connection:
            return connection.execute(f"SELECT {columns} FROM {files} ORDER BY ALL").fetchall()

    def ids(self) -> Counter[str]:
        """Return which events the lake has, and how often."""
        return Counter(row[0] for row in self.read("id")) if self.files() else Counter()

    async def stored_ids(self) -> Counter[str]:
        """Return the same of the database."""
        return Counter(row["id"] for row in await self.pool.fetch("SELECT id FROM usage_event"))

    def files(self) -> list[str]:
        """Return the paths of all files in the lake, whatever they are."""
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file())


_LEFT = """
    SELECT EXISTS (SELECT FROM {} WHERE written_in >= (SELECT upto FROM lake_stream WHERE stream = $1))
        OR EXISTS (SELECT FROM lake_file WHERE written_at IS NULL AND stream = $1)
"""
