"""One system of processes for all crash tests, mended before each, and the figures that prove the faults."""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from _pytest.terminal import TerminalReporter

from deploy.local.rabbitmq import MissingBrokerError, find_broker
from tests.chaos.harness import System, running_system
from tests.chaos.leftovers import leftovers_ignored

FIGURES = "figures"

Report = Callable[[str], None]


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """Where the servers of the crash tests keep their data."""
    path = Path(tempfile.mkdtemp(prefix="tenure-chaos-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def embedded() -> None:
    """Skip what needs embedded servers where others are given, or where there is no broker to be found."""
    if given := [
        name for name in os.environ if name.startswith("TENURE_") and name.endswith(("_DATABASE_URL", "_AMQP_URL"))
    ]:
        pytest.skip(f"only embedded servers may be killed, and {', '.join(given)} is set")
    try:
        find_broker()
    except MissingBrokerError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_system(embedded: None, folder: Path) -> AsyncIterator[System]:
    """Six processes on embedded servers of their own: only those may be killed."""
    async with running_system(folder) as system:
        yield system


@pytest_asyncio.fixture(loop_scope="session")
async def system(shared_system: System) -> System:
    """The system with everything running and ready, whatever an earlier test has left of it."""
    await shared_system.mend()
    return shared_system


@pytest.fixture(autouse=True)
def leftovers() -> Iterator[None]:
    """Let later tests hear nothing of connections that were broken here."""
    with leftovers_ignored():
        yield


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """Keep a line of figures for the end of the run."""

    def keep(line: str) -> None:
        request.node.user_properties.append((FIGURES, f"{request.node.name}: {line}"))

    return keep


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    lines = [
        str(value)
        for outcome in ("passed", "failed")
        for each in terminalreporter.stats.get(outcome, [])
        for name, value in getattr(each, "user_properties", ())
        if name == FIGURES
    ]
    if lines:
        terminalreporter.section("faults that struck, and what became of the work")
        for line in dict.fromkeys(lines):
            terminalreporter.write_line(line)
