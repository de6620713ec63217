from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest

from deploy.databases import DatabaseUrls
from deploy.local.throwaway import FreshDatabases
from services.metrics import handlers
from services.metrics.partitions import keep_partitions
from services.metrics.tests.lake_kit import NOW, Shore
from services.metrics.tests.metering import Office
from services.metrics.tests.support import KEY, api_of, take_usage_of
from shared.clock import ManualClock
from shared.contracts.metrics import TrackTenant
from shared.postgres import Pool, open_pool, transaction
from shared.threads import Threads


@pytest.fixture
async def database_urls(fresh_database: FreshDatabases) -> DatabaseUrls:
    """A new database of the service."""
    return await fresh_database.urls("metrics")


@pytest.fixture
async def pool(database_urls: DatabaseUrls) -> AsyncIterator[Pool]:
    """A pool of connections to a new database of the service, as the service's own login."""
    pool = await open_pool(database_urls.app)
    yield pool
    await pool.close()


@pytest.fixture
async def office(pool: Pool) -> AsyncIterator[Office]:
    """A system administrator who meters the tenant ``t1``, of Berlin, at noon in the middle of March."""
    clock = ManualClock(datetime(2026, 3, 15, 12, tzinfo=UTC))
    async with transaction(pool) as connection:
        await keep_partitions(connection, now=clock.now())
        ask = TrackTenant(tenant_id="t1", quotas={}, time_zone="Europe/Berlin")
        await handlers.track_tenants(connection, [ask], clock=clock)
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(api_of(pool, clock=clock)),
        base_url="http://test",
        headers={"Authorization": f"Bearer {KEY}"},
    ) as client:
        yield Office(client, clock)


@pytest.fixture
async def shore(pool: Pool, tmp_path: Path) -> AsyncIterator[Shore]:
    """A lake in a folder beside a database with the tenants ``t1`` and ``t2``."""
    await take_usage_of(pool, "t1", "t2", now=NOW)
    threads = Threads(1, most=100, name="lake")
    yield Shore(pool, tmp_path / "lake", threads)
    threads.close()
