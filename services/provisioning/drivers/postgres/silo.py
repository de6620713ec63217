"""Silos: tenants with a database of their own.

A tenant is a row in ``tenancy.silo`` of the application database, a database that is copied from a template, and a
role of the same name, which alone may connect to it and to which its logins belong. Inside, a silo is a pool with one
tenant.

Making and dropping databases is beyond any transaction. So the row is there first and goes last, and it says whether
the database can be used; what was made by halves is dropped and made again.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg
import structlog

from services.provisioning.drivers.port import Login, NoEnvironmentError
from services.provisioning.drivers.postgres.installing import Schema, run
from services.provisioning.drivers.postgres.logins import LIFETIME, Address
from services.provisioning.drivers.postgres.names import Names
from services.provisioning.drivers.postgres.partitions import SESSION_LIFETIME, State
from services.provisioning.drivers.postgres.place import Partition, Table
from services.provisioning.drivers.postgres.pool import SCHEMA, PostgresPool
from shared.clock import Clock
from shared.postgres import Connection, Pool, is_unavailable, migrate

log = structlog.get_logger(__name__)

_SECONDS = 30.0
_DATABASE_SECONDS = 240.0
"""The bound for making and dropping a database; a template with much in it takes long to copy."""

_SWEPT_TOGETHER = 4
_SWEEP_AGAIN = timedelta(minutes=5)
"""When a silo is tried again that could not be swept, or that had new logins meanwhile."""


class PostgresSilos:
    """The silos beside an application database.

    Args:
        pool: connections of the login that owns the application database; each call holds one of them at most.
        url: where tenants reach that database; nothing is taken from it but the place.
        schema: what silos that are there are brought up to.
    """

    def __init__(self, pool: Pool, *, url: str, clock: Clock, schema: Schema) -> None:
        self._pool = pool
        self._address = Address(url)
        self._clock = clock
        self._schema = schema
        self._names = Names(self._address.database)

    async def provision(self, partition: Partition) -> None:
        """Make a silo, or bring the one that is there up to date; what is there by halves is dropped first.

        The tenant moves in when it is first opened.
        """
        database = self._names.silo(partition.tenant_id)
        async with self._locked(database) as connection:
            found = await self._find(connection, partition, database)
            if found is None:
                raise LookupError("no template is installed")
            if found["is_whole"]:
                await self._refresh(connection, partition.tenant_id, database)
            else:
                await self._make(connection, partition.tenant_id, database, found)

    async def _find(self, connection: Connection, partition: Partition, database: str) -> asyncpg.Record | None:
        """Record a silo, and return what there is of it, and the statements that make the rest."""
        return await connection.fetchrow(
            """
            WITH wanted AS (
                INSERT INTO tenancy.silo (tenant_id, database, connections) VALUES ($1, $2, $3)
                ON CONFLICT (tenant_id) DO UPDATE SET connections = excluded.connections
            )
            SELECT template.database AS template,
                   silo.template IS NOT NULL AND datconnlimit <> -2 AS is_whole,
                   datname IS NOT NULL AS has_database,
                   EXISTS (SELECT FROM pg_roles WHERE rolname = $2) AS has_role,
                   format('CREATE ROLE %I NOLOGIN IN ROLE %I', $2, $4::text) AS make_role,
                   format('CREATE DATABASE %I TEMPLATE %I ALLOW_CONNECTIONS false', $2, template.database)
                       AS make_database,
                   format('REVOKE ALL ON DATABASE %1$I FROM PUBLIC; GRANT CONNECT ON DATABASE %1$I TO %1$I;'
                          ' GRANT TEMPORARY ON DATABASE %1$I TO %2$I; ALTER DATABASE %1$I ALLOW_CONNECTIONS true',
                          $2, $5::text) AS open_database
            FROM tenancy.template LEFT JOIN tenancy.silo ON tenant_id = $1 LEFT JOIN pg_database ON datname = $2
            """,
            partition.tenant_id,
            database,
            partition.connections,
            f"{self._names.template}_tenant",
            f"{self._names.template}_stager",
        )

    async def _make(self, connection: Connection, tenant_id: str, database: str, found: asyncpg.Record) -> None:
        """Copy the template behind closed doors: everybody may connect to a new database, until it is said who may."""
        if found["has_database"]:
            await _drop(connection, database)
        if not found["has_role"]:
            await connection.execute(found["make_role"])
        await connection.execute(found["make_database"], timeout=_DATABASE_SECONDS)
        await connection.execute(found["open_database"])
        await connection.execute(
            """
            UPDATE tenancy.silo SET template = $2
            WHERE tenant_id = $1 AND set_config('synchronous_commit', 'on', false) IS NOT NULL
            """,
            tenant_id,
            found["template"],
        )

    async def refresh(self, tenant_id: str) -> None:
        """Bring a silo up to date with the application database; one that is not there stays away."""
        database = self._names.silo(tenant_id)
        async with self._locked(database) as connection:
            await self._refresh(connection, tenant_id, database)

    async def _refresh(self, connection: Connection, tenant_id: str, database: str) -> None:
        """Apply what migrations a silo lacks. A process of an older release, which lacks some too, leaves it alone."""
        ours = self._schema.template(self._names)
        is_behind = await connection.fetchval(
            """
            SELECT silo.template <> $2 AND EXISTS (SELECT FROM tenancy.template WHERE template.database = $2)
            FROM tenancy.silo WHERE tenant_id = $1
            """,
            tenant_id,
            ours,
        )
        if is_behind:
            await migrate(self._address.of(database).url, self._schema.folders)
            await connection.execute("UPDATE tenancy.silo SET template = $2 WHERE tenant_id = $1", tenant_id, ours)

    async def configure(self, partition: Partition) -> None:
        """Set what new and existing logins may do; then put out who is inside if nobody may be. No silo stays none.

        Raises:
            StillInsideError: somebody does not go.
        """
        await self._pool.execute(
            "UPDATE tenancy.silo SET connections = $2 WHERE tenant_id = $1", partition.tenant_id, partition.connections
        )
        with suppress(NoEnvironmentError):
            async with self.opened(partition.tenant_id) as rooms:
                await rooms.configure([partition])

    async def remove(self, tenant_id: str, environment_id: UUID | None = None) -> dict[str, int]:
        """Close the door, put out who is inside, count, and drop it with its roles; see `Partitions.remove`."""
        database = self._names.silo(tenant_id)
        async with self._locked(database) as connection:
            state = await connection.fetchrow(
                """
                WITH closed AS (UPDATE tenancy.silo SET template = NULL WHERE tenant_id = $1)
                SELECT datallowconn AND datconnlimit <> -2 AS can_be_opened, tenancy.no_rows() AS no_rows
                FROM tenancy.silo LEFT JOIN pg_database ON datname = database WHERE tenant_id = $1
                """,
                tenant_id,
            )
            rows = dict(state["no_rows"]) if state else await connection.fetchval("SELECT tenancy.no_rows()")
            if state and state["can_be_opened"]:
                rows |= await self._close(tenant_id, database)
            rows = await connection.fetchval("SELECT tenancy.remember_removal($1, $2)", environment_id, rows)
            if state:
                await _drop(connection, database)
                await self._forget(connection, tenant_id, database)
        return dict(rows)

    async def _close(self, tenant_id: str, database: str) -> dict[str, int]:
        async with self._address.of(database).owner(seconds=_SECONDS) as inside:
            await inside.execute("SELECT tenancy.close_tenants($1)", [tenant_id])
            await self._rooms(inside, database).sweep_logins()
            rows = await inside.fetch(
                "SELECT place, count(*) AS rows FROM tenancy.rows_of($1) GROUP BY place", [tenant_id]
            )
        return {row["place"]: row["rows"] for row in rows}

    async def _forget(self, connection: Connection, tenant_id: str, database: str) -> None:
        """Drop the roles of a silo whose database is gone, those of logins first, and then the row."""
        members = await connection.fetch(
            """
            SELECT login.rolname FROM pg_auth_members
            JOIN pg_roles AS silo ON silo.oid = roleid JOIN pg_roles AS login ON login.oid = member
            WHERE silo.rolname = $1 AND login.rolname <> current_user
            """,
            database,
        )
        for role in (*(row["rolname"] for row in members), database):
            await run(connection, "DROP ROLE IF EXISTS %1$I", role)
        await connection.execute("RESET synchronous_commit")
        await connection.execute("DELETE FROM tenancy.silo WHERE tenant_id = $1", tenant_id)

    async def exists(self, tenant_id: str) -> bool:
        """Tell whether a tenant has a silo that can be used."""
        return await self._whole(tenant_id) is not None

    async def recorded(self, tenant_ids: Sequence[str]) -> list[str]:
        """Return which tenants have a silo, or half of one."""
        rows = await self._pool.fetch(
            "SELECT tenant_id FROM tenancy.silo WHERE tenant_id = ANY ($1::text[]) ORDER BY tenant_id", tenant_ids
        )
        return [row["tenant_id"] for row in rows]

    async def find(self, tenant_ids: Sequence[str]) -> dict[str, State]:
        """Return how the silos of some tenants are, of those who have one or half of one."""
        return {tenant_id: await self._look(tenant_id) for tenant_id in await self.recorded(tenant_ids)}

    async def _look(self, tenant_id: str) -> State:
        try:
            async with self.opened(tenant_id) as rooms:
                found = await rooms.find([tenant_id])
        except NoEnvironmentError:
            return State(is_throttled=False, is_closed=True)
        return found.get(tenant_id, State(is_throttled=False, is_closed=True))

    async def issue_login(self, tenant_id: str) -> Login:
        """Make a new login of the tenant's, valid for `LIFETIME`.

        Raises:
            NoEnvironmentError: the tenant has no silo.
            ThrottledError: it has one, in which nobody may work.
        """
        await self._announce(tenant_id, LIFETIME)
        async with self.opened(tenant_id) as rooms:
            return await rooms.issue_login(tenant_id)

    @asynccontextmanager
    async def session(self, tenant_id: str, *, writes: bool) -> AsyncIterator[Connection]:
        """Open a session of a tenant's for as long as a block lasts; see `Place.session`."""
        await self._announce(tenant_id, SESSION_LIFETIME)
        async with self.opened(tenant_id) as rooms, rooms.session(tenant_id, writes=writes) as session:
            yield session

    async def _announce(self, tenant_id: str, lifetime: timedelta) -> None:
        """Make known that a silo will have a login to sweep, before there is one."""
        await self._pool.execute(
            "UPDATE tenancy.silo SET issued = issued + 1, sweep_at = least(sweep_at, $2) WHERE tenant_id = $1",
            tenant_id,
            self._clock.now() + lifetime,
        )

    async def sweep_logins(self) -> int:
        """Remove the expired logins of all silos, and return how many there were. A silo out of reach waits."""
        due = await self._pool.fetch(
            """
            UPDATE tenancy.silo SET sweep_at = $2 WHERE sweep_at <= $1 AND template IS NOT NULL
            RETURNING tenant_id, issued
            """,
            self._clock.now(),
            self._clock.now() + _SWEEP_AGAIN,
        )
        turns = asyncio.Semaphore(_SWEPT_TOGETHER)

        async def sweep(tenant_id: str, issued: int) -> int:
            async with turns:
                return await self._sweep(tenant_id, issued)

        return sum(await asyncio.gather(*(sweep(row["tenant_id"], row["issued"]) for row in due)))

    async def _sweep(self, tenant_id: str, issued: int) -> int:
        try:
            async with self.opened(tenant_id) as rooms:
                swept = await rooms.sweep_logins()
                expires_at: datetime | None = await rooms.next_expiry()
        except NoEnvironmentError:
            return 0
        except Exception as error:
            if not is_unavailable(error):
                raise
            log.warning("silo not swept", action="sweep", tenant_id=tenant_id, error=type(error).__name__)
            return 0
        await self._pool.execute(
            "UPDATE tenancy.silo SET sweep_at = $3 WHERE tenant_id = $1 AND issued = $2", tenant_id, issued, expires_at
        )
        return swept

    @asynccontextmanager
    async def opened(self, tenant_id: str) -> AsyncIterator[PostgresPool]:
        """Open a tenant's silo from inside for as long as a block lasts, brought up to date, with the tenant in it.

        Raises:
            NoEnvironmentError: the tenant has none that can be used.
        """
        silo = await self._whole(tenant_id)
        if silo is None:
            raise NoEnvironmentError(tenant_id)
        if silo["template"] != self._schema.template(self._names):
            await self.refresh(tenant_id)
        async with self._address.of(silo["database"]).owner(seconds=_SECONDS) as inside:
            rooms = self._rooms(inside, silo["database"])
            await rooms.provision([Partition(tenant_id, silo["connections"])])
            yield rooms

    async def _whole(self, tenant_id: str) -> asyncpg.Record | None:
        return await self._pool.fetchrow(
            """
            SELECT database, template, connections FROM tenancy.silo JOIN pg_database ON datname = database
            WHERE tenant_id = $1 AND template IS NOT NULL AND datallowconn AND datconnlimit <> -2
            """,
            tenant_id,
        )

    def _rooms(self, inside: Connection, database: str) -> PostgresPool:
        return PostgresPool(inside, url=self._address.of(database).url, clock=self._clock)

    @asynccontextmanager
    async def _locked(self, database: str) -> AsyncIterator[Connection]:
        """Keep others away from one silo. The lock goes with its connection, back to the pool or down.

        Only the last commit on it has to wait for the disk, where all before it are then as well; and so does every
        making and dropping of a database.
        """
        async with self._pool.acquire(timeout=_SECONDS) as connection:
            await connection.execute(
                "SELECT pg_advisory_lock(hashtextextended($1, 0)), set_config('synchronous_commit', 'off', false)",
                database,
            )
            yield connection


