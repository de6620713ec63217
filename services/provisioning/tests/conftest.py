import secrets
from collections.abc import AsyncIterator

import asyncpg
import pytest

from deploy.databases import DatabasePasswords, DatabaseUrls, create_database, drop_database, drop_logins
from deploy.local.throwaway import FreshDatabases, Server
from services.provisioning.drivers import PostgresPool, install
from services.provisioning.tests.support import Application
from services.provisioning.tests.world import World
from shared.clock import SystemClock
from shared.postgres import Connection, Pool, open_pool


@pytest.fixture
async def pool(fresh_database: FreshDatabases) -> AsyncIterator[Pool]:
    """A pool of connections to a new database of the service, as the service's own login."""
    pool = await open_pool(await fresh_database("provisioning"))
    yield pool
    await pool.close()


@pytest.fixture
async def admin(postgres_server: Server) -> AsyncIterator[Connection]:
    """The administrator of the whole server, whom row-level security does not concern."""
    connection = await asyncpg.connect(postgres_server.admin_url)
    yield connection
    await connection.close()


@pytest.fixture
async def application_urls(postgres_server: Server, admin: Connection) -> AsyncIterator[DatabaseUrls]:
    """A new application database, made like that of an installation."""
    name = f"tenure_test_{secrets.token_hex(4)}_application"
    passwords = DatabasePasswords(owner="throw-away", app="throw-away")
    urls = await create_database(postgres_server.admin_url, name, passwords)
    await admin.execute(f"ALTER ROLE {name}_owner CREATEROLE")
    yield urls
    await drop_database(postgres_server.admin_url, name)
    for role in await admin.fetch("SELECT rolname FROM pg_roles WHERE rolname LIKE $1 || '\\_%'", name):
        await _drop_members(admin, role["rolname"])
    await admin.execute(f"DROP ROLE IF EXISTS {name}_tenant, {name}_auditor")
    await drop_logins(postgres_server.admin_url, name)


@pytest.fixture
async def application(application_urls: DatabaseUrls) -> AsyncIterator[Application]:
    """The application database with its schema, and the driver that works on it as its owner."""
    await install(application_urls.owner)
    pool = await open_pool(application_urls.owner)
    driver = PostgresPool(pool, url=application_urls.owner, clock=SystemClock())
    application = Application(application_urls.owner, pool, driver)
    yield application
    await application.close()


@pytest.fixture
def world(pool: Pool, application: Application) -> World:
    """The service on both of its databases, empty."""
    return World(pool, application)


async def _drop_members(admin: Connection, role: str) -> None:
    members = await admin.fetch(
        """
        SELECT member.rolname FROM pg_auth_members
        JOIN pg_roles AS role ON role.oid = roleid JOIN pg_roles AS member ON member.oid = member
        WHERE role.rolname = $1 AND member.rolname LIKE 'tenant\\_%'
        """,
        role,
    )
    for member in members:
        await admin.execute(f"DROP ROLE {member['rolname']}")
