"""Usage that streams into metrics while that dies, and what must hold of every event of it."""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import asyncpg

from bench.metered import add_tenants, remove_tenants
from bench.usage import Application, Batch
from bench.usage_checks import Tally, mismatches
from bench.usage_load import UsageLoad
from shared.testing import eventually
from tests.chaos.harness import System
from tests.chaos.processes import ServiceProcess

PLACES = ("usage_inserted", "usage_committed")
"""Where it dies: before its transaction ends, and after that."""

TENANTS = [f"metered-{number}" for number in range(20)]

_EVENTS = 50
_CONNECTIONS = 4
_GONE_SECONDS = 10.0
_AT_WORK = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND usename <> current_user AND backend_type = 'client backend'
"""
_STORED = "SELECT id FROM usage_event WHERE tenant_id = ANY ($1::text[])"
_KEYS = "SELECT count(*) FROM usage_key WHERE tenant_id = ANY ($1::text[])"


@dataclass(frozen=True)
class Left:
    """What a process left that died.

    Attributes:
        unanswered: the ids of events that were with it.
        stored: the ids of events that are durable.
        accepted: the ids of events that it called accepted.
    """

    unanswered: Collection[str]
    stored: Collection[str]
    accepted: Collection[str]

    @property
    def kept(self) -> set[str]:
        """Return the events that it took, and did not live to say so."""
        return {*self.stored} - {*self.accepted}

    @property
    def lost(self) -> set[str]:
        """Return the events that were with it and that it did not take."""
        return {*self.unanswered} - {*self.stored}

    def __str__(self) -> str:
        return f"{len(self.kept)} events taken and not told, {len(self.lost)} with it and not taken"


@dataclass(frozen=True)
class Metering:
    """The process, and tenants whose usage it is told of."""

    process: ServiceProcess
    key: str
    own: asyncpg.Connection

    @asynccontextmanager
    async def streaming(self) -> AsyncIterator[UsageLoad]:
        """Send batches as fast as they are answered while the block runs, and leave it when all of them are."""
        load, over = UsageLoad(self.process.port, self.key, _CONNECTIONS), asyncio.Event()
        application = Application("chaos", TENANTS, now=datetime.now(UTC))
        async with asyncio.TaskGroup() as group:
            group.create_task(load.send(_batches(application, over)))
            yield load
            over.set()

    async def left(self, load: UsageLoad) -> Left:
        """Return what the process has left that died: when the server knows, too, that nobody commits any more."""

        async def is_gone() -> bool:
            return bool(await self.own.fetchval(_AT_WORK) == 0)

        await eventually(is_gone, within=_GONE_SECONDS, describe="the connections of a process that is dead")
        stored = [row["id"] for row in await self.own.fetch(_STORED, TENANTS)]
        return Left(_ids(load.waiting), stored, +Tally.of(load.told).accepted)

    async def verdict(self, load: UsageLoad) -> Tally:
        """Check that every event that was sent counts, and that none counts twice; return what applications were told.

        Raises:
            AssertionError: something else is so.
        """
        tally, batches = Tally.of(load.told), [each.batch for each in load.told]
        sent = _ids(batches)
        assert tally.statuses.keys() == {"accepted", "duplicate"}, f"refused: {tally.statuses}"
        assert tally.settled == sent
        assert not tally.accepted_twice, "the same events were called accepted twice"
        stored = [row["id"] for row in await self.own.fetch(_STORED, TENANTS)]
        assert sorted(stored) == sorted(sent), "not each event is there once"
        assert await self.own.fetchval(_KEYS, TENANTS) == len(sent)
        wrong = await mismatches(self.process.port, self.key, TENANTS, batches)
        assert not wrong, f"{len(wrong)} totals are wrong, such as {wrong[:3]}"
        return tally


@asynccontextmanager
async def metered(system: System) -> AsyncIterator[Metering]:
    """Track tenants that no workflow has made, and let nothing be left of them in the end."""
    own = await asyncpg.connect(system.stack.databases["metrics"].owner)
    await add_tenants(own, TENANTS)
    try:
        yield Metering(system.processes["metrics"], system.stack.admin_key, own)
    finally:
        await remove_tenants(own, TENANTS)
        await own.close()


def _batches(application: Application, over: asyncio.Event) -> Iterator[Batch]:
    while not over.is_set():
        yield from application.batches(1, size=_EVENTS)


def _ids(batches: Collection[Batch]) -> set[str]:
    return {event.id for batch in batches for event in batch.events}