async def _drop(connection: Connection, database: str) -> None:
    """Drop a database, whoever is in it."""
    statement = await connection.fetchval("SELECT format('DROP DATABASE IF EXISTS %I', $1::text)", database)
    try:
        await connection.execute(f"{statement} WITH (FORCE)", timeout=_DATABASE_SECONDS)
    except asyncpg.InsufficientPrivilegeError:
        # An autovacuum worker is in it, which only an administrator may end; without force, Postgres sends it away.
        await connection.execute(statement, timeout=_DATABASE_SECONDS)


class SiloPlace:
    """The `Place` of one tenant that is a database of its own."""

    schema = SCHEMA

    def __init__(self, silos: PostgresSilos, tenant_id: str) -> None:
        self._silos = silos
        self._tenant_id = tenant_id

    async def exists(self) -> bool:
        """See `Place`."""
        return await self._silos.exists(self._tenant_id)

    async def prepare(self, connections: int | None) -> None:
        """See `Place`."""
        await self._silos.provision(Partition(self._tenant_id, connections))

    async def tables(self) -> list[Table]:
        """See `Place`."""
        async with self._silos.opened(self._tenant_id) as rooms:
            return await rooms.tables(SCHEMA)

    @asynccontextmanager
    async def session(self, *, writes: bool) -> AsyncIterator[Connection]:
        """See `Place`."""
        async with self._silos.session(self._tenant_id, writes=writes) as session:
            yield session

    async def configure(self, *, connections: int | None, is_throttled: bool) -> None:
        """See `Place`."""
        await self._silos.configure(Partition(self._tenant_id, connections, is_throttled))

    async def remove(self) -> dict[str, int]:
        """See `Place`."""
        return await self._silos.remove(self._tenant_id)
