import json
from collections.abc import AsyncIterator, Mapping

import pytest
import pytest_asyncio
import structlog

from deploy.databases import DatabaseUrls
from deploy.local.throwaway import Broker, FreshDatabases, Templates
from deploy.topology import DEPLOY, WATCHER, definitions
from shared.postgres import Pool, open_pool
from shared.testing.one_service import OneService, make_effect_table
from shared.testing.three_services import MANIFEST

pytest.register_assert_rewrite("shared.testing.bus_suite", "shared.testing.clock_suite", "shared.testing.ids_suite")


@pytest.fixture(autouse=True)
def plain_tracebacks() -> None:
    """Log an exception without the values of all variables, which takes longer than the test."""
    renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.processors.add_log_level, renderer])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def logins(broker_server: Broker, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The URL of each login, on a broker to which the deploy step has given the topology of the suite."""
    path = tmp_path_factory.mktemp("topology") / "definitions.json"
    passwords = {name: f"{name}-secret" for name in (*MANIFEST.services, DEPLOY, WATCHER)}
    path.write_text(json.dumps(definitions(MANIFEST, passwords)))
    await broker_server.import_definitions(path)
    return {name: broker_server.url(name, password) for name, password in passwords.items()}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kernel_database(templates: Templates) -> AsyncIterator[DatabaseUrls]:
    """A database with the kernel's tables, which are of no service, and one for what handlers do."""
    databases = FreshDatabases(templates)
    urls = await databases.urls("kernel")
    await make_effect_table(urls.owner)
    yield urls
    await databases.drop()


@pytest.fixture
async def pool(kernel_database: DatabaseUrls) -> AsyncIterator[Pool]:
    """A pool on that database, whose tables are empty."""
    pool = await open_pool(kernel_database.app)
    access = ("access_signing_key", "access_tenant", "access_revoked_session", "access_api_key")
    for table in ("inbox", "outbox", "operation", "effect", *access):
        await pool.execute(f"DELETE FROM {table}")
    yield pool
    await pool.close()


@pytest.fixture
async def service(pool: Pool) -> AsyncIterator[OneService]:
    service = OneService(pool)
    yield service
    await service.broker.close()
