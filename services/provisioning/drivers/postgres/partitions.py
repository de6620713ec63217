"""Partitions: what each tenant has of a database that it shares with others. Pools and bridges are made of them.

A partition can be open, throttled or on its way out. What is done to many is one statement.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from graphlib import CycleError, TopologicalSorter
from typing import Any, TypeAlias
from uuid import UUID

from services.provisioning.drivers.port import Login, NoEnvironmentError, ThrottledError
from services.provisioning.drivers.postgres.logins import LIFETIME, Address, Credentials
from services.provisioning.drivers.postgres.place import Partition, StillInsideError, Table
from services.provisioning.drivers.postgres.scram import scram_verifier
from shared.clock import Clock
from shared.postgres import Connection, Pool

Owner: TypeAlias = "Pool | Connection"

SESSION_LIFETIME = timedelta(hours=1)
"""How long a session is good for in which a tenant's rows are read or carried."""

_SWEPT_AT_ONCE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """How a partition is found.

    Attributes:
        is_throttled: whether nobody may work in it.
        is_closed: whether it is on its way out.
    """

    is_throttled: bool
    is_closed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What sets one kind of partition apart.

    Attributes:
        is_bridge: whether each is a schema of its own.
        provision: makes those of ``$1`` with schemas ``$2`` and connections ``$3``; returns who has a closed one.
        configure: lets those of ``$1`` have ``$2`` connections and be throttled if ``$3``.
        close: lets nobody into those of ``$1``.
        remove: deletes closed ones of ``$1``, for environments ``$2``.
        issue: makes a login ``$1`` of ``$2`` with verifier ``$3``, valid until ``$4``; tells whether there is one now.
    """

    is_bridge: bool
    provision: str
    configure: str
    close: str
    remove: str
    issue: str


class Partitions(ABC):
    """All partitions of one kind in one database.

    Args:
        pool: connections of the login that owns the database; one is enough.
        url: where tenants reach that database; nothing is taken from it but the place.
    """

    kind: Kind

    def __init__(self, pool: Owner, *, url: str, clock: Clock) -> None:
        self._pool = pool
        self._address = Address(url)
        self._clock = clock

    @abstractmethod
    def schema_of(self, tenant_id: str) -> str:
        """Return the schema in which a tenant's rows are."""

    async def provision(self, partitions: Sequence[Partition]) -> None:
        """Make a partition for each tenant, in one statement; one that was on its way out goes first."""
        rows = await self._pool.fetch(
            self.kind.provision,
            [partition.tenant_id for partition in partitions],
            [self.schema_of(partition.tenant_id) for partition in partitions],
            [partition.connections for partition in partitions],
        )
        if closed := {row[0] for row in rows}:
            await self.deprovision(sorted(closed))
            await self.provision([partition for partition in partitions if partition.tenant_id in closed])

    async def configure(self, partitions: Sequence[Partition]) -> None:
        """Set what new and existing logins may do; then put out who is inside where nobody may be.

        Raises:
            StillInsideError: somebody does not go.
        """
        await self._pool.execute(
            self.kind.configure,
            [partition.tenant_id for partition in partitions],
            [partition.connections for partition in partitions],
            [partition.is_throttled for partition in partitions],
        )
        if throttled := [partition.tenant_id for partition in partitions if partition.is_throttled]:
            await self._put_out(throttled)

    async def _put_out(self, tenant_ids: Sequence[str]) -> None:
        """Sweep until there is nothing left to sweep, and look in the same statement who is inside then."""
        while True:
            row = await self._pool.fetchrow(
                "SELECT tenancy.sweep_logins($1) AS swept, tenancy.still_inside($2, $3) AS inside",
                _SWEPT_AT_ONCE,
                tenant_ids,
                self.kind.is_bridge,
            )
            if row and row["swept"]:
                continue
            if row and row["inside"]:
                raise StillInsideError(f"sessions of {len(row['inside'])} tenants do not end")
            return

    async def deprovision(self, tenant_ids: Sequence[str]) -> None:
        """Close the door, put out who is inside, then clear the rooms; each is committed before the next."""
        await self.remove(dict.fromkeys(tenant_ids))

    async def remove(self, environments: Mapping[str, UUID | None]) -> dict[str, dict[str, int]]:
        """Close the door, put out who is inside, then count and clear the rooms; each is committed before the next.

        In one transaction it could wait for ever on rows that a session of the tenant's has locked.

        Args:
            environments: by tenant; a removal that is repeated for the same environment returns the same counts.
        """
        tenant_ids = list(environments)
        await self._pool.execute(self.kind.close, tenant_ids)
        await self.sweep_logins()
        rows = await self._pool.fetch(self.kind.remove, tenant_ids, list(environments.values()))
        return {row["removed"]: row["deleted"] for row in rows}

    async def find(self, tenant_ids: Sequence[str]) -> dict[str, State]:
        """Return how the partitions of some tenants are, of those who have one."""
        rows = await self._pool.fetch(
            """
            SELECT tenant_id, throttled_at IS NOT NULL AS is_throttled, closed_at IS NOT NULL AS is_closed
            FROM tenancy.place WHERE tenant_id = ANY ($1::text[]) AND (bridge IS NOT NULL) = $2
            """,
            tenant_ids,
            self.kind.is_bridge,
        )
        return {row["tenant_id"]: State(is_throttled=row["is_throttled"], is_closed=row["is_closed"]) for row in rows}

    async def issue_login(self, tenant_id: str) -> Login:
        """Make a new login of the tenant's, valid for `LIFETIME`.

        Raises:
            NoEnvironmentError: the tenant has no partition.
            ThrottledError: it has one, in which nobody may work.
        """
        credentials = Credentials()
        login = self._address.login(credentials, self._clock.now() + LIFETIME)
        verifier = scram_verifier(credentials.password)
        if not await self._pool.fetchval(self.kind.issue, credentials.username, tenant_id, verifier, login.expires_at):
            raise await self._no_login(tenant_id)
        return login

    async def _no_login(self, tenant_id: str) -> NoEnvironmentError | ThrottledError:
        state = (await self.find([tenant_id])).get(tenant_id)
        return NoEnvironmentError(tenant_id) if state is None or state.is_closed else ThrottledError(tenant_id)

    async def sweep_logins(self) -> int:
        """Remove expired logins of the whole database, some in each transaction, and return how many there were."""
        swept = 0
        while some := await self._pool.fetchval("SELECT tenancy.sweep_logins($1)", _SWEPT_AT_ONCE):
            swept += some
        return swept

    async def next_expiry(self) -> datetime | None:
        """Return when there will be something to sweep again in the whole database, a minute from now at the least."""
        expiry: datetime | None = await self._pool.fetchval(
            "SELECT min(greatest(expires_at, now() + interval '1 minute')) FROM tenancy.login"
        )
        return expiry

    async def tables(self, schema: str) -> list[Table]:
        """Return the tables of tenants in a schema, those first that others refer to."""
        rows = await self._pool.fetch(
            "SELECT name, key, columns, parents FROM tenancy.place_table WHERE schema = $1 ORDER BY name", schema
        )
        tables = {row["name"]: Table(row["name"], tuple(row["key"]), tuple(row["columns"])) for row in rows}
        return [tables[name] for name in _in_order({row["name"]: row["parents"] for row in rows})]

    @asynccontextmanager
    async def session(self, tenant_id: str, *, writes: bool) -> AsyncIterator[Connection]:
        """Open a session of a tenant's for as long as a block lasts; see `Place.session`."""
        credentials = Credentials()
        created = await self._pool.fetchval(
            "SELECT tenancy.create_session($1, $2, $3, $4, $5, $6)",
            credentials.username,
            tenant_id,
            scram_verifier(credentials.password),
            SESSION_LIFETIME,
            self.kind.is_bridge,
            writes,
        )
        if not created:
            raise NoEnvironmentError(tenant_id)
        try:
            async with self._address.session(credentials, schema=self.schema_of(tenant_id)) as session:
                yield session
        finally:
            await self._pool.execute(
                "UPDATE tenancy.login SET expires_at = '-infinity' WHERE login = $1", credentials.username
            )
            await self.sweep_logins()


