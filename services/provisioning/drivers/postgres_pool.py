"""Pooled tenants in one Postgres database, parted by row-level security.

All SQL on that database is here and in ``application/``.
"""

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import asyncpg

from services.provisioning.drivers.port import Login, NoEnvironmentError, Partition, Sink, ThrottledError
from services.provisioning.drivers.scram import scram_verifier
from shared.clock import Clock
from shared.postgres import Connection, Pool, migrate

LIFETIME = timedelta(minutes=15)
"""How long a login is valid: the shortest that AWS gives a session of an assumed role."""

_MIGRATIONS = Path(__file__).resolve().parent.parent / "application"
_DEFAULT_PORT = 5432
_CONNECT_SECONDS = 10.0
_SWEPT_AT_ONCE = 100

_EXPORT_SETTINGS = {
    "application_name": "tenure export",
    "search_path": "pg_catalog",
    "statement_timeout": "0",  # the caller sets the bound, for all tables together
    # How values are written, whatever the server's defaults are.
    "TimeZone": "UTC",
    "IntervalStyle": "iso_8601",
    "bytea_output": "hex",
    "extra_float_digits": "1",
}


class ExpiredLoginError(Exception):
    """An export may lack rows, because its login expired while it was made."""


async def install(url: str) -> list[str]:
    """Bring the application database up to the schema that the driver needs.

    Args:
        url: a login that owns the database and may make roles.

    Returns:
        The names of the migrations that were applied by this call.

    Raises:
        MigrationError: see `shared.postgres.migrate`.
    """
    return await migrate(url, [_MIGRATIONS])


