from collections.abc import AsyncIterator

import pytest

from deploy.local.throwaway import FreshDatabases
from shared.postgres import Pool, open_pool


@pytest.fixture
async def pool(fresh_database: FreshDatabases) -> AsyncIterator[Pool]:
    """A pool of connections to a new database of the service, as the service's own login."""
    pool = await open_pool(await fresh_database("billing"))
    yield pool
    await pool.close()