def _in_order(parents: Mapping[str, Sequence[str]]) -> list[str]:
    """Sort tables so that parents come first; of those that refer to each other in a circle some come too early."""
    known: dict[str, set[str]] = {name: {each for each in of if each in parents} for name, of in parents.items()}
    while True:
        try:
            return list(TopologicalSorter(known).static_order())
        except CycleError as error:
            circle: Any = error.args[1]
            known[circle[1]].discard(circle[0])


class PartitionPlace:
    """The `Place` of one tenant in a database with many."""

    def __init__(self, partitions: Partitions, tenant_id: str) -> None:
        self._partitions = partitions
        self._tenant_id = tenant_id

    @property
    def schema(self) -> str:
        """See `Place`."""
        return self._partitions.schema_of(self._tenant_id)

    async def exists(self) -> bool:
        """See `Place`."""
        state = (await self._partitions.find([self._tenant_id])).get(self._tenant_id)
        return state is not None and not state.is_closed

    async def prepare(self, connections: int | None) -> None:
        """See `Place`."""
        await self._partitions.provision([Partition(self._tenant_id, connections)])

    async def tables(self) -> list[Table]:
        """See `Place`."""
        return await self._partitions.tables(self.schema)

    @asynccontextmanager
    async def session(self, *, writes: bool) -> AsyncIterator[Connection]:
        """See `Place`."""
        async with self._partitions.session(self._tenant_id, writes=writes) as session:
            yield session

    async def configure(self, *, connections: int | None, is_throttled: bool) -> None:
        """See `Place`."""
        await self._partitions.configure([Partition(self._tenant_id, connections, is_throttled)])

    async def remove(self) -> dict[str, int]:
        """See `Place`."""
        return (await self._partitions.remove({self._tenant_id: None}))[self._tenant_id]
