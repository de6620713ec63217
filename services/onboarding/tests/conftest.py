from collections.abc import AsyncIterator

import httpx2
import pytest

from deploy.local.throwaway import FreshDatabases
from services.onboarding.tests.support import Desk, Replica, open_desk, open_replica, publish_catalog
from shared.clock import SystemClock
from shared.messaging.topology import Manifest
from shared.postgres import Pool, open_pool
from shared.testing.memory_bus import MemoryBroker


@pytest.fixture
async def database_url(fresh_database: FreshDatabases) -> str:
    """A new database of the service, as the service's own login."""
    return await fresh_database("onboarding")


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    """Connections of an onlooker: what is visible here is committed."""
    pool = await open_pool(database_url)
    yield pool
    await pool.close()


@pytest.fixture
async def broker() -> AsyncIterator[MemoryBroker]:
    broker = MemoryBroker(Manifest.load(), SystemClock())
    yield broker
    await broker.close()


@pytest.fixture
async def desk(database_url: str, broker: MemoryBroker) -> AsyncIterator[Desk]:
    async with open_desk(database_url, broker) as desk:
        yield desk


@pytest.fixture
async def replica(database_url: str, broker: MemoryBroker, pool: Pool) -> AsyncIterator[Replica]:
    """The running service; it knows the catalog."""
    await publish_catalog(pool)
    async with open_replica(database_url, broker) as replica:
        yield replica


@pytest.fixture
async def other_replica(database_url: str, broker: MemoryBroker) -> AsyncIterator[Replica]:
    """A second process over the same database and broker."""
    async with open_replica(database_url, broker) as replica:
        yield replica


@pytest.fixture
def client(replica: Replica) -> httpx2.AsyncClient:
    return replica.client
