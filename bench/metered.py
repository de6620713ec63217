"""A running metrics service, tenants whose usage it is told of, and all that it was told."""

import itertools
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import asyncpg

from bench.onboardings import until_ready
from bench.usage import KINDS, Application, Batch
from bench.usage_checks import mismatches
from bench.usage_load import UsageLoad
from deploy.local.children import Child, running_children
from deploy.local.stack import Stack

EVENTS = 500
"""Events of a request."""

CONNECTIONS = 8
"""How many requests are on their way at once."""

TENANTS = 500
"""Whose usage it is."""

_TRACK = "INSERT INTO tracked_tenant (tenant_id, tracked_at) SELECT unnest($1::text[]), now()"
_METER = """
    INSERT INTO meter (name, unit, enforcement, event_type, aggregation, value_path, created_at)
    VALUES ($1, 'unit', 'soft', $2, $3, $4, now())
"""


@dataclass(frozen=True)
class Bench:
    """The service, and what it works on.

    Attributes:
        own: a connection as the owner of the service's database.
        database: the login of that owner.
        sent: all batches that were made to be sent.
    """

    child: Child
    key: str
    own: asyncpg.Connection
    database: str
    tenants: Sequence[str]
    sent: list[Batch] = field(default_factory=list)
    _runs: Iterator[int] = field(default_factory=itertools.count)

    def load(self) -> UsageLoad:
        """Return a load on the service that has sent nothing yet."""
        return UsageLoad(self.child.port, self.key, CONNECTIONS)

    def batches(self, count: int) -> list[Batch]:
        """Make batches that are going to be sent, of events that were never sent before."""
        made = Application(f"run-{next(self._runs)}", self.tenants, now=datetime.now(UTC)).batches(count, size=EVENTS)
        self.sent.extend(made)
        return made

    async def mismatches(self) -> list[str]:
        """Return in which hours and months the service says other than the ledger of all that was sent."""
        return await mismatches(self.child.port, self.key, self.tenants, self.sent)


@asynccontextmanager
async def opened_bench(stack: Stack, *, tenants: int = TENANTS) -> AsyncIterator[Bench]:
    """Run the service with so many tenants, and open what a measurement needs."""
    database, ids = stack.databases["metrics"].owner, [f"bench-{number}" for number in range(tenants)]
    own = await asyncpg.connect(database)
    try:
        await add_tenants(own, ids)
        with tempfile.TemporaryDirectory(prefix="tenure-bench-") as folder:
            environment = {"metrics": stack.environment["metrics"]}
            async with running_children(environment, Path(folder), print) as (child,):
                await until_ready(child.port)
                yield Bench(child, stack.admin_key, own, database, ids)
    finally:
        await own.close()


async def add_tenants(own: asyncpg.Connection, tenants: Sequence[str]) -> None:
    """Track some tenants, and add the meters of `bench.usage` that Tenure does not come with.

    Args:
        own: a connection as the owner of the service's database.
    """
    await own.execute(_TRACK, tenants)
    meters = [(kind.meter, kind.event_type, kind.aggregation, kind.path) for kind in KINDS if not kind.in_catalog]
    await own.executemany(_METER, meters)


async def remove_tenants(own: asyncpg.Connection, tenants: Sequence[str]) -> None:
    """Remove what `add_tenants` has added, and all that these tenants have used."""
    await own.execute("DELETE FROM tracked_tenant WHERE tenant_id = ANY ($1::text[])", tenants)
    added = [kind.meter for kind in KINDS if not kind.in_catalog]
    await own.execute("DELETE FROM meter WHERE name = ANY ($1::text[])", added)
