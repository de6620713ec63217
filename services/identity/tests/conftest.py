from collections.abc import AsyncIterator

import pytest

from deploy.local.throwaway import FreshDatabases
from services.identity.tests.world import World
from shared.postgres import Pool, open_pool


@pytest.fixture
async def pool(fresh_database: FreshDatabases) -> AsyncIterator[Pool]:
    """A pool of connections to a new database of the service, as the service's own login."""
    pool = await open_pool(await fresh_database("identity"))
    yield pool
    await pool.close()


@pytest.fixture
def world(pool: Pool) -> World:
    """The service on that database, behind the kernel's barrier."""
    return World(pool)
