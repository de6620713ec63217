import secrets
from collections.abc import AsyncIterator, Iterator

import asyncpg
import httpx2
import pytest

from deploy.databases import (
    DatabasePasswords,
    DatabaseUrls,
    create_database,
    drop_application,
    let_make_tenants,
)
from deploy.local.throwaway import FreshDatabases, Server
from services.provisioning.api import routes
from services.provisioning.drivers.postgres import install
from services.provisioning.tests.cloud import Cloud
from services.provisioning.tests.support import Application
from services.provisioning.tests.world import PostgresWorld
from shared.contracts.provisioning import DecisionRecorded
from shared.http import create_api
from shared.postgres import Connection, Pool, open_pool
from shared.testing.decisions import changes_on

KEY = "a-key-of-the-administrator"


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
    await let_make_tenants(admin, name)
    yield urls
    await drop_application(postgres_server.admin_url, name)


@pytest.fixture
async def application(application_urls: DatabaseUrls) -> AsyncIterator[Application]:
    """The application database with its schema, and the driver that works on it as its owner."""
    await install(application_urls.owner)
    pool = await open_pool(application_urls.owner)
    application = Application(application_urls.owner, pool)
    yield application
    await application.close()


@pytest.fixture
def world(pool: Pool, application: Application) -> PostgresWorld:
    """The service on both of its databases, empty."""
    return PostgresWorld(pool, application.postgres, application=application)


@pytest.fixture
async def client(world: PostgresWorld) -> AsyncIterator[httpx2.AsyncClient]:
    """What the service says over HTTP, as its first administrator sees it."""
    changes = changes_on(world.pool, DecisionRecorded, clock=world.clock)
    router = routes(world.pool, changes=changes, **world.routed)
    api = create_api("provisioning", routers=[router], admin_key=KEY, checks={}, version="1")
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(api), base_url="http://test", headers={"Authorization": f"Bearer {KEY}"}
    ) as client:
        yield client


@pytest.fixture(scope="session")
def cloud_server() -> Iterator[Cloud]:
    """An organization on Amazon's infrastructure on this machine; what is in it is of whichever test."""
    cloud = Cloud()
    yield cloud
    cloud.close()


@pytest.fixture
def cloud(cloud_server: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """The same with nothing in it, and our credentials in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ours")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "ours")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # nowhere else are credentials looked for
    cloud_server.found()
    yield cloud_server
    cloud_server.forget()