class PostgresPool:
    """The `PoolDriver` for Postgres: a tenant is a row in ``tenancy.tenant``, and all its rows hang on that one.

    Args:
        pool: connections of the login that owns the application database.
        url: where tenants reach that database; nothing is taken from it but the place.
    """

    def __init__(self, pool: Pool, *, url: str, clock: Clock) -> None:
        self._pool = pool
        self._address = urlsplit(url)
        self._clock = clock

    async def provision(self, partitions: Sequence[Partition]) -> None:
        """Make a partition for each tenant, in one statement."""
        await self._pool.execute(
            """
            INSERT INTO tenancy.tenant (tenant_id, connections)
            SELECT * FROM unnest($1::text[], $2::integer[]) AS wanted (tenant_id, connections) ORDER BY tenant_id
            ON CONFLICT (tenant_id) DO UPDATE SET connections = excluded.connections
            WHERE tenant.connections IS DISTINCT FROM excluded.connections
            """,
            [partition.tenant_id for partition in partitions],
            [partition.connections for partition in partitions],
        )

    async def configure(self, partitions: Sequence[Partition]) -> None:
        """Set what new and existing logins may do; then put out who is inside where nobody may be."""
        await self._pool.execute(
            "SELECT tenancy.configure_tenants($1, $2, $3)",
            [partition.tenant_id for partition in partitions],
            [partition.connections for partition in partitions],
            [partition.is_throttled for partition in partitions],
        )
        if any(partition.is_throttled for partition in partitions):
            await self.sweep_logins()

    async def export(self, tenant_id: str, write: Sink) -> dict[str, int]:
        """Write all rows of a tenant, table after table, under a login of the tenant's that is made for this alone.

        Raises:
            NoEnvironmentError: the tenant has no partition.
        """
        tables = await self._pool.fetch("SELECT name, key FROM tenancy.tenant_table ORDER BY name")
        async with (
            self._reader(tenant_id) as session,
            session.transaction(isolation="repeatable_read", readonly=True),
        ):
            rows = {table["name"]: await _export_table(session, table["name"], table["key"], write) for table in tables}
            # An expired login sees no rows and gets no error. If it is valid now, it was so all the time.
            if await session.fetchval("SELECT tenancy.current_tenant()") != tenant_id:
                raise ExpiredLoginError(f"the export of tenant {tenant_id} took longer than its login is good for")
        return rows

    @asynccontextmanager
    async def _reader(self, tenant_id: str) -> AsyncIterator[Connection]:
        username, password = _new_username(), _new_password()
        created = await self._pool.fetchval(
            "SELECT tenancy.create_reader($1, $2, $3)", username, tenant_id, scram_verifier(password)
        )
        if not created:
            raise NoEnvironmentError(tenant_id)
        try:
            place = self._address.netloc.rpartition("@")[2]
            url = urlunsplit(self._address._replace(netloc=f"{username}:{password}@{place}"))
            session = await asyncpg.connect(url, timeout=_CONNECT_SECONDS, server_settings=_EXPORT_SETTINGS)
            try:
                yield session
            finally:
                await session.close(timeout=_CONNECT_SECONDS)
        finally:
            await self._pool.execute("UPDATE tenancy.login SET expires_at = '-infinity' WHERE login = $1", username)
            await self.sweep_logins()

    async def deprovision(self, tenant_ids: Sequence[str]) -> None:
        """Close the door, put out who is inside, then clear the rooms; each is committed before the next."""
        await self.remove(dict.fromkeys(tenant_ids))

    async def remove(self, environments: Mapping[str, UUID | None]) -> dict[str, dict[str, int]]:
        """Close the door, put out who is inside, then count and clear the rooms; each is committed before the next.

        In one transaction it could wait for ever on rows that a session of the tenant's has locked.
        """
        tenant_ids = list(environments)
        await self._pool.execute("SELECT tenancy.close_tenants($1)", tenant_ids)
        await self.sweep_logins()
        rows = await self._pool.fetch(
            "SELECT removed, deleted FROM tenancy.remove_tenants($1, $2)", tenant_ids, list(environments.values())
        )
        return {row["removed"]: row["deleted"] for row in rows}

    async def issue_login(self, tenant_id: str) -> Login:
        """Make a new login of the tenant's, valid for `LIFETIME`.

        Raises:
            NoEnvironmentError: the tenant has no partition.
            ThrottledError: it has one, in which nobody may work.
        """
        login = Login(
            driver="postgres",
            host=self._address.hostname or "localhost",
            port=self._address.port or _DEFAULT_PORT,
            database=self._address.path.removeprefix("/"),
            username=_new_username(),
            password=_new_password(),
            expires_at=self._clock.now() + LIFETIME,
        )
        created = await self._pool.fetchval(
            "SELECT tenancy.create_login($1, $2, $3, $4)",
            login.username,
            tenant_id,
            scram_verifier(login.password),
            login.expires_at,
        )
        if not created:
            raise await self._no_login(tenant_id)
        return login

    async def _no_login(self, tenant_id: str) -> NoEnvironmentError | ThrottledError:
        is_throttled = await self._pool.fetchval(
            "SELECT throttled_at IS NOT NULL AND closed_at IS NULL FROM tenancy.tenant WHERE tenant_id = $1", tenant_id
        )
        return ThrottledError(tenant_id) if is_throttled else NoEnvironmentError(tenant_id)

    async def sweep_logins(self) -> int:
        """Remove expired logins, some in each transaction, and return how many there were."""
        swept = 0
        while some := await self._pool.fetchval("SELECT tenancy.sweep_logins($1)", _SWEPT_AT_ONCE):
            swept += some
        return swept


async def _export_table(session: Connection, table: str, key: Sequence[str] | None, write: Sink) -> int:
    """Write the rows of a table in the order of its primary key; without one, in the order of what they say."""
    query = await session.fetchval(
        """
        SELECT format(
            -- Line ends can only be white space of json columns, for in strings they are escaped.
            'SELECT translate(row_to_json(line)::text, E''\\n\\r'', ''  '')
             FROM (SELECT %L AS "table", stored AS "row" FROM %s AS stored ORDER BY %s) AS line',
            $1::text, $1::text,
            coalesce((SELECT string_agg(format('stored.%I', name), ', ' ORDER BY position)
                      FROM unnest($2::text[]) WITH ORDINALITY AS key (name, position)), 'stored::text COLLATE "C"')
        )
        """,
        table,
        key,
    )
    # Neither delimiter nor quote is ever in JSON, so the lines leave as they are: COPY's text format escapes them.
    status = await session.copy_from_query(query, output=write, format="csv", delimiter="\x02", quote="\x01")
    return int(status.removeprefix("COPY "))


def _new_username() -> str:
    return f"tenant_{secrets.token_hex(8)}"


def _new_password() -> str:
    return secrets.token_urlsafe(24)
