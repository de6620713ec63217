"""The seven real databases of one worker: made once, emptied between simulations."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg

from deploy.databases import (
    APPLICATION,
    DatabasePasswords,
    create_databases,
    database_url,
    drop_application,
    drop_database,
    drop_logins,
)
from services.provisioning.drivers.postgres import install
from shared.contracts import SERVICES
from shared.messaging import inbox
from shared.postgres import migrate, service_migrations, use_json
from tests.simulation.clock import START
from tests.simulation.database import Database

_COUNTERS = {"billing": "UPDATE invoice_series SET last = 0; UPDATE booking SET last = 0"}
"""What begins anew with every simulation though no sequence counts it."""

_THOROUGH_EVERY = 20
_PASSWORD = DatabasePasswords(owner="simulated", app="simulated")
_DAYS = (-3, 0, 3)
_CATALOG = (
    "UPDATE tier SET isolation = 'pool'",  # what has a database of its own is past any gate
    """
    INSERT INTO product (name, description, plan, isolation, region) VALUES
        ('chess', 'has an environment', NULL, 'pool', NULL),
        ('forum', 'has a licence and an environment', 'standard', 'pool', NULL),
        ('wiki',  'has a licence', 'free', NULL, NULL),
        ('rover', 'has an environment nowhere', NULL, 'pool', 'mars'),
        ('crown', 'has a licence for which there is no plan', 'priceless', NULL, NULL)
    """,
    """
    INSERT INTO product_version (product, version) VALUES
        ('chess', '1.0'), ('forum', '1.0'), ('forum', '2.0'), ('wiki', '1.0'), ('rover', '1.0'), ('crown', '1.0')
    """,
)
"""What there is to be had, besides what is in any catalog."""


class Servers:
    """The databases of one worker.

    Attributes:
        databases: by service, and the application's; each on the one connection that a simulation uses.
    """

    def __init__(
        self, databases: Mapping[str, Database], cleaners: Mapping[str, Any], statements: Mapping[str, Sequence[str]]
    ) -> None:
        self.databases = databases
        self._cleaners = cleaners
        self._statements = statements
        self._cleanings = 0

    async def clean(self) -> None:
        """Empty all tables but the catalogs, and let all sequences begin anew.

        To delete takes a tenth of the time of truncating and keeps the plans of all statements, but the dead rows stay:
        therefore every now and then tables are truncated after all.
        """
        is_thorough = self._cleanings % _THOROUGH_EVERY == 0
        self._cleanings += 1
        for name, cleaner in self._cleaners.items():
            await cleaner.execute(self._statements[name][not is_thorough])

    async def read(self, name: str, query: str, *args: Any) -> list[Mapping[str, Any]]:
        """Return rows of a database, as whoever owns the server."""
        return [dict(row) for row in await self._cleaners[name].fetch(query, *args)]


@asynccontextmanager
async def opened_servers(admin_url: str, prefix: str) -> AsyncIterator[Servers]:
    """Make the databases of a worker, and remove them at the end.

    Args:
        prefix: the first part of their names.
    """
    names = (*SERVICES, APPLICATION)
    urls = await create_databases(admin_url, dict.fromkeys(names, _PASSWORD), prefix=prefix)
    for service in SERVICES:
        await migrate(urls[service].owner, service_migrations(service))
    await install(urls[APPLICATION].owner)
    databases: dict[str, Database] = {}
    cleaners: dict[str, Any] = {}
    statements: dict[str, tuple[str, ...]] = {}
    for name in names:
        url = urls[name].owner if name == APPLICATION else urls[name].app
        connection = await _connect(url)
        await use_json(connection)
        await connection.execute("SET plan_cache_mode TO force_generic_plan; SET synchronous_commit TO off")
        databases[name] = Database(name, connection)
        cleaners[name] = await _connect(database_url(admin_url, f"{prefix}_{name}"))
        await use_json(cleaners[name])
        if name == "tenant":
            await cleaners[name].execute("; ".join(_CATALOG))
        await cleaners[name].execute("SET search_path TO public; SET session_replication_role TO replica")
        if name != APPLICATION:
            for days in _DAYS:  # so that no simulation makes any, and the second is like the first
                await inbox.keep_partitions(connection, now=START + timedelta(days=days))
        statements[name] = tuple(f"{each}; {_COUNTERS.get(name, '')}" for each in await _cleaning(cleaners[name]))
    try:
        yield Servers(databases, cleaners, statements)
    finally:
        for name in names:
            await databases[name].connection.close()
            await cleaners[name].close()
        for service in SERVICES:
            await drop_database(admin_url, f"{prefix}_{service}")
            await drop_logins(admin_url, f"{prefix}_{service}")
        await drop_application(admin_url, f"{prefix}_{APPLICATION}")


async def _connect(url: str) -> Any:
    return await asyncpg.connect(url, statement_cache_size=1000, max_cached_statement_lifetime=0)


async def _cleaning(cleaner: Any) -> tuple[str, str]:
    """Return what empties a new database thoroughly, and what does it quickly; what is in it already is its catalog."""
    tables = await cleaner.fetch(
        """
        SELECT oid, oid::regclass::text AS name FROM pg_class
        WHERE relkind IN ('r', 'p') AND NOT relispartition
        AND relnamespace::regnamespace::text IN ('public', 'tenancy', 'app') ORDER BY 2
        """
    )
    emptied = [row for row in tables if not await cleaner.fetchval(f"SELECT EXISTS (SELECT FROM {row['name']})")]
    sequences = await cleaner.fetch(
        """
        SELECT objid::regclass::text AS name FROM pg_depend JOIN pg_class ON pg_class.oid = objid
        WHERE relkind = 'S' AND deptype IN ('a', 'i') AND refobjid = ANY ($1::oid[]) ORDER BY 1
        """,
        [row["oid"] for row in emptied],
    )
    names = [row["name"] for row in emptied]
    truncating = f"TRUNCATE {', '.join(names)} RESTART IDENTITY"
    deleting = [f"DELETE FROM {name}" for name in names]
    restarting = [f"SELECT setval('{row['name']}', 1, false)" for row in sequences]
    return truncating, "; ".join(deleting + restarting)
