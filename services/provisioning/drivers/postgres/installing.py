"""How the application database and the template of silos come to have the schema that the driver needs."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import structlog

from services.provisioning.drivers.postgres.logins import Address
from services.provisioning.drivers.postgres.names import Names
from shared.postgres import Connection, MigrationError, migrate

OURS = Path(__file__).resolve().parent.parent.parent / "application"
"""The migrations that every application database begins with."""

log = structlog.get_logger(__name__)

_REMEDY = "let the owner of the application database create databases, ALTER ROLE ... CREATEDB, and start again"
_INSTALL_LOCK = 0x7E9C0DA
_DDL_SECONDS = 300.0
_DIGEST = 12


_ROLE_OF_SILO = """
    CREATE OR REPLACE FUNCTION tenancy.tenant_role() RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS 'SELECT current_database()::text'
"""
"""The group of a silo's logins, and of nobody else's, has the name of the database."""


@dataclass(frozen=True)
class Schema:
    """The migrations that make a place for tenants, ours and those of the team whose application it is.

    Attributes:
        added: the team's folders, applied after ours in this order.
    """

    added: Sequence[Path] = ()

    @property
    def folders(self) -> list[Path]:
        """All folders in their order.

        Raises:
            MigrationError: two folders would have migrations of the same name, for it begins with their parent's.
        """
        folders = [OURS, *(folder.resolve() for folder in self.added)]
        names = [f"{folder.parent.name}/{path.name}" for folder in folders for path in folder.glob("*.sql")]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise MigrationError(f"{', '.join(twice)} is in more than one folder")
        return folders

    def digest(self) -> str:
        """Return what changes with every migration that is added."""
        digest = hashlib.sha256()
        for folder in self.folders:
            for path in sorted(folder.glob("*.sql")):
                digest.update(f"{folder.parent.name}/{path.name}\n".encode() + path.read_bytes() + b"\0")
        return digest.hexdigest()[:_DIGEST]

    def template(self, names: Names) -> str:
        """Return the name of the template that has this schema."""
        return f"{names.template}_{self.digest()}"


async def install(url: str, migrations: Sequence[Path] = ()) -> list[str]:
    """Bring the application database up to the schema that the driver needs, and have a template of it for silos.

    Any number of callers may start at once: one of them does the work.

    Args:
        url: a login that owns the database and may make roles and databases.
        migrations: folders of the application's own, applied after ours.

    Returns:
        The names of the migrations that were applied to the application database by this call.

    Raises:
        MigrationError: see `shared.postgres.migrate`.
    """
    schema = Schema(migrations)
    applied = await migrate(url, schema.folders)
    address = Address(url)
    async with address.owner(seconds=_DDL_SECONDS) as connection:
        await connection.execute("SELECT pg_advisory_lock($1)", _INSTALL_LOCK)
        try:
            await _install_template(connection, address, schema)
        except asyncpg.InsufficientPrivilegeError as error:
            # An installation that has not brought its logins up to date goes on with what it could make before.
            log.error("no silos can be made", action="no_template", error=str(error), remedy=_REMEDY)  # noqa: TRY400
    return applied


async def _install_template(connection: Connection, address: Address, schema: Schema) -> None:
    names = Names(address.database)
    template = schema.template(names)
    if not await _exists(connection, template):
        await _make_template(connection, address, schema, names.template)
        await run(connection, "ALTER DATABASE %1$I RENAME TO %2$I", names.template, template)
    # Silos are copied from the one that this names. Who has just read the old name finds it gone and tries again.
    await connection.execute("DELETE FROM tenancy.template WHERE database <> $1", template)
    await connection.execute("INSERT INTO tenancy.template (database) VALUES ($1) ON CONFLICT DO NOTHING", template)
    for old in await _templates(connection, names):
        if old != template:
            await _drop_template(connection, old)


async def _make_template(connection: Connection, address: Address, schema: Schema, name: str) -> None:
    """Make a template under a name that is the same for all: what they make at first is named after it."""
    await _drop_template(connection, name)
    await run(connection, "CREATE DATABASE %1$I TEMPLATE template0 ENCODING 'UTF8' CONNECTION LIMIT 3", name)
    await run(connection, "REVOKE ALL ON DATABASE %1$I FROM PUBLIC", name)
    await migrate(address.of(name).url, schema.folders)
    async with address.of(name).owner(seconds=_DDL_SECONDS) as inside:
        await inside.execute(_ROLE_OF_SILO)
    groups = [f"{name}_{group}" for group in ("tenant", "bridge", "stager")]
    await run(connection, "REVOKE ALL ON DATABASE %1$I FROM %2$I, %3$I, %4$I", name, *groups)
    await run(connection, "ALTER DATABASE %1$I IS_TEMPLATE true ALLOW_CONNECTIONS false", name)


async def _templates(connection: Connection, names: Names) -> list[str]:
    rows = await connection.fetch(
        """
        SELECT datname FROM pg_database
        WHERE starts_with(datname, $1) AND length(datname) = $2 AND pg_has_role(datdba, 'MEMBER')
        """,
        f"{names.template}_",
        len(names.template) + 1 + _DIGEST,
    )
    return [row["datname"] for row in rows]


async def _drop_template(connection: Connection, name: str) -> None:
    """Drop a template if it is there, whole or half made."""
    if await _exists(connection, name):
        await run(connection, "ALTER DATABASE %1$I IS_TEMPLATE false", name)
        await run(connection, "DROP DATABASE IF EXISTS %1$I WITH (FORCE)", name)


async def _exists(connection: Connection, database: str) -> bool:
    return bool(await connection.fetchval("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", database))


async def run(connection: Connection, statement: str, *values: str) -> None:
    """Run a statement that Postgres takes no parameters for; its own ``format`` quotes names (%I) and texts (%L)."""
    await connection.execute(await connection.fetchval("SELECT format($1, VARIADIC $2::text[])", statement, values))
