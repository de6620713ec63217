"""A system of its own, since whoever sends everything that an administrator may spoils it for others; and figures."""

import logging
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import pytest_asyncio
import structlog
from _pytest.terminal import TerminalReporter

from deploy.local.stack import Stack
from services.identity.tests.oidc_kit import OidcServer
from tests.openapi.premises import Premises, furnished
from tests.system import System, running_system

_FIGURES = "requests"

Report = Callable[[str], None]

module = pytest_asyncio.fixture(scope="module", loop_scope="session")


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    """Write no line for each of thousands of requests."""
    before = structlog.get_config()["wrapper_class"]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    yield
    structlog.configure(wrapper_class=before)


@module
async def own_system(own_stack: Stack) -> AsyncIterator[System]:
    """The six services, running on them."""
    told, audited = own_stack.environment, own_stack.audited
    near = {"TENURE_IDENTITY_PROVIDER_NETWORKS": "127.0.0.0/8,::1/128"}
    environment = {**told, "identity": {**told["identity"], **near}}
    async with running_system(environment, audited=audited, admin_key=own_stack.admin_key) as system:
        yield system


@pytest.fixture(scope="module")
def provider() -> Iterator[OidcServer]:
    """An identity provider of a tenant's own."""
    with OidcServer().running() as server:
        yield server


@module
async def premises(own_system: System, own_stack: Stack, provider: OidcServer) -> AsyncIterator[Premises]:
    """What exists before anything is sent."""
    async with furnished(own_system, own_stack, issuer=provider.issuer) as premises:
        yield premises


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """Keep a line of figures for the end of the run."""

    def keep(line: str) -> None:
        request.node.user_properties.append((_FIGURES, line))

    return keep


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    lines = [
        str(value)
        for outcome in ("passed", "failed")
        for each in terminalreporter.stats.get(outcome, [])
        for name, value in getattr(each, "user_properties", ())
        if name == _FIGURES
    ]
    if lines:
        terminalreporter.section("requests made of the OpenAPI documents, and their answers by status")
        for line in dict.fromkeys(lines):
            terminalreporter.write_line(line)
