"""The driver that makes environments in Postgres: a place in the pool, a bridge, or a silo."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from services.provisioning.drivers.port import (
    Capacity,
    Done,
    Environment,
    Inspection,
    Login,
    MovingError,
    Outcome,
    Sink,
    Task,
    ThrottledError,
)
from services.provisioning.drivers.postgres.bridge import PostgresBridges
from services.provisioning.drivers.postgres.exporting import export_place
from services.provisioning.drivers.postgres.installing import Schema
from services.provisioning.drivers.postgres.logins import DRIVER
from services.provisioning.drivers.postgres.moving import Mover
from services.provisioning.drivers.postgres.partitions import PartitionPlace, Partitions, State
from services.provisioning.drivers.postgres.place import Partition, Place
from services.provisioning.drivers.postgres.pool import PostgresPool
from services.provisioning.drivers.postgres.silo import PostgresSilos, SiloPlace
from shared.clock import Clock
from shared.postgres import Pool

_CAPACITY = {
    "pool": Capacity(batch=500, at_once=2),
    "bridge": Capacity(batch=50, at_once=2),
    "silo": Capacity(batch=1, at_once=4, step=timedelta(minutes=5)),
    "move": Capacity(batch=1, at_once=2, step=timedelta(minutes=30)),
}


class PostgresDriver:
    """The `Driver` for Postgres, which is a `Lender` and an `Exporter` as well.

    Args:
        pool: connections of the login that owns the application database, on which `install` was called. Twelve of them
            are as many as the capacity can make use of.
        url: where tenants reach that database; nothing is taken from it but the place, and for silos the login.
        migrations: the folders that `install` was given.
    """

    name = DRIVER
    isolations = ("pool", "bridge", "silo")

    def __init__(self, pool: Pool, *, url: str, clock: Clock, migrations: Sequence[Path] = ()) -> None:
        self._pool = PostgresPool(pool, url=url, clock=clock)
        self._bridges = PostgresBridges(pool, url=url, clock=clock)
        self._silos = PostgresSilos(pool, url=url, clock=clock, schema=Schema(migrations))
        self._mover = Mover(self.place, pool, clock)

    def capacity(self, isolation: str) -> Capacity:
        """Return how much it can be given of environments of one isolation, and of ``move``."""
        return _CAPACITY[isolation]

    def place(self, environment: Environment) -> Place:
        """Return where an environment is, or is to be."""
        if environment.isolation == "silo":
            return SiloPlace(self._silos, environment.tenant_id)
        return PartitionPlace(self._shared(environment.isolation), environment.tenant_id)

    def _shared(self, isolation: str) -> Partitions:
        return self._bridges if isolation == "bridge" else self._pool

    async def provision(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        """Make environments; those that share a database in one statement for each isolation."""
        await self._settle(tasks, lambda partitions: partitions.provision, self._silos.provision)
        return [_done(task) for task in tasks]

    async def throttle(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        """Let environments be as open as they are to be; all that share a database in one statement for each isolation.

        Raises:
            StillInsideError: somebody does not go.
        """
        await self._settle(tasks, lambda partitions: partitions.configure, self._silos.configure)
        return [_done(task) for task in tasks]

    async def _settle(
        self,
        tasks: Sequence[Task],
        together: Callable[[Partitions], Callable[[Sequence[Partition]], Awaitable[None]]],
        alone: Callable[[Partition], Awaitable[None]],
    ) -> None:
        for isolation in self.isolations:
            wanted = [_partition(task) for task in tasks if task.environment.isolation == isolation]
            if isolation == "silo":
                for partition in wanted:
                    await alone(partition)
            elif wanted:
                await together(self._shared(isolation))(wanted)

    async def deprovision(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        """Remove all places of these tenants, also those that their environments have no more or not yet."""
        environments = [task.environment for task in tasks]
        removed = [await self._remove(isolation, environments) for isolation in self.isolations]
        return [
            Done(result=_sum([rows.get(environment.tenant_id, {}) for rows in removed])) for environment in environments
        ]

    async def _remove(self, isolation: str, environments: Sequence[Environment]) -> Mapping[str, Mapping[str, int]]:
        # What is deleted is kept by the environment's id for whoever asks again; only one place of a tenant's is.
        wanted: dict[str, UUID | None] = {
            each.tenant_id: each.environment_id for each in environments if each.isolation == isolation
        }
        elsewhere = [each.tenant_id for each in environments if each.isolation != isolation]
        wanted |= dict.fromkeys(await self._left(isolation, elsewhere))
        if isolation == "silo":
            return {tenant_id: await self._silos.remove(tenant_id, known) for tenant_id, known in wanted.items()}
        return await self._shared(isolation).remove(wanted) if wanted else {}

    async def _left(self, isolation: str, tenant_ids: Sequence[str]) -> Collection[str]:
        """Return which tenants have a place of one kind, or half of one."""
        if not tenant_ids:
            return ()
        if isolation == "silo":
            return await self._silos.recorded(tenant_ids)
        return await self._shared(isolation).find(tenant_ids)

    async def move(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        """Do one step of moves, one after the other; see `Mover`."""
        return [await self._mover.move(task) for task in tasks]

    async def deploy(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        """Bring bridges and silos up to date with the schema of the pool: that is what a product needs of them."""
        bridges = [task.environment.tenant_id for task in tasks if task.environment.isolation == "bridge"]
        if bridges:
            await self._bridges.refresh(bridges)
        for task in tasks:
            if task.environment.isolation == "silo":
                await self._silos.refresh(task.environment.tenant_id)
        return [_done(task) for task in tasks]

    async def inspect(self, environments: Sequence[Environment]) -> Sequence[Inspection]:
        """Look at the server: of several places that a tenant has, at the one where its environment should be."""
        tenant_ids = [environment.tenant_id for environment in environments]
        found = {
            "pool": await self._pool.find(tenant_ids),
            "bridge": await self._bridges.find(tenant_ids),
            "silo": await self._silos.find(tenant_ids),
        }
        return [_inspection(environment, found) for environment in environments]

    async def issue(self, environment: Environment) -> Login:
        """Make a new login, valid for a quarter of an hour; see `Lender`."""
        if environment.is_throttled:
            raise ThrottledError(environment.tenant_id)
        try:
            return await self._issue(environment)
        except ThrottledError as error:
            raise MovingError(environment.tenant_id) from error

    async def _issue(self, environment: Environment) -> Login:
        if environment.isolation == "silo":
            return await self._silos.issue_login(environment.tenant_id)
        return await self._shared(environment.isolation).issue_login(environment.tenant_id)

    async def sweep(self) -> int:
        """Remove expired logins in the application database and in silos; see `Lender`."""
        return await self._pool.sweep_logins() + await self._silos.sweep_logins()

    async def export(self, environment: Environment, write: Sink) -> dict[str, int]:
        """Write all rows of a tenant, the same bytes wherever they are; see `Exporter`."""
        return await export_place(self.place(environment), environment.tenant_id, write)


def _partition(task: Task) -> Partition:
    environment = task.environment
    return Partition(environment.tenant_id, environment.connections, environment.is_throttled)


def _done(task: Task) -> Done:
    """Say that an environment is as it is to be; which products it has is remembered for `PostgresDriver.inspect`."""
    return Done(resources={**task.environment.resources, "products": dict(task.environment.products)})


def _sum(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    return {table: sum(rows.get(table, 0) for rows in counts) for table in dict.fromkeys(t for c in counts for t in c)}


def _inspection(environment: Environment, found: Mapping[str, Mapping[str, State]]) -> Inspection:
    places = {
        isolation: states[environment.tenant_id]
        for isolation, states in found.items()
        if environment.tenant_id in states
    }
    if not places:
        return Inspection(exists=False)
    isolation = environment.isolation if environment.isolation in places else next(iter(places))
    detail: dict[str, Any] = {"places": sorted(places), "isWhole": not places[isolation].is_closed}
    return Inspection(
        exists=True,
        is_throttled=places[isolation].is_throttled,
        isolation=isolation,
        products=environment.resources.get("products", {}),
        detail=detail,
    )
