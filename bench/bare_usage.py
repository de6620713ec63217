"""The floor of the benchmark of metering: COPY of the same events, and nothing else.

The rows are written down before the clock starts, as are the bodies of the requests. Each event is there once: COPY
knows no duplicates, so whoever prepares the rows has left them out. Nothing is read, checked, locked or added up.
"""

import asyncio
import hashlib
import io
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple, Self

import asyncpg
import orjson

from bench.usage import DAYS, Batch, UsageEvent, source

TOGETHER = 2000
"""Events of one commit: as many as the service takes into one."""

CONNECTIONS = 2
"""How many commit at once, as in the service."""

_SCHEMA = """
    CREATE SCHEMA bare;
    CREATE TABLE bare.usage_key (LIKE public.usage_key INCLUDING ALL);
    CREATE TABLE bare.usage_event (LIKE public.usage_event INCLUDING ALL) PARTITION BY RANGE (happened_at);
"""
_PARTITION = """
    CREATE TABLE bare.usage_event_{day:%Y%m%d} PARTITION OF bare.usage_event
    FOR VALUES FROM ('{day} 00:00Z') TO ('{end} 00:00Z')
"""
_KEY = ("tenant_id", "key", "digest", "received_at")
_EVENT = ("tenant_id", "source", "id", "type", "happened_at", "stored_at", "data")


class Copied(NamedTuple):
    """What one commit copies: the lines of both tables."""

    keys: bytes
    events: bytes

    @classmethod
    def of(cls, events: Sequence[UsageEvent]) -> Self:
        """Write some events down."""
        now = datetime.now(UTC).isoformat()
        return cls(
            "".join(_key(event, now) for event in events).encode(),
            "".join(_event(event, now) for event in events).encode(),
        )


async def prepare(connection: asyncpg.Connection, *, now: datetime) -> None:
    """Make the tables of the schema once more, without anybody who uses them, and their partitions."""
    await connection.execute(_SCHEMA)
    for day in _days(now):
        await connection.execute(_PARTITION.format(day=day, end=day + timedelta(days=1)))


async def remove(connection: asyncpg.Connection) -> None:
    """Remove these tables."""
    await connection.execute("DROP SCHEMA bare CASCADE")


def _days(now: datetime) -> list[date]:
    return [(now - timedelta(days=ago)).date() for ago in range(-1, DAYS + 1)]


def copies(batches: Iterable[Batch]) -> list[Copied]:
    """Return the rows of some batches' events, each event once."""
    events = list({event.id: event for batch in batches for event in batch.events}.values())
    return [Copied.of(events[start : start + TOGETHER]) for start in range(0, len(events), TOGETHER)]


async def seconds(url: str, prepared: Sequence[Copied]) -> float:
    """Copy everything, over some connections at once; return how long that took."""
    connections = [await asyncpg.connect(url) for _ in range(CONNECTIONS)]
    waiting = iter(prepared)
    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for connection in connections:
            group.create_task(_copy_each(connection, waiting))
    taken = time.perf_counter() - started
    for connection in connections:
        await connection.close()
    return taken


async def _copy_each(connection: asyncpg.Connection, waiting: Iterator[Copied]) -> None:
    for each in waiting:
        async with connection.transaction():
            await _copy(connection, "usage_key", _KEY, each.keys)
            await _copy(connection, "usage_event", _EVENT, each.events)


async def _copy(connection: asyncpg.Connection, table: str, columns: Sequence[str], lines: bytes) -> None:
    await connection.copy_to_table(table, schema_name="bare", columns=columns, source=io.BytesIO(lines))


def _key(event: UsageEvent, now: str) -> str:
    key = hashlib.blake2b(orjson.dumps([source(event), event.id]), digest_size=16).hexdigest()
    digest = hashlib.blake2b(event.kind.data(event.value).encode(), digest_size=16).hexdigest()
    return f"{event.tenant_id}\t\\\\x{key}\t\\\\x{digest}\t{now}\n"


def _event(event: UsageEvent, now: str) -> str:
    return (
        f"{event.tenant_id}\t{source(event)}\t{event.id}\t{event.kind.event_type}\t{event.happened_at.isoformat()}"
        f"\t{now}\t{event.kind.data(event.value)}\n"
    )
