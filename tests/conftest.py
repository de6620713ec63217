import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from deploy.local.rabbitmq import MissingBrokerError, find_broker
from deploy.local.stack import Stack
from tests.compose.stack import composed_stack, composed_system, is_tested
from tests.disturbance import Disturbance, rabbit_buses
from tests.system import Subscriber, System, running_system, subscribed, throwaway_stack

shared = pytest_asyncio.fixture(scope="session", loop_scope="session")


def require_broker() -> None:
    """Skip what needs a broker where there is none; where everything is to be tested that is a failure."""
    try:
        find_broker()
    except MissingBrokerError as error:
        if "CI" in os.environ:
            raise
        pytest.skip(str(error))


@shared
async def stack() -> AsyncIterator[Stack]:
    """Postgres and RabbitMQ as an installation has them, with all logins; one for all tests of the session."""
    if is_tested():
        async with composed_stack() as stack:
            yield stack
        return
    if "TENURE_AMQP_URL" not in os.environ:
        require_broker()
    async with throwaway_stack() as stack:
        yield stack


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def own_stack() -> AsyncIterator[Stack]:
    """Servers that nobody but a module's tests uses."""
    if any(name.startswith("TENURE_") and name.endswith(("_DATABASE_URL", "_AMQP_URL")) for name in os.environ):
        pytest.skip("given servers hold what others want to keep")
    require_broker()
    async with throwaway_stack() as own:
        yield own


@shared
async def disturbance() -> Disturbance:
    """What the running system's messages are subjected to: nothing, until a test says so."""
    return Disturbance()


@shared
async def system(stack: Stack, disturbance: Disturbance) -> AsyncIterator[System]:
    """The six services, running on the stack, or in containers."""
    if is_tested():
        async with composed_system(stack) as system:
            yield system
        return
    buses = rabbit_buses(stack.environment, disturbance)
    async with running_system(stack.environment, audited=stack.audited, admin_key=stack.admin_key, bus=buses) as system:
        yield system


@shared
async def subscriber(stack: Stack, system: System) -> AsyncIterator[Subscriber]:
    """Somebody outside who has listened from the start."""
    async with subscribed(stack.watcher_url, "sub.tests") as subscriber:
        yield subscriber


@shared
async def own_servers(stack: Stack) -> None:
    """Skip the test where somebody else made the logins."""
    if stack.broker is None or stack.postgres is None:
        pytest.skip("given servers have the logins that they were given with")
