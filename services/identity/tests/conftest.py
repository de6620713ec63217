from collections.abc import AsyncIterator, Iterator

import pytest

from deploy.local.throwaway import FreshDatabases
from services.identity.tests.amazon import Amazon
from services.identity.tests.house import House, open_house
from services.identity.tests.world import World
from shared.clock import ManualClock
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


@pytest.fixture
async def house(fresh_database: FreshDatabases) -> AsyncIterator[House]:
    """The whole service, with an application that people can be sent back to."""
    async with open_house(await fresh_database("identity"), ManualClock()) as house:
        await house.register()
        yield house


@pytest.fixture(scope="session")
def amazon_server() -> Iterator[Amazon]:
    """Amazon Cognito on this machine; what is in it is of whichever test."""
    amazon = Amazon()
    yield amazon
    amazon.close()


@pytest.fixture
def amazon(amazon_server: Amazon, monkeypatch: pytest.MonkeyPatch) -> Iterator[Amazon]:
    """The same with nothing in it, and credentials for it in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobodys")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nobodys")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # nowhere else are credentials looked for
    yield amazon_server
    amazon_server.forget()
