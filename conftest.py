"""The servers that every test may ask for: real ones, private to this run, or the ones that the environment names."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.local.postgres import PostgresServer
from deploy.local.rabbitmq import BrokerServer, MissingBrokerError
from deploy.local.throwaway import FreshDatabases, Server, Templates


@dataclass(frozen=True)
class GivenServer:
    admin_url: str


@pytest.fixture(scope="session")
def postgres_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A Postgres whose administrator we are: ``TENURE_TEST_POSTGRES_URL``, else an embedded one."""
    if url := os.environ.get("TENURE_TEST_POSTGRES_URL"):
        yield GivenServer(url)
        return
    server = PostgresServer(Path(tempfile.mkdtemp(prefix="tenure-postgres-")), durable=_needs_durability(request))
    run(server.start())
    yield server
    server.kill()
    shutil.rmtree(server.folder)


@pytest.fixture(scope="session")
def broker_server() -> Iterator[Server]:
    """A RabbitMQ whose administrator we are: ``TENURE_AMQP_URL``, else a private node.

    Without either, tests that need it are skipped on a laptop and fail where ``CI`` is set.
    """
    if url := os.environ.get("TENURE_AMQP_URL"):
        yield GivenServer(url)
        return
    try:
        server = BrokerServer(Path(tempfile.mkdtemp(prefix="tenure-broker-")))
    except MissingBrokerError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    run(server.start())
    yield server
    server.kill()
    shutil.rmtree(server.folder)


@pytest.fixture(scope="session")
def templates(postgres_server: Server) -> Iterator[Templates]:
    made = Templates(postgres_server.admin_url)
    yield made
    if isinstance(postgres_server, GivenServer):  # an embedded one is removed as a whole
        run(made.drop())


@pytest.fixture
async def fresh_database(templates: Templates) -> AsyncIterator[FreshDatabases]:
    """``await fresh_database("billing")`` is the URL of a new, migrated database, as billing's own login."""
    databases = FreshDatabases(templates)
    yield databases
    await databases.drop()


def run(work: Coroutine[None, None, None]) -> None:
    """Run something asynchronous outside any test's event loop."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        thread.submit(asyncio.run, work).result()


def _needs_durability(request: pytest.FixtureRequest) -> bool:
    """Tell whether a commit must survive a crash: when asked to, and where tests kill servers."""
    chaos = any(item.get_closest_marker("chaos") for item in request.session.items)
    return chaos or "TENURE_TEST_FSYNC" in os.environ
