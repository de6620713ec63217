"""The servers that every test may ask for: real ones, given, in containers or embedded; see `throwaway_choice`."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest

from deploy.local.rabbitmq import MissingBrokerError
from deploy.local.throwaway import Broker, FreshDatabases, Server, Templates
from deploy.local.throwaway_choice import POSTGRES, RABBITMQ, MissingServerError
from deploy.local.throwaway_servers import GivenServer, ThrowawayServers, run

_SERVERS = pytest.StashKey[ThrowawayServers]()
_KINDS = {"postgres_server": POSTGRES, "broker_server": RABBITMQ}


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_SERVERS] = ThrowawayServers(os.environ)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Choose the servers that the chosen tests need before a test's time runs: an image may have to be pulled."""
    if session.config.option.collectonly:
        return
    wanted = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    kinds = [kind for name, kind in _KINDS.items() if name in wanted]
    try:
        choices = {kind.name: session.config.stash[_SERVERS].choice(kind) for kind in kinds}
    except MissingServerError as error:
        raise pytest.UsageError(str(error)) from None
    for name, choice in choices.items():
        _write_line(session.config, f"{name}: {choice.way} ({choice.why})")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash[_SERVERS].told():
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def postgres_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A Postgres whose administrator we are: ``TENURE_TEST_POSTGRES_URL``, else a container, else an embedded one."""
    with request.config.stash[_SERVERS].postgres(durable=_needs_durability(request)) as server:
        yield server


@pytest.fixture(scope="session")
def broker_server(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """A RabbitMQ whose administrator we are: ``TENURE_AMQP_URL``, else a container, else a private node.

    Without any, tests that need it are skipped on a laptop and fail where ``CI`` is set.
    """
    with ExitStack() as stack:
        try:
            server = stack.enter_context(request.config.stash[_SERVERS].broker())
        except MissingBrokerError as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(str(error))
        yield server


@pytest.fixture(scope="session")
def templates(postgres_server: Server) -> Iterator[Templates]:
    made = Templates(postgres_server.admin_url)
    yield made
    if isinstance(postgres_server, GivenServer):  # any other is removed as a whole
        run(made.drop())


@pytest.fixture
async def fresh_database(templates: Templates) -> AsyncIterator[FreshDatabases]:
    """``await fresh_database("billing")`` is the URL of a new, migrated database, as billing's own login."""
    databases = FreshDatabases(templates)
    yield databases
    await databases.drop()


def _needs_durability(request: pytest.FixtureRequest) -> bool:
    """Tell whether a commit must survive a crash: when asked to, and where tests kill servers."""
    chaos = any(item.get_closest_marker("chaos") for item in request.session.items)
    return chaos or "TENURE_TEST_FSYNC" in os.environ


def _write_line(config: pytest.Config, line: str) -> None:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter:
        reporter.write_line(line)
