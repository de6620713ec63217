from collections.abc import AsyncIterator

import httpx2
import pytest

from deploy.local.throwaway import FreshDatabases
from services.tenant.api import routes
from services.tenant.tests.catalogue import Office
from shared.clock import ManualClock
from shared.contracts.tenant import DecisionRecorded
from shared.http import create_api
from shared.postgres import Pool, open_pool
from shared.testing.decisions import changes_on
from shared.testing.principals import Cast, as_


@pytest.fixture
async def pool(fresh_database: FreshDatabases) -> AsyncIterator[Pool]:
    """A pool of connections to a new database of the service, as the service's own login."""
    pool = await open_pool(await fresh_database("tenant"))
    yield pool
    await pool.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def office(pool: Pool, clock: ManualClock) -> AsyncIterator[Office]:
    """A system administrator, and a catalog in which nobody has changed anything yet."""
    changes = changes_on(pool, DecisionRecorded, clock=clock)
    router = routes(pool, changes=changes, clock=clock, gateway_url="https://pool.example.com")
    api = create_api("tenant", routers=[router], admin_key="key", credentials=Cast("t1"), checks={}, version="1")
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(api), base_url="http://test", headers=as_("operator")
    ) as client:
        yield Office(client, pool)
